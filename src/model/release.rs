//! A release: versions pinned together, each file and image by SHA-256.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::model::Digest;
use crate::model::ImageRef;
use crate::model::KubeVersion;

/// Everything that a cluster of one Kubernetes version is made from, for one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The Kubernetes version that all of it was tested with.
    pub kubernetes: KubeVersion,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// Programs by package: `containerd`, `runc`, `cni`, `kubelet`, `crictl`.
    pub packages: BTreeMap<String, Package>,
    /// Images by component: `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kube-proxy`,
    /// `coredns`, `pause`, `flannel`, `haproxy`, `metrics-server`.
    pub images: BTreeMap<String, ImageArtifact>,
}

/// Files that belong together and are installed into one folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Upstream version, such as `v2.4.2`.
    pub version: String,
    /// Files by name.
    pub files: BTreeMap<String, ArtifactFile>,
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactFile {
    /// Of its content.
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
    /// Relative to the bundle's folder.
    pub path: String,
}

/// An image archive (OCI layout or docker-archive) of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageArtifact {
    /// Name and tag under which containerd knows it after the import.
    pub reference: ImageRef,
    /// Upstream version, such as `3.7.2`.
    pub version: String,
    /// Manifest digest that containerd shows after the import.
    pub manifest: Digest,
    /// The archive.
    pub archive: ArtifactFile,
}
