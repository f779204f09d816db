//! kube-controller-manager: a static pod on every control-plane host.

use crate::model::Access;
use crate::model::Component;
use crate::model::Roles;
use crate::render::RenderError;
use crate::render::apiserver::PKI;
use crate::render::args;
use crate::render::args::Flags;
use crate::render::draft::Draft;
use crate::render::hardening::CIPHERS;
use crate::render::hardening::STRONG_CIPHERS;
use crate::render::hardening::TLS_VERSIONS;
use crate::render::judge::Hardened;
use crate::render::judge::Rule;
use crate::render::kubeconfig::Client;
use crate::render::kubelet;
use crate::render::pod;
use crate::render::pod::Mount;
use crate::render::pod::StaticPod;
use crate::render::pod::Variable;
use crate::secrets::AuthorityName;
use crate::secrets::LeafName;

const SECTION: &str = "kube-controller";
const CONFIG: &str = "/etc/kubernetes/controller-manager.conf";
const CLIENT: Client = Client {
    component: Component::ControllerManager,
    config: CONFIG,
    // Below the one that it is given as a whole.
    folder: "/etc/kubernetes/pki/controller-manager",
    user: "system:kube-controller-manager",
    leaf: LeafName::ControllerManager,
};
/// The certificate of the authority that issues, alone. On every host, because it tells from whom the host's certificates are.
pub const SIGNER: &str = "/etc/kubernetes/pki/signer.crt";
/// Its key, on control planes.
pub(super) const SIGNER_KEY: &str = "/etc/kubernetes/pki/ca.key";
/// What makes it sign with that pair.
pub(super) const SIGNING: [(&str, &str); 2] =
    [("cluster-signing-cert-file", SIGNER), ("cluster-signing-key-file", SIGNER_KEY)];
const OWN_FILE: &str = "bastide renders this file; leave the flag out";

/// CIS section 1.3.
pub(super) const RULES: &[Hardened] = &[
    Hardened { name: "authentication-kubeconfig", rule: Rule::Owned(OWN_FILE), source: "" },
    Hardened { name: "authorization-kubeconfig", rule: Rule::Owned(OWN_FILE), source: "" },
    Hardened { name: "bind-address", rule: Rule::Is("127.0.0.1"), source: "CIS 1.3.7" },
    Hardened { name: "client-ca-file", rule: Rule::Owned(OWN_FILE), source: "" },
    Hardened { name: "cluster-cidr", rule: Rule::Owned("use services.kube-controller.cluster_cidr"), source: "" },
    Hardened { name: "cluster-signing-cert-file", rule: Rule::Owned(OWN_FILE), source: "" },
    Hardened { name: "cluster-signing-key-file", rule: Rule::Owned(OWN_FILE), source: "" },
    Hardened { name: "kubeconfig", rule: Rule::Owned(OWN_FILE), source: "" },
    Hardened { name: "profiling", rule: Rule::Is("false"), source: "CIS 1.3.2" },
    Hardened { name: "requestheader-client-ca-file", rule: Rule::Owned(OWN_FILE), source: "" },
    Hardened { name: "root-ca-file", rule: Rule::Owned(OWN_FILE), source: "CIS 1.3.5" },
    Hardened { name: "service-account-private-key-file", rule: Rule::Owned(OWN_FILE), source: "CIS 1.3.4" },
    Hardened {
        name: "service-cluster-ip-range",
        rule: Rule::Owned("use services.kube-controller.service_cluster_ip_range"),
        source: "",
    },
    Hardened { name: "terminated-pod-gc-threshold", rule: Rule::AtLeast(1), source: "CIS 1.3.1" },
    Hardened { name: "tls-cipher-suites", rule: Rule::Within(STRONG_CIPHERS), source: "the list of CIS 1.2.29" },
    Hardened { name: "tls-min-version", rule: Rule::OneOf(TLS_VERSIONS), source: "DISA STIG CNTR-K8-000150" },
    Hardened { name: "use-service-account-credentials", rule: Rule::Is("true"), source: "CIS 1.3.3" },
];

/// Places the signer's key, kubeconfig and manifest.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    CLIENT.render(draft);
    signer_key(draft);
    let flags = flags(draft);
    let common = &draft.shop.cluster.services.controller_manager;
    let environment = args::environment(SECTION, common, &mut draft.shop.judge);
    let binds = args::binds(SECTION, common, &mut draft.shop.judge);
    let Some(image) = draft.image("kube-controller-manager") else { return };
    let pod = StaticPod {
        name: "kube-controller-manager".to_owned(),
        image,
        command: flags.command("kube-controller-manager"),
        environment: environment.into_iter().map(|(name, value)| Variable { name, value }).collect(),
        mounts: [Mount::folder("pki", PKI), Mount::file("kubeconfig", CONFIG)]
            .into_iter()
            .chain(Mount::extra(binds))
            .collect(),
        user: 0,
        group: 0,
        capabilities: Vec::new(),
        read_only_root: true,
        cpu: "200m".to_owned(),
        memory: "128Mi".to_owned(),
        grace_seconds: 15,
        probes: pod::probes("127.0.0.1", 10257, "HTTPS", Some("/healthz"), Some("/healthz")),
    };
    // The signing pair, the two client authorities and its own certificate are watched; these are read once.
    let mut restart = draft.digests(&["/etc/kubernetes/pki/sa.key"]);
    restart.extend(draft.digests(&CLIENT.restarts().each_ref().map(String::as_str)));
    // It publishes this file to every namespace as `kube-root-ca.crt` and reads it once.
    restart.extend(draft.digests(&["/etc/kubernetes/pki/ca.crt"]));
    draft.pod(Component::ControllerManager, pod, &restart);
}

/// Places the certificate of the authority that issues; on control planes it signs the kubelets' renewals. Apart from the trust file:
/// that one may hold several authorities during a rotation. Its component is one that restarts for it on every host.
pub(super) fn signer(draft: &mut Draft<'_, '_>) {
    let Some(authority) = draft.shop.secrets.authorities.get(&AuthorityName::Kubernetes) else {
        draft.wrong(RenderError::MissingSecret("authority Kubernetes".to_owned()));
        return;
    };
    if authority.external {
        return;
    }
    let component = signer_component(&draft.node.roles);
    draft.file(component, SIGNER, Access::root(0o600), authority.certificate.as_bytes());
}

/// Whose the certificate's file is on a host with these roles.
pub(super) fn signer_component(roles: &Roles) -> Component {
    if roles.control_plane() { Component::ControllerManager } else { Component::Proxy }
}

/// The key that goes with it, where bastide has it.
fn signer_key(draft: &mut Draft<'_, '_>) {
    let authority = draft.shop.secrets.authorities.get(&AuthorityName::Kubernetes);
    if let Some(authority) = authority.filter(|authority| !authority.external) {
        let key = authority.key.clone();
        draft.secret(Component::ControllerManager, SIGNER_KEY, Access::root(0o600), key);
    }
}

fn flags(draft: &mut Draft<'_, '_>) -> Flags {
    let cluster = draft.shop.cluster;
    let mut flags = Flags::default();
    flags
        .set("bind-address", "127.0.0.1")
        .set("secure-port", "10257")
        .set("kubeconfig", CONFIG)
        .set("authentication-kubeconfig", CONFIG)
        .set("authorization-kubeconfig", CONFIG)
        .set("client-ca-file", format!("{PKI}/ca.crt"))
        .set("requestheader-client-ca-file", format!("{PKI}/front-proxy-ca.crt"))
        .set("root-ca-file", format!("{PKI}/ca.crt"))
        .set("service-account-private-key-file", format!("{PKI}/sa.key"))
        .set("use-service-account-credentials", "true")
        .set("allocate-node-cidrs", "true")
        .set("cluster-cidr", cluster.network.cluster_cidr.to_string())
        .set("service-cluster-ip-range", cluster.network.service_cidr.to_string())
        .set("cluster-name", cluster.name.as_str())
        // Says nothing where nobody signs.
        .set("cluster-signing-duration", kubelet::renewed_for(cluster))
        // There are no bootstrap tokens.
        .set("controllers", "*,-bootstrap-signer-controller,-token-cleaner-controller")
        .set("leader-elect", "true")
        .set("profiling", "false")
        .set("terminated-pod-gc-threshold", "1000")
        .set("tls-min-version", "VersionTLS12")
        .set("tls-cipher-suites", CIPHERS.join(","));
    // Without a pair it signs nothing: kubelets' requests stay unanswered, and their pairs are brought to them like all others.
    let external = draft.shop.secrets.external().contains(&AuthorityName::Kubernetes);
    if !external {
        for (name, path) in SIGNING {
            flags.set(name, path);
        }
    }
    let common = &cluster.services.controller_manager;
    flags.overlay(SECTION, common, RULES, &mut draft.shop.judge);
    flags
}
