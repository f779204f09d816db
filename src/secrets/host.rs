//! What an etcd host is given so that it takes snapshots by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::model::BucketAddress;
use crate::model::BucketKeys;
use crate::model::ClusterId;
use crate::model::Content;
use crate::model::HostName;
use crate::model::KubeVersion;
use crate::secrets::SecretsError;

/// Layout of the file.
const SCHEMA: u32 = 1;

/// Whose signatures are believed, and the key that each host signs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSigners {
    /// Public key of the cluster's identity.
    pub identity: String,
    /// By node name: public key, and the key itself.
    pub hosts: BTreeMap<HostName, (String, Content)>,
}

/// One host's settings: a file for root alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSnapshots {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// Its release.
    pub kubernetes: KubeVersion,
    /// The host itself.
    pub host: HostName,
    /// Whether it is the only etcd member.
    pub alone: bool,
    /// From one snapshot to the next.
    pub interval: Duration,
    /// How often its timer fires.
    pub tick: Duration,
    /// How many stay in each place.
    pub retention: u32,
    /// How long one may take.
    pub timeout: Duration,
    /// Public key of the cluster's identity: it must have signed the state that goes into a snapshot.
    pub identity: String,
    /// Public keys of all etcd hosts.
    pub signers: Vec<String>,
    /// What this host signs with.
    pub signing_key: Content,
    /// A bucket that gets every snapshot too; without keys those of the host's own role count.
    pub bucket: Option<(BucketAddress, Option<BucketKeys>)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    schema: u32,
    cluster: ClusterId,
    cluster_name: String,
    kubernetes: KubeVersion,
    host: HostName,
    alone: bool,
    interval_seconds: u64,
    tick_seconds: u64,
    retention: u32,
    timeout_seconds: u64,
    identity: String,
    signers: Vec<String>,
    signing_key: String,
    bucket: Option<BucketForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BucketForm {
    host: String,
    port: Option<u16>,
    bucket: String,
    region: Option<String>,
    folder: String,
    authorities: Option<String>,
    access_key: Option<String>,
    secret_key: Option<String>,
}

impl HostSnapshots {
    /// The file's bytes. Equal settings give equal bytes.
    pub fn text(&self) -> Content {
        let word = |content: &Content| content.expose_text().unwrap_or_default().to_owned();
        let form = Form {
            schema: SCHEMA,
            cluster: self.cluster.clone(),
            cluster_name: self.cluster_name.clone(),
            kubernetes: self.kubernetes,
            host: self.host.clone(),
            alone: self.alone,
            interval_seconds: self.interval.as_secs(),
            tick_seconds: self.tick.as_secs(),
            retention: self.retention,
            timeout_seconds: self.timeout.as_secs(),
            identity: self.identity.clone(),
            signers: self.signers.clone(),
            signing_key: word(&self.signing_key),
            bucket: self.bucket.as_ref().map(|(address, keys)| BucketForm {
                host: address.host.clone(),
                port: address.port,
                bucket: address.bucket.clone(),
                region: address.region.clone(),
                folder: address.folder.clone(),
                authorities: address.authorities.clone(),
                access_key: keys.as_ref().map(|keys| word(&keys.access)),
                secret_key: keys.as_ref().map(|keys| word(&keys.secret)),
            }),
        };
        // Plain structs have no way to fail; an empty file would be refused when read.
        let mut bytes = serde_json::to_vec_pretty(&form).unwrap_or_default();
        bytes.push(b'\n');
        Content::new(bytes)
    }

    /// Reads the file.
    pub fn read(file: &Content) -> Result<Self, SecretsError> {
        // serde's messages may quote the text around a mistake, so none is passed on.
        let form: Form = serde_json::from_slice(file.expose())
            .map_err(|_| SecretsError::Unreadable("not the settings that this bastide writes for a host"))?;
        if form.schema != SCHEMA {
            return Err(SecretsError::TooNew(form.schema));
        }
        Ok(Self {
            cluster: form.cluster,
            cluster_name: form.cluster_name,
            kubernetes: form.kubernetes,
            host: form.host,
            alone: form.alone,
            interval: Duration::from_secs(form.interval_seconds),
            tick: Duration::from_secs(form.tick_seconds),
            retention: form.retention,
            timeout: Duration::from_secs(form.timeout_seconds),
            identity: form.identity,
            signers: form.signers,
            signing_key: Content::new(form.signing_key),
            bucket: form.bucket.map(|bucket| {
                let address = BucketAddress {
                    host: bucket.host,
                    port: bucket.port,
                    bucket: bucket.bucket,
                    region: bucket.region,
                    folder: bucket.folder,
                    authorities: bucket.authorities,
                };
                let keys = bucket.access_key.zip(bucket.secret_key).map(|(access, secret)| BucketKeys {
                    access: Content::new(access),
                    secret: Content::new(secret),
                    token: None,
                });
                (address, keys)
            }),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::HostSnapshots;
    use crate::model::BucketAddress;
    use crate::model::BucketKeys;
    use crate::model::ClusterId;
    use crate::model::Content;
    use crate::model::HostName;

    #[test]
    fn settings_are_read_as_they_are_written_and_show_no_key() {
        let address = BucketAddress {
            host: "minio.example.com".to_owned(),
            port: Some(9000),
            bucket: "b".to_owned(),
            region: None,
            folder: "a".to_owned(),
            authorities: None,
        };
        let keys = BucketKeys { access: Content::new("AKIA1"), secret: Content::new("n33dl3"), token: None };
        let settings = HostSnapshots {
            cluster: ClusterId("c1".to_owned()),
            cluster_name: "test".to_owned(),
            kubernetes: "v1.37.1".parse().unwrap(),
            host: HostName::new("h1").unwrap(),
            alone: true,
            interval: Duration::from_hours(12),
            tick: Duration::from_hours(1),
            retention: 6,
            timeout: Duration::from_mins(5),
            identity: "identity".to_owned(),
            signers: vec!["signer".to_owned()],
            signing_key: Content::new("n33dl3"),
            bucket: Some((address.clone(), Some(keys))),
        };
        assert_eq!(HostSnapshots::read(&settings.text()).unwrap(), settings);
        let by_role = HostSnapshots { bucket: Some((address, None)), ..settings.clone() };
        assert_eq!(HostSnapshots::read(&by_role.text()).unwrap(), by_role);
        assert!(!format!("{settings:?}").contains("n33dl3"));
        let error = HostSnapshots::read(&Content::new("{\"signing_key\": n33dl3}")).unwrap_err();
        assert!(!error.to_string().contains("n33dl3"));
    }
}
