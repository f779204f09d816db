//! THE TABLE: what each leaf says and who signs it.
//!
//! Sources: kubeadm's `certs` phase (Kubernetes page "PKI certificates and requirements"), RKE's `pki` package, and the
//! signers `kubernetes.io/kube-apiserver-client-kubelet` and `kubernetes.io/kubelet-serving` for the kubelet's subjects.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::config::Cluster;
use crate::config::KeyAlgorithm;
use crate::config::Node;
use crate::model::HostName;
use crate::secrets::AuthorityName;
use crate::secrets::LeafId;
use crate::secrets::LeafName;

/// CN of the API server's client certificate towards kubelets.
pub const KUBELET_CLIENT_USER: &str = "kube-apiserver-kubelet-client";
/// Its group: bound to `system:kubelet-api-admin` by a cluster object, never system:masters.
pub const KUBELET_CLIENT_GROUP: &str = "bastide:apiserver-kubelet-client";
/// CN of `admin.conf` on the hosts.
pub const ADMIN_USER: &str = "admin";
/// Group of `admin.conf` and of people's certificates: bound to `cluster-admin` by a cluster object, so that removing the
/// binding takes the power away. A member of system:masters could not be stopped short of a new authority.
pub const ADMIN_GROUP: &str = "bastide:admins";
/// CN of the balancer's health check: bound to the health URLs only.
pub const HEALTHCHECK_USER: &str = "bastide:healthcheck";

/// One year, as kubeadm's leaves.
pub const LEAF_LIFETIME: i64 = 365 * DAY;
/// Ten years, as kubeadm's and RKE's authorities.
pub const AUTHORITY_LIFETIME: i64 = 3650 * DAY;
/// Clocks of hosts may lag behind the operator's by this much.
pub const BACKDATED: i64 = 5 * 60;
/// A leaf with less time left is issued anew by the next run.
pub const RENEW_BEFORE: i64 = 90 * DAY;

pub(crate) const DAY: i64 = 24 * 60 * 60;

/// How leaves are issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Of new keys.
    pub algorithm: KeyAlgorithm,
    /// Seconds.
    pub lifetime: i64,
}

impl Terms {
    /// What the cluster's file says.
    pub fn of(cluster: &Cluster) -> Self {
        let lifetime = i64::try_from(cluster.options.leaf_lifetime.as_secs()).unwrap_or(LEAF_LIFETIME);
        Self { algorithm: cluster.options.key_algorithm, lifetime }
    }

    /// `most`, or a third of a short life: else every run would issue anew what the last one issued.
    pub(crate) fn margin(self, most: i64) -> i64 {
        most.min(self.lifetime / 3)
    }
}

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum San {
    /// A name, lower case.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl San {
    /// An address where `text` is one, else a name. Go's TLS never matches a dotted quad against a DNS name.
    pub(crate) fn new(text: &str) -> Self {
        match text.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => Self::Ip(address),
            Err(_) => Self::Dns(text.to_ascii_lowercase()),
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Client,
    Server,
    /// etcd's listeners dial themselves and each other with the certificate they serve.
    Both,
}

impl Usage {
    /// Of a row of the table.
    pub(crate) fn of(name: LeafName) -> Self {
        match name {
            LeafName::ApiServer | LeafName::KubeletServer | LeafName::MetricsServer => Self::Server,
            LeafName::EtcdServer | LeafName::EtcdPeer => Self::Both,
            _ => Self::Client,
        }
    }

    pub(crate) fn client(self) -> bool {
        self != Self::Server
    }
    pub(crate) fn server(self) -> bool {
        self != Self::Client
    }
}

/// What a leaf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) authority: AuthorityName,
    pub(crate) common_name: String,
    pub(crate) organization: Option<String>,
    pub(crate) usage: Usage,
    pub(crate) sans: BTreeSet<San>,
    pub(crate) lifetime: i64,
}

impl Template {
    pub(crate) fn client(authority: AuthorityName, common_name: &str, organization: Option<&str>) -> Self {
        Self {
            authority,
            common_name: common_name.to_owned(),
            organization: organization.map(str::to_owned),
            usage: Usage::Client,
            sans: BTreeSet::new(),
            lifetime: LEAF_LIFETIME,
        }
    }

    fn serving(mut self, usage: Usage, sans: BTreeSet<San>) -> Self {
        self.usage = usage;
        self.sans = sans;
        self
    }
}

/// Every leaf that `cluster` needs.
pub(crate) fn table(cluster: &Cluster) -> BTreeMap<LeafId, Template> {
    use AuthorityName::Etcd;
    use AuthorityName::FrontProxy;
    use AuthorityName::Kubernetes;

    let mut leaves = BTreeMap::new();
    let apiserver_sans = apiserver_sans(cluster);
    for node in &cluster.nodes {
        let mut add = |name, template| {
            leaves.insert(LeafId { name, host: Some(node.name.clone()) }, template);
        };
        let kubelet = || {
            let user = format!("system:node:{}", node.name);
            Template::client(Kubernetes, &user, Some("system:nodes"))
        };
        add(LeafName::KubeletClient, kubelet());
        add(LeafName::KubeletServer, kubelet().serving(Usage::Server, node_sans(node)));
        add(LeafName::Proxy, Template::client(Kubernetes, "system:kube-proxy", None));
        if node.roles.control_plane() {
            add(
                LeafName::ApiServer,
                Template::client(Kubernetes, "kube-apiserver", None).serving(Usage::Server, apiserver_sans.clone()),
            );
            add(
                LeafName::ApiServerKubeletClient,
                Template::client(Kubernetes, KUBELET_CLIENT_USER, Some(KUBELET_CLIENT_GROUP)),
            );
            add(LeafName::ApiServerEtcdClient, Template::client(Etcd, "kube-apiserver-etcd-client", None));
            add(LeafName::FrontProxyClient, Template::client(FrontProxy, "front-proxy-client", None));
            add(LeafName::ControllerManager, Template::client(Kubernetes, "system:kube-controller-manager", None));
            add(LeafName::Scheduler, Template::client(Kubernetes, "system:kube-scheduler", None));
            add(LeafName::Admin, Template::client(Kubernetes, ADMIN_USER, Some(ADMIN_GROUP)));
        } else {
            add(LeafName::HealthCheck, Template::client(Kubernetes, HEALTHCHECK_USER, None));
        }
        if node.roles.etcd() {
            let member = || {
                Template::client(Etcd, node.name.as_str(), None).serving(Usage::Both, with_loopback(node_sans(node)))
            };
            add(LeafName::EtcdServer, member());
            add(LeafName::EtcdPeer, member());
            add(LeafName::EtcdHealthcheck, Template::client(Etcd, "kube-etcd-healthcheck-client", None));
            if cluster.services.etcd.backup.enabled {
                add(LeafName::EtcdSnapshot, Template::client(Etcd, "bastide-snapshot", None));
            }
        }
    }
    if cluster.metrics_server_replicas.is_some() {
        // The one name under which the aggregator dials a service.
        let sans = BTreeSet::from([San::Dns("metrics-server.kube-system.svc".to_owned())]);
        leaves.insert(
            LeafId { name: LeafName::MetricsServer, host: None },
            Template::client(Kubernetes, "metrics-server", None).serving(Usage::Server, sans),
        );
    }
    let lifetime = Terms::of(cluster).lifetime;
    for template in leaves.values_mut() {
        template.lifetime = lifetime;
    }
    leaves
}

/// Every leaf that `cluster` needs of these `authorities`: an external one signs a certificate for bastide itself too.
pub(crate) fn rows(cluster: &Cluster, external: &BTreeSet<AuthorityName>) -> BTreeMap<LeafId, Template> {
    let mut leaves = table(cluster);
    if external.contains(&AuthorityName::Kubernetes) {
        leaves.extend([own_row()]);
    }
    leaves
}

/// bastide's own way in, where it cannot make one whenever it needs it. RKE's name and group for it.
pub(crate) fn own_row() -> (LeafId, Template) {
    let template = Template::client(AuthorityName::Kubernetes, "kube-admin", Some("system:masters"));
    (LeafId { name: LeafName::Operator, host: None }, template)
}

/// kubeadm's names and RKE's together. Every API server carries every control plane's names, so that a balancer or a
/// client may be handed over from one to another.
fn apiserver_sans(cluster: &Cluster) -> BTreeSet<San> {
    let service = [
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("kubernetes.default.svc.{}", cluster.dns.domain),
    ];
    let mut sans: BTreeSet<San> = service.iter().map(|name| San::new(name)).collect();
    sans.insert(San::Ip(cluster.network.first_service_ip));
    sans.extend(cluster.control_planes().flat_map(node_sans));
    sans.extend(cluster.sans.iter().map(|name| San::new(name)));
    sans.extend(cluster.options.endpoint.iter().map(|endpoint| San::new(&endpoint.host)));
    sans.extend(cluster.options.api_bind_address.filter(|address| !address.is_unspecified()).map(San::Ip));
    with_loopback(sans)
}

fn node_sans(node: &Node) -> BTreeSet<San> {
    BTreeSet::from([San::new(node.name.as_str()), San::new(&node.address), San::Ip(node.internal_address)])
}

fn with_loopback(mut sans: BTreeSet<San>) -> BTreeSet<San> {
    sans.insert(San::Dns("localhost".to_owned()));
    sans.insert(San::Ip(Ipv4Addr::LOCALHOST.into()));
    sans.insert(San::Ip(Ipv6Addr::LOCALHOST.into()));
    sans
}

impl AuthorityName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kubernetes, Self::Etcd, Self::FrontProxy];

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Etcd => "etcd",
            Self::FrontProxy => "front-proxy",
        }
    }
}

impl fmt::Display for AuthorityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl LeafName {
    /// All rows, in the table's order.
    pub const ALL: [Self; 17] = [
        Self::ApiServer,
        Self::ApiServerKubeletClient,
        Self::ApiServerEtcdClient,
        Self::FrontProxyClient,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Admin,
        Self::EtcdServer,
        Self::EtcdPeer,
        Self::EtcdHealthcheck,
        Self::EtcdSnapshot,
        Self::KubeletClient,
        Self::KubeletServer,
        Self::Proxy,
        Self::HealthCheck,
        Self::MetricsServer,
        Self::Operator,
    ];

    /// Stable, for people and for the sealed document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiServer => "apiserver",
            Self::ApiServerKubeletClient => "apiserver-kubelet-client",
            Self::ApiServerEtcdClient => "apiserver-etcd-client",
            Self::FrontProxyClient => "front-proxy-client",
            Self::ControllerManager => "controller-manager",
            Self::Scheduler => "scheduler",
            Self::Admin => "admin",
            Self::EtcdServer => "etcd-server",
            Self::EtcdPeer => "etcd-peer",
            Self::EtcdHealthcheck => "etcd-healthcheck-client",
            Self::EtcdSnapshot => "etcd-snapshot-client",
            Self::KubeletClient => "kubelet-client",
            Self::KubeletServer => "kubelet-server",
            Self::Proxy => "proxy",
            Self::HealthCheck => "health-check",
            Self::MetricsServer => "metrics-server",
            Self::Operator => "operator",
        }
    }
}

impl LeafId {
    /// The leaf `name` of `host`.
    pub fn of(name: LeafName, host: &HostName) -> Self {
        Self { name, host: Some(host.clone()) }
    }

    /// For people: `apiserver of h1`.
    pub fn describe(&self) -> String {
        match &self.host {
            Some(host) => format!("{} of {host}", self.name.as_str()),
            None => self.name.as_str().to_owned(),
        }
    }
}
