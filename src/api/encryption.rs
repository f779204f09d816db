//! Encryption at rest as an API server has it: which configuration it has loaded, and that it writes an object anew.

use std::net::IpAddr;
use std::time::Duration;

use http::Method;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::Credentials;
use crate::api::probe;
use crate::api::probe::Health;
use crate::api::probe::ProbeError;
use crate::api::probe::Tls;
use crate::api::rest::Call;
use crate::api::rest::encoded;
use crate::host::Host;
use crate::model::Digest;

/// The gauge whose label is the digest of the file that was loaded (k8s.io/apiserver, `encryptionconfig/metrics`).
const LOADED: &str = "apiserver_encryption_config_controller_last_config_info{";

/// The digest of the configuration that the API server at `address` works with; none where it does not say.
pub async fn loaded_encryption<H: Host>(
    host: &H,
    address: IpAddr,
    credentials: &Credentials,
    deadline: Duration,
) -> Result<Option<Digest>, ProbeError> {
    let tls = Tls::verified(credentials)?;
    let stream = host.dial(&address.to_string(), 6443).await?;
    let answer = probe::https_get(stream, address, 6443, &tls, "/metrics", deadline).await?;
    if answer.status != 200 {
        let reason = format!("{} {}", answer.status, answer.body.lines().next().unwrap_or_default());
        return Err(ProbeError::Broken { url: format!("https://{address}:6443/metrics"), reason });
    }
    Ok(loaded(&answer.body))
}

/// Whether the API server at `address` gets answers from its plugins (KMS v2), in its own words where not.
pub async fn plugins<H: Host>(
    host: &H,
    address: IpAddr,
    credentials: &Credentials,
    deadline: Duration,
) -> Result<Health, ProbeError> {
    probe::asked(host, address, 6443, Some(&Tls::verified(credentials)?), "/healthz/kms-providers", deadline).await
}

fn loaded(metrics: &str) -> Option<Digest> {
    // A gauge of an earlier configuration is set to 0.
    let now = metrics.lines().filter(|line| line.starts_with(LOADED) && line.ends_with("} 1"));
    let hash = |line: &str| {
        line.split_once(",hash=\"").or_else(|| line.split_once("{hash=\""))?.1.split('"').next()?.parse().ok()
    };
    now.filter_map(hash).next_back()
}

impl Api {
    /// Has the API server write this object as it is. It does write, although nothing differs, where the stored value was
    /// encrypted with another key than the first one; otherwise nothing happens. Nothing of the object is sent or shown.
    /// Whether there was such an object.
    pub async fn write_anew(&self, resource: &str, namespace: Option<&str>, name: &str) -> Result<bool, ApiError> {
        let place = namespace.map(|namespace| format!("namespaces/{}/", encoded(namespace))).unwrap_or_default();
        let doing =
            format!("writing {resource} {}{name} anew", namespace.map(|text| format!("{text}/")).unwrap_or_default());
        let call = Call {
            method: Method::PATCH,
            path: format!("/api/v1/{place}{resource}/{}?fieldManager={}", encoded(name), crate::api::FIELD_MANAGER),
            body: Some(("application/merge-patch+json", b"{}")),
            accept: Some("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
            doing: &doing,
            secret: true,
        };
        match self.request(&call).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::loaded;
    use crate::model::Digest;

    #[test]
    fn the_configuration_that_is_in_use_counts() {
        let line = |hash: Digest, value: u8| {
            format!(
                "apiserver_encryption_config_controller_last_config_info{{apiserver_id_hash=\"sha256:ab\",hash=\"sha256:{hash}\"}} {value}\n"
            )
        };
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let metrics = format!("# TYPE x gauge\n{}{}other 1\n", line(old, 0), line(new, 1));
        assert_eq!(loaded(&metrics), Some(new));
        assert_eq!(loaded("other 1\n"), None);
    }
}
