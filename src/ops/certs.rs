//! `certs check`: the certificates on the hosts' disks and on the wire, and where the two differ.

mod elsewhere;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;

use crate::api;
use crate::model::Blobs;
use crate::model::DesiredHost;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::Keep;
use crate::model::ObservedHost;
use crate::model::RemotePath;
use crate::model::Scope;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::custom;
use crate::ops::kept::Kept;
use crate::ops::patience::Patience;
use crate::ops::prepare;
use crate::ops::prepare::Target;
use crate::secrets;

const DAY: i64 = 24 * 60 * 60;
/// A kubelet renews a pair of its own at 70 to 90 % of its 30 days (client-go, util/certificate): with fewer days left than
/// these two it has failed to.
const OVERDUE: Limits = Limits { warn_days: 2, critical_days: 1 };

/// From when on an end is worth a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Days left.
    pub warn_days: u32,
    /// Days left.
    pub critical_days: u32,
}

impl Limits {
    /// How bad it is at `now` that something ends at `end`.
    fn judge(self, end: i64, now: i64) -> Condition {
        let days = (end - now).div_euclid(DAY);
        if end <= now || days < i64::from(self.critical_days) {
            Condition::Critical
        } else if days < i64::from(self.warn_days) {
            Condition::Warning
        } else {
            Condition::Ok
        }
    }
}

/// How bad it is; the worst one of all is the command's exit code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Enough time left, and everywhere the same.
    #[default]
    Ok,
    /// Ends soon, is not the one that bastide wrote, or is not the one that is shown.
    Warning,
    /// Ends very soon, has ended, or cannot be seen.
    Critical,
}

/// One certificate of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Where; none for what lies on no host.
    pub host: Option<HostName>,
    /// The file that holds it, or what does.
    pub path: String,
    /// Common name of its subject, as far as it could be read.
    pub subject: Option<String>,
    /// When the one on disk ends, seconds since 1970.
    pub not_after: Option<i64>,
    /// Who shows it: `kube-apiserver :6443`.
    pub server: Option<String>,
    /// When the one that is shown ends.
    pub shown_not_after: Option<i64>,
    /// Whole days until the first of both ends.
    pub days_left: Option<i64>,
    /// How bad it is.
    pub condition: Condition,
    /// What is wrong, in words.
    pub remarks: Vec<String>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificates {
    /// Layout of this document.
    pub schema: u32,
    /// `cluster_name`.
    pub cluster: String,
    /// The worst.
    pub condition: Condition,
    /// By host and path.
    pub certificates: Vec<Certificate>,
    /// Hosts that do not answer, with the reason.
    pub unreachable: BTreeMap<HostName, String>,
}

/// A server and the file that it should be showing.
struct Server {
    name: &'static str,
    port: u16,
    path: &'static str,
}

/// Everyone who listens with a certificate of bastide's. Controller managers and schedulers sign theirs themselves at
/// every start, on loopback.
const SERVERS: [Server; 4] = [
    Server { name: "kube-apiserver", port: 6443, path: "/etc/kubernetes/pki/apiserver.crt" },
    Server { name: "kubelet", port: 10250, path: "/etc/kubernetes/pki/kubelet-server.crt" },
    Server { name: "etcd", port: 2379, path: "/etc/etcd/pki/server.crt" },
    Server { name: "etcd peer", port: 2380, path: "/etc/etcd/pki/peer.crt" },
];

/// Looks at every certificate of the last reached revision, on disk and on the wire.
pub async fn check_certificates(
    invocation: &Invocation,
    limits: Limits,
    talk: &Arc<dyn Talk>,
) -> Result<Certificates, OpsError> {
    let now = prepare::now();
    let local = Local::read(invocation)?;
    let kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    let store = kept.store()?;
    let revision = store.reached().or(store.newest()).ok_or(OpsError::NothingReached)?.id.clone();
    let (_, desired, blobs, sealed) = store.load(&revision)?;
    let secrets = secrets::unseal_form(&sealed)?;
    custom::warn_of_ends(&secrets, now, &**talk);
    let fleet = prepare::fleet(&local, invocation, talk).await?;
    let expected: BTreeMap<_, _> =
        desired.hosts.iter().map(|(name, host)| (name.clone(), expected(host, &blobs))).collect();
    let scopes = expected.iter().map(|(name, files)| (name.clone(), scope(files))).collect();
    let observed = prepare::look(&fleet, &scopes).await?;
    let patience = Patience::of(local.cluster.options.deadlines.health).question;
    let asked = observed.hosts.iter().filter_map(|(name, seen)| {
        let (host, target, files) = (fleet.get(name)?, desired.hosts.get(name)?, expected.get(name)?);
        Some(async move {
            let shown = wire(&**host, target.internal_address, files, patience).await;
            files
                .iter()
                .map(|(path, file)| judge(name, path, file, seen, shown.get(path.as_str()), limits, now))
                .collect()
        })
    });
    let mut certificates: Vec<Certificate> = join_all(asked).await.into_iter().flat_map(|all: Vec<_>| all).collect();
    let target = Target { desired, blobs: Arc::new(blobs), secrets, issued: Vec::new() };
    certificates.extend(elsewhere::certificates(&local, &fleet, &target, &observed, limits, now).await);
    let silent = if observed.unreachable.is_empty() { Condition::Ok } else { Condition::Critical };
    let condition = certificates.iter().map(|certificate| certificate.condition).max().unwrap_or(Condition::Ok);
    Ok(Certificates {
        schema: 1,
        cluster: local.cluster.name,
        condition: condition.max(silent),
        certificates,
        unreachable: observed.unreachable,
    })
}

/// A file that holds a certificate, as it was written.
struct Expected {
    digest: Digest,
    /// None for a pair that its owner renews.
    certificate: Option<Read>,
    /// The certificate stands in base64 inside a kubeconfig.
    embedded: bool,
}

/// What of a certificate is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    subject: Option<String>,
    not_after: i64,
    fingerprint: Digest,
}

impl Read {
    fn der(der: &[u8]) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
        Some(Self { subject, not_after: parsed.validity().not_after.timestamp(), fingerprint: Digest::of(der) })
    }

    fn pem(pem: &str) -> Option<Self> {
        Self::der(&CertificateDer::from_pem_slice(pem.as_bytes()).ok()?)
    }
}

/// Every file of a target that holds a certificate.
fn expected(host: &DesiredHost, blobs: &Blobs) -> BTreeMap<RemotePath, Expected> {
    let files = host.files.iter().filter_map(|(path, file)| {
        let text = blobs.get(&file.digest)?.expose_text()?;
        let embedded = embedded(text);
        let certificate = match &embedded {
            Some(pem) => Read::pem(pem),
            None => Read::pem(text),
        };
        let certificate = certificate?;
        let own = matches!(file.keep, Keep::Seeded { .. });
        let expected =
            Expected { digest: file.digest, certificate: (!own).then_some(certificate), embedded: embedded.is_some() };
        Some((path.clone(), expected))
    });
    files.collect()
}

/// The client certificate of a kubeconfig.
pub(super) fn embedded(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("client-certificate-data: "))?;
    String::from_utf8(STANDARD.decode(line).ok()?).ok()
}

fn scope(files: &BTreeMap<RemotePath, Expected>) -> Scope {
    let paths = |embedded: bool| -> BTreeSet<RemotePath> {
        files.iter().filter(|(_, file)| file.embedded == embedded).map(|(path, _)| path.clone()).collect()
    };
    Scope { files: paths(true), seeded: paths(false), ..Scope::default() }
}

/// What each server of a host shows, by the path of the file that it should be.
async fn wire<H: crate::host::Host>(
    host: &H,
    address: IpAddr,
    files: &BTreeMap<RemotePath, Expected>,
    patience: Duration,
) -> BTreeMap<&'static str, (String, Result<Read, String>)> {
    let servers = SERVERS.iter().filter(|server| files.keys().any(|path| path.as_str() == server.path));
    let asked = servers.map(|server| async move {
        let seen = match api::presented(host, address, server.port, patience).await {
            Ok(der) => Read::der(&der).ok_or_else(|| "what it shows is no certificate".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        (server.path, (format!("{} :{}", server.name, server.port), seen))
    });
    join_all(asked).await.into_iter().collect()
}

fn judge(
    host: &HostName,
    path: &RemotePath,
    expected: &Expected,
    seen: &ObservedHost,
    shown: Option<&(String, Result<Read, String>)>,
    limits: Limits,
    now: i64,
) -> Certificate {
    let limits = if expected.certificate.is_some() { limits } else { OVERDUE };
    let mut judged = Judged::default();
    let file = seen.files.get(path);
    let same = file.is_some_and(|file| file.digest == expected.digest);
    let disk = match (file, expected.embedded) {
        (Some(_), true) if same => expected.certificate.clone(),
        (Some(file), false) => file.certificate.as_deref().and_then(Read::pem),
        _ => None,
    };
    match (file, &disk) {
        (None, _) => judged.note(Condition::Critical, "the file is missing".to_owned()),
        (Some(_), None) if !expected.embedded => {
            judged.note(Condition::Critical, "it holds no certificate".to_owned());
        }
        _ if !same && expected.certificate.is_some() => {
            judged.note(Condition::Warning, "the file is not the one that bastide wrote".to_owned());
        }
        _ => {}
    }
    judged.certificate(Some(host), path.as_str(), disk.as_ref(), shown, limits, now)
}

/// What was found out about one certificate so far.
#[derive(Default)]
struct Judged {
    condition: Condition,
    remarks: Vec<String>,
}

impl Judged {
    fn note(&mut self, worse: Condition, words: String) {
        self.condition = self.condition.max(worse);
        self.remarks.push(words);
    }

    /// The same with what is shown, and with the time that is left.
    fn certificate(
        mut self,
        host: Option<&HostName>,
        path: &str,
        disk: Option<&Read>,
        shown: Option<&(String, Result<Read, String>)>,
        limits: Limits,
        now: i64,
    ) -> Certificate {
        let wire = shown.and_then(|(_, seen)| seen.as_ref().ok());
        if let Some((server, seen)) = shown {
            match (seen, disk) {
                (Err(reason), _) => self.note(Condition::Critical, format!("{server} cannot be asked: {reason}")),
                (Ok(wire), Some(disk)) if wire.fingerprint != disk.fingerprint => {
                    self.note(Condition::Warning, format!("{server} shows another certificate than {}", it(host)));
                }
                _ => {}
            }
        }
        let ends = [disk, wire].into_iter().flatten().map(|read| read.not_after).min();
        let days_left = ends.map(|end| (end - now).div_euclid(DAY));
        if let (Some(end), Some(days)) = (ends, days_left) {
            match limits.judge(end, now) {
                Condition::Ok => {}
                condition if end <= now => self.note(condition, "it has ended".to_owned()),
                condition => self.note(condition, format!("it ends in {days} days")),
            }
        }
        Certificate {
            host: host.cloned(),
            path: path.to_owned(),
            subject: disk.or(wire).and_then(|read| read.subject.clone()),
            not_after: disk.map(|read| read.not_after),
            server: shown.map(|(server, _)| server.clone()),
            shown_not_after: wire.map(|read| read.not_after),
            days_left,
            condition: self.condition,
            remarks: self.remarks,
        }
    }
}

/// What a certificate was read from.
fn it(host: Option<&HostName>) -> &'static str {
    if host.is_some() { "the file holds" } else { "bastide issued" }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Condition;
    use super::Expected;
    use super::Limits;
    use super::Read;
    use super::judge;
    use crate::model::Access;
    use crate::model::Digest;
    use crate::model::HostName;
    use crate::model::ObservedFile;
    use crate::model::ObservedHost;
    use crate::model::RemotePath;

    const DAY: i64 = 86_400;
    const LIMITS: Limits = Limits { warn_days: 30, critical_days: 7 };

    struct Case {
        pem: String,
        end: i64,
        on_disk: Option<Digest>,
        shown: Option<Result<Read, String>>,
    }

    impl Case {
        /// A certificate that lies where it was written and is shown.
        fn new() -> Self {
            let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
            parameters.not_after = rcgen::date_time_ymd(2027, 1, 1);
            let pem = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
            let read = Read::pem(&pem).unwrap();
            let end = read.not_after;
            Self { pem, end, on_disk: Some(Digest::of(b"written")), shown: Some(Ok(read)) }
        }

        fn at(&self, now: i64) -> (Condition, Vec<String>) {
            let path = RemotePath::new("/x.crt").unwrap();
            let mut seen = ObservedHost::default();
            if let Some(digest) = self.on_disk {
                let file = ObservedFile { digest, access: Access::root(0o600), certificate: Some(self.pem.clone()) };
                seen.files.insert(path.clone(), file);
            }
            let expected =
                Expected { digest: Digest::of(b"written"), certificate: Read::pem(&self.pem), embedded: false };
            let shown = self.shown.clone().map(|shown| ("etcd :2379".to_owned(), shown));
            let host = HostName::new("h1").unwrap();
            let judged = judge(&host, &path, &expected, &seen, shown.as_ref(), LIMITS, now);
            (judged.condition, judged.remarks)
        }
    }

    #[test]
    fn time_that_is_left_decides() {
        let case = Case::new();
        assert_eq!(case.at(case.end - 31 * DAY), (Condition::Ok, Vec::new()));
        assert_eq!(case.at(case.end - 29 * DAY).0, Condition::Warning);
        assert_eq!(case.at(case.end - 6 * DAY).0, Condition::Critical);
        assert_eq!(case.at(case.end), (Condition::Critical, vec!["it has ended".to_owned()]));
    }

    #[test]
    fn a_file_that_is_not_the_written_one_or_not_the_shown_one_is_told() {
        let early = |case: &Case| case.at(case.end - 300 * DAY);
        let edited = Case { on_disk: Some(Digest::of(b"edited")), ..Case::new() };
        assert_eq!(early(&edited).0, Condition::Warning);
        let missing = Case { on_disk: None, ..Case::new() };
        assert_eq!(early(&missing), (Condition::Critical, vec!["the file is missing".to_owned()]));
        let other = Case { shown: Case::new().shown, ..Case::new() };
        let words = "etcd :2379 shows another certificate than the file holds".to_owned();
        assert_eq!(early(&other), (Condition::Warning, vec![words]));
        let silent = Case { shown: Some(Err("no answer".to_owned())), ..Case::new() };
        assert_eq!(early(&silent).0, Condition::Critical);
    }
}
