//! Which certificates a renewal is about, and the target that carries them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::model::Desired;
use crate::model::HostName;
use crate::model::Keep;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;

/// Certificates that belong together: RKE's names, and bastide's further ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Members, their peers, and the health check.
    Etcd,
    /// Its serving certificate and its two client certificates.
    KubeApiserver,
    /// Its kubeconfig.
    KubeControllerManager,
    /// Its kubeconfig.
    KubeScheduler,
    /// Its kubeconfig.
    KubeProxy,
    /// Its own pair and its serving certificate.
    Kubelet,
    /// `admin.conf` on the hosts.
    Admin,
    /// The aggregator's client certificate.
    FrontProxy,
    /// The balancer's health check.
    Balancer,
    /// Its serving certificate.
    MetricsServer,
}

impl Service {
    /// All of them, RKE's first.
    pub const ALL: [Self; 10] = [
        Self::Etcd,
        Self::Kubelet,
        Self::KubeApiserver,
        Self::KubeProxy,
        Self::KubeScheduler,
        Self::KubeControllerManager,
        Self::Admin,
        Self::FrontProxy,
        Self::Balancer,
        Self::MetricsServer,
    ];

    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::KubeProxy => "kube-proxy",
            Self::Kubelet => "kubelet",
            Self::Admin => "admin",
            Self::FrontProxy => "front-proxy",
            Self::Balancer => "balancer",
            Self::MetricsServer => "metrics-server",
        }
    }

    /// Whose certificate a row of the table is.
    pub fn of(name: LeafName) -> Self {
        match name {
            LeafName::EtcdServer | LeafName::EtcdPeer | LeafName::EtcdHealthcheck | LeafName::EtcdSnapshot => {
                Self::Etcd
            }
            LeafName::ApiServer | LeafName::ApiServerKubeletClient | LeafName::ApiServerEtcdClient => {
                Self::KubeApiserver
            }
            LeafName::ControllerManager => Self::KubeControllerManager,
            LeafName::Scheduler => Self::KubeScheduler,
            LeafName::Proxy => Self::KubeProxy,
            LeafName::KubeletClient | LeafName::KubeletServer => Self::Kubelet,
            LeafName::Admin | LeafName::Operator => Self::Admin,
            LeafName::FrontProxyClient => Self::FrontProxy,
            LeafName::HealthCheck => Self::Balancer,
            LeafName::MetricsServer => Self::MetricsServer,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Service {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|service| service.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|service| service.as_str()).collect();
            format!("there is no such service; known are {}", names.join(", "))
        })
    }
}

/// What is to be renewed; nothing named means everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Only these services'.
    pub services: BTreeSet<Service>,
    /// Only these hosts'.
    pub hosts: BTreeSet<HostName>,
    /// Only what ends within so many days.
    pub due_days: Option<u32>,
}

impl Renewal {
    /// What ends before this moment is due (seconds since 1970); none where the time that is left plays no part.
    pub fn due_until(&self, now: i64) -> Option<i64> {
        self.due_days.map(|days| now + i64::from(days) * 24 * 60 * 60)
    }

    /// `etcd, kubelet on h1`
    pub fn whose(&self) -> String {
        let list = |names: Vec<String>| if names.is_empty() { "all".to_owned() } else { names.join(", ") };
        let services = list(self.services.iter().map(ToString::to_string).collect());
        if self.hosts.is_empty() {
            services
        } else {
            format!("{services} on {}", list(self.hosts.iter().map(ToString::to_string).collect()))
        }
    }

    /// Whether nothing is left out.
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificates renewed: {}", self.whose())?;
        match self.due_days {
            Some(days) => write!(f, ", where fewer than {days} days are left"),
            None => Ok(()),
        }
    }
}

/// The leaves that `renewal` means. `pairs`: hosts whose kubelet's own pair is due, as it lies there; none where nobody has looked.
pub fn renewed_leaves(
    secrets: &Secrets,
    renewal: &Renewal,
    pairs: Option<&BTreeSet<HostName>>,
    now: i64,
) -> BTreeSet<LeafId> {
    // Kubelets renew theirs at an authority of bastide's own: what the state holds is the pair that they began with.
    let seen = pairs.filter(|_| !secrets.external().contains(&AuthorityName::Kubernetes));
    let is_due = |id: &LeafId, leaf: &Leaf, until: i64| match (id.name, &id.host, seen) {
        (LeafName::KubeletClient, Some(host), Some(pairs)) => pairs.contains(host),
        _ => leaf.not_after < until,
    };
    let leaves = secrets.leaves.iter().filter(|(id, leaf)| {
        let service = renewal.services.is_empty() || renewal.services.contains(&Service::of(id.name));
        let host = renewal.hosts.is_empty() || id.host.as_ref().is_some_and(|host| renewal.hosts.contains(host));
        service && host && renewal.due_until(now).is_none_or(|until| is_due(id, leaf, until))
    });
    leaves.map(|(id, _)| id.clone()).collect()
}

/// Makes the kubelets' own pairs part of the target: they are left alone otherwise, because kubelets renew them. Any that
/// is older than the leaf in `secrets` is replaced.
pub fn replace_kubelet_pairs(desired: &mut Desired, secrets: &Secrets, renewed: &BTreeSet<LeafId>) {
    for (name, host) in &mut desired.hosts {
        let id = LeafId::of(LeafName::KubeletClient, name);
        let Some(leaf) = secrets.leaves.get(&id).filter(|_| renewed.contains(&id)) else { continue };
        for file in host.files.values_mut() {
            if let Keep::Seeded { since, .. } = &mut file.keep {
                *since = secrets::not_before(&leaf.certificate);
            }
        }
    }
}
