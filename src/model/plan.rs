//! The plan: what will be done, in which order, as data. Made by `plan/`, shown, and run by `apply/` without a further choice.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

use crate::model::Access;
use crate::model::Allowance;
use crate::model::Barrier;
use crate::model::Component;
use crate::model::Digest;
use crate::model::Directory;
use crate::model::Effect;
use crate::model::HostName;
use crate::model::ImageRef;
use crate::model::ObjectId;
use crate::model::ObjectSet;
use crate::model::RemotePath;
use crate::model::SystemUser;
use crate::model::Taint;
use crate::model::UnitName;

/// Everything that one run does. Empty stages mean that nothing is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In order; the next begins when the one before has passed all its gates.
    pub stages: Vec<Stage>,
    /// Hardened settings that the file relaxes.
    pub allowances: Vec<Allowance>,
    /// What cannot be undone.
    pub barriers: Vec<Barrier>,
    /// What a person should know before saying yes, one sentence each.
    pub notes: Vec<String>,
    /// Hosts that are left out because they do not answer.
    pub left_out: BTreeSet<HostName>,
}

impl Plan {
    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        let waits = |stage: &Stage| !stage.gates.is_empty() || stage.steps.iter().any(|step| !step.gates.is_empty());
        self.changes_nothing() && !self.stages.iter().any(waits)
    }

    /// Objects that are deleted with what others keep in them.
    pub fn pruned_data(&self) -> impl Iterator<Item = &ObjectId> {
        let actions = self.stages.iter().flat_map(|stage| &stage.objects);
        actions.filter_map(|action| match action {
            ObjectAction::Delete { id, with_data: true } => Some(id),
            _ => None,
        })
    }

    /// Whether a run of this plan would change nothing; it may still wait for what an earlier run began.
    pub fn changes_nothing(&self) -> bool {
        self.stages
            .iter()
            .all(|stage| stage.steps.iter().all(|step| step.batch.0.is_empty()) && stage.objects.is_empty())
    }
}

/// Steps that may run side by side, then objects, then gates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// For people: `etcd, one member at a time`.
    pub title: String,
    /// How many steps run at once.
    pub width: usize,
    /// Work on hosts, in order where `width` is smaller than their number.
    pub steps: Vec<Step>,
    /// Work on the cluster's objects, after all steps.
    pub objects: Vec<ObjectAction>,
    /// What must hold before the next stage, after the objects.
    pub gates: Vec<Gate>,
}

/// Work on one host and what must hold there afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where.
    pub host: HostName,
    /// What it touches.
    pub components: BTreeSet<Component>,
    /// What is done, in one staging stream and one activation.
    pub batch: Batch,
    /// What must hold before the step counts as done.
    pub gates: Vec<Gate>,
}

/// Actions of one activation on one host, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Vec<Action>);

/// One idempotent change on a host. Closed: `host/` runs each, `plan/show.rs` prints each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// The user and group exist with these numbers.
    EnsureUser(SystemUser),
    /// The folder exists with this access.
    EnsureDirectory(Directory),
    /// `path` holds exactly the content of `digest`, durably. Refused as drift unless the host's file is still
    /// `replaces` (none: absent) or already `digest`.
    PutFile {
        /// Where.
        path: RemotePath,
        /// New content.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// Mode and owner.
        access: Access,
        /// What was there when the plan was made.
        replaces: Option<Digest>,
        /// What was there is in no record: a copy is kept by digest first.
        foreign: bool,
        /// Where its content may not be shown.
        secret: bool,
    },
    /// Only mode or owner change.
    SetAccess {
        /// Where.
        path: RemotePath,
        /// Mode and owner.
        access: Access,
    },
    /// The file is gone. Refused as drift unless it still is `replaces`.
    RemoveFile {
        /// Where.
        path: RemotePath,
        /// What was there when the plan was made.
        replaces: Digest,
    },
    /// `systemctl daemon-reload`.
    ReloadUnits,
    /// The unit runs with these inputs.
    StartUnit {
        /// Which.
        name: UnitName,
        /// Kept on the host once it runs.
        inputs: Digest,
        /// How.
        effect: Effect,
        /// Restart although it runs.
        restart: bool,
    },
    /// The unit is stopped and disabled.
    StopUnit {
        /// Which.
        name: UnitName,
    },
    /// The image is in containerd, pinned, with this manifest digest.
    ImportImage {
        /// Name and tag.
        image: ImageRef,
        /// Manifest digest it must have afterwards.
        manifest: Digest,
        /// Archive to import.
        archive: Digest,
        /// The archive's size in bytes.
        size: u64,
    },
    /// Another etcd member leads, where this host's did and another could. Before a leader is restarted: an election takes
    /// seconds in which nothing can be written (design 11.11).
    YieldLeadership,
    /// Waits until the static pod runs with these inputs.
    AwaitPod {
        /// Pod name without the node's suffix: `etcd`.
        pod: String,
        /// Its inputs annotation.
        inputs: Digest,
    },
    /// Waits until no container of the static pod runs any more. Its manifest is gone by then.
    AwaitGone {
        /// Pod name without the node's suffix: `etcd`.
        pod: String,
    },
    /// etcd's data are what a database says, as a member of a new etcd cluster; what was there is kept aside.
    RestoreEtcd(EtcdRestore),
    /// What lies here of another etcd cluster than that of this token is kept aside, and nothing lies in its place: a member of
    /// the cluster's own begins there. What an earlier try began is removed.
    ClearEtcd {
        /// The token of the cluster that the member is to join.
        token: String,
        /// etcd's user.
        uid: u32,
        /// And group.
        gid: u32,
    },
    /// What [`Action::RestoreEtcd`] with this token kept aside is back in its place.
    ReturnEtcd {
        /// The token of the restore that is taken back.
        token: String,
    },
}

/// One member's new data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdRestore {
    /// `--initial-cluster-token` of the new cluster: a member of the old one never takes it for its own.
    pub token: String,
    /// This member's peer URL.
    pub peer: String,
    /// Every member of the new cluster: name to peer URL.
    pub members: BTreeMap<HostName, String>,
    /// The database, as etcd's snapshot or as a member's own file.
    pub database: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// How far above the database's own revisions those of the new cluster begin.
    pub leap: u64,
    /// etcd's image, which holds the program that does it.
    pub image: ImageRef,
    /// etcd's user.
    pub uid: u32,
    /// And group.
    pub gid: u32,
}

impl EtcdRestore {
    /// What distinguishes the data that the restore with `token` kept aside: `/var/lib/etcd.before-…`.
    pub fn mark(token: &str) -> &str {
        &token[token.len().saturating_sub(12)..]
    }
}

/// Work on an object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum ObjectAction {
    /// Server-side apply.
    Apply {
        /// Which.
        id: ObjectId,
        /// Blob with the object as JSON.
        digest: Digest,
        /// Whose.
        #[serde(flatten)]
        set: ObjectSet,
        /// `field (manager)` that is taken over by force.
        takes_over: Vec<String>,
        /// Fields that differ; empty for a new object.
        fields: Vec<String>,
    },
    /// Deleted because it left the desired set.
    Delete {
        /// Which.
        id: ObjectId,
        /// Although what others keep in it goes too (`--prune-data`).
        #[serde(default)]
        with_data: bool,
    },
    /// A node is deleted whose host is none of this cluster's: its kubelet made it, so that no mark of bastide's is on it.
    Forget {
        /// Which.
        node: HostName,
    },
    /// Labels and taints of a node that bastide owns.
    Node {
        /// Which.
        node: HostName,
        /// All labels that bastide owns.
        labels: BTreeMap<String, String>,
        /// All taints that bastide owns.
        taints: Vec<Taint>,
    },
}

/// A health condition, judged on the component itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "gate")]
pub enum Gate {
    /// That member answers `/health` and every member is started.
    EtcdMember {
        /// Which.
        host: HostName,
    },
    /// That API server's `/readyz` is ok.
    ApiServer {
        /// Which.
        host: HostName,
    },
    /// That controller manager's `/healthz` is ok.
    ControllerManager {
        /// Which.
        host: HostName,
    },
    /// That scheduler's `/healthz` is ok.
    Scheduler {
        /// Which.
        host: HostName,
    },
    /// That kubelet's `/healthz` is ok.
    Kubelet {
        /// Which.
        host: HostName,
    },
    /// That kube-proxy's `/livez` is ok: it could write the rules that it was to write.
    Proxy {
        /// Which.
        host: HostName,
    },
    /// An API server is ready behind that host's own balancer.
    Balancer {
        /// Which.
        host: HostName,
    },
    /// The Node is Ready with the host's present boot.
    NodeReady {
        /// Which.
        host: HostName,
    },
    /// Every Deployment and DaemonSet of the system set is rolled out.
    SystemWorkloads,
}

impl Gate {
    /// The host that it is about.
    pub fn host(&self) -> Option<&HostName> {
        match self {
            Self::EtcdMember { host }
            | Self::ApiServer { host }
            | Self::ControllerManager { host }
            | Self::Scheduler { host }
            | Self::Kubelet { host }
            | Self::Proxy { host }
            | Self::Balancer { host }
            | Self::NodeReady { host } => Some(host),
            Self::SystemWorkloads => None,
        }
    }
}
