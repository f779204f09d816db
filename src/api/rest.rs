//! Requests, retried while a retry can help, with errors in the server's words.

use std::error::Error;
use std::io;
use std::time::Duration;

use http::Method;
use http::Request;
use serde_json::Value;
use tokio::time::Instant;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::error;
use crate::host::HostError;

/// The first pause between two attempts; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// One attempt may take this long, or half of the patience; a hung server must not eat the whole of it.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Objects of one answer; as kubectl.
const PAGE: usize = 500;

/// One request. All of them are idempotent, so that each may be sent again.
pub(super) struct Call<'a> {
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Content type and body.
    pub body: Option<(&'static str, &'a [u8])>,
    /// What `Accept` says, where it is not plain JSON.
    pub accept: Option<&'static str>,
    /// For errors: `applying Deployment kube-system/coredns`.
    pub doing: &'a str,
    /// The server's words may quote a secret value.
    pub secret: bool,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: String, doing: &'a str) -> Self {
        Self { method: Method::GET, path, body: None, accept: None, doing, secret: false }
    }
}

/// Why an attempt failed.
enum Failure {
    /// Worth another attempt.
    Passing(String),
    Final(ApiError),
    /// The server's refusal, with the details that a conflict is read from.
    Status(Box<kube::core::Status>),
}

/// A refusal with its details, or any other error.
pub(super) enum Refusal {
    Status(Box<kube::core::Status>),
    Other(ApiError),
}

impl Api {
    /// Sends `call` until it is answered or the patience ends.
    pub(super) async fn request(&self, call: &Call<'_>) -> Result<Value, ApiError> {
        self.request_detailed(call).await.map_err(|refusal| match refusal {
            Refusal::Status(status) => refused(&status, call),
            Refusal::Other(error) => error,
        })
    }

    /// All objects at `path`, a list's, page by page.
    pub(super) async fn listed(&self, path: &str, doing: &str) -> Result<Vec<Value>, ApiError> {
        self.pages(path, doing, false).await
    }

    /// The same of Secrets.
    pub(super) async fn listed_secret(&self, path: &str, doing: &str) -> Result<Vec<Value>, ApiError> {
        self.pages(path, doing, true).await
    }

    async fn pages(&self, path: &str, doing: &str, secret: bool) -> Result<Vec<Value>, ApiError> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let call = Call { secret, ..Call::get(format!("{path}{joint}limit={PAGE}{next}"), doing) };
            let mut page = self.request(&call).await?;
            if let Some(items) = page["items"].as_array_mut() {
                all.append(items);
            }
            match page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => next = format!("&continue={}", encoded(token)),
                None => return Ok(all),
            }
        }
    }

    /// [`Self::request`], with the server's whole refusal.
    pub(super) async fn request_detailed(&self, call: &Call<'_>) -> Result<Value, Refusal> {
        let until = Instant::now() + self.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let reason = match self.attempt(call, until).await {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(Refusal::Other(error)),
                Err(Failure::Status(status)) if !may_pass(&status, &call.method) => {
                    return Err(Refusal::Status(status));
                }
                Err(Failure::Status(status)) if Instant::now() + pause >= until => return Err(Refusal::Status(status)),
                Err(Failure::Status(status)) => status.message,
                Err(Failure::Passing(reason)) => reason,
            };
            if Instant::now() + pause >= until {
                return Err(Refusal::Other(ApiError::Unreachable {
                    server: self.server.clone(),
                    doing: call.doing.to_owned(),
                    patience: self.patience,
                    reason,
                }));
            }
            tracing::debug!(doing = call.doing, %reason, "API request is tried again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, call: &Call<'_>, until: Instant) -> Result<Value, Failure> {
        let mut request = Request::builder().method(call.method.clone()).uri(&call.path);
        if let Some(accept) = call.accept {
            request = request.header(http::header::ACCEPT, accept);
        }
        let mut body = Vec::new();
        if let Some((kind, bytes)) = call.body {
            request = request.header(http::header::CONTENT_TYPE, kind);
            body = bytes.to_vec();
        }
        let request = request.body(body).map_err(|error| Failure::Final(unreadable(call, &error)))?;
        let end = until.min(Instant::now() + ATTEMPT.max(self.patience / 2));
        match tokio::time::timeout_at(end, self.client.request_text(request)).await {
            Err(_) => Err(Failure::Passing("no answer".to_owned())),
            Ok(Ok(text)) => serde_json::from_str(&text).map_err(|error| Failure::Final(unreadable(call, &error))),
            Ok(Err(kube::Error::Api(status))) => Err(Failure::Status(status)),
            Ok(Err(error)) => Err(self.connection_failure(&error)),
        }
    }

    /// A connection that cannot be made says so at once where no retry can help: sshd forbids forwarding, the SSH
    /// connection is gone, or the certificate is another cluster's.
    fn connection_failure(&self, error: &kube::Error) -> Failure {
        let mut words = String::new();
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(cause) = next {
            words = cause.to_string();
            if let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                words = inner.to_string();
                if let Some(HostError::ForwardingRefused { host, target }) = inner.downcast_ref::<HostError>() {
                    return Failure::Final(ApiError::Forwarding { host: host.clone(), target: target.clone() });
                }
                if matches!(inner.downcast_ref::<HostError>(), Some(HostError::Lost { .. })) {
                    return Failure::Final(ApiError::Unreachable {
                        server: self.server.clone(),
                        doing: "dialing".to_owned(),
                        patience: Duration::ZERO,
                        reason: words,
                    });
                }
                if let Some(rustls::Error::InvalidCertificate(reason)) = inner.downcast_ref::<rustls::Error>() {
                    return Failure::Final(ApiError::Untrusted {
                        server: self.server.clone(),
                        reason: rustls::Error::InvalidCertificate(reason.clone()).to_string(),
                    });
                }
            }
            next = cause.source();
        }
        Failure::Passing(words)
    }
}

/// What passes by itself, or is before the system's own namespaces exist.
fn may_pass(status: &kube::core::Status, method: &Method) -> bool {
    let young = status.code == 404
        && method == Method::PATCH
        && status.details.as_ref().is_some_and(|details| {
            details.kind == "namespaces"
                && ["kube-system", "kube-public", "kube-node-lease", "default"].contains(&details.name.as_str())
        });
    young || error::is_passing(status.code, &status.message)
}

fn unreadable(call: &Call<'_>, error: &dyn Error) -> ApiError {
    ApiError::Unreadable { doing: call.doing.to_owned(), reason: error.to_string() }
}

/// The refusal in words.
pub(super) fn refused(status: &kube::core::Status, call: &Call<'_>) -> ApiError {
    let fields: Vec<&str> =
        status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.field.as_str()).collect();
    // etcd's own words quote nothing.
    let message = if call.secret && !status.message.starts_with(error::ETCD) {
        format!("fields {fields:?} (the server's words are left out because they may quote a secret)")
    } else {
        status.message.clone()
    };
    ApiError::Refused { doing: call.doing.to_owned(), code: status.code, reason: status.reason.clone(), message }
}

/// `text` as one segment of a path or one value of a query.
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
