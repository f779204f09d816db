//! The host's lock: a script on the host that lives as long as it hears from here.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::host::Held;
use crate::host::HeldLock;
use crate::host::HostError;
use crate::host::parse;
use crate::model::HostName;
use crate::model::LockHolder;

/// How often the script hears from here; it lets go after 30 s of silence.
const BEAT: Duration = Duration::from_secs(5);
/// A reply that takes longer means that the lock can no longer be relied on. Less than the script's own 30 s: this side
/// stops before another run can begin.
const REPLY: Duration = Duration::from_secs(15);

/// A lock that is held. Dropping it lets go.
#[derive(Debug)]
pub struct MachineLock {
    lost: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl HeldLock for MachineLock {
    async fn lost(&mut self) {
        // The sender is gone only when the task is, and with it the lock.
        let _ = self.lost.wait_for(|lost| *lost).await;
    }
}

impl Drop for MachineLock {
    fn drop(&mut self) {
        // The task owns the channel; with it the script's stdin ends, and the script lets go.
        self.task.abort();
    }
}

/// Takes the lock over a running `lock.sh`.
pub(crate) async fn take<H: Held>(mut held: H, host: &HostName, holder: &LockHolder) -> Result<MachineLock, HostError> {
    let unreadable = |reason: String| HostError::Unreadable { host: host.clone(), reason };
    let json = serde_json::to_string(holder).map_err(|error| unreadable(error.to_string()))?;
    held.say(&json).await?;
    match held.hear().await?.as_deref() {
        Some("held") => {}
        Some("refused") => {
            let line = held.hear().await?.unwrap_or_default();
            // Between taking the lock and writing its name the holder is nobody yet.
            let unknown = || LockHolder {
                run: String::new(),
                who: "somebody".to_owned(),
                command: "unknown".to_owned(),
                since: holder.since,
            };
            let other = parse::holder(&line).map_err(unreadable)?.unwrap_or_else(unknown);
            return Err(HostError::Locked { host: host.clone(), holder: other });
        }
        Some(other) => return Err(unreadable(format!("the lock says {other:?}"))),
        None => return Err(HostError::Lost { host: host.clone(), doing: "taking the lock".to_owned() }),
    }
    let (sender, lost) = watch::channel(false);
    let task = tokio::spawn(async move {
        beat(&mut held).await;
        // Nobody listens any more when the lock was dropped.
        let _ = sender.send(true);
    });
    Ok(MachineLock { lost, task })
}

/// Keeps the lock alive; returns when it is lost.
async fn beat<H: Held>(held: &mut H) {
    loop {
        tokio::time::sleep(BEAT).await;
        if !matches!(timeout(REPLY, held.say("beat")).await, Ok(Ok(()))) {
            return;
        }
        match timeout(REPLY, held.hear()).await {
            Ok(Ok(Some(reply))) if reply == "beat" => {}
            _ => return,
        }
    }
}
