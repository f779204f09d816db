//! One kept HTTP/2 connection to an API server, over any stream.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::client::legacy::connect::Connected;
use hyper_util::client::legacy::connect::Connection;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::api::ApiError;
use crate::model::Content;

/// A silent peer counts as dead after this plus [`PING_PATIENCE`]: a channel through a host that was cut gives no error.
const PING_EVERY: Duration = Duration::from_secs(5);
/// How long the answer to a ping may take.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// Who we are and whom we trust.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// PEM certificates of the accepted authorities.
    pub authorities: String,
    /// PEM client certificate.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: Content,
}

impl Credentials {
    /// A TLS configuration that verifies the server and shows the client certificate. `protocols` is what ALPN offers.
    pub(super) fn tls(&self, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, ApiError> {
        let wrong = |what: &'static str| {
            move |reason: &dyn std::fmt::Display| ApiError::Credentials { what, reason: reason.to_string() }
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authorities.as_bytes()) {
            let certificate = certificate.map_err(|error| wrong("certificate authority")(&error))?;
            roots.add(certificate).map_err(|error| wrong("certificate authority")(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong("certificate authority")(&"no certificate in it"));
        }
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong("certificate")(&error))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.expose()).map_err(|error| wrong("key")(&error))?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("certificate")(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| wrong("certificate")(&error))?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

/// Builds the client. Nothing is dialed before the first request; then every request shares one connection, and a new
/// one is dialed when that dies.
pub(super) fn client<D, F, S>(
    dial: D,
    server: IpAddr,
    port: u16,
    credentials: &Credentials,
) -> Result<kube::Client, ApiError>
where
    D: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pool = pool(dial, server, credentials, None)?;
    let authority = match server {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    };
    let base = http::Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query("/")
        .build()
        .map_err(|error| ApiError::Credentials { what: "address", reason: error.to_string() })?;
    let layer = kube::client::middleware::BaseUriLayer::new(base);
    Ok(kube::client::ClientBuilder::new(pool, "default").with_layer(&layer).build())
}

/// Connections over `dial`, with HTTP/2 alone. `window` is how much the server may send ahead of what was read.
pub(super) fn pool<D, F, S>(
    dial: D,
    server: IpAddr,
    credentials: &Credentials,
    window: Option<u32>,
) -> Result<
    hyper_util::client::legacy::Client<impl Connect + Clone + Send + Sync + 'static, kube::client::Body>,
    ApiError,
>
where
    D: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connector = TlsConnector::from(credentials.tls(&[b"h2"])?);
    let dial = Arc::new(dial);
    let connect = tower::service_fn(move |_: http::Uri| -> BoxFuture<'static, io::Result<TokioIo<Kept<S>>>> {
        let dial = dial.clone();
        let connector = connector.clone();
        Box::pin(async move {
            let stream = dial().await?;
            let stream = connector.connect(ServerName::IpAddress(server.into()), stream).await?;
            Ok(TokioIo::new(Kept(Box::new(stream))))
        })
    });
    let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    // HTTP/2 alone: only there do concurrent requests share a connection, and every supported server speaks it.
    builder
        .http2_only(true)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_PATIENCE)
        .http2_initial_stream_window_size(window)
        .http2_initial_connection_window_size(window)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(None);
    Ok(builder.build::<_, kube::client::Body>(connect))
}

/// A TLS stream that the pool may share between requests.
struct Kept<S>(Box<TlsStream<S>>);

impl<S> Connection for Kept<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn connected(&self) -> Connected {
        Connected::new().negotiated_h2()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Kept<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Kept<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
