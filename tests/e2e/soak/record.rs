//! What a part of the soak ran and how each case ended, a line each, for `cargo xtask soak` to make docs/faults.md of.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use serde_json::json;

/// Where a case belongs in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) kind: String,
    /// The host and its roles; empty for what is not on a host.
    pub(crate) host: String,
}

pub(crate) struct Record {
    file: Option<File>,
    until: Option<Instant>,
    run: usize,
    failed: usize,
}

impl Record {
    /// `BASTIDE_SOAK_RECORD` names the file, `BASTIDE_SOAK_MINUTES` the time after which no case is begun.
    pub(crate) fn open() -> Result<Self> {
        let file = match std::env::var_os("BASTIDE_SOAK_RECORD") {
            Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
            None => None,
        };
        let minutes = match std::env::var("BASTIDE_SOAK_MINUTES") {
            Ok(text) => Some(text.parse()?),
            Err(_) => None,
        };
        let until = minutes.map(|minutes: u64| Instant::now() + Duration::from_mins(minutes));
        Ok(Self { file, until, run: 0, failed: 0 })
    }

    /// How many cases there are, and what was found out about them before the first.
    pub(crate) fn exist(&mut self, cases: usize, note: &str) -> Result<()> {
        println!("{cases} cases; {note}");
        self.write(&json!({"exist": cases, "note": note}))
    }

    /// How much of the time is left; none where nothing bounds it.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn time_is_up(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Runs a case. What it fails with, or panics with, is written down and does not stop the others.
    pub(crate) fn case(&mut self, place: &Place, what: &str, case: impl FnOnce() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        let ended = caught(case);
        self.ended(place, what, start.elapsed(), ended)
    }

    /// Writes down how a case ended.
    pub(crate) fn ended(&mut self, place: &Place, what: &str, took: Duration, ended: Result<()>) -> Result<()> {
        let seconds = took.as_secs();
        let why = ended.err().map(|error| format!("{error:#}"));
        self.run += 1;
        self.failed += usize::from(why.is_some());
        println!("case {} after {seconds} s: {what}: {}", self.run, why.as_deref().unwrap_or("as promised"));
        let line = json!({"kind": place.kind, "host": place.host, "what": what, "why": why, "seconds": seconds});
        self.write(&line)
    }

    fn write(&mut self, line: &serde_json::Value) -> Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{line}")?;
            file.sync_all()?;
        }
        Ok(())
    }

    pub(crate) fn end(self) -> Result<()> {
        println!("{} cases, {} did not end as promised", self.run, self.failed);
        if self.failed > 0 {
            bail!("{} of {} cases did not end as promised", self.failed, self.run);
        }
        if self.run == 0 {
            bail!("no case was run");
        }
        Ok(())
    }
}

/// What it fails with, or panics with.
pub(crate) fn caught(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(anyhow!("{}", words(&*panic))))
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}
