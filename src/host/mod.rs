//! THE ONLY DOOR TO A MACHINE.
//!
//! Enters: typed work. Leaves: what was seen or done. Never decides what should be.

mod archive;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod here;
mod lock;
mod machine;
mod manifest;
mod parse;
mod recover;
mod snapshots;
pub mod ssh;
mod wire;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

pub use error::HostError;
pub use here::Here;
pub use lock::MachineLock;
pub use machine::Machine;
pub use recover::LogChange;
pub use recover::Recovered;
pub use recover::Survivor;
pub use snapshots::RestoredEtcd;
pub use snapshots::SnapshotFile;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
pub use wire::Call;
pub use wire::Channels;
pub use wire::Held;
pub use wire::Output;
pub use wire::Payload;
pub use wire::Wire;

use crate::model::Batch;
use crate::model::Content;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::LockHolder;
use crate::model::ObservedHost;
use crate::model::RemotePath;
use crate::model::Scope;

/// Where connections begin.
pub trait Dial: Send + Sync + 'static {
    /// A TCP stream that starts there.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// A TCP connection from there to `address:port`.
    fn dial(&self, address: &str, port: u16) -> impl Future<Output = Result<Self::Stream, HostError>> + Send;
}

/// One machine. Every verb is idempotent and states its postcondition.
pub trait Host: Dial {
    /// A held lock; dropping it lets go.
    type Lock: HeldLock;

    /// The node's name.
    fn name(&self) -> &HostName;
    /// What is at `scope`, and at every path of the host's own record, now. Never contents, but for a seeded file's first
    /// certificate. One session channel.
    fn observe(&self, scope: &Scope) -> impl Future<Output = Result<ObservedHost, HostError>> + Send;
    /// Afterwards every action of the batch holds and the record is `work.after`; after an error some actions may hold,
    /// each wholly or not at all, and the record is `work.before` with `complete: false`. Two session channels at most.
    fn perform(&self, work: Work<'_>) -> impl Future<Output = Result<(), HostError>> + Send;
    /// Puts the sealed state copy and the record onto the host, durably, in this order.
    fn keep_state(
        &self,
        sealed: &Content,
        record: &HostRecord,
        run: &str,
    ) -> impl Future<Output = Result<(), HostError>> + Send;
    /// The sealed state copy, where there is one.
    fn fetch_state(&self) -> impl Future<Output = Result<Option<Content>, HostError>> + Send;
    /// What these files hold, of those that are there and not larger than 1 MiB. Some may be secret: whoever shows what was read
    /// here knows that it is not.
    fn read(
        &self,
        paths: &BTreeSet<RemotePath>,
    ) -> impl Future<Output = Result<BTreeMap<RemotePath, Content>, HostError>> + Send;
    /// Takes the host's lock, or says who has it. The lock ends when the value is dropped, when the connection dies, or
    /// after 30 s without a heartbeat (which the value sends by itself). `perform`, `keep_state` and `erase` refuse with
    /// [`HostError::LockLost`] on a host whose lock their run does not hold: every host that is written to is locked,
    /// workers too.
    fn lock(&self, holder: &LockHolder) -> impl Future<Output = Result<Self::Lock, HostError>> + Send;
    /// The last lines that a static pod's newest container or, where `pod` ends in `.service`, a unit wrote.
    fn last_words(&self, pod: &str) -> impl Future<Output = Result<String, HostError>> + Send;
    /// Removes everything that the record names and the traces of running pods; with `purge` also snapshots. Afterwards
    /// there is no record.
    fn erase(&self, run: &str, purge: bool) -> impl Future<Output = Result<(), HostError>> + Send;
    /// Channels opened so far.
    fn channels(&self) -> Channels;
}

/// A lock that is held on a host.
pub trait HeldLock: Send + 'static {
    /// Ends when the lock is gone: the holder on the host ended, or the connection died. Waits for ever while it is held.
    fn lost(&mut self) -> impl Future<Output = ()> + Send;
}

/// One activation.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// What to do, in order.
    pub batch: &'a Batch,
    /// Where the bytes of its digests come from; shared, because a stream outlives the call that started it.
    pub contents: &'a Arc<dyn Contents>,
    /// The record while the work is being done (`complete: false`, listing everything that may be written).
    pub before: &'a HostRecord,
    /// The record when it is done.
    pub after: &'a HostRecord,
    /// The run's id: the script stops when the host's lock is no longer held by it.
    pub run: &'a str,
    /// Longest silence before the work counts as dead.
    pub transfer_deadline: Duration,
    /// How long one pod or unit may take to come up.
    pub health_deadline: Duration,
    /// Told of each action as it begins.
    pub progress: &'a dyn Progress,
}

/// Bytes by digest: rendered blobs and the bundle's files.
pub trait Contents: Send + Sync + 'static {
    /// Opens the content with this digest. The reader ends after exactly the content's bytes.
    fn open(&self, digest: &Digest) -> std::io::Result<Box<dyn Read + Send>>;
}

/// Hears what goes on.
pub trait Progress: Send + Sync {
    /// `host` now does `what`, in words for people.
    fn doing(&self, host: &HostName, what: &str);
    /// Likewise, for one of many small things (a file, a folder) that only matter to those who want to see everything.
    fn detail(&self, host: &HostName, what: &str) {
        self.doing(host, what);
    }
    /// `host`, or the cluster as a whole, now waits for `what`, beside what it waits for already.
    fn waiting(&self, host: Option<&HostName>, what: &str) {
        match host {
            Some(host) => self.doing(host, &format!("waits for {what}")),
            None => self.cluster(&format!("waits for {what}")),
        }
    }
    /// It waits for that no longer.
    fn waited(&self, _host: Option<&HostName>, _what: &str) {}
    /// `host` has done its part of the stage.
    fn done(&self, _host: &HostName) {}
    /// The stage will not come to its end.
    fn broke(&self) {}
    /// `host` has sent `bytes` more.
    fn sent(&self, host: &HostName, bytes: u64);
    /// The run now works on these hosts under this title.
    fn stage(&self, _title: &str, _hosts: &[HostName]) {}
    /// Likewise, for what is done to the cluster as a whole and not on a host: an object is written, workloads are waited for.
    fn cluster(&self, _what: &str) {}
}
