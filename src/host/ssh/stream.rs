//! A TCP stream that starts at a host (`direct-tcpip`).
//!
//! russh hands out a channel's window again as soon as it has received bytes, not when they were read: a stream that nobody
//! reads would stop every other channel of its connection. So a task takes everything off the channel at once into a queue, and
//! a stream whose reader falls too far behind is broken instead of its neighbours. The task also notices the far end's close,
//! which russh does not tell to a writer that waits for window.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use russh::ChannelMsg;
use russh::ChannelOpenFailure;
use russh::ChannelReadHalf;
use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::connection::Connection;

/// How far a reader may fall behind. An inner SSH session has at most eight windows of 2 MiB in flight.
const BEHIND: usize = 64 << 20;

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// sshd's configuration forbids it.
    Forbidden,
    /// Nobody listens there, or the host cannot reach it.
    NobodyThere,
    /// The connection is gone, or did not answer in time.
    Lost,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forbidden => "its sshd forbids forwarding (AllowTcpForwarding, PermitOpen)",
            Self::NobodyThere => "nothing answers there",
            Self::Lost => "its connection was lost",
        })
    }
}

/// An open stream. Dropping it closes it.
pub struct SshStream {
    incoming: UnboundedReceiver<io::Result<Piece>>,
    piece: Option<Piece>,
    ended: bool,
    behind: Arc<AtomicUsize>,
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    _open: DropGuard,
}

/// Bytes that came at once, and how many of them were read.
struct Piece {
    bytes: Vec<u8>,
    read: usize,
}

/// Opens a stream from the far end of `connection` to `address:port`.
pub(super) async fn open(
    connection: &Connection,
    address: &str,
    port: u16,
    deadline: Duration,
) -> Result<SshStream, Refusal> {
    let opening = connection.handle.channel_open_direct_tcpip(address, u32::from(port), "127.0.0.1", 0);
    let channel = match timeout(deadline, opening).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(russh::Error::ChannelOpenFailure(reason))) => return Err(refusal(&reason)),
        Ok(Err(_)) | Err(_) => return Err(Refusal::Lost),
    };
    connection.forwards.fetch_add(1, Ordering::Relaxed);
    let (reader, writer) = channel.split();
    Ok(SshStream::new(reader, writer, None))
}

/// The same without forwarding: a command on the host, which needs bash there, carries the bytes of a session channel. Where
/// nobody listens the stream ends at once.
pub(super) async fn relay(
    connection: &Connection,
    address: &str,
    port: u16,
    deadline: Duration,
) -> Result<SshStream, Refusal> {
    // It stands in a command line: nothing but an address passes.
    let address: IpAddr = address.parse().map_err(|_| Refusal::NobodyThere)?;
    let place = Arc::clone(&connection.places).acquire_owned().await.map_err(|_| Refusal::Lost)?;
    let open = timeout(deadline, connection.handle.channel_open_session());
    let channel = open.await.map_err(|_| Refusal::Lost)?.map_err(|_| Refusal::Lost)?;
    connection.sessions.fetch_add(1, Ordering::Relaxed);
    // Free of what login shells treat differently inside single quotes; see `shell.rs`. In the background bash reads
    // nothing from its stdin, hence its copy.
    let script = format!("exec 3<>/dev/tcp/{address}/{port} 4<&0 || exit 1; cat <&4 >&3 2>/dev/null & cat <&3");
    let run = timeout(deadline, channel.exec(false, format!("exec bash -c '{script}'")));
    run.await.map_err(|_| Refusal::Lost)?.map_err(|_| Refusal::Lost)?;
    let (reader, writer) = channel.split();
    Ok(SshStream::new(reader, writer, Some(place)))
}

/// sshd says "administratively prohibited" where its configuration forbids, "connect failed" where the connect did not succeed
/// (RFC 4254, section 5.1).
fn refusal(reason: &ChannelOpenFailure) -> Refusal {
    match reason {
        ChannelOpenFailure::AdministrativelyProhibited | ChannelOpenFailure::UnknownChannelType => Refusal::Forbidden,
        ChannelOpenFailure::ConnectFailed => Refusal::NobodyThere,
        _ => Refusal::Lost,
    }
}

impl SshStream {
    /// `place` is kept as long as the channel is open.
    fn new(reader: ChannelReadHalf, writer: ChannelWriteHalf<Msg>, place: Option<OwnedSemaphorePermit>) -> Self {
        let (sender, incoming) = mpsc::unbounded_channel();
        let behind = Arc::new(AtomicUsize::new(0));
        let open = CancellationToken::new();
        let gone = CancellationToken::new();
        let stream = Self {
            incoming,
            piece: None,
            ended: false,
            behind: Arc::clone(&behind),
            writer: Box::pin(writer.make_writer()),
            gone: Box::pin(gone.clone().cancelled_owned()),
            _open: open.clone().drop_guard(),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = take(reader, &sender, &behind) => {}
                () = open.cancelled() => {}
            }
            gone.cancel();
            let _ = writer.close().await;
            drop(place);
        });
        stream
    }
}

/// Moves everything from the channel into the queue, until the end.
async fn take(mut reader: ChannelReadHalf, sender: &UnboundedSender<io::Result<Piece>>, behind: &AtomicUsize) {
    let mut ended = false;
    loop {
        match reader.wait().await {
            Some(ChannelMsg::Data { data }) => {
                if behind.fetch_add(data.len(), Ordering::Relaxed) + data.len() > BEHIND {
                    let slow = io::Error::other(format!("its reader fell {} MiB behind", BEHIND >> 20));
                    let _ = sender.send(Err(slow));
                    return;
                }
                let _ = sender.send(Ok(Piece { bytes: data.into(), read: 0 }));
            }
            Some(ChannelMsg::Eof) => {
                ended = true;
                // An empty piece is the end of what can be read; the other direction may still be open.
                let _ = sender.send(Ok(Piece { bytes: Vec::new(), read: 0 }));
            }
            Some(ChannelMsg::Close) => return,
            Some(_) => {}
            None => {
                if !ended {
                    let _ = sender.send(Err(io::ErrorKind::ConnectionReset.into()));
                }
                return;
            }
        }
    }
}

impl AsyncRead for SshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(Ok(()));
        }
        let mut piece = match this.piece.take() {
            Some(piece) => piece,
            None => match std::task::ready!(this.incoming.poll_recv(context)) {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => Piece { bytes: Vec::new(), read: 0 },
            },
        };
        this.ended = piece.bytes.is_empty();
        let count = buffer.remaining().min(piece.bytes.len() - piece.read);
        buffer.put_slice(&piece.bytes[piece.read..piece.read + count]);
        piece.read += count;
        this.behind.fetch_sub(count, Ordering::Relaxed);
        if piece.read < piece.bytes.len() {
            this.piece = Some(piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // russh refuses an empty write as an error; to a caller it is nothing to do.
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.writer.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // After the far end's close there is nobody left to tell.
        if self.gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.writer.as_mut().poll_shutdown(context)
    }
}
