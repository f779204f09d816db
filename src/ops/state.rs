//! The state folder itself: read, rebuilt, sealed to others, taken elsewhere.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::apply::Fleet;
use crate::apply::Locks;
use crate::host::Host as _;
use crate::model::Content;
use crate::model::HostName;
use crate::model::Scope;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::kept;
use crate::ops::kept::Kept;
use crate::ops::local::holder;
use crate::ops::prepare;
use crate::ops::reach::Reached;
use crate::snapshot;
use crate::snapshot::SnapshotError;
use crate::store;
use crate::store::Backup;
use crate::store::Examined;
use crate::store::PluginTalk;
use crate::store::PrivateFile;
use crate::store::Protection;
use crate::store::Recipients;
use crate::store::StoreError;
use crate::store::Trust;

/// A state is never longer: it is read into memory.
const LONGEST: u64 = 256 << 20;

/// Reads all of the state folder: what is there, whole, and readable by nobody else.
pub fn check_state(invocation: &Invocation, talk: &dyn Talk) -> Result<Examined, OpsError> {
    let local = Local::read(invocation)?;
    let kept = Kept::open(&local.path, &local.cluster, talk)?;
    Ok(kept.store()?.examine()?)
}

/// How an identity that is lost comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostIdentity {
    /// Private key of one of `bastide.state.recipients`.
    pub key: PathBuf,
    /// The signer that the first `up` printed.
    pub signer: Option<String>,
}

/// What `state recover` was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoverOptions {
    /// `--host`
    pub host: Option<String>,
    /// `--file`
    pub file: Option<PathBuf>,
    /// `--recipient-key` and `--signer`
    pub lost: Option<LostIdentity>,
}

/// Rebuilds the state folder from a file or the sealed copy of one host, else from the newest of all; with `lost` also the identity.
pub async fn recover(
    invocation: &Invocation,
    options: &RecoverOptions,
    talk: &Arc<dyn Talk>,
) -> Result<String, OpsError> {
    let local = Local::read(invocation)?;
    if let Some(path) = &options.file {
        return from_file(&local, path, options.lost.as_ref(), invocation, talk);
    }
    let fleet = prepare::fleet(&local, invocation, talk).await?;
    let (name, copy, head) = match &options.host {
        Some(host) => {
            let name = HostName::new(host.clone()).map_err(|error| OpsError::Impossible(format!("--host: {error}")))?;
            let Some(machine) = fleet.get(&name) else {
                return Err(OpsError::Impossible(format!("{name}: is not in cluster.yml or does not answer")));
            };
            copy_of(machine).await.and_then(|found| match found {
                Some((copy, head)) => Ok((name.clone(), copy, head)),
                None => Err(OpsError::Impossible(format!("{name}: there is no sealed copy of a state on this host"))),
            })?
        }
        None => newest_copy(&local, &fleet).await?,
    };
    rebuild(&local, &copy, &head, &name, options.lost.as_ref(), invocation, talk)
}

/// Whether bastide made this file as a snapshot.
pub(super) fn is_snapshot(path: &Path) -> Result<bool, OpsError> {
    Ok(!matches!(snapshot::unverified_state(&mut store::open_file(path)?), Err(SnapshotError::NotOurs)))
}

/// Rebuilds the state folder from an export, or from the state that a snapshot holds.
pub(super) fn from_file(
    local: &Local,
    path: &Path,
    lost: Option<&LostIdentity>,
    invocation: &Invocation,
    talk: &Arc<dyn Talk>,
) -> Result<String, OpsError> {
    let failed = |source| OpsError::local(path, source);
    let mut file = store::open_file(path)?;
    let document = match snapshot::unverified_state(&mut file) {
        Err(SnapshotError::NotOurs) => {
            let mut bytes = Vec::new();
            let read = store::open_file(path)?.take(LONGEST).read_to_end(&mut bytes);
            read.map_err(failed)?;
            Content::new(bytes)
        }
        read => {
            read.map_err(|source| OpsError::Snapshot { what: path.display().to_string(), source: Box::new(source) })?
        }
    };
    let words = || OpsError::Impossible(format!("{}: is neither an export of a state nor a snapshot", path.display()));
    let head = store::head(&document).ok_or_else(words)?;
    rebuild(local, &document, &head, &path.display(), lost, invocation, talk)
}

/// What a plugin asks, put to whoever is there.
struct PluginQuestions(Arc<dyn Talk>);

impl PluginTalk for PluginQuestions {
    fn show(&self, message: &str) {
        self.0.say(message);
    }
    fn confirm(&self, question: &str) -> Option<bool> {
        self.0.confirm(question)
    }
    fn text(&self, question: &str) -> Option<String> {
        self.0.ask(question)
    }
    fn secret(&self, question: &str) -> Option<Content> {
        // Never the answer from before: a wrong PIN that is given again locks a key.
        self.0.forget(question);
        self.0.ask_secret(question, false)
    }
}

fn rebuild(
    local: &Local,
    copy: &Content,
    head: &store::Head,
    from: &dyn std::fmt::Display,
    lost: Option<&LostIdentity>,
    invocation: &Invocation,
    talk: &Arc<dyn Talk>,
) -> Result<String, OpsError> {
    let identity = match lost {
        None => kept::identity(&head.cluster, &local.cluster, &**talk)?,
        Some(lost) => {
            let trust = lost.signer.clone().map_or(Trust::OnFirstUse, Trust::Signer);
            let asks = Arc::new(PluginQuestions(Arc::clone(talk)));
            let identity = store::restore_identity(copy, &store::read_private(&lost.key)?, &trust, Some(asks))?;
            identity.save(&store::identities_folder()?, &Protection::default())?;
            identity
        }
    };
    let recipients = Recipients::parse(&local.cluster.options.recipients)?;
    let folder = store::folder_for(&local.path);
    let holder = holder(invocation, prepare::now())?;
    let (store, _lock) = store::recover(copy, identity, recipients, &folder, &holder)?;
    let newest = store.newest().map(|revision| revision.id.to_string()).unwrap_or_default();
    Ok(format!("{}: cluster {}, up to revision {newest}, from {from}\n", folder.display(), store.name()))
}

/// Writes all of the state folder into one sealed and signed file, which must not be there yet.
pub fn export(invocation: &Invocation, path: &Path, talk: &dyn Talk) -> Result<String, OpsError> {
    let local = Local::read(invocation)?;
    let mut kept = Kept::open(&local.path, &local.cluster, talk)?;
    let Some(store) = &mut kept.store else { return Err(StoreError::NoState { folder: kept.folder }.into()) };
    // Nobody writes while it is read.
    let _lock = store.lock(&holder(invocation, prepare::now())?)?;
    let document = store.export()?;
    let mut file = PrivateFile::begin(path)?;
    file.write_all(document.expose()).map_err(|source| OpsError::local(path, source))?;
    file.keep()?;
    let newest = store.newest().map(|revision| revision.id.to_string()).unwrap_or_default();
    Ok(format!("{}: cluster {}, up to revision {newest}, {} bytes\n", path.display(), store.name(), document.len()))
}

/// Seals all of the state anew, to the identity and those whom cluster.yml names now; here and in the copies on hosts.
pub async fn rekey(
    invocation: &Invocation,
    no_identity_backup: bool,
    talk: &Arc<dyn Talk>,
) -> Result<Reached, OpsError> {
    let now = prepare::now();
    let local = Local::read(invocation)?;
    let mut kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    // Before any host is asked.
    kept.secrets()?;
    let fleet = prepare::fleet(&local, invocation, talk).await?;
    let scopes: BTreeMap<_, _> = local.cluster.nodes.iter().map(|node| (node.name.clone(), Scope::default())).collect();
    let seen = prepare::look(&fleet, &scopes).await?;
    kept.compare(&local.cluster.name, seen.hosts.iter())?;
    let Some(store) = &mut kept.store else { return Err(StoreError::NoState { folder: kept.folder }.into()) };
    let recipients = Recipients::parse(&local.cluster.options.recipients)?;
    let backup = backup(store.backup(), &recipients, no_identity_backup)?;
    let members: BTreeSet<HostName> = local
        .cluster
        .nodes
        .iter()
        .filter(|node| node.roles.control_plane() || node.roles.etcd())
        .map(|node| node.name.clone())
        .collect();
    let holder = holder(invocation, now)?;
    let lock = store.lock(&holder)?;
    let locks = Locks::take(&fleet, &members, &BTreeSet::new(), &holder).await?;
    let count = store.rekey(&lock, recipients, backup)?;
    talk.say(&format!("the contents of {count} revisions are sealed anew"));
    let copy = store.sealed_copy()?;
    let sends = members.iter().filter_map(|name| {
        let (host, record) = (fleet.get(name)?, seen.hosts.get(name)?.record.as_ref()?);
        let (copy, run) = (&copy, &holder.run);
        (record.cluster == *store.cluster()).then_some(async move { host.keep_state(copy, record, run).await })
    });
    let errors: Vec<_> = futures::future::join_all(sends).await.into_iter().filter_map(Result::err).collect();
    drop(locks);
    if !errors.is_empty() {
        return Err(OpsError::Hosts(errors));
    }
    let silent: BTreeSet<_> = members.into_iter().filter(|name| fleet.get(name).is_none()).collect();
    Ok(if silent.is_empty() { Reached::Wholly } else { Reached::Except(silent) })
}

/// What keeps the state open when this machine is lost, once it is sealed to `recipients`.
fn backup(before: Backup, recipients: &Recipients, no_identity_backup: bool) -> Result<Backup, OpsError> {
    match before {
        _ if !recipients.is_empty() => Ok(Backup::Recipients),
        Backup::Recipients if !no_identity_backup => Err(OpsError::Impossible(
            "cluster.yml names no bastide.state.recipients any more, and without one whoever loses the identity loses the state: name \
             some, or choose that with --no-identity-backup"
                .to_owned(),
        )),
        Backup::Recipients => Ok(Backup::None),
        other => Ok(other),
    }
}

/// The sealed copy on a host and what it says of itself.
async fn copy_of(machine: &RealHost) -> Result<Option<(Content, store::Head)>, OpsError> {
    let copy = machine.fetch_state().await.map_err(|error| OpsError::Hosts(vec![error]))?;
    let Some(copy) = copy else { return Ok(None) };
    match store::head(&copy) {
        Some(head) => Ok(Some((copy, head))),
        None => Err(OpsError::Impossible(format!("{}: its copy of the state cannot be read", machine.name()))),
    }
}

/// The newest copy of all hosts that answer; one that cannot be read is passed over as long as another one can.
async fn newest_copy(local: &Local, fleet: &Fleet<RealHost>) -> Result<(HostName, Content, store::Head), OpsError> {
    let mut newest: Option<(HostName, Content, store::Head)> = None;
    let mut trouble = Vec::new();
    let members = local.cluster.nodes.iter().filter(|node| node.roles.control_plane() || node.roles.etcd());
    for node in members {
        let Some(machine) = fleet.get(&node.name) else {
            trouble.push(format!("{}: does not answer", node.name));
            continue;
        };
        match copy_of(machine).await {
            Ok(Some((copy, head))) => {
                let age = |head: &store::Head| (head.revision.clone(), head.written);
                if newest.as_ref().is_none_or(|(_, _, known)| age(known) < age(&head)) {
                    newest = Some((node.name.clone(), copy, head));
                }
            }
            Ok(None) => trouble.push(format!("{}: there is no sealed copy of a state on this host", node.name)),
            Err(error) => trouble.push(error.to_string()),
        }
    }
    newest.ok_or_else(|| OpsError::Impossible(trouble.join("\n")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::backup;
    use crate::store::Backup;
    use crate::store::Recipients;

    #[test]
    fn the_last_recipient_is_not_taken_away_in_passing() {
        let none = Recipients::default();
        let key = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa".to_owned();
        let one = Recipients::parse(&[key]).unwrap();
        assert!(backup(Backup::Recipients, &none, false).is_err());
        assert_eq!(backup(Backup::Recipients, &none, true).unwrap(), Backup::None);
        assert_eq!(backup(Backup::Passphrase, &none, false).unwrap(), Backup::Passphrase);
        assert_eq!(backup(Backup::None, &one, false).unwrap(), Backup::Recipients);
    }
}
