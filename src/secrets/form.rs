//! The one document that holds all secrets. It exists in memory and sealed, never otherwise.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::model::ClusterId;
use crate::model::Content;
use crate::model::HostName;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::EncryptionKey;
use crate::secrets::EtcdBirth;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::OtherAuthority;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::ServiceAccountKeys;

/// The newest layout that this program reads, and the one it writes.
pub(crate) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    version: u32,
    cluster: ClusterId,
    authorities: BTreeMap<String, AuthorityForm<'a>>,
    service_account: ServiceAccountForm<'a>,
    encryption: Vec<EncryptionForm>,
    leaves: Vec<LeafForm<'a>>,
    etcd: EtcdForm,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityForm<'a> {
    certificate: Cow<'a, str>,
    key: Cow<'a, str>,
    /// Programs from before there were any wrote none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    external: bool,
    also_accepted: Vec<String>,
    /// Only during a rotation; programs from before there were any wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other: Option<OtherForm<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherForm<'a> {
    comes: bool,
    certificate: Cow<'a, str>,
    key: Cow<'a, str>,
    /// Programs from before an authority could change hands wrote neither.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    external: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leaves: Vec<LeafForm<'a>>,
    cross_signed: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceAccountForm<'a> {
    signing: Cow<'a, str>,
    verifying: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncryptionForm {
    name: String,
    provider: String,
    /// Base64.
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeafForm<'a> {
    name: String,
    host: Option<HostName>,
    certificate: Cow<'a, str>,
    key: Cow<'a, str>,
    not_after: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EtcdForm {
    token: String,
    members: BTreeMap<HostName, String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    away: BTreeSet<HostName>,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The versioned JSON of `secrets`, to be sealed. Equal secrets give equal bytes.
pub fn seal_form(secrets: &Secrets) -> Content {
    let form = Form {
        version: VERSION,
        cluster: secrets.cluster.clone(),
        authorities: secrets
            .authorities
            .iter()
            .map(|(name, set)| {
                let form = AuthorityForm {
                    certificate: Cow::Borrowed(&set.certificate),
                    key: text(&set.key),
                    external: set.external,
                    also_accepted: set.also_accepted.clone(),
                    other: set.other.as_ref().map(|other| OtherForm {
                        comes: other.comes,
                        certificate: Cow::Borrowed(&other.certificate),
                        key: text(&other.key),
                        external: other.external,
                        leaves: leaf_forms(&other.leaves),
                        cross_signed: other.cross_signed.as_deref().map(Cow::Borrowed),
                    }),
                };
                (name.as_str().to_owned(), form)
            })
            .collect(),
        service_account: ServiceAccountForm {
            signing: text(&secrets.service_account.signing),
            verifying: secrets.service_account.verifying.clone(),
            next: secrets.service_account.next.as_ref().map(text),
        },
        encryption: secrets
            .encryption
            .iter()
            .map(|key| EncryptionForm {
                name: key.name.clone(),
                provider: key.provider.clone(),
                key: STANDARD.encode(key.key.expose()),
            })
            .collect(),
        leaves: leaf_forms(&secrets.leaves),
        etcd: EtcdForm {
            token: secrets.etcd.token.clone(),
            members: secrets.etcd.members.clone(),
            away: secrets.etcd.away.clone(),
        },
    };
    // Reserved at once where the size is usual: growing leaves copies in freed memory.
    let mut bytes = Vec::with_capacity(16 * 1024 + secrets.leaves.len() * 4096);
    // Writing plain structs to memory has no way to fail; an empty document would be refused when read.
    if serde_json::to_writer(&mut bytes, &form).is_err() {
        bytes.clear();
    }
    Content::new(bytes)
}

/// Reads what [`seal_form`] wrote.
pub fn unseal_form(document: &Content) -> Result<Secrets, SecretsError> {
    // serde's messages may quote the text around a mistake, so none is passed on.
    let unreadable = |_| SecretsError::Unreadable("not the JSON that was written");
    let version: Version = serde_json::from_slice(document.expose()).map_err(unreadable)?;
    if version.version > VERSION {
        return Err(SecretsError::TooNew(version.version));
    }
    let form: Form<'_> = serde_json::from_slice(document.expose()).map_err(unreadable)?;
    let mut authorities = BTreeMap::new();
    for (name, set) in form.authorities {
        let name = AuthorityName::ALL
            .into_iter()
            .find(|known| known.as_str() == name)
            .ok_or(SecretsError::Unreadable("an unknown authority"))?;
        let set = AuthoritySet {
            certificate: set.certificate.into_owned(),
            key: content(set.key),
            external: set.external,
            also_accepted: set.also_accepted,
            other: set.other.map(other).transpose()?,
        };
        authorities.insert(name, set);
    }
    let leaves = leaves(form.leaves)?;
    let mut encryption = Vec::new();
    for key in form.encryption {
        let encoded = Zeroizing::new(key.key);
        let bytes =
            STANDARD.decode(encoded.as_bytes()).map_err(|_| SecretsError::Unreadable("an encryption key's base64"))?;
        encryption.push(EncryptionKey { name: key.name, provider: key.provider, key: Content::new(bytes) });
    }
    Ok(Secrets {
        cluster: form.cluster,
        authorities,
        service_account: ServiceAccountKeys {
            signing: content(form.service_account.signing),
            verifying: form.service_account.verifying,
            next: form.service_account.next.map(content),
        },
        encryption,
        leaves,
        etcd: EtcdBirth { token: form.etcd.token, members: form.etcd.members, away: form.etcd.away, joining: None },
    })
}

fn leaf_forms(leaves: &BTreeMap<LeafId, Leaf>) -> Vec<LeafForm<'_>> {
    leaves
        .iter()
        .map(|(id, leaf)| LeafForm {
            name: id.name.as_str().to_owned(),
            host: id.host.clone(),
            certificate: Cow::Borrowed(&leaf.certificate),
            key: text(&leaf.key),
            not_after: leaf.not_after,
        })
        .collect()
}

fn leaves(forms: Vec<LeafForm<'_>>) -> Result<BTreeMap<LeafId, Leaf>, SecretsError> {
    let mut leaves = BTreeMap::new();
    for leaf in forms {
        let name = LeafName::ALL
            .into_iter()
            .find(|known| known.as_str() == leaf.name)
            .ok_or(SecretsError::Unreadable("an unknown leaf"))?;
        let kept =
            Leaf { certificate: leaf.certificate.into_owned(), key: content(leaf.key), not_after: leaf.not_after };
        leaves.insert(LeafId { name, host: leaf.host }, kept);
    }
    Ok(leaves)
}

fn other(form: OtherForm<'_>) -> Result<OtherAuthority, SecretsError> {
    Ok(OtherAuthority {
        comes: form.comes,
        certificate: form.certificate.into_owned(),
        key: content(form.key),
        external: form.external,
        leaves: leaves(form.leaves)?,
        cross_signed: form.cross_signed.map(Cow::into_owned),
    })
}

/// PEM is text by construction.
fn text(key: &Content) -> Cow<'_, str> {
    Cow::Borrowed(key.expose_text().unwrap_or_default())
}

fn content(text: Cow<'_, str>) -> Content {
    Content::new(text.into_owned())
}
