//! Keys of a machine's own role, as Amazon's instance metadata service gives them to whoever asks on the machine itself: version 2 alone
//! (Amazon EC2 user guide, "Retrieve security credentials from instance metadata").

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use http::Method;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::bucket::client::encoded;
use crate::model::BucketKeys;
use crate::model::Content;

/// Link-local: what is asked leaves no machine, and so it is asked in clear.
const SERVICE: &str = "http://169.254.169.254";
/// As Amazon's own programs are told of another one.
const VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// Where there is no such service, whatever else the network does with the address.
const CONNECT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
/// New keys are there five minutes before the old ones end, at the latest.
const FRESH: Duration = Duration::from_mins(4);
const LONGEST: usize = 64 << 10;

/// A machine that may have a role.
pub struct Role {
    http: Client<HttpConnector, Full<Bytes>>,
    service: String,
    held: Mutex<Option<(SystemTime, BucketKeys)>>,
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Role({})", self.service)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

impl Role {
    /// This machine's.
    pub fn of_this_machine() -> Self {
        let named = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
        Self::told_by(named.as_deref().unwrap_or(SERVICE))
    }

    /// As the service at this address tells it.
    pub fn told_by(service: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Self { http, service: service.trim_end_matches('/').to_owned(), held: Mutex::default() }
    }

    /// Whether anybody answers here that could tell.
    pub async fn is_anybody_there(&self) -> bool {
        self.token().await.is_ok()
    }

    /// Keys that are good for minutes to come, or why there are none.
    pub(super) async fn keys(&self) -> Result<BucketKeys, String> {
        let held = self.held().clone();
        if let Some((_, keys)) = held.filter(|(since, _)| since.elapsed().is_ok_and(|age| age < FRESH)) {
            return Ok(keys);
        }
        let token = self.token().await?;
        let with = [("x-aws-ec2-metadata-token", token.as_str())];
        let roles = self.ask(Method::GET, ROLES, &with).await?;
        let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty());
        let role = role.ok_or_else(|| "no role is attached to this machine".to_owned())?;
        let text = self.ask(Method::GET, &format!("{ROLES}{}", encoded(role)), &with).await?;
        // serde's messages may quote the text around a mistake, so none is passed on.
        let given: Given = serde_json::from_str(&text)
            .map_err(|_| format!("what the metadata service says of role {role} cannot be read"))?;
        let keys = BucketKeys {
            access: Content::new(given.access_key_id),
            secret: Content::new(given.secret_access_key),
            token: Some(Content::new(given.token)),
        };
        *self.held() = Some((SystemTime::now(), keys.clone()));
        Ok(keys)
    }

    /// Those that were used last.
    pub(super) fn last(&self) -> Option<BucketKeys> {
        self.held().as_ref().map(|(_, keys)| keys.clone())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<(SystemTime, BucketKeys)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn token(&self) -> Result<String, String> {
        self.ask(Method::PUT, "/latest/api/token", &[("x-aws-ec2-metadata-token-ttl-seconds", "60")]).await
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<String, String> {
        let (service, url) = (&self.service, format!("{}{path}", self.service));
        let wrong = |error: &dyn std::fmt::Display| format!("{service}: {error}");
        let mut request = http::Request::builder().method(method).uri(&url).header("content-length", 0);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::new())).map_err(|error| wrong(&error))?;
        let talk = async {
            let answer = self.http.request(request).await.map_err(|_| wrong(&"no metadata service answers"))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(|error| wrong(&error))?.to_bytes();
            match (parts.status.is_success(), std::str::from_utf8(&body)) {
                (true, Ok(text)) => Ok(text.to_owned()),
                (true, Err(_)) => Err(wrong(&"an answer that is no text")),
                (false, _) => Err(wrong(&format!("HTTP {} for {path}", parts.status.as_u16()))),
            }
        };
        tokio::time::timeout(PATIENCE, talk).await.map_err(|_| wrong(&"no metadata service answers"))?
    }
}
