//! What takes how long.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;

/// Does one part of a task and says how long it took.
pub(crate) fn phase<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {title}");
    let start = Instant::now();
    let done = work().with_context(|| title.to_owned());
    let verdict = if done.is_ok() { "done" } else { "FAILED" };
    eprintln!("==> {title}: {verdict} in {}", seconds(start.elapsed()));
    done
}

/// A duration for people: `4.2 s`, `3 min 05 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}
