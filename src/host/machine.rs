//! A Linux host with systemd, a POSIX shell and coreutils, behind any [`Wire`].
//!
//! Every verb is one fixed script (`scripts/*.sh`); data are its arguments or lines on its stdin, never part of its text.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use crate::host::Call;
use crate::host::Channels;
use crate::host::Dial;
use crate::host::Held;
use crate::host::Host;
use crate::host::HostError;
use crate::host::Output;
use crate::host::Payload;
use crate::host::Wire;
use crate::host::Work;
use crate::host::archive::Archive;
use crate::host::archive::Watch;
use crate::host::lock;
use crate::host::lock::MachineLock;
use crate::host::manifest;
use crate::host::manifest::record_text;
use crate::host::parse;
use crate::model::Content;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::LockHolder;
use crate::model::ObservedHost;
use crate::model::RemotePath;
use crate::model::Scope;

macro_rules! script {
    ($($name:literal),+) => { concat!($(include_str!(concat!("scripts/", $name, ".sh"))),+) };
}

const OBSERVE: &str = script!("common", "observe");
const PERFORM: &str = script!("common", "work", "words", "etcd", "perform");
const LOCK: &str = script!("common", "lock");
const KEEP_STATE: &str = script!("common", "work", "keep_state");
const FETCH_STATE: &str = script!("common", "fetch_state");
const READ: &str = script!("common", "read");
const LAST_WORDS: &str = script!("common", "words", "last_words");
const ERASE: &str = script!("common", "work", "erase");

/// How often the bytes sent so far are told.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// One machine over `W`.
#[derive(Debug)]
pub struct Machine<W> {
    name: HostName,
    wire: W,
    silence: Duration,
}

impl<W: Wire> Machine<W> {
    /// The machine at the far end of `wire`, whose node name is `name`. `silence` is the longest time without an answer to
    /// anything short; work has its own deadlines.
    pub fn new(name: HostName, wire: W, silence: Duration) -> Self {
        Self { name, wire, silence }
    }

    /// The connection itself.
    pub fn wire(&self) -> &W {
        &self.wire
    }

    fn call(&self, script: &'static str, arguments: Vec<String>, payload: Payload) -> Call {
        Call { script, arguments, payload, deadline: self.silence }
    }
    pub(super) fn failed(&self, doing: &str, reason: impl Into<String>) -> HostError {
        HostError::Failed { host: self.name.clone(), doing: doing.to_owned(), reason: reason.into() }
    }
    /// Run ids and cluster ids stand in command lines and are compared by the scripts.
    pub(super) fn plain<'a>(&self, doing: &str, word: &'a str) -> Result<&'a str, HostError> {
        let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if plain { Ok(word) } else { Err(self.failed(doing, format!("{word:?} cannot name a run or a cluster"))) }
    }
    /// What a script that tells its own errors said, or that it died.
    pub(super) fn told(&self, doing: &str, output: &Output) -> Result<(), HostError> {
        let text = String::from_utf8_lossy(&output.stdout);
        let mut story = Story::default();
        for line in text.lines() {
            story.hear(line);
        }
        if story.done && output.status == 0 {
            return Ok(());
        }
        let complaints = String::from_utf8_lossy(&output.stderr);
        let silent = format!("the script ended with status {}: {}", output.status, complaints.trim());
        Err(story.error(&self.name, |_| doing.to_owned()).unwrap_or_else(|| self.failed(doing, silent)))
    }
    fn archive(
        &self,
        doing: &str,
        files: Vec<(&str, Vec<u8>)>,
        work: Option<(&Work<'_>, &manifest::Manifest)>,
    ) -> Result<Archive, HostError> {
        let (blobs, contents) = match work {
            Some((work, manifest)) => (manifest.blobs.clone(), Some(work.contents.clone())),
            None => Default::default(),
        };
        Archive::new(files, blobs, contents).map_err(|error| self.failed(doing, error.to_string()))
    }

    /// Hears a working script to its end, and tells of each action.
    async fn follow(&self, held: &mut W::Held, work: &Work<'_>, watch: &Watch) -> Result<(), HostError> {
        let words = |at: usize| match at.checked_sub(1).and_then(|at| work.batch.0.get(at)) {
            Some(action) => manifest::describe(action),
            None => "preparing the work".to_owned(),
        };
        let mut story = Story::default();
        loop {
            let heard = {
                let mut hear = pin!(held.hear());
                loop {
                    tokio::select! {
                        heard = &mut hear => break heard,
                        () = tokio::time::sleep(TOLD_EVERY) => self.tell(work, watch),
                    }
                }
            };
            self.tell(work, watch);
            match heard {
                Ok(Some(line)) => {
                    if let Some(at) = story.hear(&line) {
                        let small =
                            at.checked_sub(1).and_then(|at| work.batch.0.get(at)).is_some_and(manifest::is_small);
                        if small {
                            work.progress.detail(&self.name, &words(at));
                        } else {
                            work.progress.doing(&self.name, &words(at));
                        }
                    }
                }
                ended => {
                    // Whatever broke the archive off on this side is the cause of all that follows.
                    if let Some(error) = watch.take_error() {
                        return Err(self.failed("sending the files", error));
                    }
                    ended?;
                    break;
                }
            }
        }
        if story.done {
            return Ok(());
        }
        let doing = words(story.at);
        Err(story.error(&self.name, words).unwrap_or_else(|| self.failed(&doing, "the script was killed")))
    }
    fn tell(&self, work: &Work<'_>, watch: &Watch) {
        let sent = watch.take_sent();
        if sent > 0 {
            work.progress.sent(&self.name, sent);
        }
    }
}

impl<W: Wire> Dial for Machine<W> {
    type Stream = W::Stream;

    async fn dial(&self, address: &str, port: u16) -> Result<W::Stream, HostError> {
        self.wire.dial(address, port).await
    }
}

impl<W: Wire> Host for Machine<W> {
    type Lock = MachineLock;

    fn name(&self) -> &HostName {
        &self.name
    }

    async fn observe(&self, scope: &Scope) -> Result<ObservedHost, HostError> {
        let payload = Payload::Bytes(Content::new(parse::scope_text(scope)));
        // A containerd that hangs is named long before the connection would count as dead: after a minute by default.
        let patience = (self.silence / 10).as_secs().max(5);
        let output = self.wire.exec(self.call(OBSERVE, vec![patience.to_string()], payload)).await?;
        parse::observed(&self.name, scope, &output.stdout).map_err(|reason| {
            let complaints = String::from_utf8_lossy(&output.stderr);
            let complaints: String = complaints.trim().chars().take(500).collect();
            let reason = if complaints.is_empty() { reason } else { format!("{reason} ({complaints})") };
            HostError::Unreadable { host: self.name.clone(), reason }
        })
    }

    async fn perform(&self, work: Work<'_>) -> Result<(), HostError> {
        let doing = "preparing the work";
        let failed = |reason: String| self.failed(doing, reason);
        let lines = manifest::manifest(work.batch, &self.name, work.health_deadline).map_err(failed)?;
        let files = vec![
            ("manifest", lines.text.clone().into_bytes()),
            ("before", record_text(work.before).map_err(failed)?),
            ("after", record_text(work.after).map_err(failed)?),
        ];
        let archive = self.archive(doing, files, Some((&work, &lines)))?;
        let watch = archive.watch();
        let arguments = vec![
            self.plain(doing, work.run)?.to_owned(),
            archive.size().to_string(),
            self.plain(doing, &work.before.cluster.0)?.to_owned(),
        ];
        let payload = Payload::Stream(Box::new(archive));
        let mut held =
            self.wire.hold(Call { script: PERFORM, arguments, payload, deadline: work.transfer_deadline }).await?;
        self.follow(&mut held, &work, &watch).await
    }

    async fn keep_state(&self, sealed: &Content, record: &HostRecord, run: &str) -> Result<(), HostError> {
        let doing = "keeping the sealed state";
        let files = vec![
            ("state", sealed.expose().to_vec()),
            ("record", record_text(record).map_err(|reason| self.failed(doing, reason))?),
        ];
        let archive = self.archive(doing, files, None)?;
        let arguments = vec![
            self.plain(doing, run)?.to_owned(),
            archive.size().to_string(),
            self.plain(doing, &record.cluster.0)?.to_owned(),
        ];
        let output = self.wire.exec(self.call(KEEP_STATE, arguments, Payload::Stream(Box::new(archive)))).await?;
        self.told(doing, &output)
    }

    async fn fetch_state(&self) -> Result<Option<Content>, HostError> {
        let output = self.wire.exec(self.call(FETCH_STATE, Vec::new(), Payload::None)).await?;
        match (output.status, output.stdout.as_slice()) {
            (0, b"none\n") => Ok(None),
            (0, [b's', b't', b'a', b't', b'e', b'\n', sealed @ ..]) => Ok(Some(Content::new(sealed))),
            _ => {
                let reason = "the sealed state could not be read".to_owned();
                Err(HostError::Unreadable { host: self.name.clone(), reason })
            }
        }
    }

    async fn read(&self, paths: &BTreeSet<RemotePath>) -> Result<BTreeMap<RemotePath, Content>, HostError> {
        let mut asked: String = paths.iter().map(|path| format!("{path}\n")).collect();
        asked.push_str("end\n");
        let output = self.wire.exec(self.call(READ, Vec::new(), Payload::Bytes(Content::new(asked)))).await?;
        // Keys may be among it: wiped when this returns.
        let stdout = Content::new(output.stdout);
        parse::contents(stdout.expose()).ok_or_else(|| HostError::Unreadable {
            host: self.name.clone(),
            reason: "the files did not come whole".to_owned(),
        })
    }

    async fn lock(&self, holder: &LockHolder) -> Result<MachineLock, HostError> {
        let run = self.plain("taking the lock", &holder.run)?.to_owned();
        let held = self.wire.hold(self.call(LOCK, vec![run], Payload::None)).await?;
        lock::take(held, &self.name, holder).await
    }

    async fn last_words(&self, pod: &str) -> Result<String, HostError> {
        let doing = "reading the last words";
        let name = if pod.ends_with(".service") {
            crate::model::UnitName::new(pod).map(|unit| unit.to_string()).map_err(|error| error.to_string())
        } else {
            manifest::pod_name(pod, &self.name)
        };
        let name = name.map_err(|reason| self.failed(doing, reason))?;
        let output = self.wire.exec(self.call(LAST_WORDS, vec![name], Payload::None)).await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn erase(&self, run: &str, purge: bool) -> Result<(), HostError> {
        let doing = "removing what bastide made";
        let arguments = vec![self.plain(doing, run)?.to_owned(), u8::from(purge).to_string()];
        let output = self.wire.exec(self.call(ERASE, arguments, Payload::None)).await?;
        self.told(doing, &output)
    }

    fn channels(&self) -> Channels {
        self.wire.channels()
    }
}

/// What a working script tells, line by line: `do N`, `tick`, `done`, or `fail KIND N WORDS`, `| LINE`..., `end`.
#[derive(Default)]
struct Story {
    at: usize,
    done: bool,
    failure: Option<(String, String)>,
}

impl Story {
    /// The number of the action that begins, where the line says so.
    fn hear(&mut self, line: &str) -> Option<usize> {
        if let Some(at) = line.strip_prefix("do ").and_then(|at| at.parse().ok()) {
            self.at = at;
            return Some(at);
        }
        if line == "done" {
            self.done = true;
        } else if let Some(rest) = line.strip_prefix("fail ") {
            let mut fields = rest.splitn(3, ' ');
            let kind = fields.next().unwrap_or_default().to_owned();
            match fields.next().and_then(|at| at.parse().ok()) {
                Some(0) | None => {}
                Some(at) => self.at = at,
            }
            self.failure = Some((kind, fields.next().unwrap_or_default().to_owned()));
        } else if let (Some(quoted), Some((_, words))) = (line.strip_prefix("| "), &mut self.failure) {
            words.push('\n');
            words.push_str(quoted);
        }
        None
    }
    fn error(self, host: &HostName, words: impl Fn(usize) -> String) -> Option<HostError> {
        let (kind, reason) = self.failure?;
        let host = host.clone();
        let doing = words(self.at);
        Some(match (kind.as_str(), RemotePath::new(reason.as_str())) {
            ("lock", _) => HostError::LockLost { host },
            ("drift", Ok(path)) => HostError::Drift { host, path },
            _ => HostError::Failed { host, doing, reason },
        })
    }
}
