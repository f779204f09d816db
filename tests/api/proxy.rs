//! A wire to the server that a test can cut, freeze and mend.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::io::copy_bidirectional;
use tokio::io::duplex;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What the wire does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Whole,
    /// Nothing connects, what was connected breaks.
    Cut,
    /// Nothing passes, and nobody says so.
    Frozen,
    /// Nothing passes over what was connected before; new connections are whole.
    Stale,
}

/// Clones share the wire.
#[derive(Clone)]
pub(crate) struct Wire {
    port: u16,
    state: Arc<watch::Sender<State>>,
    dialed: Arc<AtomicUsize>,
}

impl Wire {
    pub(crate) fn to(port: u16) -> Self {
        Self { port, state: Arc::new(watch::channel(State::Whole).0), dialed: Arc::default() }
    }

    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// How many connections were made so far.
    pub(crate) fn dialed(&self) -> usize {
        self.dialed.load(Ordering::SeqCst)
    }

    pub(crate) async fn dial(&self) -> io::Result<DuplexStream> {
        let mut state = self.state.subscribe();
        let born = *state.borrow();
        if born == State::Cut {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.dialed.fetch_add(1, Ordering::SeqCst);
        let mut server = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let (mut near, far) = duplex(64 * 1024);
        tokio::spawn(async move {
            loop {
                let current = *state.borrow_and_update();
                match current {
                    State::Cut => return,
                    State::Frozen | State::Stale if current == State::Frozen || born != State::Stale => {
                        if state.changed().await.is_err() {
                            tokio::time::sleep(Duration::from_mins(10)).await;
                        }
                    }
                    _ => tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut server) => return,
                        changed = state.changed() => if changed.is_err() { return },
                    },
                }
            }
        });
        Ok(far)
    }
}
