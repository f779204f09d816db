//! Which certificate a server shows.

use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::api::probe::ProbeError;
use crate::api::probe::Tls;
use crate::host::Host;

/// The first certificate (DER) that the server at `address:port` shows, dialed from `host`.
///
/// Nothing is verified, because an expired or a wrong certificate is what one wants to see here, and nothing is sent but the
/// handshake: no credential, no request. A server that asks for a client certificate has shown its own by then.
pub async fn presented<H: Host>(
    host: &H,
    address: IpAddr,
    port: u16,
    deadline: Duration,
) -> Result<Vec<u8>, ProbeError> {
    let url = format!("https://{}", std::net::SocketAddr::new(address, port));
    let broken = |reason: String| ProbeError::Broken { url: url.clone(), reason };
    let work = async {
        let stream = host.dial(&address.to_string(), port).await?;
        let connector = TlsConnector::from(Tls::own_loopback()?.0);
        let connected = connector.connect(ServerName::IpAddress(address.into()), stream).await;
        let stream = connected.map_err(|error| broken(error.to_string()))?;
        let (_, session) = stream.get_ref();
        let first = session.peer_certificates().and_then(<[_]>::first);
        first.map(|certificate| certificate.to_vec()).ok_or_else(|| broken("it shows no certificate".to_owned()))
    };
    match tokio::time::timeout(deadline, work).await {
        Ok(seen) => seen,
        Err(_) => Err(ProbeError::Late { url: url.clone(), deadline }),
    }
}
