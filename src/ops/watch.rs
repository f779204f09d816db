//! A host's watch over its own certificates, started by its timer: the files on its disk are read, and what ends soon is told to
//! the journal and, with the kubelet's own certificate, to the Node's events.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde::Serialize;

use crate::api::Credentials;
use crate::api::probe;
use crate::host::Dial as _;
use crate::host::Here;
use crate::model::CertificateWatch;
use crate::model::Content;
use crate::model::RemotePath;
use crate::model::utc;
use crate::ops::OpsError;
use crate::ops::certs;
use crate::ops::prepare;
use crate::store;

/// What was said last.
const REPORT: &str = "/var/lib/bastide/certificates.json";
/// The same is a warning in the journal once in so many seconds.
const AGAIN: i64 = 24 * 60 * 60;
const DAY: i64 = 24 * 60 * 60;
/// The kubelet renews its pair when 70 to 90 % of its life are over (client-go, util/certificate): with less left it has failed to.
const OVERDUE: i64 = 20;
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate that ends soon, or has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The file that holds it.
    pub path: String,
    /// Common name of its subject.
    pub subject: String,
    /// Seconds since 1970.
    pub not_after: i64,
}

impl Ending {
    /// For people.
    fn words(&self, now: i64) -> String {
        let Self { path, subject, not_after } = self;
        match not_after - now {
            left if left <= 0 => format!("certificate {path} ({subject}) has ended at {}", utc(*not_after)),
            left if left < 2 * DAY => {
                format!("certificate {path} ({subject}) ends in {} hours, at {}", left / 3600, utc(*not_after))
            }
            left => format!("certificate {path} ({subject}) ends in {} days, at {}", left / DAY, utc(*not_after)),
        }
    }
}

/// What a watch found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// A line each.
    pub lines: Vec<String>,
    /// Whether the journal was told all of that within a day.
    pub known: bool,
    /// Why the Node could not be told.
    pub untold: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Report {
    warned_at: i64,
    endings: Vec<Ending>,
}

/// Looks at this host's certificates. A file that is not there is somebody else's to miss: `bastide status` does.
pub async fn watch_certificates(settings: &Path) -> Result<Watched, OpsError> {
    let file = store::read_private(settings)?;
    let unreadable = |_| OpsError::Impossible(format!("{}: not settings that this bastide writes", settings.display()));
    let settings: CertificateWatch = serde_json::from_slice(file.expose()).map_err(unreadable)?;
    let now = prepare::now();
    let mut endings = Vec::new();
    for path in &settings.files {
        if let Ok(content) = store::read_private(Path::new(path.as_str())) {
            endings.extend(ending(&settings, path, &content, now));
        }
    }
    let lines: Vec<String> = endings.iter().map(|ending| ending.words(now)).collect();
    let before = store::read_private(Path::new(REPORT)).ok();
    let before: Report = before.and_then(|text| serde_json::from_slice(text.expose()).ok()).unwrap_or_default();
    let known = before.endings == endings && now - before.warned_at < AGAIN;
    if !known {
        let report = Report { warned_at: now, endings };
        let text = serde_json::to_vec(&report).map_err(|error| OpsError::Impossible(error.to_string()))?;
        store::write_private(Path::new(REPORT), &Content::new(text))?;
    }
    let untold = if lines.is_empty() { None } else { tell(&settings, &lines, now).await.err() };
    Ok(Watched { lines, known, untold })
}

/// The certificates of one file that end within the settings' time.
fn ending(settings: &CertificateWatch, path: &RemotePath, content: &Content, now: i64) -> Vec<Ending> {
    let text = content.expose_text().unwrap_or_default();
    let pem = certs::embedded(text).unwrap_or_else(|| text.to_owned());
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
    all.filter_map(|der| {
        let (_, read) = x509_parser::parse_x509_certificate(&der).ok()?;
        let (from, to) = (read.validity().not_before.timestamp(), read.validity().not_after.timestamp());
        let margin = if settings.renewed.contains(path) {
            (to - from) / OVERDUE
        } else {
            (i64::from(settings.warn_days) * DAY).min((to - from) / 3)
        };
        let subject = read.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let subject = subject.unwrap_or_default().to_owned();
        (to - now < margin).then(|| Ending { path: path.to_string(), subject, not_after: to })
    })
    .collect()
}

/// One event, as the kubelet would write one about its own node: `kubectl describe node` looks for these by the node's name in the
/// place of its uid.
async fn tell(settings: &CertificateWatch, lines: &[String], now: i64) -> Result<(), String> {
    let text = |path: &RemotePath| -> Result<String, String> {
        let content = store::read_private(Path::new(path.as_str())).map_err(|error| error.to_string())?;
        Ok(content.expose_text().unwrap_or_default().to_owned())
    };
    let pair = text(&settings.client)?;
    let credentials =
        Credentials { authorities: text(&settings.authority)?, certificate: pair.clone(), key: Content::new(pair) };
    let tls = probe::Tls::verified(&credentials).map_err(|error| error.to_string())?;
    let (address, port) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 6443);
    let stream = Here(settings.node.clone()).dial("127.0.0.1", port).await.map_err(|error| error.to_string())?;
    let path = "/api/v1/namespaces/default/events";
    let body = event(settings, lines, now).to_string();
    let answer = probe::https_post(stream, address, port, &tls, path, &body, PATIENCE).await;
    match answer.map_err(|error| error.to_string())? {
        answer if answer.status == 201 => Ok(()),
        answer => {
            let said: Option<serde_json::Value> = serde_json::from_str(&answer.body).ok();
            let said = said.and_then(|value| value["message"].as_str().map(str::to_owned));
            Err(format!("{path}: {} {}", answer.status, said.unwrap_or_default()))
        }
    }
}

fn event(settings: &CertificateWatch, lines: &[String], now: i64) -> serde_json::Value {
    let node = settings.node.as_str();
    // The API takes 1024 bytes of it (k8s.io/api, events).
    let mut message = lines.join("; ");
    while message.len() > 1000 {
        message.pop();
    }
    serde_json::json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": { "name": format!("{node}.certificates-{now:x}"), "namespace": "default" },
        "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node },
        "reason": "CertificateEndsSoon", "message": message, "type": "Warning", "count": 1,
        "firstTimestamp": utc(now), "lastTimestamp": utc(now),
        "source": { "component": "bastide", "host": node },
        "reportingComponent": "bastide", "reportingInstance": node,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::ending;
    use crate::model::CertificateWatch;
    use crate::model::Content;
    use crate::model::HostName;
    use crate::model::RemotePath;

    const DAY: i64 = 86_400;

    fn found(days: i64, renewed: bool, left: i64) -> usize {
        let path = RemotePath::new("/x.crt").unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after =
            parameters.not_before + std::time::Duration::from_hours(u64::try_from(days).unwrap() * 24);
        let end = parameters.not_after.unix_timestamp();
        let pem = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let settings = CertificateWatch {
            schema: CertificateWatch::SCHEMA,
            node: HostName::new("h1").unwrap(),
            warn_days: 30,
            files: vec![path.clone()],
            renewed: if renewed { vec![path.clone()] } else { Vec::new() },
            authority: path.clone(),
            client: path.clone(),
        };
        ending(&settings, &path, &Content::new(pem), end - left).len()
    }

    #[test]
    fn an_end_is_near_in_thirty_days_or_a_third_of_a_short_life() {
        let cases = [
            (365, false, 31 * DAY, 0),
            (365, false, 29 * DAY, 1),
            (365, false, -DAY, 1),
            (30, false, 11 * DAY, 0),
            (30, false, 9 * DAY, 1),
            (30, true, 9 * DAY, 0),
            (30, true, DAY, 1),
        ];
        for (days, renewed, left, expected) in cases {
            assert_eq!(found(days, renewed, left), expected, "{days} days, {left} s left, renewed: {renewed}");
        }
    }
}
