//! What is there now. Digests, modes, owners, states; never a secret.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

use crate::model::Access;
use crate::model::ClusterId;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::ImageRef;
use crate::model::ObjectId;
use crate::model::RemotePath;
use crate::model::RevisionId;
use crate::model::Taint;
use crate::model::UnitName;

/// The paths and names a run may look at on one host: what some revision manages or is about to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Files.
    pub files: BTreeSet<RemotePath>,
    /// Files of which the first certificate block is read too.
    pub seeded: BTreeSet<RemotePath>,
    /// Folders.
    pub directories: BTreeSet<RemotePath>,
    /// Units.
    pub units: BTreeSet<UnitName>,
    /// Users by name.
    pub users: BTreeSet<String>,
    /// The numbers that these users are to have; reported where another name holds one.
    pub uids: BTreeSet<u32>,
    /// TCP ports that must be free on a host that is not bastide's yet.
    pub ports: BTreeSet<u16>,
}

/// Everything that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Hosts that answered.
    pub hosts: BTreeMap<HostName, ObservedHost>,
    /// Hosts that did not, with the reason in words.
    pub unreachable: BTreeMap<HostName, String>,
    /// The etcd leader's host, where it is known: it is restarted last.
    pub etcd_leader: Option<HostName>,
    /// The objects, where an API server answered.
    pub objects: Option<ObservedObjects>,
}

/// What a host's network has not, and pods will miss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lacks {
    /// A route to whatever is not near: service addresses, which are nowhere, then lead nowhere.
    pub default_route: bool,
    /// A server, in the file that pods inherit, for names outside of the cluster.
    pub name_server: bool,
}

/// One host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedHost {
    /// `ID` and `VERSION_ID` of os-release, such as `debian 13`.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// What `hostname` prints.
    pub hostname: String,
    /// Changes at every boot.
    pub boot_id: String,
    /// The host's clock, seconds since 1970.
    pub clock: i64,
    /// Version of systemd, 0 where there is none.
    pub systemd: u32,
    /// What its network has not.
    pub lacks: Lacks,
    /// Whether `/sys/fs/cgroup` is the unified hierarchy.
    pub cgroup_v2: bool,
    /// Whether swap is on.
    pub swap: bool,
    /// Bytes free on the file system of `/var/lib`.
    pub free_bytes: u64,
    /// Files in scope that exist.
    pub files: BTreeMap<RemotePath, ObservedFile>,
    /// Folders in scope that exist.
    pub directories: BTreeMap<RemotePath, Access>,
    /// Units in scope that are known to systemd.
    pub units: BTreeMap<UnitName, ObservedUnit>,
    /// Images in containerd's `k8s.io` namespace by manifest digest.
    pub images: BTreeMap<ImageRef, Digest>,
    /// Static pods that run, with the digest of their inputs annotation (none where the pod carries none).
    pub pods: BTreeMap<String, Option<Digest>>,
    /// Users in scope: name to (uid, gid).
    pub users: BTreeMap<String, (u32, u32)>,
    /// For each desired uid that another name holds: uid to that name.
    pub taken_uids: BTreeMap<u32, String>,
    /// Whether bastide set an etcd member up here and its log is gone: it has never run, or its data are lost.
    pub etcd_gone: bool,
    /// bastide's own record, where there is one.
    pub record: Option<HostRecord>,
    /// Why this is not bastide's to write to, before the first write.
    pub squatters: Vec<Squatter>,
    /// Who holds the host's lock.
    pub lock: Option<LockHolder>,
}

/// A file on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedFile {
    /// Of its whole content.
    pub digest: Digest,
    /// Mode and owner.
    pub access: Access,
    /// For files in scope as seeded: the first PEM certificate block.
    pub certificate: Option<String>,
}

/// A unit on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedUnit {
    /// `systemctl is-active` says active.
    pub active: bool,
    /// `systemctl is-enabled` says enabled.
    pub enabled: bool,
    /// `systemctl is-failed` says failed.
    pub failed: bool,
    /// The inputs that the last start by bastide had.
    pub inputs: Option<Digest>,
}

/// Something that makes a host foreign ground (design 11.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Squatter {
    /// A kubelet, etcd or API server process that no record explains.
    Process(String),
    /// A container of RKE v1 (name), seen through Docker.
    RkeContainer(String),
    /// A folder that is not empty although no record owns it.
    Folder(RemotePath),
    /// A TCP port somebody listens on.
    Port(u16),
}

/// `/var/lib/bastide/record.json` of a host, in clear, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Layout version.
    pub schema: u32,
    /// Whose host this is.
    pub cluster: ClusterId,
    /// For people.
    pub cluster_name: String,
    /// The revision that the host was last being brought to.
    pub revision: RevisionId,
    /// Its parent.
    pub parent: Option<RevisionId>,
    /// False from the first write of a batch until its last.
    pub complete: bool,
    /// Every path that bastide may have written, with the digest it wrote.
    pub files: BTreeMap<RemotePath, Digest>,
    /// Folders that bastide made (those that were there before are not listed).
    pub directories: BTreeSet<RemotePath>,
    /// Units that bastide enabled.
    pub units: BTreeSet<UnitName>,
    /// Users that bastide made.
    pub users: BTreeSet<String>,
    /// Images that bastide imported.
    pub images: BTreeMap<ImageRef, Digest>,
}

/// Who is at work on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Random, one a run.
    pub run: String,
    /// `user@machine`.
    pub who: String,
    /// What it does: `up`.
    pub command: String,
    /// Since when, seconds since 1970 by the holder's clock.
    pub since: i64,
}

/// The cluster's objects as one API server shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedObjects {
    /// For every desired object that exists: how it compares. Absent objects are missing here.
    pub objects: BTreeMap<ObjectId, ObjectState>,
    /// Objects labelled as bastide's own that exist, wanted or not.
    pub owned: BTreeSet<ObjectId>,
    /// Nodes by name.
    pub nodes: BTreeMap<HostName, ObservedNode>,
}

/// An existing object against the desired one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectState {
    /// A server-side apply would change nothing.
    Equal,
    /// It would change these fields (paths such as `spec.replicas`), some owned by other managers.
    Differs {
        /// Field paths, sorted.
        fields: Vec<String>,
        /// Other managers that own one of them, with the field.
        owners: Vec<(String, String)>,
    },
}

/// A Node object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedNode {
    /// Condition Ready is True.
    pub ready: bool,
    /// The boot that the kubelet reported.
    pub boot_id: String,
    /// Kubelet version it reported.
    pub kubelet: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// All taints.
    pub taints: BTreeSet<Taint>,
    /// Label keys that bastide's field manager owns.
    pub owned_labels: BTreeSet<String>,
    /// Taints (key and effect) that bastide added, from its annotation.
    pub owned_taints: BTreeSet<(String, String)>,
}
