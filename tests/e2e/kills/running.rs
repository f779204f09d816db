use std::io::BufRead as _;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::process::Stdio;
use std::time::Instant;

use anyhow::Result;
use serde_json::Value;
use socket2::SockRef;

use super::UP;
use super::kinds::Kind;
use crate::support::Cluster;
use crate::support::Ended;

/// A line of a run: on which host, and what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Said {
    pub(crate) host: Option<String>,
    pub(crate) message: String,
}

impl Said {
    pub(crate) fn read(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        Some(Self { host: line["host"].as_str().map(str::to_owned), message: line["message"].as_str()?.to_owned() })
    }
}

/// A run whose words are read as they come. It can't be more than some lines ahead of the reader: then it stands still until
/// they are read, so that it is where it says it is, however late the reader is.
pub(crate) struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<UnixStream>>,
    told: String,
}

impl Running {
    /// How far a run may be ahead: what the smallest buffer of a socket holds.
    pub(crate) const LEAD: usize = 4;

    pub(crate) fn start(cluster: &Cluster) -> Result<Self> {
        Self::with(cluster, &UP)
    }

    pub(crate) fn with(cluster: &Cluster, arguments: &[&str]) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        SockRef::from(&theirs).set_send_buffer_size(1)?;
        let child =
            cluster.command(arguments).stdout(Stdio::null()).stderr(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        Ok(Self { child, lines: BufReader::with_capacity(1, ours).lines(), told: String::new() })
    }

    /// Everything that it said so far.
    pub(crate) fn told(&self) -> &str {
        &self.told
    }

    /// Returns at the `nth` line that `wanted` knows, counted from 1; false where the run ended before.
    pub(crate) fn says(&mut self, nth: usize, mut wanted: impl FnMut(&Said) -> bool) -> Result<bool> {
        let mut left = nth;
        for line in self.lines.by_ref() {
            let line = line?;
            self.told.push_str(&line);
            self.told.push('\n');
            if Said::read(&line).is_some_and(|said| wanted(&said)) {
                left -= 1;
                if left == 0 {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Returns at the `nth` line of this kind.
    pub(crate) fn reaches(&mut self, kind: Kind, nth: usize) -> Result<bool> {
        self.says(nth, |said| Kind::of(&said.message) == Some(kind))
    }

    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        signal(self.child.id(), name)
    }

    /// Kills it while somebody else reads what it says. Only good until it was waited for.
    pub(crate) fn killer(&self) -> impl FnOnce() -> Result<()> + use<> {
        let id = self.child.id();
        move || signal(id, "KILL")
    }

    pub(crate) fn end(mut self) -> Result<Ended> {
        let start = Instant::now();
        self.says(usize::MAX, |_| false)?;
        let status = self.child.wait()?;
        Ok(Ended { code: status.code(), stdout: String::new(), stderr: self.told, took: start.elapsed() })
    }
}

fn signal(process: u32, name: &str) -> Result<()> {
    let status = std::process::Command::new("kill").args(["-s", name, &process.to_string()]).status()?;
    anyhow::ensure!(status.success(), "kill -s {name}: {status}");
    Ok(())
}
