//! One script on one session channel: becomes root, hands over script and payload, takes in what comes back.

use std::sync::Arc;
use std::time::Duration;

use russh::ChannelMsg;
use russh::ChannelWriteHalf;
use russh::Sig;
use russh::client::Msg;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::sleep_until;

use super::SshWire;
use super::feed;
use super::feed::End;
use super::feed::Pulse;
use super::intake::Intake;
use super::session::Refusal;
use super::session::Session;
use super::shell;
use super::shell::Mark;
use super::shell::Rise;
use crate::host::Call;
use crate::host::HostError;
use crate::host::Output;
use crate::host::Payload;

/// After the script's end, how long a process that it left behind may keep its output open.
const AFTER_END: Duration = Duration::from_secs(5);

/// A call in progress. Dropping it stops sending and closes the channel.
pub(super) struct Talk {
    pub(super) intake: Intake,
    session: Session,
    writer: Arc<ChannelWriteHalf<Msg>>,
    rise: Rise,
    deadline: Duration,
    pulse: Pulse,
    /// What is sent as soon as the script is sure to be the one that reads it.
    waiting: Option<(String, Payload, End)>,
    feed: Option<JoinHandle<()>>,
    /// Hears why the payload cannot be read. None as soon as the payload was read to its end.
    source: Option<oneshot::Receiver<String>>,
    accepted: bool,
    sudo_was_told: bool,
    status: Option<u32>,
}

/// What a step brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Something; go on.
    More,
    /// The end of the channel.
    Over,
}

/// Runs a script to its end.
pub(super) async fn run(wire: &SshWire, call: Call) -> Result<Output, HostError> {
    let mut talk = Talk::start(wire, call, End::OfFile).await?;
    while talk.step(wire).await? == Step::More {}
    let status = talk.finish(wire)?;
    let (stdout, stderr) = talk.intake.take_output();
    Ok(Output { status, stdout, stderr })
}

impl Talk {
    /// Opens a channel and starts the bootstrap.
    pub(super) async fn start(wire: &SshWire, call: Call, end: End) -> Result<Self, HostError> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| wire.failed("starting a script", "no random bytes"))?;
        let mark = Mark::new(random);
        let prelude = shell::prelude(&mark, call.script, &call.arguments)
            .ok_or_else(|| wire.failed("starting a script", "an argument holds a NUL byte"))?;
        let rise = wire.rise();
        let opening = call.deadline.min(wire.connect_timeout());
        let session = Session::open(&wire.connection, opening).await.map_err(|refusal| match refusal {
            Refusal::Lost => wire.lost("opening a channel"),
            Refusal::Refused(reason) => wire.failed("opening a channel", reason),
        })?;
        let mut talk = Self {
            intake: Intake::new(&mark),
            writer: session.writer(),
            session,
            rise,
            deadline: call.deadline,
            pulse: Pulse::new(),
            waiting: Some((prelude, call.payload, end)),
            feed: None,
            source: None,
            accepted: false,
            sudo_was_told: false,
            status: None,
        };
        talk.writer.exec(true, shell::command(rise, &mark)).await.map_err(|_| wire.lost("starting a script"))?;
        // Only a sudo that may ask could take what follows for a password.
        if rise == Rise::Root {
            talk.send();
        }
        Ok(talk)
    }

    /// Takes one message, and does what it calls for.
    pub(super) async fn step(&mut self, wire: &SshWire) -> Result<Step, HostError> {
        let message = match self.next(Some(self.patience(wire))).await {
            Ok(message) => message,
            // The script is over; what still holds its output is not it.
            Err(Stop::Silence) if self.status.is_some() => return Ok(Step::Over),
            Err(stop) => return Err(stop.explain(wire)),
        };
        self.take(wire, message).await
    }

    /// As [`Talk::step`], however long nothing comes.
    pub(super) async fn step_in_its_own_time(&mut self, wire: &SshWire) -> Result<Step, HostError> {
        match self.next(None).await {
            Ok(message) => self.take(wire, message).await,
            Err(stop) => Err(stop.explain(wire)),
        }
    }

    /// The script's status, when the channel is at its end.
    pub(super) fn finish(&self, wire: &SshWire) -> Result<u32, HostError> {
        match self.status {
            // sshd always tells how a process ended, unless sshd itself or the way there ended first.
            None => Err(wire.lost("running a script")),
            Some(status) if self.intake.begun() => Ok(status),
            Some(status) if self.rise == Rise::Root => Err(wire.failed(
                "starting /bin/sh",
                format!("the login shell ended with status {status}: {}", self.intake.complaint()),
            )),
            Some(_) => Err(wire.sudo(self.intake.complaint())),
        }
    }

    /// The sending side.
    pub(super) fn writer(&self) -> Arc<ChannelWriteHalf<Msg>> {
        Arc::clone(&self.writer)
    }

    /// When something last went either way.
    pub(super) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// The task that sends script and payload, once it was started.
    pub(super) fn take_feed(&mut self) -> Option<JoinHandle<()>> {
        self.feed.take()
    }

    fn patience(&self, wire: &SshWire) -> Duration {
        match (self.accepted, self.status) {
            // sshd answers `exec` by itself, so a frozen one is found out sooner than a slow script.
            (false, None) => self.deadline.min(wire.connect_timeout()),
            (true, None) => self.deadline,
            (_, Some(_)) => self.deadline.min(AFTER_END),
        }
    }

    /// The next message, or why there is no use in waiting for it.
    async fn next(&mut self, patience: Option<Duration>) -> Result<Option<ChannelMsg>, Stop> {
        loop {
            let until = patience.map(|patience| self.pulse.last() + patience);
            tokio::select! {
                message = self.session.next() => return Ok(message),
                reason = source_failure(&mut self.source) => return Err(Stop::Source(reason)),
                () = silence(until) => {
                    // Unless bytes of the payload went out meanwhile.
                    if patience.is_none_or(|patience| self.pulse.last() + patience <= Instant::now()) {
                        return Err(Stop::Silence);
                    }
                }
            }
        }
    }

    async fn take(&mut self, wire: &SshWire, message: Option<ChannelMsg>) -> Result<Step, HostError> {
        self.pulse.beat();
        match message {
            None => return Ok(Step::Over),
            Some(ChannelMsg::Success) => self.accepted = true,
            Some(ChannelMsg::Failure) => {
                return Err(wire.failed("starting a script", "sshd refuses to run commands"));
            }
            Some(ChannelMsg::Data { data }) => self.intake.stdout(&data),
            Some(ChannelMsg::ExtendedData { data, .. }) => self.intake.stderr(&data),
            Some(ChannelMsg::ExitStatus { exit_status }) => self.status = Some(exit_status),
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => self.status = Some(128 + number(&signal_name)),
            Some(_) => {}
        }
        if self.intake.begun() {
            self.send();
        } else if self.rise == Rise::Sudo {
            self.answer_sudo(wire).await?;
        }
        Ok(Step::More)
    }

    /// Starts to send script and payload; does nothing the second time.
    fn send(&mut self) {
        if let Some((prelude, payload, end)) = self.waiting.take() {
            let (failure, source) = oneshot::channel();
            self.source = Some(source);
            let feed = feed::send(self.writer(), prelude, payload, end, self.pulse.clone(), failure);
            self.feed = Some(tokio::spawn(feed));
        }
    }

    async fn answer_sudo(&mut self, wire: &SshWire) -> Result<(), HostError> {
        match self.intake.prompts() {
            0 => Ok(()),
            1 if self.sudo_was_told => Ok(()),
            1 => {
                self.sudo_was_told = true;
                let Some(password) = wire.sudo_password().await else {
                    return Err(wire.sudo("it asks for a password, and none is at hand".to_owned()));
                };
                // One line, whatever file it was read from.
                let mut line: Vec<u8> =
                    password.expose().iter().copied().take_while(|byte| !b"\r\n".contains(byte)).collect();
                line.push(b'\n');
                self.pulse.beat();
                self.writer.data_bytes(line).await.map_err(|_| wire.lost("answering sudo"))
            }
            // Every further prompt would swallow what is meant for the script.
            _ => Err(wire.sudo(format!("it does not take the password: {}", self.intake.complaint()))),
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // russh does not wake a writer that waits for window when the channel closes; waiting for it would be for ever.
        if let Some(feed) = &self.feed {
            feed.abort();
        }
    }
}

/// Why a message is not waited for any longer.
enum Stop {
    /// Nothing came and nothing went.
    Silence,
    /// The payload cannot be read, in words.
    Source(String),
}

impl Stop {
    fn explain(self, wire: &SshWire) -> HostError {
        match self {
            Self::Silence => wire.lost("running a script"),
            Self::Source(reason) => wire.failed("reading what is to be sent", reason),
        }
    }
}

/// Ends only when the payload could not be read.
async fn source_failure(source: &mut Option<oneshot::Receiver<String>>) -> String {
    if let Some(failure) = source {
        if let Ok(reason) = failure.await {
            *source = None;
            return reason;
        }
        *source = None;
    }
    std::future::pending().await
}

async fn silence(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Linux's numbers, as shells add them to 128.
fn number(signal: &Sig) -> u32 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        // sshd names only those above (RFC 4254, section 6.10).
        Sig::Custom(_) => 127,
    }
}
