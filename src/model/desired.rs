//! What every host and the cluster should be, completely, as data without secrets: contents are named by digest.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::model::DesiredObject;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::ImageRef;
use crate::model::KubeVersion;
use crate::model::RemotePath;
use crate::model::Roles;
use crate::model::UnitName;

/// The identity of a cluster: 128 random bits as 32 hexadecimal digits, drawn once by the first `up`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub String);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole target: enough to reach it without any further choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Layout version of this document; see [`Desired::SCHEMA`].
    pub schema: u32,
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its name in cluster.yml.
    pub cluster_name: String,
    /// The Kubernetes release of every host.
    pub kubernetes: KubeVersion,
    /// Every host by node name.
    pub hosts: BTreeMap<HostName, DesiredHost>,
    /// The objects in the cluster that bastide owns, in the order in which they are applied.
    pub objects: Vec<DesiredObject>,
    /// Hardened settings that cluster.yml relaxes, shown in every plan.
    pub allowances: Vec<Allowance>,
}

impl Desired {
    /// The layout that this program writes.
    pub const SCHEMA: u32 = 1;

    /// Versions of the parts by the last word of their image's name: `etcd` to `3.7.2-0`.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let images = self.hosts.values().flat_map(|host| host.images.keys());
        images
            .filter_map(|image| {
                let (name, version) = image.as_str().rsplit('/').next()?.split_once(':')?;
                Some((name.to_owned(), version.to_owned()))
            })
            .collect()
    }
}

/// A hardened setting that the file relaxes under `bastide.hardening.allow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// The setting, such as `kube-api.anonymous-auth`.
    pub setting: String,
    /// Why, in the operator's words.
    pub reason: String,
}

/// One host's target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredHost {
    /// What it is for.
    pub roles: Roles,
    /// The address that the cluster's components use.
    pub internal_address: std::net::IpAddr,
    /// System users that must exist, by number.
    pub users: Vec<SystemUser>,
    /// Folders, parents before children.
    pub directories: Vec<Directory>,
    /// Files by path.
    pub files: BTreeMap<RemotePath, File>,
    /// Units in the order in which they start.
    pub units: Vec<Unit>,
    /// Images that must be in containerd's `k8s.io` namespace, pinned.
    pub images: BTreeMap<ImageRef, DesiredImage>,
    /// Static pods by name, with the digest that their annotation [`Component::INPUTS_ANNOTATION`] carries.
    pub pods: BTreeMap<String, Digest>,
    /// Files whose contents enter the inputs of a static pod or a unit, by its name: these inputs can then be computed
    /// anew where a stored target is given other keys. Absent in revisions that were made before this was recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restarts: BTreeMap<String, Vec<RemotePath>>,
    /// Labels of the Node object that bastide owns.
    pub labels: BTreeMap<String, String>,
    /// Taints of the Node object that bastide owns.
    pub taints: Vec<Taint>,
}

/// An image by what it must be and by what it is imported from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredImage {
    /// Manifest digest that containerd shows after the import.
    pub manifest: Digest,
    /// Archive to import.
    pub archive: Digest,
    /// The archive's size in bytes.
    pub size: u64,
}

/// A system user and group of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemUser {
    /// User and group name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// Mode and owner. Numeric, so that it means the same on every host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Permission bits, as in 0o600.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Access {
    /// `mode` for root:root.
    pub const fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0 }
    }
}

/// A folder with its access. Removed by `remove` when bastide made it and it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Where.
    pub path: RemotePath,
    /// Mode and owner.
    pub access: Access,
}

/// A file of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// What it holds: a blob of this revision, or a file of the release's bundle.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Mode and owner.
    pub access: Access,
    /// Whose it is; decides when it is written.
    pub component: Component,
    /// What bastide does when the host's file differs.
    pub keep: Keep,
    /// True where neither content nor diff may be shown.
    pub secret: bool,
}

/// What bastide does when a file on the host differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "keep")]
pub enum Keep {
    /// The file must equal its digest.
    Managed,
    /// Written when absent, expired, older than `since`, or when its first certificate is not from one of `authorities`; otherwise left
    /// alone, because the host renews it: the kubelet's own client pair.
    Seeded {
        /// PEM certificates of the accepted authorities.
        authorities: Vec<String>,
        /// Written too where the host's certificate is good from before this moment on (seconds since 1970): a renewal
        /// that was asked for. What the host got by itself after that is left alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<i64>,
    },
}

/// A systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub name: UnitName,
    /// Whose it is.
    pub component: Component,
    /// Over everything whose change needs a restart of this unit. Kept on the host after each start, so that a run that
    /// died between writing and restarting is noticed.
    pub inputs: Digest,
    /// What a change of `inputs` or an inactive unit leads to.
    pub effect: Effect,
}

/// How a unit is brought to its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Enabled and running; restarted when its inputs changed.
    Restart,
    /// One of the system's own oneshot units (sysctl, modules): restarted when its inputs changed, never enabled,
    /// disabled or stopped.
    Rerun,
}

/// A taint that bastide owns on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, often empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// The parts of a host. The order is the order in which a change moves: a server before those who call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// Users, modules, sysctls, shutdown order.
    System,
    /// containerd, runc, CNI plugins, crictl.
    Containerd,
    /// The etcd member.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The node-local balancer of hosts without an API server.
    Balancer,
    /// The kubelet.
    Kubelet,
    /// kube-proxy.
    Proxy,
    /// What no process reads: `admin.conf`.
    Operator,
    /// What runs now and then beside the cluster: recurring snapshots, the watch over certificates.
    Recurring,
}

impl Component {
    /// The static pods' annotation that holds the digest of everything whose change needs a restart.
    pub const INPUTS_ANNOTATION: &str = "bastide.dev/inputs";

    /// For people: `kube-apiserver`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Containerd => "containerd",
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Balancer => "balancer",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
            Self::Operator => "operator files",
            Self::Recurring => "timers",
        }
    }
}
