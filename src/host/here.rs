//! This very machine, as a host sees itself.

use tokio::net::TcpStream;

use crate::host::Dial;
use crate::host::HostError;
use crate::model::HostName;

/// The machine that the program runs on, under its node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here(pub HostName);

impl Dial for Here {
    type Stream = TcpStream;

    async fn dial(&self, address: &str, port: u16) -> Result<TcpStream, HostError> {
        let refused = |_| HostError::Refused { host: self.0.clone(), target: format!("{address}:{port}") };
        TcpStream::connect((address, port)).await.map_err(refused)
    }
}
