//! Requests to one bucket: signed, sent, tried again, and their refusals understood.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use backon::ExponentialBuilder;
use backon::Retryable as _;
use http::HeaderMap;
use http::Method;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioTimer;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::bucket::BucketError;
use crate::bucket::Role;
use crate::bucket::answer;
use crate::bucket::answer::Refusal;
use crate::bucket::sign;
use crate::model::BucketAddress;
use crate::model::BucketKeys;

/// For a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// For an answer to a short question.
const PATIENCE: Duration = Duration::from_mins(1);
/// For a part to get there: 8 MiB within this need 55 KiB a second.
const PART_PATIENCE: Duration = Duration::from_secs(150);
/// How often a short question is asked again: whoever restores at night does not wait long for a bucket that is away.
const ASK_AGAIN: usize = 2;
/// How often what completes or is part of an upload is sent again, with waits of 0.5 to 8 s, some 15 s in all.
const SEND_AGAIN: usize = 5;
/// The longest answer: a block of an object, or a list of a thousand.
const LONGEST: usize = 16 << 20;
/// Where neither the file nor the server's name tells one: what most servers that are not Amazon's take.
const USUAL_REGION: &str = "us-east-1";

/// A bucket that is open for work. Nothing is sent before the first request.
pub struct Bucket {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    address: BucketAddress,
    keys: Keys,
    region: Mutex<String>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.address)
    }
}

/// Where keys come from.
#[derive(Debug)]
enum Keys {
    Given(BucketKeys),
    Role(Box<Role>),
}

/// One request.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub(super) method: Method,
    /// For errors.
    pub(super) doing: &'static str,
    /// The whole key of an object; none is the bucket itself.
    pub(super) key: Option<String>,
    pub(super) query: Vec<(&'static str, String)>,
    /// `bytes=0-63`
    pub(super) range: Option<String>,
    pub(super) body: Bytes,
}

/// What came back, where it was no refusal.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Bucket {
    /// Reads the certificate authorities.
    pub fn open(address: BucketAddress, keys: BucketKeys) -> Result<Self, BucketError> {
        Self::with(address, Keys::Given(keys))
    }

    /// The same with the keys of a machine's role, which is asked before the first request.
    pub fn open_by_role(address: BucketAddress, role: Role) -> Result<Self, BucketError> {
        Self::with(address, Keys::Role(Box::new(role)))
    }

    fn with(address: BucketAddress, keys: Keys) -> Result<Self, BucketError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls(&address)?)
            .https_only()
            .enable_http1()
            .wrap_connector(connector);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(20));
        let region = address.region.clone().unwrap_or_else(|| region_of(&address.host));
        Ok(Self { http: builder.build(https), address, keys, region: Mutex::new(region) })
    }

    /// Where it is.
    pub fn address(&self) -> &BucketAddress {
        &self.address
    }

    /// For errors.
    pub(super) fn place(&self) -> String {
        format!("{} at {}", self.address, self.address.host)
    }

    /// Sends it, again where that may help.
    pub(super) async fn send(&self, request: &Request) -> Result<Answer, BucketError> {
        let waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_max_delay(Duration::from_secs(8))
            .with_max_times(if request.body.is_empty() { ASK_AGAIN } else { SEND_AGAIN })
            .with_jitter();
        (|| self.once(request)).retry(waits).when(BucketError::is_passing).await
    }

    /// Sends it once; to the region that the server names, where the file names none.
    async fn once(&self, request: &Request) -> Result<Answer, BucketError> {
        let used = self.region().clone();
        match self.exchange(request, &used).await {
            Err(BucketError::Region { wanted, .. }) if self.address.region.is_none() && wanted != used => {
                self.region().clone_from(&wanted);
                self.exchange(request, &wanted).await
            }
            other => other,
        }
    }

    fn region(&self) -> std::sync::MutexGuard<'_, String> {
        self.region.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(&self, request: &Request, region: &str) -> Result<Answer, BucketError> {
        let deadline = if request.body.len() > 1 << 20 { PART_PATIENCE } else { PATIENCE };
        let (doing, place) = (request.doing, self.place());
        let late = |_| BucketError::Late { place, doing, deadline };
        let (status, headers, body) =
            tokio::time::timeout(deadline, self.talk(request, region)).await.map_err(late)??;
        let refused = answer::refusal(&body);
        if status.is_success() && refused.is_none() {
            return Ok(Answer { headers, body });
        }
        let mut refused = refused.unwrap_or_default();
        if refused.region.is_none() {
            let named = headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
            refused.region = named.map(str::to_owned);
        }
        Err(self.judged(request, status.as_u16(), refused))
    }

    async fn talk(&self, request: &Request, region: &str) -> Result<(http::StatusCode, HeaderMap, Bytes), BucketError> {
        let (doing, place) = (request.doing, self.place());
        let strange = |reason: String| BucketError::Strange { place: place.clone(), doing, reason };
        let mut outgoing = http::Request::builder().method(&request.method).uri(self.uri(request));
        if let Some(range) = &request.range {
            outgoing = outgoing.header("range", range);
        }
        if request.method == Method::PUT || request.method == Method::POST {
            // Without a length some servers refuse what has no body.
            outgoing = outgoing.header("content-length", request.body.len());
        }
        let outgoing = outgoing.body(Full::new(request.body.clone()));
        let mut outgoing = outgoing.map_err(|error| strange(error.to_string()))?;
        let keys = match &self.keys {
            Keys::Given(keys) => keys.clone(),
            Keys::Role(role) => {
                role.keys().await.map_err(|reason| BucketError::NoKeys { place: place.clone(), reason })?
            }
        };
        sign::sign(&mut outgoing, &request.body, &keys, region, SystemTime::now())
            .map_err(|reason| strange(reason.to_owned()))?;
        let answer = self.http.request(outgoing).await.map_err(|error| broken(&place, &error))?;
        let (parts, body) = answer.into_parts();
        // Cut off in the middle is as good as not answered.
        let body = Limited::new(body, LONGEST).collect().await.map_err(|error| BucketError::Unreachable {
            place: place.clone(),
            reason: format!("{doing}: the answer broke off: {error}"),
        })?;
        Ok((parts.status, parts.headers, body.to_bytes()))
    }

    /// Amazon's own servers want the bucket in the name, all others take it in the path. A name with a dot fits no certificate.
    fn uri(&self, request: &Request) -> String {
        let address = &self.address;
        let in_name = [".amazonaws.com", ".amazonaws.com.cn", ".aliyuncs.com"]
            .iter()
            .any(|ending| address.host.ends_with(ending))
            && !address.bucket.contains('.');
        let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
        let port = address.port.map(|port| format!(":{port}")).unwrap_or_default();
        let mut uri = if in_name {
            format!("https://{}.{host}{port}/", address.bucket)
        } else {
            format!("https://{host}{port}/{}{}", address.bucket, if request.key.is_some() { "/" } else { "" })
        };
        if let Some(key) = &request.key {
            uri.push_str(&key.split('/').map(encoded).collect::<Vec<_>>().join("/"));
        }
        for (at, (name, value)) in request.query.iter().enumerate() {
            uri.push(if at == 0 { '?' } else { '&' });
            uri.extend([name, "=", &encoded(value)]);
        }
        uri
    }

    /// What a refusal means.
    fn judged(&self, request: &Request, status: u16, refusal: Refusal) -> BucketError {
        let (place, doing) = (self.place(), request.doing);
        let object = || request.key.clone().unwrap_or_default();
        let Refusal { code, message, region } = refusal;
        match (code.as_str(), status) {
            (
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "InvalidTokenId"
                | "InvalidSecurity"
                | "TokenRefreshRequired",
                _,
            ) => BucketError::Keys { place, code },
            ("NoSuchBucket", _) => BucketError::NoBucket { place },
            ("NoSuchKey", _) | ("", 404) => BucketError::NoObject { place, object: object() },
            ("RequestTimeTooSkewed", _) => BucketError::Clock { place },
            ("QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "InsufficientCapacity", _)
            | (_, 507) => BucketError::Full { place, doing, code },
            ("AccessDenied", _) | ("", 403) => BucketError::Denied { place, doing },
            ("AuthorizationHeaderMalformed" | "PermanentRedirect" | "", 400 | 301) if region.is_some() => {
                BucketError::Region { place, wanted: region.unwrap_or_default() }
            }
            _ => BucketError::Refused { place, doing, status, code, message: self.without_keys(message) },
        }
    }

    /// A server may repeat what it was told.
    fn without_keys(&self, message: String) -> String {
        let keys = match &self.keys {
            Keys::Given(keys) => Some(keys.clone()),
            Keys::Role(role) => role.last(),
        };
        let Some(keys) = keys else { return message };
        let keys = [Some(&keys.access), Some(&keys.secret), keys.token.as_ref()];
        let texts = keys.into_iter().flatten().filter_map(|key| key.expose_text()).filter(|text| !text.is_empty());
        texts.fold(message, |message, key| message.replace(key, "***"))
    }
}

/// Whom to believe.
fn tls(address: &BucketAddress) -> Result<ClientConfig, BucketError> {
    let wrong = |reason: String| BucketError::Authorities { reason };
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &address.authorities {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| wrong(format!("custom_ca: {error}")))?;
            roots.add(certificate).map_err(|error| wrong(format!("custom_ca: {error}")))?;
        }
    } else {
        let own = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(own.certs);
        if roots.is_empty() {
            let first = own.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(wrong(format!("this machine has none{first}; name one with custom_ca")));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The region in one of Amazon's names: `s3.eu-central-1.amazonaws.com`, `s3-eu-central-1.amazonaws.com`.
fn region_of(host: &str) -> String {
    let bare = host.strip_suffix(".amazonaws.com.cn").or_else(|| host.strip_suffix(".amazonaws.com"));
    let last = bare.map(|bare| bare.rsplit('.').next().unwrap_or(bare)).unwrap_or_default();
    match last.strip_prefix("s3-").unwrap_or(last) {
        "" | "s3" => USUAL_REGION.to_owned(),
        region => region.to_owned(),
    }
}

/// Everything but RFC 3986's unreserved characters as `%XX`: what is sent is what is signed.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Tells a certificate that is not believed from a line that is down.
fn broken(place: &str, error: &hyper_util::client::legacy::Error) -> BucketError {
    let (place, causes) = (place.to_owned(), causes(error));
    let refused = causes.iter().find_map(|cause| match cause.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(reason)) => Some(reason.to_string()),
        _ => None,
    });
    if let Some(reason) = refused {
        return BucketError::Untrusted { place, reason };
    }
    BucketError::Unreachable { place, reason: causes.last().map(ToString::to_string).unwrap_or_default() }
}

/// An error and what lies beneath it, the deepest last. What an input or output error is made of is no `source` of its.
fn causes<'e>(error: &'e (dyn std::error::Error + 'static)) -> Vec<&'e (dyn std::error::Error + 'static)> {
    let mut found = vec![error];
    while let Some(last) = found.last() {
        let inside = last.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match inside.map(|inside| inside as &(dyn std::error::Error + 'static)).or_else(|| last.source()) {
            Some(deeper) => found.push(deeper),
            None => break,
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Bucket;
    use super::Request;
    use super::encoded;
    use super::region_of;
    use crate::bucket::BucketError;
    use crate::bucket::answer::Refusal;
    use crate::model::BucketAddress;
    use crate::model::BucketKeys;
    use crate::model::Content;

    fn bucket(host: &str, bucket: &str) -> Bucket {
        let address = BucketAddress {
            host: host.to_owned(),
            port: Some(9000),
            bucket: bucket.to_owned(),
            region: None,
            folder: "a b".to_owned(),
            authorities: Some(AUTHORITY.to_owned()),
        };
        let keys = BucketKeys { access: Content::new("AKIA1"), secret: Content::new("s3cr3t-n33dl3"), token: None };
        Bucket::open(address, keys).unwrap()
    }

    /// Any certificate will do.
    const AUTHORITY: &str = include_str!("../config/tests/authority.pem");

    #[test]
    fn the_bucket_stands_in_amazons_names_and_in_the_path_of_others() {
        let request =
            Request { key: Some("a b/x+y".to_owned()), query: vec![("uploads", String::new())], ..Request::default() };
        let uri = |host: &str, name: &str| bucket(host, name).uri(&request);
        assert_eq!(uri("minio.example.com", "b"), "https://minio.example.com:9000/b/a%20b/x%2By?uploads=");
        assert_eq!(uri("s3.amazonaws.com", "b"), "https://b.s3.amazonaws.com:9000/a%20b/x%2By?uploads=");
        assert_eq!(uri("s3.amazonaws.com", "b.c"), "https://s3.amazonaws.com:9000/b.c/a%20b/x%2By?uploads=");
        assert_eq!(uri("2001:db8::1", "b"), "https://[2001:db8::1]:9000/b/a%20b/x%2By?uploads=");
        assert_eq!(encoded("é/"), "%C3%A9%2F");
    }

    #[test]
    fn a_region_is_read_from_amazons_names() {
        let regions =
            ["s3.amazonaws.com", "s3.eu-central-1.amazonaws.com", "s3-eu-west-1.amazonaws.com", "minio.local"];
        assert_eq!(regions.map(region_of), ["us-east-1", "eu-central-1", "eu-west-1", "us-east-1"]);
        assert_eq!(region_of("s3.dualstack.eu-west-1.amazonaws.com"), "eu-west-1");
    }

    #[test]
    fn no_key_is_in_what_is_shown() {
        let bucket = bucket("minio.example.com", "b");
        let refusal =
            Refusal { code: "Odd".to_owned(), message: "AKIA1 signed with s3cr3t-n33dl3".to_owned(), region: None };
        let error = bucket.judged(&Request::default(), 418, refusal);
        let BucketError::Refused { message, .. } = &error else { unreachable!("{error}") };
        assert_eq!(message, "*** signed with ***");
        assert!(!format!("{bucket:?} {:?}", bucket.keys).contains("AKIA1"));
    }
}
