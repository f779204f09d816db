//! Service-account tokens that never end by themselves: those in Secrets, which the controller manager signs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::Value;

use crate::api::Api;
use crate::api::ApiError;
use crate::api::FIELD_MANAGER;
use crate::api::rest::Call;
use crate::api::rest::encoded;

/// A Secret with a token in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSecret {
    /// Where.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What the token's header calls the key that signed it; none where there is no token, or none that can be read.
    pub key_id: Option<String>,
}

impl Api {
    /// Every Secret of the type `kubernetes.io/service-account-token`. Of a token only its header is looked at.
    pub async fn token_secrets(&self) -> Result<Vec<TokenSecret>, ApiError> {
        let path = "/api/v1/secrets?fieldSelector=type=kubernetes.io/service-account-token";
        let all = self.listed_secret(path, "reading which tokens lie in Secrets").await?;
        Ok(all.iter().map(token_secret).collect())
    }

    /// Takes the token out of a Secret; the controller manager then puts one there that it signs anew.
    pub async fn drop_token(&self, secret: &TokenSecret) -> Result<(), ApiError> {
        let doing = format!("reissuing the token in Secret {}/{}", secret.namespace, secret.name);
        let (namespace, name) = (encoded(&secret.namespace), encoded(&secret.name));
        let call = Call {
            method: Method::PATCH,
            path: format!("/api/v1/namespaces/{namespace}/secrets/{name}?fieldManager={FIELD_MANAGER}"),
            body: Some(("application/merge-patch+json", br#"{"data":{"token":null}}"#)),
            accept: Some("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
            doing: &doing,
            secret: true,
        };
        match self.request(&call).await {
            Err(error) if !error.is_absent() => Err(error),
            _ => Ok(()),
        }
    }
}

fn token_secret(secret: &Value) -> TokenSecret {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    TokenSecret {
        namespace: text(&secret["metadata"]["namespace"]),
        name: text(&secret["metadata"]["name"]),
        key_id: secret["data"]["token"].as_str().and_then(key_id),
    }
}

/// `kid` of a token (RFC 7515, 4.1.4) in base64.
fn key_id(encoded: &str) -> Option<String> {
    let token = STANDARD.decode(encoded).ok()?;
    let header = token.split(|byte| *byte == b'.').next()?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    Some(header["kid"].as_str()?.to_owned())
}

/// The names of the keys in an answer of `/openid/v1/jwks`.
pub fn published_key_ids(answer: &str) -> Option<Vec<String>> {
    let document: Value = serde_json::from_str(answer).ok()?;
    document["keys"].as_array()?.iter().map(|key| Some(key["kid"].as_str()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::key_id;
    use super::published_key_ids;

    #[test]
    fn a_tokens_header_names_its_key() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"abc"}"#);
        assert_eq!(key_id(&STANDARD.encode(format!("{header}.e30.x"))), Some("abc".to_owned()));
        assert_eq!(key_id(&STANDARD.encode("no token")), None);
        let keys = published_key_ids(r#"{"keys":[{"kid":"abc"},{"kid":"def"}]}"#);
        assert_eq!(keys, Some(vec!["abc".to_owned(), "def".to_owned()]));
    }
}
