//! `Secrets`: every key and certificate of a cluster, and its birth data.

use std::collections::BTreeMap;

use crate::model::ClusterId;
use crate::model::Content;
use crate::model::HostName;

/// All key material of one cluster. No `Serialize`: [`crate::secrets::seal_form`] gives the one document that is sealed.
#[derive(Debug, Clone, PartialEq)]
pub struct Secrets {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The three authorities.
    pub authorities: BTreeMap<AuthorityName, AuthoritySet>,
    /// Signs service-account tokens.
    pub service_account: ServiceAccountKeys,
    /// Encryption at rest, first key writes.
    pub encryption: Vec<EncryptionKey>,
    /// Every leaf of the table in `leaf.rs`.
    pub leaves: BTreeMap<LeafId, Leaf>,
    /// etcd's birth data.
    pub etcd: EtcdBirth,
}

/// Which authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthorityName {
    /// Signs API server, kubelets and all Kubernetes clients.
    Kubernetes,
    /// Signs etcd servers, peers and clients, nothing else.
    Etcd,
    /// Signs the aggregator's client certificate, nothing else.
    FrontProxy,
}

/// One authority with its past.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthoritySet {
    /// Certificate (PEM) that issues.
    pub certificate: String,
    /// Its key (PKCS#8 PEM).
    pub key: Content,
    /// Further accepted certificates (PEM), none outside a rotation.
    pub also_accepted: Vec<String>,
}

impl AuthoritySet {
    /// All accepted certificates, the issuing one first, as one PEM file.
    pub fn trust_bundle(&self) -> String {
        std::iter::once(&self.certificate).chain(&self.also_accepted).fold(String::new(), |mut bundle, pem| {
            bundle.push_str(pem.trim_end());
            bundle.push('\n');
            bundle
        })
    }
}

/// Keys for service-account tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceAccountKeys {
    /// Private key (PKCS#8 PEM) that signs.
    pub signing: Content,
    /// Public keys (PEM) that verify, the signing one's first.
    pub verifying: Vec<String>,
}

/// A key for encryption at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionKey {
    /// Name in the `EncryptionConfiguration`.
    pub name: String,
    /// `secretbox` or `aescbc`.
    pub provider: String,
    /// 32 random bytes.
    pub key: Content,
}

/// Which leaf: per cluster (`host` absent) or per host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafId {
    /// Row of the table.
    pub name: LeafName,
    /// The host it belongs to.
    pub host: Option<HostName>,
}

/// The rows of the leaf table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeafName {
    /// Server certificate of the API server. Per control plane.
    ApiServer,
    /// API server as client of kubelets. Per control plane.
    ApiServerKubeletClient,
    /// API server as client of etcd. Per control plane.
    ApiServerEtcdClient,
    /// Aggregator's client certificate. Per control plane.
    FrontProxyClient,
    /// Controller manager. Per control plane.
    ControllerManager,
    /// Scheduler. Per control plane.
    Scheduler,
    /// `admin.conf` on the host (its own group, not system:masters). Per control plane.
    Admin,
    /// etcd server. Per member.
    EtcdServer,
    /// etcd peer. Per member.
    EtcdPeer,
    /// etcd health check client. Per member.
    EtcdHealthcheck,
    /// Kubelet as client (`system:node:NAME`), seeded. Per host.
    KubeletClient,
    /// Kubelet as server. Per host.
    KubeletServer,
    /// kube-proxy. Per host.
    Proxy,
    /// Balancer's health check, bound to health URLs only. Per host without an API server.
    HealthCheck,
    /// metrics-server's serving certificate, for the aggregator. Once per cluster, where there is a metrics-server.
    MetricsServer,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// PEM.
    pub certificate: String,
    /// PKCS#8 PEM.
    pub key: Content,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// What an etcd member is born with; kept for ever, never diffed (design 11.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdBirth {
    /// `--initial-cluster-token`.
    pub token: String,
    /// `--initial-cluster`: member name to peer URL.
    pub members: BTreeMap<HostName, String>,
}
