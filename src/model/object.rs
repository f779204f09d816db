//! Kubernetes objects that bastide owns.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::model::Digest;

/// Which object. Ordered so that it can key a map; not the order of application.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId {
    /// `apps/v1`, `v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// Absent for cluster-scoped objects.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// With these goes what people keep in the cluster (design 11.6).
const HOLD_DATA: [&str; 4] = ["Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim"];

impl ObjectId {
    /// Whether its removal destroys what others keep in it.
    pub fn holds_data(&self) -> bool {
        HOLD_DATA.contains(&self.kind.as_str())
    }

    /// `Deployment/kube-system/coredns`, as it is named on a command line.
    pub fn reference(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}/{namespace}/{}", self.kind, self.name),
            None => format!("{}/{}", self.kind, self.name),
        }
    }
}

impl fmt::Display for ObjectId {
    /// `Deployment kube-system/coredns`, as people say it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// Who an object belongs to; decides force, pruning and what a failure means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "set", content = "name")]
pub enum ObjectSet {
    /// bastide's own: applied with force; a failure fails the run.
    System,
    /// From `addons` or `addons_include`: applied without force; a failure is reported by this name and the run goes on.
    Addon(String),
}

/// One object that must be as its blob says, in the fields that the blob names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredObject {
    /// Which.
    pub id: ObjectId,
    /// Blob with the object as JSON.
    pub digest: Digest,
    /// Whose.
    pub set: ObjectSet,
    /// True where its content may not be shown (a Secret).
    pub secret: bool,
}
