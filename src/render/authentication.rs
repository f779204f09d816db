//! Who must show credentials, and whose tokens are believed: the AuthenticationConfiguration.
//!
//! kube-apiserver refuses the flags `--anonymous-auth` and `--oidc-*` beside such a file, so that both become part of it.

use serde_json::Value;
use serde_json::json;

use crate::config::Profile;
use crate::render::RenderError;
use crate::render::api_files;
use crate::render::draft::Draft;

/// The file in the container and on the host.
pub(super) const PATH: &str = "/etc/kubernetes/authn/authentication.yaml";
const PLACE: &str = "services.kube-api.extra_args";

/// What a request without credentials may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anonymous {
    /// Nothing.
    Off,
    /// `/livez`, `/readyz` and `/healthz`, exactly these paths.
    HealthOnly,
    /// Whatever RBAC grants: only where the file allows it by name.
    On,
}

/// Flags that become part of the file.
pub(super) fn moved(flag: &str) -> bool {
    flag == "anonymous-auth" || flag.starts_with("oidc-")
}

/// Places the file where there is something to say. CIS 1.2.1: nothing but the health paths answers without
/// credentials, in the strict profile nothing at all.
pub(super) fn render(draft: &mut Draft<'_, '_>) -> Anonymous {
    let flag = draft.shop.cluster.services.api.common.extra_args.get("anonymous-auth");
    let strict = draft.shop.cluster.options.profile == Profile::Strict;
    let anonymous = match flag.map(|value| value.to_ascii_lowercase()).as_deref() {
        Some("false") => Anonymous::Off,
        Some(_) => {
            draft.shop.judge.weaker(
                &format!("{PLACE}.anonymous-auth"),
                "anonymous-auth=true",
                "CIS 1.2.1: only the health paths answer without credentials",
                "kube-api.anonymous-auth",
            );
            Anonymous::On
        }
        None if strict => Anonymous::Off,
        None => Anonymous::HealthOnly,
    };
    let mut document = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"});
    match anonymous {
        // The flag says it; kube-bench looks for the flag.
        Anonymous::Off => {}
        Anonymous::On => document["anonymous"] = json!({"enabled": true}),
        Anonymous::HealthOnly => {
            let paths = ["/livez", "/readyz", "/healthz"].map(|path| json!({"path": path}));
            document["anonymous"] = json!({"enabled": true, "conditions": paths});
        }
    }
    if let Some(authenticator) = issuer(draft) {
        document["jwt"] = json!([authenticator]);
    }
    if document.get("anonymous").is_some() || document.get("jwt").is_some() {
        api_files::place(draft, PATH, &document, PLACE);
    }
    anonymous
}

/// `oidc-*` with the meaning that the flags have (Kubernetes documentation, "Authenticating", 1.37).
fn issuer(draft: &mut Draft<'_, '_>) -> Option<Value> {
    let flags = &draft.shop.cluster.services.api.common.extra_args;
    let get = |name: &str| flags.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if !flags.keys().any(|flag| flag.starts_with("oidc-")) {
        return None;
    }
    let mut wrong = Vec::new();
    let mut impossible = |flag: &str, why: &str| {
        wrong.push(RenderError::Impossible { place: format!("{PLACE}.{flag}"), why: why.to_owned() });
    };
    if get("oidc-ca-file").is_some() {
        impossible(
            "oidc-ca-file",
            "an issuer with an authority of its own is not supported yet: the file stands on a host",
        );
    }
    let (url, client) = (get("oidc-issuer-url"), get("oidc-client-id"));
    if url.is_none() || client.is_none() {
        impossible("oidc-issuer-url", "oidc-issuer-url and oidc-client-id belong together");
    }
    let claim = get("oidc-username-claim").unwrap_or("sub");
    let prefix = match (get("oidc-username-prefix"), claim) {
        (Some("-"), _) | (None, "email") => String::new(),
        (Some(prefix), _) => prefix.to_owned(),
        (None, _) => format!("{}#", url.unwrap_or_default()),
    };
    let mut authenticator = json!({
        "issuer": {"url": url, "audiences": [client]},
        "claimMappings": {"username": {"claim": claim, "prefix": prefix}},
    });
    if let Some(groups) = get("oidc-groups-claim") {
        let prefix = get("oidc-groups-prefix").unwrap_or_default();
        authenticator["claimMappings"]["groups"] = json!({"claim": groups, "prefix": prefix});
    }
    let rules: Vec<Value> = get("oidc-required-claim")
        .into_iter()
        .flat_map(|claims| claims.split(','))
        .filter_map(|pair| pair.split_once('='))
        .map(|(claim, value)| json!({"claim": claim, "requiredValue": value}))
        .collect();
    if !rules.is_empty() {
        authenticator["claimValidationRules"] = Value::from(rules);
    }
    if get("oidc-signing-algs").is_some_and(|algorithms| algorithms != "RS256") {
        impossible(
            "oidc-signing-algs",
            "the configuration file accepts every asymmetric algorithm; leave the flag out",
        );
    }
    for error in wrong {
        draft.wrong(error);
    }
    Some(authenticator)
}
