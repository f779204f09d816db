//! `Secrets`: every key and certificate of a cluster, and its birth data.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

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

impl Secrets {
    /// The authorities whose keys are elsewhere.
    pub fn external(&self) -> BTreeSet<AuthorityName> {
        self.authorities.iter().filter(|(_, set)| set.external).map(|(name, _)| *name).collect()
    }
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
    /// Its key (PKCS#8 PEM); empty where it is lost, see [`AuthoritySet::is_lost`], and where it is elsewhere.
    pub key: Content,
    /// Somebody else has the key, on purpose: what it signs is brought along, see [`crate::secrets::bring`].
    pub external: bool,
    /// Further accepted certificates (PEM), none outside a rotation.
    pub also_accepted: Vec<String>,
    /// The authority of `also_accepted` that takes this one's place, or whose place this one took; none outside a rotation.
    pub other: Option<OtherAuthority>,
}

/// One of the two authorities of a rotation: the one that does not issue.
#[derive(Debug, Clone, PartialEq)]
pub struct OtherAuthority {
    /// Whether it will issue; else it did.
    pub comes: bool,
    /// Its certificate (PEM), one of [`AuthoritySet::also_accepted`].
    pub certificate: String,
    /// Its key (PKCS#8 PEM): a way back issues from it, and it proves that it is accepted, or is no more. Empty where it is lost, and
    /// where it is elsewhere.
    pub key: Content,
    /// Somebody else has the key, on purpose.
    pub external: bool,
    /// What an external one signed: where it will issue, everything that is to take a leaf's place; where it did, what proves whether
    /// it is still accepted.
    pub leaves: BTreeMap<LeafId, Leaf>,
    /// The new authority's certificate signed by the old one (PEM): with it clients accept the new one's leaves that trust the old
    /// one alone. None where the old one may not sign authorities.
    pub cross_signed: Option<String>,
}

impl AuthoritySet {
    /// Whether a key of this set is nowhere any more: the cluster was taken over from its hosts, which hold no such key. What it
    /// signed is kept as long as it is accepted; nothing is issued from it.
    pub fn is_lost(&self) -> bool {
        let other = self.other.as_ref();
        (self.key.is_empty() && !self.external) || other.is_some_and(|other| other.key.is_empty() && !other.external)
    }

    /// All accepted certificates, the issuing one first.
    pub fn accepted(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.certificate).chain(&self.also_accepted)
    }

    /// All accepted certificates as one PEM file. Which of them issues makes no difference to it: where another one begins to
    /// issue, nobody who trusts needs a new file.
    pub fn trust_bundle(&self) -> String {
        let mut all: Vec<&str> = self.accepted().map(|pem| pem.trim_end()).collect();
        all.sort_unstable();
        all.into_iter().fold(String::new(), |mut bundle, pem| {
            bundle.push_str(pem);
            bundle.push('\n');
            bundle
        })
    }

    /// `certificate`, a server's, with what leads to the old authority from it during a rotation, as one PEM file.
    pub fn serving_chain(&self, certificate: &str) -> String {
        match self.other.as_ref().and_then(|other| other.cross_signed.as_deref()) {
            Some(cross_signed) => format!("{}\n{}\n", certificate.trim_end(), cross_signed.trim_end()),
            None => certificate.to_owned(),
        }
    }
}

/// Keys for service-account tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceAccountKeys {
    /// Private key (PKCS#8 PEM) that signs.
    pub signing: Content,
    /// Public keys (PEM) that verify, the signing one's first.
    pub verifying: Vec<String>,
    /// The private key (PKCS#8 PEM) that is to sign next; `verifying` has its public key. Only in the first leg of a rotation.
    pub next: Option<Content>,
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
    /// etcd client of the host's own recurring snapshots. Per member, where there are any.
    EtcdSnapshot,
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
    /// bastide itself towards API servers. Once per cluster, where the Kubernetes authority is external: otherwise one is made for
    /// an hour whenever it is needed. Never on a host.
    Operator,
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
    /// Members that a restore went without and that have not joined since: what they hold is the old cluster's. API servers must not
    /// know them: an etcd client asks all members that it knows by turns, and these would answer.
    pub away: BTreeSet<HostName>,
    /// A member that joins the others and is not born with them. It is only so for as long as that takes, and kept nowhere: where
    /// a disk is lost later, the flags of its birth keep it from taking its own seat without what it has promised the others.
    pub joining: Option<HostName>,
}
