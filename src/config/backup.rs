//! `services.etcd.backup_config`: how often etcd is saved, how many snapshots stay, and the bucket that gets them too.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::cluster::Backup;
use crate::config::cluster::BackupBucket;
use crate::config::field::Section;
use crate::config::values;
use crate::model::BucketAddress;
use crate::model::BucketKeys;
use crate::model::Content;

/// RKE's defaults.
const INTERVAL_HOURS: u32 = 12;
const RETENTION: u32 = 6;
const TIMEOUT: u32 = 300;
const AMAZON: &str = "s3.amazonaws.com";

const KEYS_ELSEWHERE: &str = "or write neither, and give both as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

impl Default for Backup {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_hours(INTERVAL_HOURS.into()),
            retention: RETENTION,
            timeout: Duration::from_secs(TIMEOUT.into()),
            bucket: None,
        }
    }
}

/// Reads it, or else the older keys that it replaces.
pub(super) fn backup(etcd: &Section) -> Backup {
    let mut backup = older(etcd);
    if let Some(field) = etcd.given("backup_config")
        && let Some(section) = field.section()
    {
        let enabled = section.get("enabled").and_then(|field| field.boolean());
        // As with RKE, nothing and 0 are the default.
        let number = |key, most, default: u32| {
            let number = section.get(key).and_then(|field| field.number::<u32>(0, most));
            number.filter(|number| *number > 0).unwrap_or(default)
        };
        backup = Backup {
            enabled: enabled.unwrap_or(true),
            interval: Duration::from_hours(number("interval_hours", 8_760, INTERVAL_HOURS).into()),
            retention: number("retention", 10_000, RETENTION),
            timeout: Duration::from_secs(number("timeout", 86_400, TIMEOUT).into()),
            bucket: bucket(&section),
        };
        if let Some(field) = section.get("safe_timestamp") {
            field.boolean();
        }
        if let Some(bucket) = section.given("s3backupconfig").or_else(|| section.given("s3_backup_config"))
            && backup.enabled
            && backup.bucket.as_ref().is_some_and(|bucket| bucket.keys.is_none())
        {
            bucket.warn_with(
                "without access_key and secret_key the etcd hosts ask for the role of their own machine, as with RKE; where that gives \
                 none, recurring snapshots stay on the hosts: keys of your environment are not given to them",
                "write both, or run `bastide etcd snapshot save` for what is to lie in the bucket",
            );
        }
        section.finish();
    }
    backup
}

/// `snapshot`, `creation` and `retention`, as RKE had them before `backup_config`: there, `retention` was a time.
fn older(etcd: &Section) -> Backup {
    let mut backup = Backup::default();
    if let Some(field) = etcd.get("snapshot") {
        backup.enabled = field.boolean().unwrap_or(true);
    }
    let length = |key| etcd.given(key).and_then(|field| field.parsed(values::duration));
    if let Some(creation) = length("creation") {
        // RKE's own is in whole hours since.
        backup.interval = creation.max(Duration::from_hours(1));
    }
    if let Some(retention) = length("retention") {
        let number = retention.as_secs().div_ceil(backup.interval.as_secs());
        backup.retention = u32::try_from(number).unwrap_or(RETENTION).max(1);
    }
    backup
}

/// RKE writes `s3backupconfig`; `s3_backup_config` is what Rancher's exports have.
fn bucket(backup: &Section) -> Option<BackupBucket> {
    let [rke, rancher] =
        ["s3backupconfig", "s3_backup_config"].map(|key| backup.given(key).filter(|field| !field.node.is_inert()));
    if let (Some(_), Some(second)) = (&rke, &rancher) {
        second.error_at_key("s3backupconfig stands here as well", Some("keep one of them".to_owned()));
    }
    let section = rke.or(rancher)?.section()?;
    let needed = |key, what: &str, example: &str| {
        let field = section.given(key);
        if field.is_none() {
            section.missing(key, what, format!("add `{key}: {example}`"));
        }
        field
    };
    let endpoint = needed("endpoint", "the S3 server is missing", "s3.eu-central-1.amazonaws.com");
    let endpoint = endpoint.and_then(|field| field.parsed(server));
    let name = needed("bucket_name", "the bucket is missing", "my-snapshots").and_then(|field| field.parsed(name));
    let region = section.given("region").and_then(|field| field.parsed(region));
    let folder = section.given("folder").and_then(|field| field.parsed(folder)).unwrap_or_default();
    let authorities = section.given("custom_ca").and_then(|field| field.parsed(authorities));
    let keys = keys(&section);
    section.finish();
    let (host, port) = endpoint?;
    let address = BucketAddress { host, port, bucket: name?, region, folder, authorities };
    Some(BackupBucket { address, keys })
}

/// A bucket as flags of a command name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketWords {
    /// As `endpoint`; none is Amazon's, as with RKE.
    pub endpoint: Option<String>,
    /// As `bucket_name`.
    pub bucket: Option<String>,
    /// As `region`.
    pub region: Option<String>,
    /// As `folder`.
    pub folder: Option<String>,
    /// As `custom_ca`.
    pub authorities: Option<String>,
    /// As `access_key` and `secret_key`.
    pub keys: Option<(Content, Content)>,
}

impl BucketWords {
    /// What they mean, or what is wrong with them; no key is repeated.
    pub fn bucket(&self) -> Result<BackupBucket, String> {
        let named = self.bucket.as_deref().ok_or("name the bucket with --bucket-name")?;
        let (host, port) = server(self.endpoint.as_deref().unwrap_or(AMAZON))?;
        let address = BucketAddress {
            host,
            port,
            bucket: name(named)?,
            region: self.region.as_deref().map(region).transpose()?,
            folder: self.folder.as_deref().map(folder).transpose()?.unwrap_or_default(),
            authorities: self.authorities.as_deref().map(authorities).transpose()?,
        };
        let read = |content: &Content| key(content.expose_text().unwrap_or("\n"));
        let keys = self.keys.as_ref().map(|(access, secret)| {
            Ok::<_, String>(BucketKeys { access: read(access)?, secret: read(secret)?, token: None })
        });
        Ok(BackupBucket { address, keys: keys.transpose()? })
    }
}

/// Its own words, since a problem never repeats a key.
fn key(text: &str) -> Result<Content, String> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(Content::new(text)) } else { Err("a key has no spaces, line ends or special characters".to_owned()) }
}

/// One without the other opens nothing.
fn keys(section: &Section) -> Option<BucketKeys> {
    let [access, secret] = ["access_key", "secret_key"].map(|key| section.given(key));
    let lone = |field: &crate::config::field::Field, other: &str| {
        field.error_at_key(format!("there is no {other} beside it"), Some(format!("add `{other}:`, {KEYS_ELSEWHERE}")));
    };
    match (&access, &secret) {
        (Some(access), None) => lone(access, "secret_key"),
        (None, Some(secret)) => lone(secret, "access_key"),
        _ => {}
    }
    let [access, secret] = [access, secret].map(|field| field.and_then(|field| field.parsed(key)));
    Some(BucketKeys { access: access?, secret: secret?, token: None })
}

/// RKE's endpoint is a name with an optional port, and TLS always.
fn server(text: &str) -> Result<(String, Option<u16>), String> {
    if text.starts_with("http://") {
        return Err(format!("{text:?} is not encrypted: S3 is spoken over TLS alone, as by RKE"));
    }
    let bare = text.strip_prefix("https://").unwrap_or(text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    values::host_and_port(bare)
        .ok_or_else(|| format!("{text:?} is not a server's name or address with an optional port, without a path"))
}

/// Amazon's rules, and what other servers take beyond them.
fn name(text: &str) -> Result<String, String> {
    let fits = (3..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not the name of a bucket: 3 to 63 letters, digits, '.', '-' and '_'"))
    }
}

fn region(text: &str) -> Result<String, String> {
    let fits = text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if fits { Ok(text.to_owned()) } else { Err(format!("{text:?} is not a region such as eu-central-1")) }
}

/// Slashes at the ends mean nothing, as with RKE.
fn folder(text: &str) -> Result<String, String> {
    let bare = text.trim_matches('/');
    let fits = bare.len() <= 512
        && bare.split('/').all(|part| !matches!(part, "." | ".."))
        && !bare.contains("//")
        && !bare.contains(char::is_control);
    if fits {
        Ok(bare.to_owned())
    } else {
        Err(format!("{text:?} is not a folder of a bucket: parts between single slashes, none of them '.' or '..'"))
    }
}

fn authorities(text: &str) -> Result<String, String> {
    let wrong = || "it holds no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned();
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|_| wrong())?;
    let read = |der: &CertificateDer| x509_parser::parse_x509_certificate(der).is_ok();
    if certificates.is_empty() || !certificates.iter().all(read) { Err(wrong()) } else { Ok(text.to_owned()) }
}
