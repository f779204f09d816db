//! What the files of a folder are called.

use crate::secrets::AuthorityName;
use crate::secrets::LeafId;
use crate::secrets::LeafName;

/// The certificate's file without `.pem`, for an authority.
pub(super) fn authority(name: AuthorityName) -> &'static str {
    match name {
        AuthorityName::Kubernetes => "kube-ca",
        AuthorityName::Etcd => "kube-etcd-ca",
        AuthorityName::FrontProxy => "kube-apiserver-requestheader-ca",
    }
}

/// The certificate's file without `.pem`, for a leaf.
pub(super) fn leaf(id: &LeafId) -> String {
    match &id.host {
        Some(host) => format!("{}-{host}", row(id.name)),
        None => row(id.name).to_owned(),
    }
}

/// The name without a host. RKE has one certificate for all hosts, which is taken where a host has none of its own.
pub(super) fn row(name: LeafName) -> &'static str {
    match name {
        LeafName::ApiServer => "kube-apiserver",
        LeafName::ApiServerKubeletClient => "kube-apiserver-kubelet-client",
        LeafName::ApiServerEtcdClient => "kube-apiserver-etcd-client",
        LeafName::FrontProxyClient => "kube-apiserver-proxy-client",
        LeafName::ControllerManager => "kube-controller-manager",
        LeafName::Scheduler => "kube-scheduler",
        LeafName::Admin => "kube-admin-conf",
        LeafName::EtcdServer => "kube-etcd",
        LeafName::EtcdPeer => "kube-etcd-peer",
        LeafName::EtcdHealthcheck => "kube-etcd-healthcheck-client",
        LeafName::EtcdSnapshot => "kube-etcd-snapshot-client",
        LeafName::KubeletClient => "kube-node",
        LeafName::KubeletServer => "kube-kubelet",
        LeafName::Proxy => "kube-proxy",
        LeafName::HealthCheck => "kube-health-check",
        LeafName::MetricsServer => "kube-metrics-server",
        LeafName::Operator => "kube-admin",
    }
}

/// `NAME.pem`
pub(super) fn certificate(stem: &str) -> String {
    format!("{stem}.pem")
}

/// `NAME-key.pem`
pub(super) fn key(stem: &str) -> String {
    format!("{stem}-key.pem")
}

/// `NAME-csr.pem`
pub(super) fn request(stem: &str) -> String {
    format!("{stem}-csr.pem")
}

/// What leads from one host's file to another one's: a name that two certificates would have.
pub(super) fn shared_by_two<'a>(ids: impl Iterator<Item = &'a LeafId>) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    ids.map(leaf).find(|stem| !seen.insert(stem.clone()))
}
