//! A session channel that is always taken back: read to its end or closed, and only then is its place free.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::ChannelMsg;
use russh::ChannelOpenFailure;
use russh::ChannelReadHalf;
use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tokio::time::timeout;

use super::connection::Connection;

/// Somebody else's sessions may have filled `MaxSessions`; they end.
const TRIES: u32 = 6;
/// How long a script that was given up may take to end, before its channel is closed under it.
const ENDING: Duration = Duration::from_secs(2);

/// An open session channel.
pub(super) struct Session {
    parts: Option<Parts>,
    writer: Arc<ChannelWriteHalf<Msg>>,
}

struct Parts {
    reader: ChannelReadHalf,
    place: OwnedSemaphorePermit,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The connection is gone, or did not answer in time.
    Lost,
    /// sshd says no, in words.
    Refused(String),
}

impl Session {
    /// Opens one as soon as there is a place for it.
    pub(super) async fn open(connection: &Connection, deadline: Duration) -> Result<Self, Refusal> {
        let places = Arc::clone(&connection.places);
        let place = places.acquire_owned().await.map_err(|_| Refusal::Lost)?;
        let mut pause = Duration::from_millis(50);
        for attempt in 1.. {
            match timeout(deadline, connection.handle.channel_open_session()).await {
                Ok(Ok(channel)) => {
                    connection.sessions.fetch_add(1, Ordering::Relaxed);
                    let (reader, writer) = channel.split();
                    return Ok(Self { parts: Some(Parts { reader, place }), writer: Arc::new(writer) });
                }
                // What sshd answers at MaxSessions; the connection stays usable.
                Ok(Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed))) if attempt < TRIES => {
                    sleep(pause).await;
                    pause *= 2;
                }
                Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
                    return Err(Refusal::Refused(format!("{reason:?} (sshd's MaxSessions may be too low)")));
                }
                Ok(Err(_)) | Err(_) => return Err(Refusal::Lost),
            }
        }
        Err(Refusal::Lost)
    }

    /// What came next; none at the end. Must be called until then, or the whole connection stands still.
    pub(super) async fn next(&mut self) -> Option<ChannelMsg> {
        match &mut self.parts {
            Some(parts) => parts.reader.wait().await,
            None => None,
        }
    }

    /// The sending side.
    pub(super) fn writer(&self) -> Arc<ChannelWriteHalf<Msg>> {
        Arc::clone(&self.writer)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let writer = self.writer();
        let (Some(Parts { mut reader, place }), Ok(runtime)) =
            (self.parts.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            let over = timeout(ENDING, async {
                // Harmless where the far end has closed already. sshd refuses signals to root's processes, so an end of file is
                // all that can be said.
                let _ = writer.eof().await;
                while reader.wait().await.is_some() {}
            })
            .await;
            // The far end's own close is better: russh does not see it any more once this side has closed.
            if over.is_err() {
                let _ = timeout(ENDING, writer.close()).await;
            }
            drop(place);
        });
    }
}
