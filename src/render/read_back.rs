//! Reads rendered files back as what they are for, and compares.

use serde::Deserialize;
use serde_json::Value;

use crate::model::Content;
use crate::render::RenderError;

/// `text` must be the YAML of exactly `meant`.
pub(super) fn value(template: &str, text: &str, meant: &Value) -> Result<(), RenderError> {
    let wrong = |why: String| RenderError::ReadBack { template: template.to_owned(), why };
    let read: Value = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if read == *meant { Ok(()) } else { Err(wrong("a value differs".to_owned())) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code, reason = "the shape is what is checked")]
struct EncryptionConfiguration {
    api_version: String,
    kind: String,
    resources: Vec<EncryptedResources>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the shape is what is checked")]
struct EncryptedResources {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
#[allow(dead_code, reason = "the shape is what is checked")]
enum Provider {
    Aesgcm(Keys),
    Aescbc(Keys),
    Secretbox(Keys),
    Identity {},
    Kms(Value),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the shape is what is checked")]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the shape is what is checked")]
struct Key {
    name: String,
    secret: String,
}

/// Reads an EncryptionConfiguration. True where Secrets are left out, or where a resource is written in clear or by aesgcm, whose keys must change
/// every 200,000 writes. Errors never hold a part of the text, which is all keys.
pub(super) fn encryption(content: &Content) -> Result<bool, RenderError> {
    let wrong = |why: &str| RenderError::Malformed {
        place: "the EncryptionConfiguration".to_owned(),
        value: "(not shown)".to_owned(),
        expected: why.to_owned(),
    };
    let text = content.expose_text().ok_or_else(|| wrong("UTF-8 text"))?;
    let read: EncryptionConfiguration = serde_saphyr::from_str(text)
        .map_err(|_| wrong("an EncryptionConfiguration of apiserver.config.k8s.io/v1 in block style"))?;
    let speaks = |entry: &EncryptedResources| {
        entry.resources.iter().any(|name| ["secrets", "*.", "*.*"].contains(&name.as_str()))
    };
    let left_out = !read.resources.iter().any(speaks);
    Ok(left_out
        || read
            .resources
            .iter()
            .any(|entry| matches!(entry.providers.first(), None | Some(Provider::Identity {} | Provider::Aesgcm(_)))))
}
