//! Kubeconfigs for people.

use std::path::Path;
use std::path::PathBuf;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::config;
use crate::model::Content;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::kubeconfig;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::Credential;
use crate::secrets::Kubeconfig;
use crate::secrets::OPERATOR_DAYS;
use crate::secrets::Operator;
use crate::secrets::Secrets;
use crate::secrets::SystemEntropy;
use crate::secrets::Trust;
use crate::store;

const DAY: i64 = 24 * 60 * 60;
/// `up` writes the operator's file anew when its certificate has fewer days left.
const RENEW_DAYS: i64 = 10;

/// `kube_config_<cluster file>` beside the cluster's file, as RKE names it.
pub(super) fn operator_file(cluster_file: &Path) -> PathBuf {
    let name = cluster_file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    cluster_file.with_file_name(format!("kube_config_{name}"))
}

/// A new kubeconfig for a person.
pub(super) fn issue(local: &Local, secrets: &Secrets, user: &str, days: u64, now: i64) -> Result<Content, OpsError> {
    let whom = Operator::Person { name: user, days };
    let leaf = secrets::operator_leaf(secrets, whom, local.cluster.options.key_algorithm, now, &mut SystemEntropy)?;
    Ok(secrets::kubeconfig(&Kubeconfig {
        servers: &secrets::servers(&local.cluster),
        authority: Trust::Embedded(&trust(secrets)),
        user,
        credential: Credential::Embedded(&leaf),
    }))
}

/// Writes the operator's kubeconfig where there is none that will do.
pub(super) fn keep_operator_file(local: &Local, secrets: &Secrets, now: i64, talk: &dyn Talk) -> Result<(), OpsError> {
    let path = operator_file(&local.path);
    if secrets.external().contains(&AuthorityName::Kubernetes) {
        talk.say(
            "no kubeconfig is written: the Kubernetes authority is an external one. /etc/kubernetes/admin.conf on the control planes \
             opens the cluster; docs/certificates.md says how people get their own",
        );
        return Ok(());
    }
    let fits = config::read_bytes(&path).is_ok_and(|bytes| will_do(&bytes, local, secrets, now).is_some());
    if fits {
        return Ok(());
    }
    let content = issue(local, secrets, secrets::ADMIN_USER, OPERATOR_DAYS, now)?;
    write(&path, &content)?;
    talk.say(&format!("kubeconfig: {} (for {OPERATOR_DAYS} days)", path.display()));
    Ok(())
}

/// Writes a kubeconfig, 0600, whole or not at all.
pub(super) fn write(path: &Path, content: &Content) -> Result<(), OpsError> {
    Ok(store::write_private(path, content)?)
}

/// Writes `content` into the kubeconfig at `path` beside what is there.
pub(super) fn merge_into(path: &Path, content: &Content) -> Result<(), OpsError> {
    let existing = match config::read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(OpsError::local(path, source)),
    };
    let merged = kubeconfig::merge(&existing, content.expose_text().unwrap_or_default())
        .map_err(|reason| OpsError::Impossible(format!("{}: {reason}", path.display())))?;
    write(path, &Content::new(merged))
}

/// Same servers, same authorities, and a certificate with enough time left from the one that issues: where that is exchanged, the
/// file is good before the old one is dropped.
fn will_do(bytes: &[u8], local: &Local, secrets: &Secrets, now: i64) -> Option<()> {
    use base64::Engine as _;
    let decode = |value: &Value| base64::engine::general_purpose::STANDARD.decode(value.as_str()?).ok();
    let file: Value = serde_saphyr::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
    let clusters = file["clusters"].as_array()?;
    let servers = secrets::servers(&local.cluster);
    let same = servers.iter().map(|server| (server.name.as_str(), server.url.as_str())).eq(clusters
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap_or(""), entry["cluster"]["server"].as_str().unwrap_or(""))));
    let authority = decode(&clusters.first()?["cluster"]["certificate-authority-data"])?;
    let certificate = decode(&file["users"].as_array()?.first()?["user"]["client-certificate-data"])?;
    let der = CertificateDer::from_pem_slice(&certificate).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    let left = parsed.validity().not_after.timestamp() - now;
    let set = secrets.authorities.get(&AuthorityName::Kubernetes)?;
    let issued = secrets::issued_by(set, std::str::from_utf8(&certificate).ok()?);
    (same && issued && authority == trust(secrets).as_bytes() && left > RENEW_DAYS * DAY).then_some(())
}

fn trust(secrets: &Secrets) -> String {
    let set = secrets.authorities.get(&AuthorityName::Kubernetes);
    set.map(crate::secrets::AuthoritySet::trust_bundle).unwrap_or_default()
}
