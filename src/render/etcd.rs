//! The etcd member: a static pod under its own user (design: numbers, not names, so that a container agrees with its host).

use crate::model::Access;
use crate::model::Component;
use crate::model::SystemUser;
use crate::render::args;
use crate::render::args::Flags;
use crate::render::draft::Draft;
use crate::render::hardening::CIPHERS;
use crate::render::judge::Hardened;
use crate::render::judge::Rule;
use crate::render::pod::Get;
use crate::render::pod::Mount;
use crate::render::pod::Probe;
use crate::render::pod::StaticPod;
use crate::render::pod::Variable;
use crate::render::url_host;
use crate::secrets::AuthorityName;
use crate::secrets::LeafName;

/// etcd's own key folder: CIS 1.1.19 wants everything below /etc/kubernetes/pki to belong to root, 1.1.12 wants etcd
/// to run as etcd.
const PKI: &str = "/etc/etcd/pki";
const DATA: &str = "/var/lib/etcd";
const SECTION: &str = "etcd";

const FILES: &str = "bastide makes etcd's certificates; see `bastide.pki`";
const BIRTH: &str = "a member's birth data is kept in bastide's state";

/// CIS section 2.
pub(super) const RULES: &[Hardened] = &[
    Hardened { name: "advertise-client-urls", rule: Rule::Owned("use `internal_address` of the node"), source: "" },
    Hardened { name: "auto-tls", rule: Rule::Is("false"), source: "CIS 2.3" },
    Hardened { name: "cert-file", rule: Rule::Owned(FILES), source: "" },
    Hardened { name: "cipher-suites", rule: Rule::Within(CIPHERS), source: "the four ECDHE-GCM suites" },
    Hardened { name: "client-cert-auth", rule: Rule::Is("true"), source: "CIS 2.2" },
    Hardened { name: "data-dir", rule: Rule::Owned("the data stands in /var/lib/etcd"), source: "" },
    Hardened { name: "initial-advertise-peer-urls", rule: Rule::Owned(BIRTH), source: "" },
    Hardened { name: "initial-cluster", rule: Rule::Owned(BIRTH), source: "" },
    Hardened { name: "initial-cluster-state", rule: Rule::Owned(BIRTH), source: "" },
    Hardened { name: "initial-cluster-token", rule: Rule::Owned(BIRTH), source: "" },
    Hardened { name: "key-file", rule: Rule::Owned(FILES), source: "" },
    Hardened { name: "listen-client-urls", rule: Rule::Owned("use `internal_address` of the node"), source: "" },
    Hardened { name: "listen-peer-urls", rule: Rule::Owned("use `internal_address` of the node"), source: "" },
    Hardened {
        name: "listen-metrics-urls",
        rule: Rule::Is("http://127.0.0.1:2381"),
        source: "metrics have no authentication and stay on loopback",
    },
    Hardened { name: "name", rule: Rule::Owned(BIRTH), source: "" },
    Hardened { name: "peer-auto-tls", rule: Rule::Is("false"), source: "CIS 2.6" },
    Hardened { name: "peer-cert-file", rule: Rule::Owned(FILES), source: "" },
    Hardened { name: "peer-client-cert-auth", rule: Rule::Is("true"), source: "CIS 2.5" },
    Hardened { name: "peer-key-file", rule: Rule::Owned(FILES), source: "" },
    Hardened { name: "peer-trusted-ca-file", rule: Rule::Owned(FILES), source: "" },
    Hardened { name: "tls-min-version", rule: Rule::OneOf(&["TLS1.2", "TLS1.3"]), source: "TLS 1.2 or newer" },
    Hardened { name: "trusted-ca-file", rule: Rule::Owned(FILES), source: "CIS 2.7" },
];

/// Places user, keys and manifest of this host's member.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    let service = &draft.shop.cluster.services.etcd;
    let owner = (service.uid, service.gid);
    draft.host.users.push(SystemUser { name: "etcd".to_owned(), uid: owner.0, gid: owner.1 });
    let own = |mode| Access { mode, uid: owner.0, gid: owner.1 };
    draft.directory("/etc/etcd", Access::root(0o755));
    draft.directory(PKI, own(0o700));
    // CIS 1.1.11 and 1.1.12.
    draft.directory(DATA, own(0o700));
    let trust = draft.trust(AuthorityName::Etcd);
    let authority = draft.file(Component::Etcd, &format!("{PKI}/ca.crt"), own(0o600), trust);
    draft.pair(Component::Etcd, &format!("{PKI}/server"), LeafName::EtcdServer, owner);
    draft.pair(Component::Etcd, &format!("{PKI}/peer"), LeafName::EtcdPeer, owner);
    draft.pair(Component::Etcd, &format!("{PKI}/healthcheck-client"), LeafName::EtcdHealthcheck, owner);

    let flags = flags(draft);
    let common = &service.common;
    let environment = args::environment(SECTION, common, &mut draft.shop.judge);
    let binds = args::binds(SECTION, common, &mut draft.shop.judge);
    let Some(image) = draft.image("etcd") else { return };
    let probe = |field, path: &str, period, failures| Probe {
        field,
        get: Some(Get { path: path.to_owned(), scheme: "HTTP" }),
        host: "127.0.0.1".to_owned(),
        port: 2381,
        period,
        timeout: 15,
        failures,
    };
    let pod = StaticPod {
        name: "etcd".to_owned(),
        image,
        command: flags.command("etcd"),
        environment: environment.into_iter().map(|(name, value)| Variable { name, value }).collect(),
        mounts: [Mount::folder("pki", PKI), Mount::folder("data", DATA).writable()]
            .into_iter()
            .chain(Mount::extra(binds))
            .collect(),
        user: owner.0,
        group: owner.1,
        capabilities: Vec::new(),
        read_only_root: true,
        cpu: "100m".to_owned(),
        memory: "100Mi".to_owned(),
        // Its own client drain takes 5 s plus two election timeouts.
        grace_seconds: 30,
        // A large store takes minutes to open: kubeadm waits 4 min, this 10.
        probes: vec![
            probe("startupProbe", "/readyz", 2, 300),
            probe("livenessProbe", "/livez", 10, 8),
            probe("readinessProbe", "/readyz", 5, 3),
        ],
    };
    // Leaves are read anew at every handshake; the authority is read once.
    let restart = [(format!("{PKI}/ca.crt"), authority)].into_iter().collect();
    draft.pod(Component::Etcd, pod, &restart);
}

fn flags(draft: &mut Draft<'_, '_>) -> Flags {
    let address = url_host(draft.node.internal_address);
    let birth = &draft.shop.secrets.etcd;
    let members: Vec<String> = birth.members.iter().map(|(name, url)| format!("{name}={url}")).collect();
    let mut flags = Flags::default();
    flags
        .set("name", draft.node.name.as_str())
        .set("data-dir", DATA)
        .set("listen-client-urls", format!("https://127.0.0.1:2379,https://{address}:2379"))
        .set("advertise-client-urls", format!("https://{address}:2379"))
        .set("listen-peer-urls", format!("https://{address}:2380"))
        .set("initial-advertise-peer-urls", format!("https://{address}:2380"))
        .set("initial-cluster", members.join(","))
        .set("initial-cluster-state", if birth.joining.as_ref() == Some(&draft.node.name) { "existing" } else { "new" })
        .set("initial-cluster-token", birth.token.as_str())
        .set("cert-file", format!("{PKI}/server.crt"))
        .set("key-file", format!("{PKI}/server.key"))
        .set("trusted-ca-file", format!("{PKI}/ca.crt"))
        .set("client-cert-auth", "true")
        .set("auto-tls", "false")
        .set("peer-cert-file", format!("{PKI}/peer.crt"))
        .set("peer-key-file", format!("{PKI}/peer.key"))
        .set("peer-trusted-ca-file", format!("{PKI}/ca.crt"))
        .set("peer-client-cert-auth", "true")
        .set("peer-auto-tls", "false")
        .set("cipher-suites", CIPHERS.join(","))
        .set("tls-min-version", "TLS1.2")
        .set("listen-metrics-urls", "http://127.0.0.1:2381")
        // RKE's.
        .set("election-timeout", "5000")
        .set("heartbeat-interval", "500")
        .set("snapshot-count", "10000")
        // etcd's documentation names 8 GiB as the suggested maximum.
        .set("quota-backend-bytes", "8589934592")
        // As kubeadm has them since etcd 3.6.
        .set("feature-gates", "InitialCorruptCheck=true")
        .set("watch-progress-notify-interval", "5s");
    let common = &draft.shop.cluster.services.etcd.common;
    flags.overlay(SECTION, common, RULES, &mut draft.shop.judge);
    flags
}

/// The client URLs of all members that belong to the others, that of this host in front.
pub(super) fn endpoints(draft: &Draft<'_, '_>) -> String {
    let own = draft.node.internal_address;
    let mut urls: Vec<(bool, String)> = draft
        .shop
        .cluster
        .etcd_members()
        .filter(|member| !draft.shop.secrets.etcd.away.contains(&member.name))
        .map(|member| (member.internal_address != own, format!("https://{}:2379", url_host(member.internal_address))))
        .collect();
    urls.sort();
    urls.into_iter().map(|(_, url)| url).collect::<Vec<_>>().join(",")
}
