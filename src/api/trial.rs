//! Whether a server believes a client certificate.

use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::api::Credentials;
use crate::api::probe;
use crate::api::probe::Answer;
use crate::api::probe::ProbeError;
use crate::api::probe::Tls;
use crate::host::Host;

/// A question that is asked with a client certificate.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// Whom.
    pub address: IpAddr,
    /// At which port.
    pub port: u16,
    /// What the server's certificate must say, where that is not the address.
    pub name: Option<&'a str>,
    /// What is asked for.
    pub path: &'a str,
    /// User and group in whose name the front proxy asks.
    pub on_behalf_of: Option<(&'a str, &'a str)>,
}

/// What the server answers, dialed from `host`.
pub async fn trial<H: Host>(
    host: &H,
    trial: &Trial<'_>,
    credentials: &Credentials,
    deadline: Duration,
) -> Result<Answer, ProbeError> {
    let Trial { address, port, path, .. } = *trial;
    let url = format!("https://{}{path}", std::net::SocketAddr::new(address, port));
    let broken = |reason: String| ProbeError::Broken { url: url.clone(), reason };
    let name = match trial.name {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(|error| broken(error.to_string()))?,
        None => ServerName::IpAddress(address.into()),
    };
    let asked_for = trial
        .on_behalf_of
        .map_or_else(String::new, |(user, group)| format!("X-Remote-User: {user}\r\nX-Remote-Group: {group}\r\n"));
    let called = trial.name.map_or_else(|| address.to_string(), str::to_owned);
    // HTTP/1.0: the answer ends with the connection, never in chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {called}\r\n{asked_for}Content-Length: 0\r\n\r\n");
    let connector = TlsConnector::from(Tls::verified(credentials)?.0);
    let work = async {
        let stream = host.dial(&address.to_string(), port).await?;
        let stream = connector.connect(name, stream).await.map_err(|error| broken(error.to_string()))?;
        probe::exchange(stream, &request).await.map_err(|error| broken(error.to_string()))
    };
    match tokio::time::timeout(deadline, work).await {
        Ok(answer) => answer,
        Err(_) => Err(ProbeError::Late { url: url.clone(), deadline }),
    }
}
