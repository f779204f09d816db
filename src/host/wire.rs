//! `Wire`: what a host needs from its connection. `ssh/` is the real one; tests run scripts in a local shell instead.

use std::future::Future;
use std::io::Read;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;

use crate::host::HostError;
use crate::model::Content;

/// An open connection to one host, good for many calls at once.
pub trait Wire: Send + Sync + 'static {
    /// A TCP stream that starts at the host.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A running script that is fed and read line by line.
    type Held: Held;

    /// Runs a script as root to its end. One session channel.
    fn exec(&self, call: Call) -> impl Future<Output = Result<Output, HostError>> + Send;
    /// Starts a script as root and keeps talking to it. One session channel for as long as it lives. The payload is sent
    /// in the background while the script can already be heard; stdin then stays open for [`Held::say`] until the value
    /// is dropped (a script that must know the payload's end is told its length). Silence beyond the deadline is an error
    /// of `hear`.
    fn hold(&self, call: Call) -> impl Future<Output = Result<Self::Held, HostError>> + Send;
    /// Opens a TCP connection from the host to `address:port` (`direct-tcpip`; no session channel).
    fn dial(&self, address: &str, port: u16) -> impl Future<Output = Result<Self::Stream, HostError>> + Send;
    /// How many session channels and how many direct-tcpip channels were opened so far.
    fn channels(&self) -> Channels;
}

/// A script that runs for a while.
pub trait Held: Send + 'static {
    /// Sends one line to its stdin.
    fn say(&mut self, line: &str) -> impl Future<Output = Result<(), HostError>> + Send;
    /// The next line of its stdout; none when it ended.
    fn hear(&mut self) -> impl Future<Output = Result<Option<String>, HostError>> + Send;
}

/// One script run. Nothing secret may stand in `script` or `arguments`: both can be seen in the host's process list.
pub struct Call {
    /// POSIX sh, run as root with `arguments` as `$1…`; its stdin is the payload.
    pub script: &'static str,
    /// Positional parameters; quoted by the wire.
    pub arguments: Vec<String>,
    /// What the script reads from stdin.
    pub payload: Payload,
    /// Longest time without any byte in either direction and without the end.
    pub deadline: Duration,
}

/// What a script reads from its stdin.
pub enum Payload {
    /// End of file at once.
    None,
    /// These bytes.
    Bytes(Content),
    /// As many bytes as the reader gives; read in a blocking task, never held in memory as a whole.
    Stream(Box<dyn Read + Send>),
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status; a signal is 128 plus its number.
    pub status: u32,
    /// Everything it printed (at most 64 MiB are kept).
    pub stdout: Vec<u8>,
    /// Everything it complained about (at most 64 KiB are kept).
    pub stderr: Vec<u8>,
}

/// Counters for the proof that a no-op is cheap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Channels {
    /// Session channels: each is a process on the host.
    pub sessions: u32,
    /// direct-tcpip channels.
    pub forwards: u32,
}
