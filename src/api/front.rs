//! The name that everybody outside uses for the API, as it looks from here.

use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::api::Credentials;

/// In every API server's certificate, whatever else has been added to it and is not there yet.
const COMMON_NAME: &str = "kubernetes";

/// Why nobody reaches an API server at `host:port` from this machine, in words; none where one is reached.
///
/// Without `credentials` no API server runs yet, and the name alone is looked up. Each of the three questions may take as long as
/// `deadline`.
pub async fn obstacle(host: &str, port: u16, credentials: Option<&Credentials>, deadline: Duration) -> Option<String> {
    let late = || format!("no answer within {} s", deadline.as_secs());
    let found = tokio::time::timeout(deadline, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Some(format!("{host} cannot be resolved on this machine ({error})")),
        Err(_) => return Some(format!("{host} cannot be resolved on this machine ({})", late())),
    };
    let credentials = credentials?;
    let connected = match tokio::time::timeout(deadline, TcpStream::connect(addresses.as_slice())).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Some(format!("nobody answers at {host}:{port} ({error})")),
        Err(_) => return Some(format!("nobody answers at {host}:{port} ({})", late())),
    };
    let stranger =
        |reason: String| Some(format!("what answers at {host}:{port} is no API server of this cluster ({reason})"));
    let tls = match credentials.tls(&[]) {
        Ok(tls) => tls,
        Err(error) => return Some(error.to_string()),
    };
    let name = ServerName::try_from(COMMON_NAME).ok()?;
    match tokio::time::timeout(deadline, TlsConnector::from(tls).connect(name, connected)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => stranger(error.to_string()),
        Err(_) => stranger(late()),
    }
}
