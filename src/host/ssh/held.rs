//! A script that goes on while it is talked to.

use std::sync::Arc;
use std::time::Duration;

use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::sleep_until;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use super::SshWire;
use super::feed::End;
use super::feed::Pulse;
use super::talk::Step;
use super::talk::Talk;
use crate::host::Call;
use crate::host::Held;
use crate::host::HostError;

/// Lines that nobody has heard yet; more are thrown away, because a full channel would stop the connection.
const LINES: usize = 4096;
/// A longer line is cut.
const LINE: usize = 64 << 10;

/// A script on a session channel of its own. Dropping it closes the channel: the script reads end of file.
pub struct SshHeld {
    wire: SshWire,
    writer: Arc<ChannelWriteHalf<Msg>>,
    feed: Option<JoinHandle<()>>,
    lines: mpsc::Receiver<Result<String, HostError>>,
    deadline: Duration,
    pulse: Pulse,
    over: CancellationToken,
    _open: DropGuard,
}

/// Starts a script, and returns when it runs as root.
pub(super) async fn hold(wire: &SshWire, call: Call) -> Result<SshHeld, HostError> {
    let deadline = call.deadline;
    let mut talk = Talk::start(wire, call, End::Open).await?;
    while !talk.intake.begun() {
        if talk.step(wire).await? == Step::Over {
            talk.finish(wire)?;
            return Err(wire.lost("starting a script"));
        }
    }
    let (sender, lines) = mpsc::channel(LINES);
    let (writer, feed) = (talk.writer(), talk.take_feed());
    let (open, over) = (CancellationToken::new(), CancellationToken::new());
    let held = SshHeld {
        wire: wire.clone(),
        writer,
        feed,
        lines,
        deadline,
        pulse: talk.pulse(),
        over: over.clone(),
        _open: open.clone().drop_guard(),
    };
    let wire = wire.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = listen(&mut talk, &wire, &sender) => {}
            () = open.cancelled() => {}
        }
        over.cancel();
    });
    Ok(held)
}

/// Takes in everything as it comes, until the end.
async fn listen(talk: &mut Talk, wire: &SshWire, sender: &mpsc::Sender<Result<String, HostError>>) {
    let mut rest = Vec::new();
    let end = loop {
        rest.extend_from_slice(&talk.intake.drain_stdout());
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=at).collect();
            let _ = sender.try_send(Ok(String::from_utf8_lossy(&line[..at]).into_owned()));
        }
        rest.truncate(LINE);
        match talk.step_in_its_own_time(wire).await {
            Ok(Step::More) => {}
            Ok(Step::Over) => break talk.finish(wire).map(drop),
            Err(error) => break Err(error),
        }
    };
    if !rest.is_empty() {
        let _ = sender.try_send(Ok(String::from_utf8_lossy(&rest).into_owned()));
    }
    if let Err(error) = end {
        let _ = sender.send(Err(error)).await;
    }
}

impl Held for SshHeld {
    async fn say(&mut self, line: &str) -> Result<(), HostError> {
        let mut bytes = line.as_bytes().to_vec();
        bytes.push(b'\n');
        let sending = async {
            // The script itself goes before the first word to it.
            if let Some(feed) = &mut self.feed {
                let _ = feed.await;
                self.feed = None;
            }
            self.writer.data_bytes(bytes).await.is_ok()
        };
        tokio::pin!(sending);
        let begun = Instant::now();
        let sent = loop {
            let until = self.pulse.last().max(begun) + self.deadline;
            tokio::select! {
                biased;
                // russh takes bytes for a closed channel without a word.
                () = self.over.cancelled() => break false,
                sent = &mut sending => break sent,
                // Unless the payload before it is still on its way.
                () = sleep_until(until) => {
                    if self.pulse.last() + self.deadline <= Instant::now() {
                        break false;
                    }
                }
            }
        };
        if sent {
            self.pulse.beat();
        }
        if sent { Ok(()) } else { Err(self.wire.lost("talking to a script")) }
    }

    async fn hear(&mut self) -> Result<Option<String>, HostError> {
        // The silence of a time when nobody listened does not count.
        let begun = Instant::now();
        loop {
            let until = self.pulse.last().max(begun) + self.deadline;
            match timeout_at(until, self.lines.recv()).await {
                Ok(Some(Ok(line))) => return Ok(Some(line)),
                Ok(Some(Err(error))) => return Err(error),
                Ok(None) => return Ok(None),
                // Bytes of the payload went out meanwhile.
                Err(_) if self.pulse.last() + self.deadline > Instant::now() => {}
                Err(_) => return Err(self.wire.lost("listening to a script")),
            }
        }
    }
}
