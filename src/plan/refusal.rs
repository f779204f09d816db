//! Why there can't be a plan.

use crate::model::HostName;
use crate::model::KubeVersion;
use crate::model::RemotePath;
use crate::model::Squatter;

/// A reason not to begin. All of them are collected; nothing has been written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Another cluster's host.
    #[error("{host}: belongs to cluster {name} ({cluster}), not to this one")]
    OtherCluster {
        /// Where.
        host: HostName,
        /// Whose it is, for people.
        name: String,
        /// Whose it is.
        cluster: String,
    },
    /// A newer program has been at work there.
    #[error("{host}: its record has layout {schema}, which this version of bastide does not know")]
    NewerRecord {
        /// Where.
        host: HostName,
        /// The record's layout.
        schema: u32,
    },
    /// A live host of RKE v1.
    #[error(
        "{host}: RKE v1 runs here (container {container}); bastide does not take over a live RKE cluster: remove it \
         with `rke remove` first, or use another host"
    )]
    LiveRke {
        /// Where.
        host: HostName,
        /// One of its containers.
        container: String,
    },
    /// Somebody else's process.
    #[error("{host}: a process that bastide did not start runs here: {process}")]
    ForeignProcess {
        /// Where.
        host: HostName,
        /// Its name.
        process: String,
    },
    /// Somebody else's folder.
    #[error("{host}: {path} is not empty and bastide did not fill it")]
    ForeignFolder {
        /// Where.
        host: HostName,
        /// Which folder.
        path: RemotePath,
    },
    /// Somebody else's port.
    #[error("{host}: port {port} is taken")]
    TakenPort {
        /// Where.
        host: HostName,
        /// Which.
        port: u16,
    },
    /// A host that the cluster can't do without.
    #[error("{host}: does not answer ({reason}) and is {role}; bring it back, or leave it out with --without {host}")]
    Unreachable {
        /// Where.
        host: HostName,
        /// In words.
        reason: String,
        /// `a control-plane host`, `an etcd host`.
        role: &'static str,
    },
    /// `--without` where every member is needed.
    #[error("{host}: can't be left out while the cluster is being made; take it out of cluster.yml instead")]
    NeededAtBirth {
        /// Where.
        host: HostName,
    },
    /// `--without` with a name that isn't there.
    #[error("--without {host}: there is no such host in cluster.yml")]
    UnknownHost {
        /// As given.
        host: HostName,
    },
    /// Too few etcd members remain.
    #[error("etcd would have {running} of {members} members, and needs {quorum} to go on")]
    NoQuorum {
        /// That answer.
        running: usize,
        /// Of all.
        members: usize,
        /// Needed.
        quorum: usize,
    },
    /// No API server remains.
    #[error("no control-plane host answers")]
    NoControlPlane,
    /// A member would be restarted while another one is missing.
    #[error(
        "{host}: etcd can't be restarted here now: {running} of {members} members would be left, {quorum} are needed"
    )]
    RestartLosesQuorum {
        /// Where.
        host: HostName,
        /// That would be left.
        running: usize,
        /// Of all.
        members: usize,
        /// Needed.
        quorum: usize,
    },
    /// The kernel is too old.
    #[error("{host}: kernel {kernel} is older than {needed}")]
    Kernel {
        /// Where.
        host: HostName,
        /// As it says.
        kernel: String,
        /// At least.
        needed: &'static str,
    },
    /// No systemd.
    #[error("{host}: systemd does not run here")]
    NoSystemd {
        /// Where.
        host: HostName,
    },
    /// systemd is too old.
    #[error("{host}: systemd {version} is older than {needed}")]
    OldSystemd {
        /// Where.
        host: HostName,
        /// As it says.
        version: u32,
        /// At least.
        needed: u32,
    },
    /// The release is for another machine.
    #[error("{host}: is {architecture}, and the release is for {needed}")]
    Architecture {
        /// Where.
        host: HostName,
        /// As it says.
        architecture: String,
        /// The release's.
        needed: String,
    },
    /// Clocks disagree.
    #[error(
        "the clocks of {behind} and {ahead} are {seconds} s apart; at most {allowed} s are allowed: set up time synchronization"
    )]
    ClockSkew {
        /// The slowest.
        behind: HostName,
        /// The fastest.
        ahead: HostName,
        /// Apart.
        seconds: i64,
        /// At most.
        allowed: i64,
    },
    /// The disk is too small.
    #[error("{host}: {free} bytes are free under /var/lib, and {needed} are needed")]
    DiskSpace {
        /// Where.
        host: HostName,
        /// Free.
        free: u64,
        /// Needed.
        needed: u64,
    },
    /// A number that bastide needs belongs to somebody else.
    #[error("{host}: user number {uid} of {user} is taken by {holder}; choose another one under services.etcd")]
    TakenUid {
        /// Where.
        host: HostName,
        /// Whose number it should be.
        user: String,
        /// The number.
        uid: u32,
        /// Who has it.
        holder: String,
    },
    /// A name that bastide needs has another number.
    #[error(
        "{host}: user {user} exists with numbers {uid}:{gid} and not {wanted_uid}:{wanted_gid}; set them under services.etcd"
    )]
    OtherNumbers {
        /// Where.
        host: HostName,
        /// Which user.
        user: String,
        /// Its number.
        uid: u32,
        /// Its group's.
        gid: u32,
        /// What bastide needs.
        wanted_uid: u32,
        /// What bastide needs.
        wanted_gid: u32,
    },
    /// 11.7: the set of members changed.
    #[error("{host}: {change}; changing the hosts of etcd and the control plane is not supported yet")]
    Membership {
        /// Where.
        host: HostName,
        /// `would become an etcd member`.
        change: String,
    },
    /// 11.7: a node under another name.
    #[error("{new}: was called {old}; renaming a node is not supported yet")]
    Renamed {
        /// Before.
        old: HostName,
        /// Now.
        new: HostName,
    },
    /// 11.7: a node at another address.
    #[error("{host}: has the address {new} and had {old}; moving a node is not supported yet")]
    Moved {
        /// Where.
        host: HostName,
        /// Before.
        old: std::net::IpAddr,
        /// Now.
        new: std::net::IpAddr,
    },
    /// A worker left the file.
    #[error("{host}: is no longer in cluster.yml; taking a worker out of the cluster is not supported yet")]
    RemovedWorker {
        /// Where.
        host: HostName,
    },
    /// 11.7: another minor.
    #[error("the cluster runs {old}; going to {new} changes the minor version, which is not supported yet")]
    Minor {
        /// Before.
        old: KubeVersion,
        /// Now.
        new: KubeVersion,
    },
    /// A member that lost everything.
    #[error(
        "{host}: is {} of this cluster and holds nothing of it: it was installed anew; {}",
        if *etcd { "an etcd member" } else { "a control plane" },
        if *etcd { replaced(host) } else { "replacing one is not supported yet".to_owned() }
    )]
    Blank {
        /// Where.
        host: HostName,
        /// Whether it is an etcd member; else it is a control plane.
        etcd: bool,
    },
    /// A member that lost its data.
    #[error(
        "{host}: is an etcd member of this cluster and its data are gone: /var/lib/etcd holds no log; {}",
        replaced(host)
    )]
    LostData {
        /// Where.
        host: HostName,
    },
    /// The planner broke its own rules. Nothing was written.
    #[error("the plan would not be safe: {0}")]
    Unsafe(String),
}

/// What to do about a member without data.
fn replaced(host: &HostName) -> String {
    format!(
        "where a file system is only not mounted, mount it; else, while the other members go on, `bastide etcd rejoin {host}` \
         replaces this one without an outage, and until then --without {host} leaves it out"
    )
}

impl Refusal {
    /// What `squatter` on `host` is refused with.
    pub(super) fn squatter(host: &HostName, squatter: &Squatter) -> Self {
        let host = host.clone();
        match squatter {
            Squatter::Process(process) => Self::ForeignProcess { host, process: process.clone() },
            Squatter::RkeContainer(container) => Self::LiveRke { host, container: container.clone() },
            Squatter::Folder(path) => Self::ForeignFolder { host, path: path.clone() },
            Squatter::Port(port) => Self::TakenPort { host, port: *port },
        }
    }
}
