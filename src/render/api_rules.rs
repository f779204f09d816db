//! What `services.kube-api.extra_args` may not weaken, and what bastide decides by itself.

use crate::render::hardening::STRONG_CIPHERS;
use crate::render::hardening::TLS_VERSIONS;
use crate::render::judge::Hardened;
use crate::render::judge::Rule;

const CERTIFICATES: &str = "bastide makes this certificate; leave the flag out";
const AUDIT: &str = "use services.kube-api.audit_log";

const fn owned(name: &'static str, instead: &'static str) -> Hardened {
    Hardened { name, rule: Rule::Owned(instead), source: "" }
}

/// CIS section 1.2 and the flags that name files which bastide renders.
pub(super) const RULES: &[Hardened] = &[
    owned("admission-control", "use enable-admission-plugins"),
    owned("admission-control-config-file", "use services.kube-api.admission_configuration"),
    owned("advertise-address", "use `internal_address` of the node"),
    owned("audit-log-maxage", AUDIT),
    owned("audit-log-maxbackup", AUDIT),
    owned("audit-log-maxsize", AUDIT),
    owned("audit-log-path", AUDIT),
    owned("audit-policy-file", AUDIT),
    owned("authentication-config", "bastide renders this file"),
    owned("authorization-config", "kube-bench knows --authorization-mode alone (CIS 1.2.6 to 1.2.8); use that"),
    owned("bind-address", "use bastide.api.bind_address"),
    owned("client-ca-file", CERTIFICATES),
    owned("encryption-provider-config", "use services.kube-api.secrets_encryption_config"),
    owned("etcd-cafile", CERTIFICATES),
    owned("etcd-certfile", CERTIFICATES),
    owned("etcd-keyfile", CERTIFICATES),
    owned("etcd-servers", "bastide names every etcd member"),
    owned("kubelet-certificate-authority", CERTIFICATES),
    owned("kubelet-client-certificate", CERTIFICATES),
    owned("kubelet-client-key", CERTIFICATES),
    owned("proxy-client-cert-file", CERTIFICATES),
    owned("proxy-client-key-file", CERTIFICATES),
    owned("requestheader-client-ca-file", CERTIFICATES),
    owned("secure-port", "the API server listens on 6443"),
    owned("service-account-key-file", CERTIFICATES),
    owned("service-account-signing-key-file", CERTIFICATES),
    owned("service-cluster-ip-range", "use services.kube-api.service_cluster_ip_range"),
    owned("service-node-port-range", "use services.kube-api.service_node_port_range"),
    owned("tls-cert-file", CERTIFICATES),
    owned("tls-private-key-file", CERTIFICATES),
    Hardened {
        name: "authorization-mode",
        rule: Rule::List { required: &["Node", "RBAC"], banned: &["AlwaysAllow", "ABAC"] },
        source: "CIS 1.2.6 to 1.2.8",
    },
    Hardened {
        name: "disable-admission-plugins",
        rule: Rule::List {
            required: &[],
            banned: &[
                "DenyServiceExternalIPs",
                "EventRateLimit",
                "NamespaceLifecycle",
                "NodeRestriction",
                "PodSecurity",
                "ServiceAccount",
            ],
        },
        source: "CIS 1.2.12, 1.2.13",
    },
    Hardened {
        name: "enable-admission-plugins",
        rule: Rule::List {
            required: &["NodeRestriction", "EventRateLimit", "DenyServiceExternalIPs"],
            banned: &["AlwaysAdmit"],
        },
        source: "CIS 1.2.3, 1.2.9, 1.2.10, 1.2.14",
    },
    Hardened {
        name: "enable-bootstrap-token-auth",
        rule: Rule::Is("false"),
        source: "CIS 3.1.3: nodes get certificates over SSH",
    },
    Hardened {
        name: "encryption-provider-config-automatic-reload",
        rule: Rule::Is("true"),
        source: "a rotated key must be read without a restart",
    },
    Hardened { name: "profiling", rule: Rule::Is("false"), source: "CIS 1.2.15" },
    Hardened { name: "request-timeout", rule: Rule::NotZero, source: "CIS 1.2.20" },
    Hardened { name: "requestheader-allowed-names", rule: Rule::Is("front-proxy-client"), source: "front proxy" },
    Hardened { name: "service-account-extend-token-expiration", rule: Rule::Is("false"), source: "CIS 1.2.30" },
    Hardened { name: "service-account-lookup", rule: Rule::Is("true"), source: "CIS 1.2.21" },
    Hardened { name: "tls-cipher-suites", rule: Rule::Within(STRONG_CIPHERS), source: "CIS 1.2.29" },
    Hardened { name: "tls-min-version", rule: Rule::OneOf(TLS_VERSIONS), source: "DISA STIG CNTR-K8-000180" },
    Hardened { name: "token-auth-file", rule: Rule::Never, source: "CIS 1.2.2" },
];
