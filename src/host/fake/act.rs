//! What each action does to a machine in memory.

use super::FakeHost;
use super::FakeState;
use crate::host::Contents;
use crate::host::HostError;
use crate::model::Action;
use crate::model::Content;
use crate::model::Digest;
use crate::model::Directory;
use crate::model::Effect;
use crate::model::ObservedUnit;
use crate::model::RemotePath;

impl FakeHost {
    pub(super) fn act(&self, state: &mut FakeState, action: &Action, contents: &dyn Contents) -> Result<(), HostError> {
        match action {
            Action::EnsureUser(user) => {
                if let Some(other) = state.facts.taken_uids.get(&user.uid) {
                    return Err(self.failed("user", &format!("number {} belongs to {other}", user.uid)));
                }
                self.write(state, format!("user {}", user.name))?;
                state.users.insert(user.name.clone(), (user.uid, user.gid));
            }
            Action::EnsureDirectory(Directory { path, access }) => {
                self.write(state, format!("directory {path}"))?;
                state.directories.insert(path.clone(), *access);
            }
            Action::PutFile { path, digest, access, replaces, foreign, .. } => {
                let found = self.expect_unchanged(state, path, &[*replaces, Some(*digest)])?;
                let content = self.read(contents, digest)?;
                if Digest::of(content.expose()) != *digest {
                    return Err(self.failed(path.as_str(), "the content has another digest"));
                }
                self.write(state, format!("file {path}"))?;
                if let Some((old, _)) = state.files.insert(path.clone(), (content, *access))
                    && let Some(found) = found
                    && *foreign
                {
                    state.foreign.insert(found, old);
                }
            }
            Action::SetAccess { path, access } => {
                self.write(state, format!("access {path}"))?;
                match state.files.get_mut(path) {
                    Some((_, present)) => *present = *access,
                    None => return Err(self.failed(path.as_str(), "no such file")),
                }
            }
            Action::RemoveFile { path, replaces } => {
                self.expect_unchanged(state, path, &[Some(*replaces), None])?;
                self.write(state, format!("remove {path}"))?;
                state.files.remove(path);
                if let Some(pod) = path.as_str().strip_prefix("/etc/kubernetes/manifests/") {
                    state.pods.remove(pod.trim_end_matches(".yaml"));
                }
            }
            Action::ReloadUnits => self.write(state, "reload units".to_owned())?,
            Action::StartUnit { name, inputs, effect, .. } => {
                self.write(state, format!("start {name}"))?;
                let enabled = *effect == Effect::Restart;
                state
                    .units
                    .insert(name.clone(), ObservedUnit { active: true, enabled, failed: false, inputs: Some(*inputs) });
            }
            Action::StopUnit { name } => {
                self.write(state, format!("stop {name}"))?;
                state.units.insert(name.clone(), ObservedUnit::default());
            }
            Action::ImportImage { image, manifest, archive, .. } => {
                self.read(contents, archive)?;
                self.write(state, format!("image {image}"))?;
                state.images.insert(image.clone(), *manifest);
            }
            Action::YieldLeadership => self.write(state, "yield".to_owned())?,
            Action::AwaitPod { pod, inputs } => {
                state.pods.insert(pod.clone(), Some(*inputs));
            }
            Action::AwaitGone { pod } => {
                if state.pods.contains_key(pod) {
                    return Err(self.failed(pod, "it did not end"));
                }
            }
            Action::RestoreEtcd(restore) => {
                if state.pods.contains_key("etcd") {
                    return Err(self.failed("etcd", "it still runs"));
                }
                self.read(contents, &restore.database)?;
                self.write(state, format!("restore etcd {}", restore.token))?;
            }
            Action::ClearEtcd { token, .. } => {
                if state.pods.contains_key("etcd") {
                    return Err(self.failed("etcd", "it still runs"));
                }
                self.write(state, format!("clear etcd {token}"))?;
            }
            Action::ReturnEtcd { token } => self.write(state, format!("return etcd {token}"))?,
        }
        Ok(())
    }

    fn expect_unchanged(
        &self,
        state: &FakeState,
        path: &RemotePath,
        allowed: &[Option<Digest>],
    ) -> Result<Option<Digest>, HostError> {
        let found = state.files.get(path).map(|(content, _)| Digest::of(content.expose()));
        if allowed.contains(&found) {
            Ok(found)
        } else {
            Err(HostError::Drift { host: self.name.clone(), path: path.clone() })
        }
    }

    fn read(&self, contents: &dyn Contents, digest: &Digest) -> Result<Content, HostError> {
        let mut bytes = Vec::new();
        contents
            .open(digest)
            .and_then(|mut reader| reader.read_to_end(&mut bytes))
            .map_err(|error| self.failed("reading a content", &error.to_string()))?;
        Ok(Content::new(bytes))
    }
}
