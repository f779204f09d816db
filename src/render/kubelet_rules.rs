//! What `services.kubelet.extra_args` and `bastide.kubelet.extra_config` may not weaken.

use serde_json::Value;

use crate::render::RenderError;
use crate::render::fields;
use crate::render::hardening::STRONG_CIPHERS;
use crate::render::hardening::TLS_VERSIONS;
use crate::render::judge::Hardened;
use crate::render::judge::Judge;
use crate::render::judge::Rule;
use crate::render::merge;

const OWN_FILE: &str = "bastide renders this file; leave the flag out";
const CERTIFICATES: &str = "bastide makes the kubelet's certificates";
const BY_NODE: &str = "use the node's own key in cluster.yml";

const fn rule(name: &'static str, rule: Rule, source: &'static str) -> Hardened {
    Hardened { name, rule, source }
}

/// Flags of CIS section 4.2. A flag wins over the configuration file.
pub(super) const FLAGS: &[Hardened] = &[
    rule("anonymous-auth", Rule::Is("false"), "CIS 4.2.1"),
    rule("authorization-mode", Rule::Is("Webhook"), "CIS 4.2.2"),
    rule("authentication-token-webhook", Rule::Is("true"), "CIS 4.2.2"),
    rule("bootstrap-kubeconfig", Rule::Owned("every node gets its identity over SSH"), ""),
    rule("client-ca-file", Rule::Owned(CERTIFICATES), "CIS 4.2.3"),
    rule("cluster-dns", Rule::Owned("use services.kubelet.cluster_dns_server"), ""),
    rule("cluster-domain", Rule::Owned("use services.kubelet.cluster_domain"), ""),
    rule("config", Rule::Owned(OWN_FILE), ""),
    rule("container-runtime-endpoint", Rule::Owned("bastide installs containerd"), ""),
    rule("fail-swap-on", Rule::Owned("use services.kubelet.fail_swap_on"), ""),
    rule("hostname-override", Rule::Owned("use hostname_override of the node"), "CIS 4.2.7"),
    rule("kubeconfig", Rule::Owned(OWN_FILE), ""),
    rule("make-iptables-util-chains", Rule::Is("true"), "CIS 4.2.6"),
    rule("node-ip", Rule::Owned(BY_NODE), ""),
    rule("node-labels", Rule::Owned(BY_NODE), ""),
    rule("pod-manifest-path", Rule::Owned("static pods stand in /etc/kubernetes/manifests"), ""),
    rule("protect-kernel-defaults", Rule::Is("true"), "bastide sets the kernel's values"),
    rule("read-only-port", Rule::Is("0"), "CIS 4.2.4"),
    rule("register-with-taints", Rule::Owned(BY_NODE), ""),
    rule("rotate-certificates", Rule::Is("true"), "CIS 4.2.10"),
    rule("seccomp-default", Rule::Is("true"), "CIS 4.2.14"),
    rule("streaming-connection-idle-timeout", Rule::NotZero, "CIS 4.2.5"),
    rule("tls-cert-file", Rule::Owned(CERTIFICATES), "CIS 4.2.9"),
    rule("tls-cipher-suites", Rule::Within(STRONG_CIPHERS), "CIS 4.2.12"),
    rule("tls-min-version", Rule::OneOf(TLS_VERSIONS), "TLS 1.2 or newer"),
    rule("tls-private-key-file", Rule::Owned(CERTIFICATES), "CIS 4.2.9"),
];

/// The same as fields of the KubeletConfiguration.
const FIELDS: &[Hardened] = &[
    rule("apiVersion", Rule::Is("kubelet.config.k8s.io/v1beta1"), "the only version"),
    rule("authentication.anonymous.enabled", Rule::Is("false"), "CIS 4.2.1"),
    rule("authentication.webhook.enabled", Rule::Is("true"), "CIS 4.2.2"),
    rule("authentication.x509.clientCAFile", Rule::Owned(CERTIFICATES), "CIS 4.2.3"),
    rule("authorization.mode", Rule::Is("Webhook"), "CIS 4.2.2"),
    rule("cgroupDriver", Rule::Is("systemd"), "containerd is set to it as well"),
    rule("clusterDNS", Rule::Owned("use services.kubelet.cluster_dns_server"), ""),
    rule("clusterDomain", Rule::Owned("use services.kubelet.cluster_domain"), ""),
    rule("containerRuntimeEndpoint", Rule::Owned("bastide installs containerd"), ""),
    rule("enableDebugFlagsHandler", Rule::Is("false"), "debug handlers change a kubelet from outside"),
    rule("enableProfilingHandler", Rule::Is("false"), "profiles hold memory contents"),
    rule("failSwapOn", Rule::Owned("use services.kubelet.fail_swap_on"), ""),
    rule("healthzBindAddress", Rule::Is("127.0.0.1"), "the health port has no authentication"),
    rule("kind", Rule::Is("KubeletConfiguration"), "the only kind"),
    rule("makeIPTablesUtilChains", Rule::Is("true"), "CIS 4.2.6"),
    rule("podPidsLimit", Rule::AtLeast(1), "CIS 4.2.13"),
    rule("protectKernelDefaults", Rule::Is("true"), "bastide sets the kernel's values"),
    rule("readOnlyPort", Rule::Is("0"), "CIS 4.2.4"),
    rule("registerWithTaints", Rule::Owned(BY_NODE), ""),
    rule("rotateCertificates", Rule::Is("true"), "CIS 4.2.10"),
    rule("seccompDefault", Rule::Is("true"), "CIS 4.2.14"),
    rule("serverTLSBootstrap", Rule::Is("false"), "bastide makes the serving certificate"),
    rule("staticPodPath", Rule::Owned("static pods stand in /etc/kubernetes/manifests"), ""),
    rule("staticPodURL", Rule::Never, "static pods stand in /etc/kubernetes/manifests"),
    rule("streamingConnectionIdleTimeout", Rule::NotZero, "CIS 4.2.5"),
    rule("tlsCertFile", Rule::Owned(CERTIFICATES), "CIS 4.2.9"),
    rule("tlsCipherSuites", Rule::Within(STRONG_CIPHERS), "CIS 4.2.12"),
    rule("tlsMinVersion", Rule::OneOf(TLS_VERSIONS), "TLS 1.2 or newer"),
    rule("tlsPrivateKeyFile", Rule::Owned(CERTIFICATES), "CIS 4.2.9"),
];

/// Judges every field of `bastide.kubelet.extra_config`.
pub(super) fn judge(extra: &Value, judge: &mut Judge<'_>) {
    fields::check("bastide.kubelet.extra_config", fields::KUBELET, extra, judge);
    structure("bastide.kubelet.extra_config", "kubelet", FIELDS, extra, judge);
}

/// Judges every field of a structure; null would take a hardened field away and is judged like any other value.
pub(super) fn structure(place: &str, section: &str, rules: &[Hardened], extra: &Value, judge: &mut Judge<'_>) {
    if !extra.is_null() && !extra.is_object() {
        judge.errors.push(RenderError::Malformed {
            place: place.to_owned(),
            value: extra.to_string(),
            expected: "a mapping".to_owned(),
        });
        return;
    }
    for (path, value) in merge::leaves(extra) {
        let above = |name: &str| name.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.'));
        let here = rules.iter().find(|hardened| hardened.name == path);
        if let Some(hardened) = here.or_else(|| rules.iter().find(|hardened| above(hardened.name))) {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Array(items) => items
                    .iter()
                    .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                    .collect::<Vec<_>>()
                    .join(","),
                other => other.to_string(),
            };
            // An empty structure merges to nothing.
            if here.is_none() && value.as_object().is_some_and(serde_json::Map::is_empty) {
                continue;
            }
            let _ = judge.value(section, hardened, &format!("{place}.{path}"), &text);
        }
    }
}
