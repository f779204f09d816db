use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::Digest;
use crate::model::ImageRef;
use crate::model::KubeVersion;

/// One file of `releases/` each, newest first.
const DOCUMENTS: &[&str] = &[include_str!("../../releases/v1.37.1.json"), include_str!("../../releases/v1.36.3.json")];

/// Where the parts of one Kubernetes version come from upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The version.
    pub kubernetes: KubeVersion,
    /// Programs by package.
    pub packages: BTreeMap<String, UpstreamPackage>,
    /// Images by component.
    pub images: BTreeMap<String, UpstreamImage>,
}

/// Files that are published together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamPackage {
    /// Such as `v2.4.2`.
    pub version: String,
    /// By architecture: `x86_64`, `aarch64`.
    pub sources: BTreeMap<String, Vec<UpstreamFile>>,
}

/// A published file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamFile {
    /// Where it is published.
    pub url: String,
    /// Whether it is one program or a packed folder of them.
    pub archive: Archive,
    /// Of the published bytes. None until they, or a signed list of them, were read: a digest is never copied from prose.
    #[serde(default)]
    pub sha256: Option<Digest>,
}

/// How a published file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archive {
    /// The program itself.
    None,
    /// A gzipped tar.
    TarGz,
}

/// A published image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamImage {
    /// Registry, name and tag.
    pub reference: ImageRef,
    /// Manifest digests by architecture. Empty until they were read from the registry or a signed list.
    #[serde(default)]
    pub manifests: BTreeMap<String, Digest>,
}

/// Every known release, newest first.
pub fn catalogue() -> Vec<Upstream> {
    DOCUMENTS
        .iter()
        // Part of the program: the tests below read each of them.
        .filter_map(|document| serde_json::from_str(document).ok())
        .collect()
}

/// The supported Kubernetes versions, newest first.
pub fn supported() -> Vec<KubeVersion> {
    catalogue().into_iter().map(|release| release.kubernetes).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::DOCUMENTS;
    use super::Upstream;
    use super::catalogue;
    use super::supported;
    use crate::release::bundle::IMAGES;
    use crate::release::bundle::PROGRAMS;

    #[test]
    fn every_document_is_read_and_the_newest_stands_first() {
        for document in DOCUMENTS {
            serde_json::from_str::<Upstream>(document).unwrap();
        }
        let versions = supported();
        assert_eq!(versions.len(), DOCUMENTS.len());
        assert!(versions.is_sorted_by(|a, b| a > b), "{versions:?}");
    }

    #[test]
    fn every_release_names_what_a_cluster_needs_for_both_architectures() {
        for release in catalogue() {
            for (name, _) in PROGRAMS {
                let package = release.packages.get(*name).unwrap_or_else(|| panic!("{}: {name}", release.kubernetes));
                for architecture in ["x86_64", "aarch64"] {
                    assert!(package.sources.contains_key(architecture), "{} {name}", release.kubernetes);
                }
                for file in package.sources.values().flatten() {
                    assert!(file.url.starts_with("https://"), "{}", file.url);
                }
            }
            for name in IMAGES {
                assert!(release.images.contains_key(*name), "{}: {name}", release.kubernetes);
            }
        }
    }

    #[test]
    fn the_kubernetes_parts_carry_the_release_s_own_version() {
        for release in catalogue() {
            let version = release.kubernetes.to_string();
            assert_eq!(release.packages["kubelet"].version, version);
            for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"] {
                assert!(release.images[name].reference.as_str().ends_with(&format!(":{version}")), "{name}");
            }
        }
    }
}
