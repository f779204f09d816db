//! The API server's policies: encryption, admission, audit, authentication.

use serde_json::Value;
use serde_json::json;

use crate::config::AtRestProvider;
use crate::config::NetworkPlugin;
use crate::model::Access;
use crate::model::Component;
use crate::model::Content;
use crate::model::RemotePath;
use crate::render::RenderError;
use crate::render::authentication;
use crate::render::authentication::Anonymous;
use crate::render::draft::Draft;
use crate::render::kms;
use crate::render::read_back;
use crate::render::template::Templates;
use crate::render::yaml;
use crate::secrets::EncryptionKey;

/// Places all four files. Each folder is mounted as a whole.
pub(super) fn render(draft: &mut Draft<'_, '_>) -> Anonymous {
    for folder in ["enc", "admission", "audit", "authn"] {
        draft.directory(&format!("/etc/kubernetes/{folder}"), Access::root(0o700));
    }
    let folder = audit_folder(&draft.shop.cluster.services.api.audit.path);
    match RemotePath::new(folder.as_str()) {
        Ok(_) => {
            if folder.starts_with("/var/log/kubernetes/") {
                draft.directory("/var/log/kubernetes", Access::root(0o755));
            }
            draft.directory(&folder, Access::root(0o700));
        }
        Err(_) => draft.wrong(RenderError::Malformed {
            place: "services.kube-api.audit_log.configuration.path".to_owned(),
            value: draft.shop.cluster.services.api.audit.path.clone(),
            expected: "an absolute path of a file in a folder of its own".to_owned(),
        }),
    }
    encryption(draft);
    admission(draft);
    audit(draft);
    authentication::render(draft)
}

/// The folder of the audit log; `-` (standard output) and bare names have none and become bastide's default.
pub(super) fn audit_folder(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((folder, _)) if !folder.is_empty() => folder.to_owned(),
        _ => "/".to_owned(),
    }
}

pub(super) fn place(draft: &mut Draft<'_, '_>, path: &str, document: &Value, hint: &str) {
    let data = json!({"hint": hint, "document": document});
    match draft.shop.templates.render("config.yaml", &data) {
        Ok(text) => {
            if let Err(error) = read_back::value("config.yaml", &text, document) {
                draft.wrong(error);
            }
            draft.file(Component::ApiServer, path, Access::root(0o600), text);
        }
        Err(error) => draft.wrong(error),
    }
}

/// CIS 1.2.27 and 1.2.28. There is no `identity` provider: nothing was ever written in clear, so nothing written in
/// clear is accepted.
fn encryption(draft: &mut Draft<'_, '_>) {
    const PATH: &str = crate::render::ENCRYPTION;
    if let Some(custom) = &draft.shop.cluster.services.api.custom_encryption {
        let custom = match serde_json::from_slice(custom.expose()) {
            Ok(document) => encryption_document(&document),
            // cluster.yml's reader writes it.
            Err(_) => custom.clone(),
        };
        if draft.shop.cluster.options.at_rest.provider.is_some() {
            draft.wrong(RenderError::Impossible {
                place: "bastide.encryption.provider".to_owned(),
                why:
                    "services.kube-api.secrets_encryption_config.custom_config says what encrypts: keep one of the two"
                        .to_owned(),
            });
        }
        let weak = match read_back::encryption(&custom) {
            Ok(weak) => weak,
            Err(error) => {
                draft.wrong(error);
                false
            }
        };
        if weak {
            draft.shop.judge.weaker(
                "services.kube-api.secrets_encryption_config.custom_config",
                "Secrets or another resource that the first provider writes in clear",
                "CIS 1.2.28: the first provider must be aescbc, secretbox or kms",
                "kube-api.encryption",
            );
        }
        draft.secret(Component::ApiServer, PATH, Access::root(0o600), custom);
        return;
    }
    let cluster = draft.shop.cluster;
    if let (Some(AtRestProvider::Kms), Some(plugin)) = (cluster.options.at_rest.provider, &cluster.options.at_rest.kms)
    {
        draft.secret(Component::ApiServer, PATH, Access::root(0o600), kms::configuration(plugin));
        return;
    }
    if draft.shop.secrets.encryption.is_empty() {
        draft.wrong(RenderError::MissingSecret("encryption key".to_owned()));
    }
    match encryption_text(&draft.shop.templates, &draft.shop.secrets.encryption) {
        Ok(content) => {
            if let Err(error) = read_back::encryption(&content) {
                draft.wrong(error);
            }
            draft.secret(Component::ApiServer, PATH, Access::root(0o600), content);
        }
        Err(error) => draft.wrong(error),
    }
}

/// An `EncryptionConfiguration` in block style: kube-bench (CIS 1.2.28) looks for the provider on the line after `providers:`.
pub(super) fn encryption_document(document: &Value) -> Content {
    Content::new(format!("# Written by bastide; holds keys.\n{}", yaml::block(document)))
}

/// The `EncryptionConfiguration` with these keys, the first of which writes.
pub(super) fn encryption_text(templates: &Templates, keys: &[EncryptionKey]) -> Result<Content, RenderError> {
    let mut providers: Vec<Value> = Vec::new();
    for key in keys {
        use base64::Engine as _;
        let secret = base64::engine::general_purpose::STANDARD.encode(key.key.expose());
        let entry = json!({"name": key.name, "secret": secret});
        // Keys of one kind that follow each other belong to one provider; the first key of all writes.
        match providers.last_mut() {
            Some(last) if last["provider"] == key.provider.as_str() => {
                if let Some(keys) = last["keys"].as_array_mut() {
                    keys.push(entry);
                }
            }
            _ => providers.push(json!({"provider": key.provider, "keys": [entry]})),
        }
    }
    templates.render("encryption.yaml", &json!({"providers": providers})).map(Content::new)
}

/// Pod Security and event limits, then what the file adds.
fn admission(draft: &mut Draft<'_, '_>) {
    let cluster = draft.shop.cluster;
    let api = &cluster.services.api;
    let minor = format!("v1.{}", cluster.kubernetes.minor);
    let enforce = match api.pod_security.as_deref() {
        None | Some("baseline") => "baseline",
        Some("restricted") => "restricted",
        Some(other) => {
            draft.shop.judge.weaker(
                "services.kube-api.pod_security_configuration",
                other,
                "Pod Security: baseline is enforced, restricted is the stricter choice",
                "kube-api.pod_security_configuration",
            );
            "privileged"
        }
    };
    let mut exempt = vec!["kube-system"];
    if matches!(cluster.network.plugin, NetworkPlugin::Flannel { .. }) {
        exempt.push("kube-flannel");
    }
    let limits = api.event_rate_limit.clone().unwrap_or_else(|| {
        json!({
            "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1",
            "kind": "Configuration",
            "limits": [
                {"type": "Server", "qps": 5000, "burst": 20000},
                {"type": "Namespace", "qps": 50, "burst": 100, "cacheSize": 2000},
                {"type": "User", "qps": 50, "burst": 100, "cacheSize": 2000},
            ],
        })
    });
    let mut plugins = vec![
        json!({"name": "EventRateLimit", "configuration": limits}),
        json!({
            "name": "PodSecurity",
            "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1",
                "kind": "PodSecurityConfiguration",
                "defaults": {
                    "enforce": enforce, "enforce-version": minor,
                    "audit": "restricted", "audit-version": minor,
                    "warn": "restricted", "warn-version": minor,
                },
                "exemptions": {"usernames": [], "runtimeClasses": [], "namespaces": exempt},
            },
        }),
    ];
    if let Some(given) = &api.admission {
        overlay_plugins(draft, &mut plugins, given);
    }
    let document =
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": plugins});
    place(draft, "/etc/kubernetes/admission/admission.yaml", &document, "services.kube-api.admission_configuration");
}

/// A plugin of the file replaces bastide's of the same name; Pod Security may not fall below baseline unnamed.
fn overlay_plugins(draft: &mut Draft<'_, '_>, plugins: &mut Vec<Value>, given: &Value) {
    const PLACE: &str = "services.kube-api.admission_configuration";
    for plugin in given["plugins"].as_array().into_iter().flatten() {
        let Some(name) = plugin["name"].as_str() else {
            draft.wrong(RenderError::Malformed {
                place: format!("{PLACE}.plugins"),
                value: plugin.to_string(),
                expected: "a plugin with a name".to_owned(),
            });
            continue;
        };
        if !plugin["path"].is_null() {
            draft.wrong(RenderError::Impossible {
                place: format!("{PLACE}.plugins.{name}.path"),
                why: "a path on the host is not followed; write the configuration in place of it".to_owned(),
            });
        }
        let enforce = plugin["configuration"]["defaults"]["enforce"].as_str().unwrap_or("privileged");
        if name == "PodSecurity" && enforce == "privileged" {
            draft.shop.judge.weaker(
                &format!("{PLACE}.plugins.PodSecurity"),
                "enforce=privileged",
                "Pod Security: baseline is enforced, restricted is the stricter choice",
                "kube-api.pod_security_configuration",
            );
        }
        match plugins.iter_mut().find(|own| own["name"] == name) {
            Some(own) => *own = plugin.clone(),
            None => plugins.push(plugin.clone()),
        }
    }
}

/// CIS 3.2.1 and 3.2.2.
fn audit(draft: &mut Draft<'_, '_>) {
    const PATH: &str = "/etc/kubernetes/audit/policy.yaml";
    match &draft.shop.cluster.services.api.audit.policy {
        Some(policy) => {
            let policy = policy.clone();
            place(draft, PATH, &policy, "services.kube-api.audit_log.configuration.policy");
        }
        None => {
            draft.file(Component::ApiServer, PATH, Access::root(0o600), crate::render::AUDIT_POLICY);
        }
    }
}
