//! Health of one component, judged on the component itself, through a stream that starts at its host.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::UnixTime;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsConnector;

use crate::api::ApiError;
use crate::api::Credentials;
use crate::host::Host;
use crate::host::HostError;

/// The longest answer is that of an API server about its metrics: some megabytes, more in a large cluster.
const LONGEST_ANSWER: u64 = 64 << 20;
/// A component's own host.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Why a component could not be asked, without its host: whoever asks names that. An unhealthy answer is no error: see [`Health`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The host could not open the connection.
    #[error("{}", .0.without_host())]
    Host(#[from] HostError),
    /// The credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] ApiError),
    /// TLS or HTTP went wrong.
    #[error("{url}: {reason}")]
    Broken {
        /// What was asked.
        url: String,
        /// In words.
        reason: String,
    },
    /// Nothing came in time.
    #[error("{url}: no answer within {} s", deadline.as_secs())]
    Late {
        /// What was asked.
        url: String,
        /// How long it was waited for.
        deadline: Duration,
    },
}

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It is well.
    Ok,
    /// It is not, in its own words: the failed checks where it lists them.
    Unwell(String),
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: String,
}

/// How TLS is spoken with a component.
#[derive(Debug, Clone)]
pub struct Tls(pub(super) Arc<ClientConfig>);

impl Tls {
    /// Verifies the server against the authorities and shows the client certificate.
    pub fn verified(credentials: &Credentials) -> Result<Self, ApiError> {
        Ok(Self(credentials.tls(&[])?))
    }

    /// Takes any certificate. ONLY for a component that listens on its host's loopback and was dialed through that host's
    /// own SSH connection: kube-controller-manager and kube-scheduler sign their serving certificate themselves at every
    /// start, so there is nothing to verify against. What is at the other end is decided by the verified host key and by
    /// root on that host, who could as well show the right certificate. No credential is ever shown here.
    pub fn own_loopback() -> Result<Self, ApiError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let any = AnyCertificate(provider.signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ApiError::Credentials { what: "TLS provider", reason: error.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(any))
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

/// `/readyz` of the API server at `address` (6443), which verifies as one of this cluster.
pub async fn api_server<H: Host>(
    host: &H,
    address: IpAddr,
    credentials: &Credentials,
    deadline: Duration,
) -> Result<Health, ProbeError> {
    let tls = Tls::verified(credentials)?;
    asked(host, address, 6443, Some(&tls), "/readyz?verbose", deadline).await
}

/// `/healthz` of the controller manager on its own host.
pub async fn controller_manager<H: Host>(host: &H, deadline: Duration) -> Result<Health, ProbeError> {
    asked(host, LOOPBACK, 10257, Some(&Tls::own_loopback()?), "/healthz?verbose", deadline).await
}

/// `/healthz` of the scheduler on its own host.
pub async fn scheduler<H: Host>(host: &H, deadline: Duration) -> Result<Health, ProbeError> {
    asked(host, LOOPBACK, 10259, Some(&Tls::own_loopback()?), "/healthz?verbose", deadline).await
}

/// `/healthz` of the kubelet on its own host.
pub async fn kubelet<H: Host>(host: &H, deadline: Duration) -> Result<Health, ProbeError> {
    asked(host, LOOPBACK, 10248, None, "/healthz", deadline).await
}

/// `/livez` of kube-proxy on its own host. `/healthz` says besides whether the node is about to go.
pub async fn proxy<H: Host>(host: &H, deadline: Duration) -> Result<Health, ProbeError> {
    asked(host, LOOPBACK, 10256, None, "/livez", deadline).await
}

/// `/health` of the etcd member on its own host: whether it can commit, hence whether there is quorum.
pub async fn etcd<H: Host>(host: &H, deadline: Duration) -> Result<Health, ProbeError> {
    etcd_at(host, "/health", deadline).await
}

/// The same, whether or not it has an alarm for want of space.
pub async fn etcd_but_for_space<H: Host>(host: &H, deadline: Duration) -> Result<Health, ProbeError> {
    etcd_at(host, "/health?exclude=NOSPACE", deadline).await
}

async fn etcd_at<H: Host>(host: &H, path: &str, deadline: Duration) -> Result<Health, ProbeError> {
    let answer = http(host.dial("127.0.0.1", 2381).await?, LOOPBACK, 2381, path, deadline).await?;
    let report: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    if answer.status == 200 && report["health"] == "true" {
        return Ok(Health::Ok);
    }
    let reason = report["reason"].as_str().filter(|reason| !reason.is_empty());
    Ok(Health::Unwell(reason.unwrap_or(answer.body.trim()).to_owned()))
}

/// What the component at `address:port` says of itself at `path`; without `tls` in clear, for the loopback alone.
pub(super) async fn asked<H: Host>(
    host: &H,
    address: IpAddr,
    port: u16,
    tls: Option<&Tls>,
    path: &str,
    deadline: Duration,
) -> Result<Health, ProbeError> {
    let stream = host.dial(&address.to_string(), port).await?;
    let answer = match tls {
        Some(tls) => https_get(stream, address, port, tls, path, deadline).await?,
        None => http(stream, address, port, path, deadline).await?,
    };
    Ok(health(&answer))
}

/// The checks that failed, where the component lists them (`[-]etcd failed: …`), else its whole answer.
fn health(answer: &Answer) -> Health {
    if answer.status == 200 {
        return Health::Ok;
    }
    let failed: Vec<&str> = answer.body.lines().filter_map(|line| line.strip_prefix("[-]")).collect();
    let words = if failed.is_empty() { answer.body.trim().to_owned() } else { failed.join("; ") };
    Health::Unwell(format!("{}: {words}", answer.status))
}

/// GET over an open stream, in clear: for the loopback alone.
pub async fn http<S>(
    stream: S,
    address: IpAddr,
    port: u16,
    path: &str,
    deadline: Duration,
) -> Result<Answer, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let url = url("http", address, port, path);
    within(deadline, &url, exchange(stream, &request("GET", address, path, None))).await
}

/// GET over an open stream with TLS; the server's certificate must name `address`.
pub async fn https_get<S>(
    stream: S,
    address: IpAddr,
    port: u16,
    tls: &Tls,
    path: &str,
    deadline: Duration,
) -> Result<Answer, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    https(stream, address, port, tls, path, request("GET", address, path, None), deadline).await
}

/// POST of a JSON body over an open stream with TLS.
pub async fn https_post<S>(
    stream: S,
    address: IpAddr,
    port: u16,
    tls: &Tls,
    path: &str,
    body: &str,
    deadline: Duration,
) -> Result<Answer, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    https(stream, address, port, tls, path, request("POST", address, path, Some(body)), deadline).await
}

async fn https<S>(
    stream: S,
    address: IpAddr,
    port: u16,
    tls: &Tls,
    path: &str,
    request: String,
    deadline: Duration,
) -> Result<Answer, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let url = url("https", address, port, path);
    let work = async {
        let connector = TlsConnector::from(tls.0.clone());
        let stream = connector.connect(ServerName::IpAddress(address.into()), stream).await?;
        exchange(stream, &request).await
    };
    within(deadline, &url, work).await
}

async fn within(
    deadline: Duration,
    url: &str,
    work: impl Future<Output = std::io::Result<Answer>>,
) -> Result<Answer, ProbeError> {
    match tokio::time::timeout(deadline, work).await {
        Err(_) => Err(ProbeError::Late { url: url.to_owned(), deadline }),
        Ok(Err(error)) => Err(ProbeError::Broken { url: url.to_owned(), reason: error.to_string() }),
        Ok(Ok(answer)) => Ok(answer),
    }
}

fn url(scheme: &str, address: IpAddr, port: u16, path: &str) -> String {
    format!("{scheme}://{}{path}", std::net::SocketAddr::new(address, port))
}

/// HTTP/1.0: the answer ends with the connection, never in chunks.
fn request(method: &str, address: IpAddr, path: &str, body: Option<&str>) -> String {
    let (kind, body) = body.map_or(("", ""), |body| ("Content-Type: application/json\r\n", body));
    let length = body.len();
    format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{kind}Content-Length: {length}\r\n\r\n{body}")
}

pub(super) async fn exchange<S>(mut stream: S, request: &str) -> std::io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut bytes = Vec::new();
    match stream.take(LONGEST_ANSWER).read_to_end(&mut bytes).await {
        // Some servers close without TLS' own good-bye; a head that came whole is enough.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof || bytes.is_empty() => return Err(error),
        _ => {}
    }
    let text = String::from_utf8_lossy(&bytes);
    let parsed = text.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.lines().next()?.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, body: body.to_owned() })
    });
    parsed.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "this is no HTTP answer"))
}

/// See [`Tls::own_loopback`]. The handshake's signature is still verified.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::Answer;
    use super::Health;
    use super::health;

    #[test]
    fn an_unwell_component_is_quoted_by_its_failed_checks() {
        let body = "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n".to_owned();
        assert_eq!(
            health(&Answer { status: 500, body }),
            Health::Unwell("500: etcd failed: reason withheld".to_owned())
        );
    }
}
