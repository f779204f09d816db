//! A batch as lines for `scripts/perform.sh`: a verb and fields without blanks, one action on a line.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::Access;
use crate::model::Action;
use crate::model::Batch;
use crate::model::Digest;
use crate::model::Directory;
use crate::model::Effect;
use crate::model::EtcdRestore;
use crate::model::HostName;
use crate::model::HostRecord;

/// The lines, and what must travel with them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// `N VERB FIELDS`, the number counting from 1.
    pub(crate) text: String,
    /// Contents by digest with their sizes, each once.
    pub(crate) blobs: BTreeMap<Digest, u64>,
}

/// The batch for the node `node`, or the field that would need quoting.
pub(crate) fn manifest(batch: &Batch, node: &HostName, health: Duration) -> Result<Manifest, String> {
    let mut blobs = BTreeMap::new();
    let mut lines = Vec::new();
    let seconds = health.as_secs().max(1);
    for (at, action) in batch.0.iter().enumerate() {
        let line = match action {
            Action::EnsureUser(user) => {
                format!("user {} {} {}", user_name(&user.name)?, user.uid, user.gid)
            }
            Action::EnsureDirectory(Directory { path, access }) => format!("directory {} {path}", fields(access)),
            Action::PutFile { path, digest, size, access, replaces, foreign, .. } => {
                blobs.insert(*digest, *size);
                let old = replaces.map_or_else(|| "-".to_owned(), |old| old.to_string());
                format!("put {digest} {old} {path} {} {}", fields(access), u8::from(*foreign))
            }
            Action::SetAccess { path, access } => format!("access {} {path}", fields(access)),
            Action::RemoveFile { path, replaces } => format!("remove - {replaces} {path}"),
            Action::ReloadUnits => "reload -".to_owned(),
            Action::StartUnit { name, inputs, effect, restart } => {
                let effect = match effect {
                    Effect::Restart => "restart",
                    Effect::Rerun => "rerun",
                };
                format!("start {inputs} {effect} {} {seconds} {name}", u8::from(*restart))
            }
            Action::StopUnit { name } => format!("stop {name}"),
            Action::ImportImage { image, manifest, archive, size } => {
                blobs.insert(*archive, *size);
                format!("image {manifest} {archive} {seconds} {image}")
            }
            Action::YieldLeadership => "yield -".to_owned(),
            Action::AwaitPod { pod, inputs } => format!("await {inputs} {seconds} {}", pod_name(pod, node)?),
            Action::AwaitGone { pod } => format!("gone {seconds} {}", pod_name(pod, node)?),
            Action::RestoreEtcd(restore) => {
                blobs.insert(restore.database, restore.size);
                restore_line(restore, node, seconds)?
            }
            Action::ClearEtcd { token, uid, gid } => {
                format!("clear_etcd {seconds} {} {} {uid} {gid}", word(token)?, word(EtcdRestore::mark(token))?)
            }
            Action::ReturnEtcd { token } => {
                format!("return_etcd {seconds} {} {}", word(token)?, word(EtcdRestore::mark(token))?)
            }
        };
        lines.push(format!("{} {line}\n", at + 1));
    }
    Ok(Manifest { text: lines.concat(), blobs })
}

/// A record as it lies on the host: the scripts read paths and names out of this very layout, line by line.
pub(crate) fn record_text(record: &HostRecord) -> Result<Vec<u8>, String> {
    let mut text = serde_json::to_vec_pretty(record).map_err(|error| error.to_string())?;
    text.push(b'\n');
    Ok(text)
}

/// An action in words, as it begins.
pub(crate) fn describe(action: &Action) -> String {
    match action {
        Action::EnsureUser(user) => format!("makes the user {}", user.name),
        Action::EnsureDirectory(Directory { path, .. }) => format!("makes the folder {path}"),
        Action::PutFile { path, .. } => format!("writes {path}"),
        Action::SetAccess { path, .. } => format!("sets the access of {path}"),
        Action::RemoveFile { path, .. } => format!("removes {path}"),
        Action::ReloadUnits => "reloads systemd".to_owned(),
        Action::StartUnit { name, restart: false, .. } => format!("starts {name}"),
        Action::StartUnit { name, restart: true, .. } => format!("restarts {name}"),
        Action::StopUnit { name } => format!("stops {name}"),
        Action::ImportImage { image, .. } => format!("imports {image}"),
        Action::YieldLeadership => "lets another etcd member lead".to_owned(),
        Action::AwaitPod { pod, .. } => format!("waits for {pod}"),
        Action::AwaitGone { pod } => format!("waits until {pod} has ended"),
        Action::RestoreEtcd(_) => "restores etcd's data".to_owned(),
        Action::ClearEtcd { .. } => "takes etcd's old data away".to_owned(),
        Action::ReturnEtcd { .. } => "puts etcd's old data back".to_owned(),
    }
}

/// Whether a batch has so many of its kind that each alone is worth a line only to those who want to see everything.
pub(crate) fn is_small(action: &Action) -> bool {
    matches!(
        action,
        Action::EnsureDirectory(_) | Action::PutFile { .. } | Action::SetAccess { .. } | Action::RemoveFile { .. }
    )
}

/// The name that the kubelet gives to a static pod.
pub(crate) fn pod_name(pod: &str, node: &HostName) -> Result<String, String> {
    HostName::new(pod).map_err(|error| error.to_string())?;
    Ok(format!("{pod}-{node}"))
}

fn restore_line(restore: &EtcdRestore, node: &HostName, seconds: u64) -> Result<String, String> {
    let members: Result<Vec<_>, _> =
        restore.members.iter().map(|(name, peer)| Ok::<_, String>(format!("{name}={}", word(peer)?))).collect();
    // The page size of the database is a multiple of 512; etcd appends the digest of 32 bytes to what it hands out.
    let checked = u8::from(restore.size % 512 == 32);
    Ok(format!(
        "restore_etcd {seconds} {} {} {} {} {} {} {checked} {node} {} {} {}",
        word(&restore.token)?,
        word(EtcdRestore::mark(&restore.token))?,
        restore.leap,
        restore.uid,
        restore.gid,
        word(&restore.peer)?,
        restore.database,
        restore.image,
        members?.join(","),
    ))
}

/// A field that stands in a line as it is.
fn word(text: &str) -> Result<&str, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:/[]".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) { Ok(text) } else { Err(format!("{text:?} cannot stand in a line")) }
}

fn fields(access: &Access) -> String {
    format!("{:o} {} {}", access.mode, access.uid, access.gid)
}

/// useradd's own rule (`NAME_REGEX` of Debian's adduser), without `$`.
fn user_name(name: &str) -> Result<&str, String> {
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let valid = name.len() <= 32
        && name.bytes().all(letters)
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_');
    if valid { Ok(name) } else { Err(format!("{name:?} is not a user name")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::model::ImageRef;
    use crate::model::RemotePath;
    use crate::model::SystemUser;
    use crate::model::UnitName;

    fn path(text: &str) -> RemotePath {
        RemotePath::new(text).unwrap()
    }

    fn text(actions: Vec<Action>) -> Result<Manifest, String> {
        manifest(&Batch(actions), &HostName::new("h1").unwrap(), Duration::from_secs(90))
    }

    #[test]
    fn every_action_is_one_line_of_fields() {
        let (new, old) = (Digest::of(b"new"), Digest::of(b"old"));
        let access = Access { mode: 0o4750, uid: 0, gid: 52034 };
        let put = |replaces, foreign| Action::PutFile {
            path: path("/etc/a"),
            digest: new,
            size: 3,
            access,
            replaces,
            foreign,
            secret: true,
        };
        let unit = UnitName::new("kubelet.service").unwrap();
        let image = ImageRef::new("registry.k8s.io/pause:3.10.2").unwrap();
        let manifest = text(vec![
            Action::EnsureUser(SystemUser { name: "etcd".to_owned(), uid: 52034, gid: 52035 }),
            Action::EnsureDirectory(Directory { path: path("/var/lib/etcd"), access }),
            put(None, false),
            put(Some(old), true),
            Action::SetAccess { path: path("/etc/a"), access },
            Action::RemoveFile { path: path("/etc/b"), replaces: old },
            Action::ReloadUnits,
            Action::StartUnit { name: unit.clone(), inputs: new, effect: Effect::Restart, restart: true },
            Action::StartUnit { name: unit.clone(), inputs: new, effect: Effect::Rerun, restart: false },
            Action::StopUnit { name: unit },
            Action::ImportImage { image, manifest: new, archive: old, size: 5 },
            Action::YieldLeadership,
            Action::AwaitPod { pod: "etcd".to_owned(), inputs: new },
        ])
        .unwrap();
        let expected = format!(
            "1 user etcd 52034 52035\n\
             2 directory 4750 0 52034 /var/lib/etcd\n\
             3 put {new} - /etc/a 4750 0 52034 0\n\
             4 put {new} {old} /etc/a 4750 0 52034 1\n\
             5 access 4750 0 52034 /etc/a\n\
             6 remove - {old} /etc/b\n\
             7 reload -\n\
             8 start {new} restart 1 90 kubelet.service\n\
             9 start {new} rerun 0 90 kubelet.service\n\
             10 stop kubelet.service\n\
             11 image {new} {old} 90 registry.k8s.io/pause:3.10.2\n\
             12 yield -\n\
             13 await {new} 90 etcd-h1\n"
        );
        assert_eq!(manifest, Manifest { text: expected, blobs: BTreeMap::from([(new, 3), (old, 5)]) });
    }

    #[test]
    fn names_that_would_need_quoting_are_refused() {
        for name in ["", "a b", "$(reboot)", "a\n2 stop x", "Etcd", "-etcd"] {
            let user = SystemUser { name: name.to_owned(), uid: 1, gid: 1 };
            assert!(text(vec![Action::EnsureUser(user)]).is_err(), "{name:?} was accepted");
            let pod = Action::AwaitPod { pod: name.to_owned(), inputs: Digest::of(b"") };
            assert!(text(vec![pod]).is_err(), "{name:?} was accepted");
        }
    }

    /// The script reads the fields by their places: `read -r at seconds token mark ..` in etcd.sh.
    #[test]
    fn a_restore_names_its_fields_in_the_order_in_which_the_script_reads_them() {
        let script = include_str!("scripts/etcd.sh");
        let (_, after) = script.split_once("restore_etcd() {").unwrap();
        let (_, names) = after.split_once("read -r ").unwrap();
        let names: Vec<_> = names.split(';').next().unwrap().split(' ').collect();
        let peer = "https://192.0.2.11:2380".to_owned();
        let node = HostName::new("h1").unwrap();
        let restore = EtcdRestore {
            token: "demo-0123456789ab".to_owned(),
            peer: peer.clone(),
            members: [(node.clone(), peer.clone())].into(),
            database: Digest::of(b"database"),
            size: 4096 + 32,
            leap: 1_000_000_000,
            image: ImageRef::new("registry.example/etcd:3.7.2").unwrap(),
            uid: 52034,
            gid: 52035,
        };
        let line = format!("1 {}", restore_line(&restore, &node, 60).unwrap());
        let line = line.replacen("restore_etcd ", "", 1);
        let given: std::collections::BTreeMap<_, _> = names.into_iter().zip(line.split(' ')).collect();
        let field = |name: &str| given[name];
        assert_eq!(field("seconds"), "60");
        assert_eq!((field("uid"), field("gid"), field("checked")), ("52034", "52035", "1"));
        assert_eq!((field("peer"), field("name")), (peer.as_str(), "h1"));
        assert_eq!(field("members"), format!("h1={peer}"));
        assert_eq!((field("mark"), field("leap")), ("0123456789ab", "1000000000"));
        assert_eq!(field("image"), "registry.example/etcd:3.7.2");
    }

    #[test]
    fn room_for_a_member_is_made_with_the_fields_in_the_order_in_which_the_script_reads_them() {
        let script = include_str!("scripts/etcd.sh");
        let (_, after) = script.split_once("clear_etcd() {").unwrap();
        let (_, names) = after.split_once("read -r ").unwrap();
        assert_eq!(names.split(';').next().unwrap(), "at seconds token mark uid gid");
        let clear = Action::ClearEtcd { token: "demo-0123456789ab".to_owned(), uid: 52034, gid: 52035 };
        assert_eq!(text(vec![clear]).unwrap().text, "1 clear_etcd 90 demo-0123456789ab 0123456789ab 52034 52035\n");
    }
}
