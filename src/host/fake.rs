//! A machine in memory, for the tests of the rooms above: it can be inspected, and it can lose power at its n-th write.
#![allow(dead_code, clippy::unwrap_used)]

mod act;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::DuplexStream;

use crate::host::Channels;
use crate::host::Contents;
use crate::host::Dial;
use crate::host::HeldLock;
use crate::host::Host;
use crate::host::HostError;
use crate::host::Progress;
use crate::host::Work;
use crate::model::Access;
use crate::model::Blobs;
use crate::model::Content;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::ImageRef;
use crate::model::LockHolder;
use crate::model::ObservedFile;
use crate::model::ObservedHost;
use crate::model::ObservedUnit;
use crate::model::RemotePath;
use crate::model::Scope;
use crate::model::UnitName;

/// What is on the machine. Every field may be set and read by a test.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeState {
    pub(crate) facts: ObservedHost,
    pub(crate) files: BTreeMap<RemotePath, (Content, Access)>,
    pub(crate) directories: BTreeMap<RemotePath, Access>,
    pub(crate) units: BTreeMap<UnitName, ObservedUnit>,
    pub(crate) users: BTreeMap<String, (u32, u32)>,
    pub(crate) images: BTreeMap<ImageRef, Digest>,
    pub(crate) pods: BTreeMap<String, Option<Digest>>,
    pub(crate) foreign: BTreeMap<Digest, Content>,
    pub(crate) record: Option<HostRecord>,
    pub(crate) sealed: Option<Content>,
    pub(crate) lock: Option<LockHolder>,
    /// Everything that was written so far, in words, in order.
    pub(crate) writes: Vec<String>,
    /// The write with this number (the first is 1) and all that follow do not happen: the power is gone.
    pub(crate) fail_at: Option<usize>,
    /// Nothing answers.
    pub(crate) unreachable: bool,
    /// Session channels a real connection would have opened.
    pub(crate) sessions: u32,
    /// What listens, by port.
    pub(crate) servers: BTreeMap<u16, Server>,
}

/// Takes the other end of every connection.
#[derive(Clone)]
pub(crate) struct Server(pub(crate) Arc<dyn Fn(DuplexStream) + Send + Sync>);

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

/// See the file's head. Clones share the machine.
#[derive(Debug, Clone)]
pub(crate) struct FakeHost {
    name: HostName,
    state: Arc<Mutex<FakeState>>,
}

/// Lets go when dropped.
#[derive(Debug)]
pub(crate) struct FakeLock {
    state: Arc<Mutex<FakeState>>,
    run: String,
}

impl HeldLock for FakeLock {
    async fn lost(&mut self) {
        while !self.is_lost() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl FakeLock {
    fn is_lost(&self) -> bool {
        guard(&self.state).lock.as_ref().is_none_or(|holder| holder.run != self.run)
    }
}

impl Drop for FakeLock {
    fn drop(&mut self) {
        if !self.is_lost() {
            guard(&self.state).lock = None;
        }
    }
}

fn guard(state: &Mutex<FakeState>) -> MutexGuard<'_, FakeState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeHost {
    /// A bare machine.
    pub(crate) fn new(name: &str) -> Self {
        let facts = ObservedHost {
            os: "debian 13".to_owned(),
            kernel: "6.12.0".to_owned(),
            architecture: "x86_64".to_owned(),
            hostname: name.to_owned(),
            boot_id: format!("boot-of-{name}"),
            clock: 1_800_000_000,
            systemd: 257,
            cgroup_v2: true,
            swap: false,
            free_bytes: 64 << 30,
            ..ObservedHost::default()
        };
        let state = FakeState { facts, ..FakeState::default() };
        Self { name: HostName::new(name).unwrap(), state: Arc::new(Mutex::new(state)) }
    }
    /// The machine, to look at or to change.
    pub(crate) fn state(&self) -> MutexGuard<'_, FakeState> {
        guard(&self.state)
    }

    fn reach(&self) -> Result<MutexGuard<'_, FakeState>, HostError> {
        let mut state = self.state();
        if state.unreachable {
            let reason = "no answer".to_owned();
            return Err(HostError::Connect { host: self.name.clone(), reason });
        }
        state.sessions += 1;
        Ok(state)
    }
    fn holds(&self, state: &FakeState, run: &str) -> Result<(), HostError> {
        match &state.lock {
            Some(holder) if holder.run == run => Ok(()),
            _ => Err(HostError::LockLost { host: self.name.clone() }),
        }
    }
    /// Counts a write, or says that the power is gone.
    fn write(&self, state: &mut FakeState, what: String) -> Result<(), HostError> {
        if state.fail_at.is_some_and(|at| state.writes.len() + 1 >= at) {
            return Err(HostError::Lost { host: self.name.clone(), doing: what });
        }
        state.writes.push(what);
        Ok(())
    }
    fn failed(&self, doing: &str, reason: &str) -> HostError {
        HostError::Failed { host: self.name.clone(), doing: doing.to_owned(), reason: reason.to_owned() }
    }
}

impl Dial for FakeHost {
    type Stream = DuplexStream;

    async fn dial(&self, address: &str, port: u16) -> Result<DuplexStream, HostError> {
        let server = self.reach()?.servers.get(&port).cloned();
        let refused = || HostError::Refused { host: self.name.clone(), target: format!("{address}:{port}") };
        let (near, far) = tokio::io::duplex(1 << 16);
        server.ok_or_else(refused)?.0(far);
        Ok(near)
    }
}

impl Host for FakeHost {
    type Lock = FakeLock;

    fn name(&self) -> &HostName {
        &self.name
    }

    async fn observe(&self, scope: &Scope) -> Result<ObservedHost, HostError> {
        let state = self.reach()?;
        let recorded = state.record.iter().flat_map(|record| record.files.keys());
        let wanted: BTreeSet<_> = scope.files.iter().chain(&scope.seeded).chain(recorded).collect();
        let files = wanted.into_iter().filter_map(|path| {
            let (content, access) = state.files.get(path)?;
            let certificate = scope.seeded.contains(path).then(|| content.expose_text().map(str::to_owned)).flatten();
            let file = ObservedFile { digest: Digest::of(content.expose()), access: *access, certificate };
            Some((path.clone(), file))
        });
        let directories = scope.directories.iter();
        let units = scope.units.iter();
        let users = scope.users.iter();
        Ok(ObservedHost {
            files: files.collect(),
            directories: directories.filter_map(|path| Some((path.clone(), *state.directories.get(path)?))).collect(),
            units: units.filter_map(|unit| Some((unit.clone(), state.units.get(unit)?.clone()))).collect(),
            users: users.filter_map(|user| Some((user.clone(), *state.users.get(user)?))).collect(),
            images: state.images.clone(),
            pods: state.pods.clone(),
            record: state.record.clone(),
            lock: state.lock.clone(),
            ..state.facts.clone()
        })
    }

    async fn perform(&self, work: Work<'_>) -> Result<(), HostError> {
        let mut state = self.reach()?;
        state.sessions += 1;
        self.holds(&state, work.run)?;
        self.write(&mut state, "record before".to_owned())?;
        state.record = Some(work.before.clone());
        for action in &work.batch.0 {
            work.progress.doing(&self.name, &format!("{action:?}"));
            self.act(&mut state, action, work.contents.as_ref())?;
        }
        self.write(&mut state, "record after".to_owned())?;
        state.record = Some(work.after.clone());
        Ok(())
    }

    async fn keep_state(&self, sealed: &Content, record: &HostRecord, run: &str) -> Result<(), HostError> {
        let mut state = self.reach()?;
        self.holds(&state, run)?;
        self.write(&mut state, "sealed state".to_owned())?;
        state.sealed = Some(sealed.clone());
        self.write(&mut state, "record".to_owned())?;
        state.record = Some(record.clone());
        Ok(())
    }

    async fn fetch_state(&self) -> Result<Option<Content>, HostError> {
        Ok(self.reach()?.sealed.clone())
    }

    async fn read(&self, paths: &BTreeSet<RemotePath>) -> Result<BTreeMap<RemotePath, Content>, HostError> {
        let state = self.reach()?;
        let found = paths.iter().filter_map(|path| Some((path.clone(), state.files.get(path)?.0.clone())));
        Ok(found.collect())
    }

    async fn lock(&self, holder: &LockHolder) -> Result<FakeLock, HostError> {
        let mut state = self.reach()?;
        if let Some(other) = &state.lock {
            return Err(HostError::Locked { host: self.name.clone(), holder: other.clone() });
        }
        state.lock = Some(holder.clone());
        Ok(FakeLock { state: Arc::clone(&self.state), run: holder.run.clone() })
    }

    async fn last_words(&self, pod: &str) -> Result<String, HostError> {
        drop(self.reach()?);
        Ok(format!("last words of {pod}"))
    }

    async fn erase(&self, run: &str, _purge: bool) -> Result<(), HostError> {
        let mut state = self.reach()?;
        self.holds(&state, run)?;
        self.write(&mut state, "erase".to_owned())?;
        let record = state.record.take();
        for path in record.iter().flat_map(|record| record.files.keys()) {
            state.files.remove(path);
        }
        for path in record.iter().flat_map(|record| &record.directories) {
            state.directories.remove(path);
        }
        for unit in record.iter().flat_map(|record| &record.units) {
            state.units.remove(unit);
        }
        for user in record.iter().flat_map(|record| &record.users) {
            state.users.remove(user);
        }
        state.images.clear();
        state.pods.clear();
        state.sealed = None;
        Ok(())
    }

    fn channels(&self) -> Channels {
        Channels { sessions: self.state().sessions, forwards: 0 }
    }
}

/// Blobs as contents.
impl Contents for Blobs {
    fn open(&self, digest: &Digest) -> std::io::Result<Box<dyn Read + Send>> {
        let content = self.get(digest).ok_or_else(|| std::io::Error::other(format!("no content {digest}")))?;
        Ok(Box::new(std::io::Cursor::new(content.expose().to_vec())))
    }
}

/// Progress nobody listens to.
pub(crate) struct Silence;

impl Progress for Silence {
    fn doing(&self, _host: &HostName, _what: &str) {}
    fn sent(&self, _host: &HostName, _bytes: u64) {}
}

/// Work with deadlines that tests can live with.
pub(crate) fn work<'a>(
    batch: &'a crate::model::Batch,
    contents: &'a Arc<dyn Contents>,
    records: (&'a HostRecord, &'a HostRecord),
    run: &'a str,
) -> Work<'a> {
    Work {
        batch,
        contents,
        before: records.0,
        after: records.1,
        run,
        transfer_deadline: Duration::from_secs(30),
        health_deadline: Duration::from_secs(30),
        progress: &Silence,
    }
}

#[cfg(test)]
mod tests;
