//! kube-apiserver: a static pod on every control-plane host.

use crate::model::Access;
use crate::model::Component;
use crate::render::admission_plugins;
use crate::render::api_files;
use crate::render::api_rules::RULES;
use crate::render::args;
use crate::render::args::Flags;
use crate::render::authentication;
use crate::render::authentication::Anonymous;
use crate::render::balancer;
use crate::render::draft::Draft;
use crate::render::etcd;
use crate::render::hardening::CIPHERS;
use crate::render::hardening::FIRST_MINOR_WITH_CA_RELOAD;
use crate::render::kms;
use crate::render::local_images;
use crate::render::pod;
use crate::render::pod::Mount;
use crate::render::pod::StaticPod;
use crate::render::pod::Variable;
use crate::secrets::AuthorityName;
use crate::secrets::LeafName;

/// kubeadm's folder for keys. Everything in it belongs to root (CIS 1.1.19).
pub(super) const PKI: &str = "/etc/kubernetes/pki";
const SECTION: &str = "kube-api";

/// Places keys, policies and manifest.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    pki(draft);
    kms::render(draft);
    let anonymous = api_files::render(draft);
    let flags = flags(draft, anonymous);
    let common = &draft.shop.cluster.services.api.common;
    let environment = args::environment(SECTION, common, &mut draft.shop.judge);
    let binds = args::binds(SECTION, common, &mut draft.shop.judge);
    let Some(image) = draft.image("kube-apiserver") else { return };
    let folder = |name: &str, path: &str| Mount::folder(name, path);
    let audit = api_files::audit_folder(&draft.shop.cluster.services.api.audit.path);
    // Without anonymous access nothing but an open port can be probed: the image holds no client, and a token in a
    // manifest would be a long-lived secret. bastide's own gates and every balancer ask /readyz with a certificate.
    let paths = match anonymous {
        Anonymous::Off => (None, None),
        // A store without quorum must not make every API server restart: liveness leaves etcd out.
        Anonymous::HealthOnly | Anonymous::On => (Some("/livez?exclude=etcd"), Some("/readyz")),
    };
    let pod = StaticPod {
        name: "kube-apiserver".to_owned(),
        image,
        command: flags.command("kube-apiserver"),
        environment: environment.into_iter().map(|(name, value)| Variable { name, value }).collect(),
        mounts: [
            folder("pki", PKI),
            folder("enc", "/etc/kubernetes/enc"),
            folder("admission", "/etc/kubernetes/admission"),
            folder("audit", "/etc/kubernetes/audit"),
            folder("authn", "/etc/kubernetes/authn"),
            folder("log", &audit).writable(),
        ]
        .into_iter()
        .chain(kms::sockets(draft))
        .chain(Mount::extra(binds))
        .collect(),
        user: 0,
        group: 0,
        capabilities: Vec::new(),
        read_only_root: true,
        cpu: "250m".to_owned(),
        memory: "256Mi".to_owned(),
        grace_seconds: 30 + balancer::shutdown_delay(draft.shop.cluster),
        probes: pod::probes("127.0.0.1", 6443, "HTTPS", paths.0, paths.1),
    };
    // Reloaded by itself: encryption.yaml (polled), client CA, serving and client leaves, front-proxy CA.
    // The service-account keys, etcd's authority, admission, audit policy and the anonymous part of the
    // authentication configuration are read once.
    let mut restart = draft.digests(&[
        "/etc/kubernetes/pki/etcd/ca.crt",
        "/etc/kubernetes/pki/sa.key",
        "/etc/kubernetes/pki/sa.pub",
        "/etc/kubernetes/admission/admission.yaml",
        "/etc/kubernetes/audit/policy.yaml",
        authentication::PATH,
    ]);
    // It is the authority of the kubelets as well, which older clients read once.
    if draft.shop.cluster.kubernetes.minor < FIRST_MINOR_WITH_CA_RELOAD {
        restart.extend(draft.digests(&["/etc/kubernetes/pki/ca.crt"]));
    }
    draft.pod(Component::ApiServer, pod, &restart);
}

/// Keys and certificates of the control plane, kubeadm's names.
fn pki(draft: &mut Draft<'_, '_>) {
    let root = Access::root(0o600);
    draft.directory("/etc/kubernetes/pki/etcd", Access::root(0o700));
    let own = |draft: &mut Draft<'_, '_>, stem: &str, name| {
        draft.pair(Component::ApiServer, &format!("{PKI}/{stem}"), name, (0, 0));
    };
    draft.server_pair(Component::ApiServer, &format!("{PKI}/apiserver"), LeafName::ApiServer);
    own(draft, "apiserver-kubelet-client", LeafName::ApiServerKubeletClient);
    own(draft, "apiserver-etcd-client", LeafName::ApiServerEtcdClient);
    own(draft, "front-proxy-client", LeafName::FrontProxyClient);
    let etcd = draft.trust(AuthorityName::Etcd);
    draft.file(Component::ApiServer, "/etc/kubernetes/pki/etcd/ca.crt", root, etcd);
    let front = draft.trust(AuthorityName::FrontProxy);
    draft.file(Component::ApiServer, "/etc/kubernetes/pki/front-proxy-ca.crt", root, front);
    let keys = &draft.shop.secrets.service_account;
    let public: String = keys.verifying.iter().map(|pem| format!("{}\n", pem.trim_end())).collect();
    draft.file(Component::ApiServer, "/etc/kubernetes/pki/sa.pub", root, public);
    draft.secret(Component::ApiServer, "/etc/kubernetes/pki/sa.key", root, keys.signing.clone());
}

/// CIS 1.2, `reference` values of the Kubernetes documentation and RKE's defaults where they are not weaker.
fn flags(draft: &mut Draft<'_, '_>, anonymous: Anonymous) -> Flags {
    let cluster = draft.shop.cluster;
    let api = &cluster.services.api;
    let mut flags = Flags::default();
    let mut plugins = vec!["NodeRestriction", "EventRateLimit", "DenyServiceExternalIPs"];
    if local_images::wanted(cluster) {
        plugins.push("AlwaysPullImages");
    }
    flags
        .set("advertise-address", draft.node.internal_address.to_string())
        .set("bind-address", if draft.node.internal_address.is_ipv6() { "::" } else { "0.0.0.0" })
        .set("secure-port", "6443")
        // kube-proxy and CNI pods need it; Pod Security admission is what restricts users.
        .set("allow-privileged", "true")
        .set("authorization-mode", "Node,RBAC")
        .set("client-ca-file", format!("{PKI}/ca.crt"))
        .set("enable-admission-plugins", plugins.join(","))
        .set("admission-control-config-file", "/etc/kubernetes/admission/admission.yaml")
        .set("audit-policy-file", "/etc/kubernetes/audit/policy.yaml")
        .set("audit-log-path", api.audit.path.as_str())
        .set("audit-log-maxage", api.audit.max_age.to_string())
        .set("audit-log-maxbackup", api.audit.max_backup.to_string())
        .set("audit-log-maxsize", api.audit.max_size.to_string())
        .set("audit-log-compress", "true")
        .set("encryption-provider-config", "/etc/kubernetes/enc/encryption.yaml")
        .set("encryption-provider-config-automatic-reload", "true")
        .set("etcd-servers", etcd::endpoints(draft))
        .set("etcd-cafile", format!("{PKI}/etcd/ca.crt"))
        .set("etcd-certfile", format!("{PKI}/apiserver-etcd-client.crt"))
        .set("etcd-keyfile", format!("{PKI}/apiserver-etcd-client.key"))
        .set("kubelet-certificate-authority", format!("{PKI}/ca.crt"))
        .set("kubelet-client-certificate", format!("{PKI}/apiserver-kubelet-client.crt"))
        .set("kubelet-client-key", format!("{PKI}/apiserver-kubelet-client.key"))
        .set("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname")
        .set("proxy-client-cert-file", format!("{PKI}/front-proxy-client.crt"))
        .set("proxy-client-key-file", format!("{PKI}/front-proxy-client.key"))
        .set("requestheader-client-ca-file", format!("{PKI}/front-proxy-ca.crt"))
        .set("requestheader-allowed-names", "front-proxy-client")
        .set("requestheader-username-headers", "X-Remote-User")
        .set("requestheader-group-headers", "X-Remote-Group")
        .set("requestheader-extra-headers-prefix", "X-Remote-Extra-")
        .set("profiling", "false")
        .set("request-timeout", "60s")
        .set("service-account-issuer", format!("https://kubernetes.default.svc.{}", cluster.dns.domain))
        .set("service-account-key-file", format!("{PKI}/sa.pub"))
        .set("service-account-signing-key-file", format!("{PKI}/sa.key"))
        .set("service-account-lookup", "true")
        .set("service-account-extend-token-expiration", "false")
        // An exchange of the key that signs tokens waits for this long, and a token that got away lasts no longer.
        .set("service-account-max-token-expiration", "24h")
        .set("service-cluster-ip-range", cluster.network.service_cidr.to_string())
        .set("service-node-port-range", format!("{}-{}", cluster.network.node_ports.0, cluster.network.node_ports.1))
        .set("shutdown-delay-duration", format!("{}s", balancer::shutdown_delay(cluster)))
        .set("shutdown-send-retry-after", "true")
        .set("strict-transport-security-directives", "max-age=31536000,includeSubDomains")
        .set("tls-cert-file", format!("{PKI}/apiserver.crt"))
        .set("tls-private-key-file", format!("{PKI}/apiserver.key"))
        .set("tls-min-version", "VersionTLS12")
        .set("tls-cipher-suites", CIPHERS.join(","));
    if cluster.control_planes().count() > 1 {
        // Long-lived HTTP/2 connections would otherwise stay where they were after a restart of one server.
        flags.set("goaway-chance", "0.001");
    }
    if anonymous == Anonymous::Off {
        flags.set("anonymous-auth", "false");
    }
    if !draft.digests(&[authentication::PATH]).is_empty() {
        flags.set("authentication-config", authentication::PATH);
    }
    if let Some(address) = cluster.options.api_bind_address {
        bind(draft, &mut flags, address);
    }
    let mut common = api.common.clone();
    common.extra_args.retain(|flag, _| !authentication::moved(flag));
    admission_plugins::check(&common, &mut draft.shop.judge);
    flags.overlay(SECTION, &common, RULES, &mut draft.shop.judge);
    flags
}

/// `bastide.api.bind_address`: kube-apiserver has one address, and the host's own components call 127.0.0.1.
fn bind(draft: &mut Draft<'_, '_>, flags: &mut Flags, address: std::net::IpAddr) {
    if address.is_unspecified() {
        flags.set("bind-address", address.to_string());
    } else {
        draft.wrong(crate::render::RenderError::Impossible {
            place: "bastide.api.bind_address".to_owned(),
            why: format!(
                "{address}: kube-apiserver listens on one address only and this host's own components call it on \
                 127.0.0.1; use 0.0.0.0 or ::, and a firewall to narrow it"
            ),
        });
    }
}
