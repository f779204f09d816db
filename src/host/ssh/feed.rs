//! Sends a script and its payload, as fast as the far end takes it and in constant memory.

use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;

use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::resources::locked;
use crate::host::Payload;

/// What is read from a payload at once, and how many of these may wait for the network.
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 8;

/// What follows the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// End of file.
    OfFile,
    /// More, later.
    Open,
}

/// When something last went either way.
#[derive(Clone)]
pub(super) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
    pub(super) fn beat(&self) {
        *locked(&self.0) = Instant::now();
    }
    pub(super) fn last(&self) -> Instant {
        *locked(&self.0)
    }
}

/// Sends all of it. Ends early, without a word, when the far end is gone: the reading side knows more about that. When the
/// payload itself cannot be read, `failure` is told why, and no end of file is sent: the script must not take half for all.
pub(super) async fn send(
    writer: Arc<ChannelWriteHalf<Msg>>,
    prelude: String,
    payload: Payload,
    end: End,
    pulse: Pulse,
    failure: oneshot::Sender<String>,
) {
    let sent = async {
        writer.data_bytes(prelude.into_bytes()).await?;
        match payload {
            Payload::None => {}
            Payload::Bytes(content) => {
                for chunk in content.expose().chunks(CHUNK) {
                    writer.data_bytes(chunk.to_vec()).await?;
                    pulse.beat();
                }
            }
            Payload::Stream(reader) => {
                let mut chunks = read(reader);
                while let Some(chunk) = chunks.recv().await {
                    match chunk {
                        Ok(chunk) => writer.data_bytes(chunk).await?,
                        Err(reason) => {
                            let _ = failure.send(reason);
                            return Ok(());
                        }
                    }
                    pulse.beat();
                }
            }
        }
        match end {
            End::OfFile => writer.eof().await,
            End::Open => Ok(()),
        }
    };
    if let Err(error) = sent.await {
        tracing::debug!(%error, "the far end takes no more");
    }
}

/// Reads on a thread that may block. It ends when the receiver is dropped.
fn read(mut reader: Box<dyn Read + Send>) -> mpsc::Receiver<Result<Vec<u8>, String>> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut chunk = vec![0; CHUNK];
            let chunk = match reader.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    chunk.truncate(count);
                    Ok(chunk)
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error.to_string()),
            };
            let last = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || last {
                return;
            }
        }
    });
    receiver
}
