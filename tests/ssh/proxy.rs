//! A wire-tap in front of an sshd: keeps what the client sends, counts connections, and can fall silent as a cut link does.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// A running tap.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    taken: Arc<Taken>,
}

#[derive(Default)]
struct Taken {
    from_clients: Mutex<Vec<Vec<u8>>>,
    cut: AtomicBool,
}

impl Proxy {
    /// Passes everything on to a loopback port.
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let taken = Arc::new(Taken::default());
        let shared = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.from_clients.lock().unwrap().push(Vec::new());
                let number = shared.from_clients.lock().unwrap().len() - 1;
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (client_reader, client_writer) = client.into_split();
                let (server_reader, server_writer) = server.into_split();
                tokio::spawn(pass(client_reader, server_writer, Arc::clone(&shared), Some(number)));
                tokio::spawn(pass(server_reader, client_writer, Arc::clone(&shared), None));
            }
        });
        Self { port: own, taken }
    }

    /// How many connections came so far.
    pub(crate) fn connections(&self) -> usize {
        self.taken.from_clients.lock().unwrap().len()
    }

    /// From now on nothing passes, and nobody is told.
    pub(crate) fn cut(&self) {
        self.taken.cut.store(true, Ordering::SeqCst);
    }

    /// The message numbers that the client of one connection sent in clear (RFC 4253, section 6), and how many bytes followed its
    /// `SSH_MSG_NEWKEYS`: these are encrypted, and more than a key exchange.
    pub(crate) fn sent(&self, connection: usize) -> (Vec<u8>, usize) {
        let bytes = self.taken.from_clients.lock().unwrap()[connection].clone();
        let version = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut rest = &bytes[version..];
        let mut messages = Vec::new();
        while rest.len() > 5 {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            messages.push(rest[5]);
            rest = &rest[4 + length..];
            if messages.last() == Some(&21) {
                break;
            }
        }
        (messages, rest.len())
    }
}

async fn pass<R, W>(mut reader: R, mut writer: W, taken: Arc<Taken>, keep: Option<usize>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = reader.read(&mut buffer).await.unwrap_or(0);
        while taken.cut.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some(number) = keep {
            taken.from_clients.lock().unwrap()[number].extend_from_slice(&buffer[..count]);
        }
        if count == 0 || writer.write_all(&buffer[..count]).await.is_err() {
            let _ = writer.shutdown().await;
            return;
        }
    }
}
