//! A host of the test bed, a wire into it without ssh, and builders.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bastide::host::Call;
use bastide::host::Channels;
use bastide::host::Contents;
use bastide::host::Held;
use bastide::host::Host as _;
use bastide::host::HostError;
use bastide::host::Machine;
use bastide::host::MachineLock;
use bastide::host::Output;
use bastide::host::Payload;
use bastide::host::Progress;
use bastide::host::Wire;
use bastide::host::Work;
use bastide::model::Access;
use bastide::model::Action;
use bastide::model::Batch;
use bastide::model::Blobs;
use bastide::model::ClusterId;
use bastide::model::Content;
use bastide::model::Digest;
use bastide::model::HostName;
use bastide::model::HostRecord;
use bastide::model::LockHolder;
use bastide::model::ObservedHost;
use bastide::model::RemotePath;
use bastide::model::RevisionId;
use bastide::model::Scope;
use bed::Bed;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::io::DuplexStream;
use tokio::process::Child;
use tokio::process::Command;
use tokio::sync::mpsc;

pub(crate) fn boot() -> Bed {
    Bed::boot(&["h1"]).unwrap()
}

pub(crate) fn machine(bed: &Bed) -> Machine<LocalWire> {
    machine_with(bed, &["/bin/sh"])
}

/// What `/bin/sh` is on hosts of the RHEL and SUSE families, and on Flatcar.
pub(crate) fn machine_with_bash(bed: &Bed) -> Machine<LocalWire> {
    machine_with(bed, &["/bin/bash", "--posix"])
}

fn machine_with(bed: &Bed, shell: &'static [&'static str]) -> Machine<LocalWire> {
    Machine::new(HostName::new("h1").unwrap(), LocalWire::new(bed, shell), Duration::from_mins(1))
}

/// Runs scripts inside the host's namespaces.
#[derive(Debug, Clone)]
pub(crate) struct LocalWire {
    pid_file: std::path::PathBuf,
    shell: &'static [&'static str],
    sessions: Arc<AtomicU32>,
    /// What is said to held scripts is lost.
    pub(crate) mute: Arc<AtomicBool>,
    /// Whoever sends stands still.
    pub(crate) stall: Arc<AtomicBool>,
    /// Process on this machine of the newest script.
    pub(crate) newest: Arc<Mutex<Option<u32>>>,
}

impl LocalWire {
    pub(crate) fn new(bed: &Bed, shell: &'static [&'static str]) -> Self {
        let pid_file = bed.folder().join("h1/pid");
        Self {
            pid_file,
            shell,
            sessions: Arc::default(),
            mute: Arc::default(),
            stall: Arc::default(),
            newest: Arc::default(),
        }
    }
    fn spawn(&self, call: &Call) -> Child {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let pid = fs::read_to_string(&self.pid_file).unwrap();
        let child = Command::new("nsenter")
            .args(["-t", pid.trim(), "-m", "-u", "-i", "-n", "-p", "--"])
            .args(self.shell)
            .args(["-c", call.script, "sh"])
            .args(&call.arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        *self.newest.lock().unwrap() = child.id();
        child
    }
    /// Kills the newest script where it stands, but not what it started.
    pub(crate) fn kill_newest(&self) {
        let nsenter = self.newest.lock().unwrap().unwrap();
        let children = fs::read_to_string(format!("/proc/{nsenter}/task/{nsenter}/children")).unwrap_or_default();
        for child in children.split_whitespace() {
            // It may have ended meanwhile.
            _ = std::process::Command::new("kill").args(["-9", child]).status();
        }
    }
}

async fn feed(payload: Payload, stdin: &mut tokio::process::ChildStdin, stall: &AtomicBool) {
    let mut reader: Box<dyn Read + Send> = match payload {
        Payload::None => return,
        Payload::Bytes(content) => Box::new(std::io::Cursor::new(content.expose().to_vec())),
        Payload::Stream(reader) => reader,
    };
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = reader.read(&mut buffer) {
        if stdin.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        while stall.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Wire for LocalWire {
    type Stream = DuplexStream;
    type Held = LocalHeld;

    async fn exec(&self, call: Call) -> Result<Output, HostError> {
        let mut child = self.spawn(&call);
        let mut stdin = child.stdin.take().unwrap();
        let stall = Arc::clone(&self.stall);
        let feeding = tokio::spawn(async move { feed(call.payload, &mut stdin, &stall).await });
        let output = child.wait_with_output().await.unwrap();
        feeding.abort();
        let status = output.status.code().map_or(255, |code| u32::try_from(code).unwrap());
        Ok(Output { status, stdout: output.stdout, stderr: output.stderr })
    }

    async fn hold(&self, call: Call) -> Result<LocalHeld, HostError> {
        let mut child = self.spawn(&call);
        let mut stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut complaints = BufReader::new(child.stderr.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = complaints.next_line().await {
                eprintln!("stderr: {line}");
            }
        });
        let (say, mut said) = mpsc::unbounded_channel::<String>();
        let stall = Arc::clone(&self.stall);
        tokio::spawn(async move {
            feed(call.payload, &mut stdin, &stall).await;
            while let Some(line) = said.recv().await {
                if stdin.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        Ok(LocalHeld { say, lines, mute: Arc::clone(&self.mute), _child: child })
    }

    async fn dial(&self, address: &str, port: u16) -> Result<DuplexStream, HostError> {
        Err(HostError::Refused { host: HostName::new("h1").unwrap(), target: format!("{address}:{port}") })
    }

    fn channels(&self) -> Channels {
        Channels { sessions: self.sessions.load(Ordering::Relaxed), forwards: 0 }
    }
}

pub(crate) struct LocalHeld {
    say: mpsc::UnboundedSender<String>,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    mute: Arc<AtomicBool>,
    _child: Child,
}

impl Drop for LocalHeld {
    fn drop(&mut self) {
        // As after a connection that died without a word: the host does not see the end.
        if self.mute.load(Ordering::Relaxed) {
            std::mem::forget(self.say.clone());
        }
    }
}

impl Held for LocalHeld {
    async fn say(&mut self, line: &str) -> Result<(), HostError> {
        // A script that has ended is noticed by the next `hear`.
        if !self.mute.load(Ordering::Relaxed) {
            _ = self.say.send(line.to_owned());
        }
        Ok(())
    }
    async fn hear(&mut self) -> Result<Option<String>, HostError> {
        Ok(self.lines.next_line().await.unwrap())
    }
}

/// Contents in memory.
#[derive(Default)]
pub(crate) struct Store(pub(crate) Blobs);

impl Contents for Store {
    fn open(&self, digest: &Digest) -> std::io::Result<Box<dyn Read + Send>> {
        let content = self.0.get(digest).ok_or_else(|| std::io::Error::other("no such content"))?;
        Ok(Box::new(std::io::Cursor::new(content.expose().to_vec())))
    }
}

/// What was told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) doing: Mutex<Vec<String>>,
    pub(crate) sent: Mutex<u64>,
}

impl Progress for Told {
    fn doing(&self, _host: &HostName, what: &str) {
        self.doing.lock().unwrap().push(what.to_owned());
    }
    fn sent(&self, _host: &HostName, bytes: u64) {
        *self.sent.lock().unwrap() += bytes;
    }
}

pub(crate) fn path(text: &str) -> RemotePath {
    RemotePath::new(text).unwrap()
}

pub(crate) fn holder(run: &str) -> LockHolder {
    LockHolder { run: run.to_owned(), who: "ada@desk".to_owned(), command: "up".to_owned(), since: 1_800_000_000 }
}

pub(crate) fn record(complete: bool, paths: &[(&str, Digest)]) -> HostRecord {
    HostRecord {
        schema: 1,
        cluster: ClusterId("c".repeat(32)),
        cluster_name: "demo".to_owned(),
        revision: RevisionId { number: 1, nonce: "0".repeat(16) },
        parent: None,
        complete,
        files: paths.iter().map(|(text, digest)| (path(text), *digest)).collect(),
        directories: BTreeSet::new(),
        units: BTreeSet::new(),
        users: BTreeSet::new(),
        images: BTreeMap::new(),
    }
}

/// Work in the making: actions and the contents they name.
pub(crate) struct Job {
    pub(crate) actions: Vec<Action>,
    pub(crate) store: Store,
    pub(crate) record: Option<HostRecord>,
    pub(crate) health: Duration,
}

impl Default for Job {
    fn default() -> Self {
        Self { actions: Vec::new(), store: Store::default(), record: None, health: Duration::from_mins(1) }
    }
}

impl Job {
    pub(crate) fn put(self, to: &str, content: impl Into<Vec<u8>>) -> Self {
        self.replace(to, content, None, false)
    }
    pub(crate) fn replace(
        mut self,
        to: &str,
        content: impl Into<Vec<u8>>,
        replaces: Option<Digest>,
        foreign: bool,
    ) -> Self {
        let content = Content::new(content.into());
        let size = content.len() as u64;
        let digest = self.store.0.insert(content);
        let access = Access::root(0o640);
        self.actions.push(Action::PutFile { path: path(to), digest, size, access, replaces, foreign, secret: false });
        self
    }
    pub(crate) fn then(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }
    pub(crate) fn recorded(mut self, record: HostRecord) -> Self {
        self.record = Some(record);
        self
    }
    pub(crate) async fn perform(self, machine: &Machine<LocalWire>, run: &str) -> (Result<(), HostError>, Told) {
        let told = Told::default();
        let written = self.actions.iter().filter_map(|action| match action {
            Action::PutFile { path, digest, .. } => Some((path.clone(), *digest)),
            _ => None,
        });
        let mut after = self.record.unwrap_or_else(|| record(true, &[]));
        after.files.extend(written);
        let before = HostRecord { complete: false, ..after.clone() };
        let contents: Arc<dyn Contents> = Arc::new(self.store);
        let work = Work {
            batch: &Batch(self.actions),
            contents: &contents,
            before: &before,
            after: &after,
            run,
            transfer_deadline: Duration::from_mins(1),
            health_deadline: self.health,
            progress: &told,
        };
        let result = machine.perform(work).await;
        (result, told)
    }
}

pub(crate) async fn locked(machine: &Machine<LocalWire>, run: &str) -> MachineLock {
    machine.lock(&holder(run)).await.unwrap()
}

pub(crate) async fn see(machine: &Machine<LocalWire>, files: &[&str]) -> ObservedHost {
    let scope = Scope { files: files.iter().map(|text| path(text)).collect(), ..Scope::default() };
    machine.observe(&scope).await.unwrap()
}

/// `perform`'s deadline is generous: what hangs is ended here.
pub(crate) async fn within<T>(seconds: u64, what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), what).await.unwrap_or_else(|_| panic!("not within {seconds} s"))
}

/// Returns when the call to be held was made.
pub(crate) async fn reached(points: &bed::Points) {
    while !points.reached() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
