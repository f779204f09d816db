//! `services.kube-api`.

use crate::config::cluster::ApiService;
use crate::config::cluster::AuditLog;
use crate::config::encryption::custom as custom_encryption;
use crate::config::field::Field;
use crate::config::field::Section;
use crate::config::services::common;
use crate::model::Content;
use crate::model::RemotePath;

/// CIS Kubernetes Benchmark v1.12, items 1.2.17 to 1.2.19, and the path of design section 10.
fn default_audit() -> AuditLog {
    AuditLog {
        max_age: 30,
        max_backup: 10,
        max_size: 100,
        path: "/var/log/kubernetes/audit/audit.log".to_owned(),
        policy: None,
    }
}

/// Reads what is the API server's alone; the caller finishes the section.
pub(super) fn api_service(section: Option<&Section>) -> ApiService {
    let mut service = ApiService {
        common: common(section),
        audit: default_audit(),
        event_rate_limit: None,
        admission: None,
        pod_security: None,
        always_pull_images: false,
        custom_encryption: None,
    };
    let Some(api) = section else { return service };
    if let Some(field) = api.get("pod_security_policy")
        && field.boolean() == Some(true)
    {
        field.error_with(
            "PodSecurityPolicy was removed from Kubernetes 1.25",
            "remove it: Pod Security admission enforces `baseline`; `pod_security_configuration: restricted` is stricter",
        );
    }
    // RKE has no `baseline`; it is what bastide enforces where nothing is said.
    let pod_security = api.given("pod_security_configuration").and_then(|field| {
        field.parsed(|text| match text {
            "privileged" | "baseline" | "restricted" => Ok(text.to_owned()),
            _ => Err(format!("{text:?} is not privileged, baseline or restricted")),
        })
    });
    service.pod_security = pod_security.filter(|level| level != "baseline");
    service.always_pull_images = api.get("always_pull_images").and_then(|field| field.boolean()).unwrap_or(false);
    if let Some(audit) = api.section("audit_log") {
        service.audit = audit_log(&audit);
        audit.finish();
    }
    let binds = service.common.extra_binds.clone();
    let custom = api.section("secrets_encryption_config");
    service.custom_encryption = custom.and_then(|section| encryption(section, &binds));
    service.event_rate_limit = api.section("event_rate_limit").and_then(|limits| {
        switched_off(&limits, "bastide's own limits stay on");
        let value = limits.given("configuration").and_then(|field| of_kind(&field, "Configuration"));
        limits.finish();
        value
    });
    service.admission =
        api.given("admission_configuration").and_then(|field| of_kind(&field, "AdmissionConfiguration"));
    service
}

/// `enabled: false` cannot switch off what hardening needs: said, never silent.
fn switched_off(section: &Section, instead: &str) {
    if let Some(field) = section.get("enabled")
        && field.boolean() == Some(false)
    {
        field.warn_with(format!("ignored: {instead}"), "remove it");
    }
}

fn audit_log(section: &Section) -> AuditLog {
    let mut audit = default_audit();
    switched_off(section, "the audit log stays on");
    let Some(configuration) = section.section("configuration") else { return audit };
    // RKE takes a missing number for 0 where only some are given; here each keeps its default.
    let number = |key| configuration.given(key).and_then(|field| field.number::<u32>(0, 100_000));
    audit.max_age = number("max_age").unwrap_or(audit.max_age);
    audit.max_backup = number("max_backup").unwrap_or(audit.max_backup);
    audit.max_size = number("max_size").unwrap_or(audit.max_size);
    if let Some(field) = configuration.given("path") {
        let path = field.parsed(|text| {
            RemotePath::new(text).map(String::from).map_err(|_| format!("{text:?} is not an absolute path to a file"))
        });
        audit.path = path.unwrap_or(audit.path);
    }
    if let Some(field) = configuration.given("format") {
        field.parsed(|text| match text {
            "json" => Ok(()),
            _ => Err(format!("{text:?} is not a format of the audit log that can be read back: json")),
        });
    }
    audit.policy = configuration.given("policy").and_then(|field| of_kind(&field, "Policy"));
    configuration.finish();
    audit
}

fn encryption(section: Section, binds: &[String]) -> Option<Content> {
    let custom = section.given("custom_config");
    let enabled = section.get("enabled").and_then(|field| {
        let enabled = field.boolean();
        if enabled == Some(false) {
            field.warn_with("ignored: secrets are always encrypted at rest", "remove it");
        }
        enabled
    });
    let content = custom.and_then(|field| {
        if enabled != Some(true) {
            // RKE reads the configuration only when it is switched on.
            field.error_at_key(
                "an encryption configuration without `enabled: true`",
                Some("write `enabled: true` beside it, or remove it to let bastide make the key".to_owned()),
            );
            return None;
        }
        of_kind(&field, "EncryptionConfiguration")?;
        custom_encryption(&field, binds)
    });
    section.finish();
    content
}

/// A Kubernetes object of the file, as JSON, if it is of the right kind.
fn of_kind(field: &Field, kind: &str) -> Option<serde_json::Value> {
    field.section()?;
    let value = field.node.json();
    match value.get("kind").and_then(serde_json::Value::as_str) {
        Some(found) if found == kind => Some(value),
        Some(found) => {
            field.error_at_key(format!("kind is {found:?}"), Some(format!("write `kind: {kind}`")));
            None
        }
        None => {
            field.error_at_key("kind is missing", Some(format!("add `kind: {kind}` and its apiVersion")));
            None
        }
    }
}
