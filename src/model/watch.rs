//! What a host looks after among its own certificates.

use serde::Deserialize;
use serde::Serialize;

use crate::model::HostName;
use crate::model::RemotePath;

/// The settings of a host's own watch. No secret stands in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateWatch {
    /// Layout; see [`CertificateWatch::SCHEMA`].
    pub schema: u32,
    /// The node's name.
    pub node: HostName,
    /// From how many days before an end on it warns; of a short-lived certificate from a third of its life on.
    pub warn_days: u32,
    /// Files with certificates, in PEM or in a kubeconfig.
    pub files: Vec<RemotePath>,
    /// Those of them that the kubelet renews by itself, long after a third of their life is left.
    pub renewed: Vec<RemotePath>,
    /// The kubernetes authority.
    pub authority: RemotePath,
    /// The kubelet's own certificate and key.
    pub client: RemotePath,
}

impl CertificateWatch {
    /// The layout that this program writes and reads.
    pub const SCHEMA: u32 = 1;
}
