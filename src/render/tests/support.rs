//! Builders: a cluster from text, its secrets from a seed, a release of made-up bytes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::config;
use crate::config::Cluster;
use crate::config::ParseOptions;
use crate::model::ArtifactFile;
use crate::model::Content;
use crate::model::DesiredHost;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::ImageArtifact;
use crate::model::ImageRef;
use crate::model::Package;
use crate::model::Release;
use crate::model::RemotePath;
use crate::render;
use crate::render::RenderErrors;
use crate::render::Rendered;
use crate::secrets;
use crate::secrets::HostSigners;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;

/// 22 November 2026.
pub(crate) const NOW: i64 = 1_795_305_600;

pub(crate) const ONE_HOST: &str =
    "nodes:\n  - {address: 192.0.2.11, user: root, role: [controlplane, etcd, worker], hostname_override: h1}\n";

pub(crate) const THREE_HOSTS: &str = "nodes:
  - {address: 192.0.2.11, user: root, role: [controlplane, etcd, worker], hostname_override: h1}
  - {address: 192.0.2.12, user: root, role: [controlplane, etcd, worker], hostname_override: h2}
  - {address: 192.0.2.13, user: root, role: [controlplane, etcd, worker], hostname_override: h3}
";

pub(crate) const SPLIT: &str = "nodes:
  - {address: 192.0.2.11, user: root, role: [controlplane], hostname_override: c1}
  - {address: 192.0.2.12, user: root, role: [controlplane], hostname_override: c2}
  - {address: 192.0.2.21, user: root, role: [etcd], hostname_override: e1}
  - {address: 192.0.2.31, user: root, role: [worker], hostname_override: w1, labels: {zone: a}}
";

/// The cluster that `text` means, with flannel and 1.37.
pub(crate) fn cluster(text: &str) -> Cluster {
    whole_file(&format!("network: {{plugin: flannel}}\ningress: {{provider: none}}\n{text}"))
}

/// The cluster of a file that says everything itself.
pub(crate) fn whole_file(text: &str) -> Cluster {
    let version = "v1.37.1".parse().unwrap();
    let options = ParseOptions {
        file_name: "cluster.yml".to_owned(),
        kubernetes_version: Some("v1.37.1".to_owned()),
        supported: vec![version],
        home: Some("/home/someone".into()),
    };
    config::parse(text, &options).unwrap_or_else(|errors| panic!("{errors}")).cluster
}

pub(crate) fn secrets(cluster: &Cluster) -> Secrets {
    secrets::complete(cluster, None, NOW, &mut SeededEntropy::new(1)).unwrap().0
}

/// Another cluster's.
pub(crate) fn other_secrets(cluster: &Cluster) -> Secrets {
    secrets::complete(cluster, None, NOW, &mut SeededEntropy::new(2)).unwrap().0
}

/// The keys that the etcd hosts of `cluster` sign with: made-up words.
pub(crate) fn signers(cluster: &Cluster) -> HostSigners {
    let keys = cluster.etcd_members().map(|node| {
        let key = Content::new(format!("signing key of {}", node.name));
        (node.name.clone(), (format!("public key of {}", node.name), key))
    });
    HostSigners { identity: "public key of the identity".to_owned(), hosts: keys.collect() }
}

fn artifact(name: &str) -> ArtifactFile {
    ArtifactFile { sha256: Digest::of(name.as_bytes()), size: name.len() as u64, path: name.to_owned() }
}

pub(crate) fn release() -> Release {
    let package = |version: &str, files: &[&str]| Package {
        version: version.to_owned(),
        files: files.iter().map(|name| ((*name).to_owned(), artifact(name))).collect(),
    };
    let image = |name: &str, reference: &str| {
        let image = ImageArtifact {
            reference: ImageRef::new(reference).unwrap(),
            version: reference.rsplit_once(':').unwrap().1.to_owned(),
            manifest: Digest::of(reference.as_bytes()),
            archive: artifact(name),
        };
        (name.to_owned(), image)
    };
    Release {
        kubernetes: "v1.37.1".parse().unwrap(),
        architecture: "x86_64".to_owned(),
        packages: [
            ("bastide", package("0.1.0", &["bastide"])),
            ("cni", package("v1.9.1", &["bridge", "flannel", "host-local", "loopback", "portmap"])),
            ("containerd", package("v2.4.2", &["containerd", "containerd-shim-runc-v2", "ctr"])),
            ("crictl", package("v1.37.0", &["crictl"])),
            ("kubelet", package("v1.37.1", &["kubelet"])),
            ("runc", package("v1.3.0", &["runc"])),
        ]
        .map(|(name, package)| (name.to_owned(), package))
        .into(),
        images: [
            image("coredns", "registry.k8s.io/coredns/coredns:v1.14.7"),
            image("etcd", "registry.k8s.io/etcd:3.7.2-0"),
            image("flannel", "ghcr.io/flannel-io/flannel:v0.28.10"),
            image("haproxy", "docker.io/library/haproxy:3.0"),
            image("kube-apiserver", "registry.k8s.io/kube-apiserver:v1.37.1"),
            image("kube-controller-manager", "registry.k8s.io/kube-controller-manager:v1.37.1"),
            image("kube-proxy", "registry.k8s.io/kube-proxy:v1.37.1"),
            image("kube-scheduler", "registry.k8s.io/kube-scheduler:v1.37.1"),
            image("metrics-server", "registry.k8s.io/metrics-server/metrics-server:v0.8.0"),
            image("pause", "registry.k8s.io/pause:3.10.2"),
        ]
        .into(),
    }
}

/// The target of `text`, or why there is none.
pub(crate) fn render(text: &str) -> Result<Rendered, RenderErrors> {
    let cluster = cluster(text);
    let secrets = secrets(&cluster);
    render::desired(&cluster, &secrets, &release(), &[], &BTreeMap::new(), Some(&signers(&cluster)))
}

/// The target of a file that says everything itself.
pub(crate) fn rendered_file(text: &str) -> Rendered {
    let cluster = whole_file(text);
    let rendered =
        render::desired(&cluster, &secrets(&cluster), &release(), &[], &BTreeMap::new(), Some(&signers(&cluster)));
    rendered.unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn rendered(text: &str) -> Rendered {
    render(text).unwrap_or_else(|errors| panic!("{errors}"))
}

impl Rendered {
    pub(crate) fn host(&self, name: &str) -> &DesiredHost {
        &self.desired.hosts[&HostName::new(name).unwrap()]
    }

    /// The text of a host's file.
    pub(crate) fn text(&self, host: &str, path: &str) -> &str {
        let file = self.host(host).files.get(&RemotePath::new(path).unwrap());
        let file = file.unwrap_or_else(|| panic!("{host} has no {path}"));
        self.blobs.get(&file.digest).unwrap().expose_text().unwrap()
    }

    /// A static pod of a host.
    pub(crate) fn pod(&self, host: &str, name: &str) -> Pod {
        serde_saphyr::from_str(self.text(host, &format!("/etc/kubernetes/manifests/{name}.yaml"))).unwrap()
    }

    /// The flags of a static pod.
    pub(crate) fn flags(&self, host: &str, name: &str) -> BTreeMap<String, String> {
        let pod = self.pod(host, name);
        let command = pod.spec.unwrap().containers[0].command.clone().unwrap();
        command[1..]
            .iter()
            .map(|flag| {
                let (name, value) = flag.trim_start_matches("--").split_once('=').unwrap();
                (name.to_owned(), value.to_owned())
            })
            .collect()
    }

    /// A YAML file of a host as a structure.
    pub(crate) fn yaml(&self, host: &str, path: &str) -> serde_json::Value {
        serde_saphyr::from_str(self.text(host, path)).unwrap()
    }
}
