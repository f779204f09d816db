//! Why a command did not do what it was asked to. Hints and exit codes are `cli/error.rs`'s.

mod made;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

use self::words::blocked_words;
use self::words::holders;
use self::words::list;
use self::words::names;
use crate::api::ApiError;
use crate::api::probe::ProbeError;
use crate::apply::LockError;
use crate::apply::Report;
use crate::bucket::BucketError;
use crate::config::ConfigErrors;
use crate::host::HostError;
use crate::model::HostName;
use crate::model::KubeVersion;
use crate::model::LockHolder;
use crate::model::RevisionId;
use crate::model::SnapshotName;
use crate::plan::Refusal;
use crate::release::BundleError;
use crate::render::RenderErrors;
use crate::route::Blocked;
use crate::secrets::SecretsError;
use crate::store::StoreError;

/// A command that stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// A file of the operator's.
    #[error("{}: {source}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// There is none.
    #[error("there is no cluster file {}", path.display())]
    NoClusterFile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// cluster.yml.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// No source of programs and images.
    #[error("cluster.yml names no source of programs and images")]
    NoArtifacts,
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle is for another version.
    #[error("{} holds Kubernetes {found}, and the cluster is to run {wanted}", bundle.display())]
    OtherRelease {
        /// Its folder.
        bundle: PathBuf,
        /// What it holds.
        found: KubeVersion,
        /// What the file asks for.
        wanted: KubeVersion,
    },
    /// What the file asks for can't be rendered.
    #[error(transparent)]
    Render(#[from] RenderErrors),
    /// Keys and certificates.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The state folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An environment variable that cluster.yml names.
    #[error("the environment variable {name} is not set")]
    NoVariable {
        /// Which.
        name: String,
    },
    /// A file or variable that should hold a passphrase is empty.
    #[error("the passphrase that bastide.state names is empty")]
    NoPassphrase,
    /// Hosts that answered wrongly.
    #[error("{}", list(.0))]
    Hosts(Vec<HostError>),
    /// Every reason not to begin.
    #[error("{}", list(.0))]
    Refused(Vec<Refusal>),
    /// A run that died before its first revision, or a plan that was saved, made the state.
    #[error("{} holds no revision of this cluster yet", folder.display())]
    NothingBegun {
        /// The state folder.
        folder: PathBuf,
    },
    /// Hosts whose keys do not make a whole.
    #[error("the cluster cannot be taken over from its hosts, and nothing was changed:\n{}", reasons.join("\n"))]
    NotTakenOver {
        /// One sentence each.
        reasons: Vec<String>,
    },
    /// Hosts carry a cluster, and the state that made it is not here.
    #[error("{} carry cluster {name}, and its state is not in {}", names(hosts), folder.display())]
    StateMissing {
        /// Which hosts.
        hosts: Vec<HostName>,
        /// The cluster's name in the hosts' records.
        name: String,
        /// Where the state should be.
        folder: PathBuf,
    },
    /// Hosts know a revision that the state lacks.
    #[error(
        "{} know revision {revision} of this cluster, which the state in {} lacks: it is an older copy",
        names(hosts), folder.display()
    )]
    StateOlder {
        /// Which hosts.
        hosts: Vec<HostName>,
        /// The newest of these revisions.
        revision: RevisionId,
        /// Where the state is.
        folder: PathBuf,
    },
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The API server.
    #[error(transparent)]
    Api(Box<ApiError>),
    /// Nobody can be asked.
    #[error("nobody can be asked here: {what}")]
    Unasked {
        /// What would have been asked, and the option that answers it.
        what: &'static str,
    },
    /// `--prune-data` names what is not about to go.
    #[error(
        "--prune-data {name}: nothing of that name has left cluster.yml and is still there (a namespace, definition or volume, as \
         KIND/NAME or KIND/NAMESPACE/NAME)"
    )]
    NothingToPrune {
        /// As written.
        name: String,
    },
    /// Somebody wanted to stop while nothing was under way.
    #[error("interrupted before the next step; nothing more was changed")]
    Interrupted,
    /// The answer was no.
    #[error("not confirmed; nothing was changed")]
    Declined,
    /// The name did not match.
    #[error("{given:?} is not the cluster's name, {name:?}; nothing was changed")]
    OtherName {
        /// As given.
        given: String,
        /// As in the file.
        name: String,
    },
    /// Hosts changed between the plan and the lock.
    #[error("the hosts changed after the plan was made; nothing was changed")]
    Moved,
    /// A saved plan that is not for this.
    #[error("{}: {reason}", path.display())]
    SavedPlan {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The run stopped; its report says where.
    #[error("stopped{}", .0.stopped_in.as_ref().map(|stage| format!(" in stage \"{stage}\"")).unwrap_or_default())]
    Stopped(Box<Report>),
    /// Somebody else may have been at work meanwhile.
    #[error("the lock was lost: {}", holders(hosts))]
    LockLost {
        /// Hosts that this run had locked, and who holds each now.
        hosts: BTreeMap<HostName, Option<LockHolder>>,
        /// By what it was noticed.
        cause: Box<Self>,
    },
    /// A change made a component ill and was taken back.
    #[error("the change was taken back: the cluster is at revision {to} again, and well")]
    TakenBack {
        /// How the change failed.
        report: Box<Report>,
        /// Where the cluster is.
        to: RevisionId,
    },
    /// No way leads there.
    #[error("no way leads from revision {from} back to revision {to}: {}", blocked_words(blocked))]
    NoWayBack {
        /// What was reached last.
        from: RevisionId,
        /// What was asked for.
        to: RevisionId,
        /// What is in the way.
        blocked: Box<Blocked>,
        /// The snapshot that leads past it.
        past: Option<SnapshotName>,
    },
    /// A revision that hosts never were at.
    #[error("revision {revision} was never reached: it is no place to go back to")]
    NeverReached {
        /// Which.
        revision: RevisionId,
    },
    /// The first revision has none before it.
    #[error("revision {revision} is the first one: there is nothing before it")]
    NothingBefore {
        /// Which.
        revision: RevisionId,
    },
    /// No run has come to its end yet.
    #[error("no revision of this cluster was reached yet: there is nothing to go back to")]
    NothingReached,
    /// A run that did not come to its end stands in the way of one that does something else.
    #[error("revision {revision} ({command}) was begun and not reached")]
    Unfinished {
        /// Which.
        revision: RevisionId,
        /// What made it.
        command: String,
    },
    /// A part of the certificates of a cluster that stands still because they have ended.
    #[error(
        "{}: certificates have ended that this would leave as they are, and no API server answers: what is renewed would wait in \
         vain for the rest, so only the whole can be revived; nothing was changed",
        names(hosts)
    )]
    AllEnded {
        /// Where.
        hosts: Vec<HostName>,
    },
    /// Certificates that were brought along and cannot be used.
    #[error("the certificates in {} cannot be used, and nothing was changed:\n{}", folder.display(), misfits.join("\n"))]
    Misfits {
        /// Where they lie.
        folder: PathBuf,
        /// `file: field: what is wrong`.
        misfits: Vec<String>,
    },
    /// Programs or images that nobody has.
    #[error(
        "the target needs what is neither on the hosts nor in the bundle:\n{}", missing.join("\n")
    )]
    OutOfReach {
        /// `host: what`.
        missing: Vec<String>,
    },
    /// Everything was done, and yet the hosts are not as they should be.
    #[error("everything was done, and yet the hosts are not seen at the target:\n{0}")]
    NotReached(String),
    /// A snapshot that cannot be made or is not believed.
    #[error("{what}: {source}")]
    Snapshot {
        /// Which, and where it lies.
        what: String,
        /// What is wrong with it.
        source: Box<crate::snapshot::SnapshotError>,
    },
    /// An etcd member that cannot be asked.
    #[error("{host}: etcd: {source}")]
    Etcd {
        /// Its host.
        host: HostName,
        /// What came back.
        source: Box<ProbeError>,
    },
    /// The bucket that cluster.yml names.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A restore was begun and has not come to its end.
    #[error(
        "{} was begun on this cluster and has not come to its end (revision {revision}: {why})",
        if *joins { "a member's joining etcd" } else { "a restore of etcd" }
    )]
    RestoreUnfinished {
        /// Its newest revision.
        revision: RevisionId,
        /// What is restored.
        why: String,
        /// Whether it is only a member that joins a restore that is over.
        joins: bool,
    },
    /// etcd's members stay as they are.
    #[error("etcd: {what}: {}", reasons.join("; "))]
    Membership {
        /// What was to be changed.
        what: &'static str,
        /// Everything that speaks against it.
        reasons: Vec<String>,
    },
    /// A learner that is not to get its vote.
    #[error(
        "{host}: its etcd got no further towards what the others hold for {} s: {reason}",
        patience.as_secs()
    )]
    NeverCaughtUp {
        /// Where.
        host: HostName,
        /// How long it was waited for without progress.
        patience: std::time::Duration,
        /// What was said last.
        reason: String,
    },
    /// Hosts that were away during a restore.
    #[error(
        "{}: what lies there of etcd's data is not the cluster's: etcd has gone on without since revision {revision}",
        names(hosts)
    )]
    DataBeforeRestore {
        /// Which.
        hosts: Vec<HostName>,
        /// The restore.
        revision: RevisionId,
    },
    /// A database that is not one, or not whole.
    #[error("{}: {reason}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// API servers that do not work with the encryption configuration on their hosts.
    #[error("not every API server works with the encryption keys that lie on its host; nothing more was changed:\n{}", reasons.join("\n"))]
    KeysNotLoaded {
        /// `host: why`.
        reasons: Vec<String>,
    },
    /// A snapshot that nobody could read.
    #[error("{snapshot}: holds what the API servers could not read with the encryption configuration that they would get:\n{}", keys.join("\n"))]
    KeysOfThen {
        /// Which.
        snapshot: String,
        /// `resource: key`.
        keys: Vec<String>,
    },
    /// Objects that only a key can read that was to be dropped.
    #[error("{count} objects still need an encryption key that was to be dropped, and no key was dropped:\n{}", some.join("\n"))]
    KeyNeeded {
        /// How many.
        count: usize,
        /// The first of them, and what was said of each.
        some: Vec<String>,
    },
    /// Parts of the cluster do not work with the authorities or token keys that lie on its hosts.
    #[error("not every part of the cluster works with the authorities and keys that lie on its hosts; nothing more was changed:\n{}", reasons.join("\n"))]
    TrustNotSettled {
        /// One sentence each.
        reasons: Vec<String>,
    },
    /// Hosts that a leg cannot do without.
    #[error("{leg}: this needs {}, which do not answer or have missed the leg before", names(hosts))]
    HostsAway {
        /// What the leg does.
        leg: String,
        /// Which.
        hosts: Vec<HostName>,
    },
    /// Pods that would be cut off.
    #[error("pods still hold what is to be believed no more, and nothing was changed in this leg:\n{}", pods.join("\n"))]
    PodsHoldOn {
        /// Which, and of what.
        pods: Vec<String>,
    },
    /// Tokens that the old key signed may still be in use.
    #[error("tokens that the old key signed may still be in use{}; nothing was changed in this leg", until.as_ref().map(|time| format!(" until {time}")).unwrap_or_default())]
    TokensLive {
        /// From when on none is; none where nothing bounds their lives.
        until: Option<String>,
    },
    /// Tokens in Secrets that the old key signed.
    #[error("these hold tokens without an end that the old key signed, and the key was not dropped:\n{}", secrets.join("\n"))]
    TokensHeld {
        /// Which.
        secrets: Vec<String>,
    },
    /// A change in several legs was interrupted where nothing was under way.
    #[error("interrupted between two legs: the one before is whole, and the next one was not begun")]
    BetweenLegs,
    /// No host can do what was asked.
    #[error("{0}")]
    Impossible(String),
}
