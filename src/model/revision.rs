//! History: what was reached, from where, and why.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::model::Digest;
use crate::model::HostName;
use crate::model::KubeVersion;

/// Number for people, random part against two copies of one state that each make a revision of the same number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RevisionId {
    /// Counts up from 1.
    pub number: u32,
    /// 16 hexadecimal digits.
    pub nonce: String,
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

/// One entry of the history. Contents are kept beside it, sealed, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Which.
    pub id: RevisionId,
    /// The one that was reached before.
    pub parent: Option<RevisionId>,
    /// The command, such as `up`.
    pub command: String,
    /// Why, for people.
    pub why: String,
    /// `user@machine`.
    pub who: String,
    /// When it was started, seconds since 1970.
    pub at: i64,
    /// Release of its target.
    pub kubernetes: KubeVersion,
    /// SHA-256 of the cluster.yml it came from.
    pub config: Digest,
    /// How far it got.
    pub state: RevisionState,
    /// What keeps a rollback from walking back over it.
    pub barrier: Option<Barrier>,
    /// Versions of its target's parts by image name; empty in revisions that were made before this was recorded.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    /// The older revision whose target a rollback took up again.
    #[serde(default)]
    pub returns_to: Option<RevisionId>,
    /// When it was reached, or had failed, seconds since 1970; none while its run goes on or after that died, and in revisions
    /// that were made before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
    /// The host whose etcd member it lets join the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joins: Option<HostName>,
}

impl Revision {
    /// Whether all hosts that answered were seen at its target.
    pub fn was_reached(&self) -> bool {
        matches!(self.state, RevisionState::Reached | RevisionState::ReachedExcept { .. })
    }
}

/// How far a revision got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum RevisionState {
    /// Written before the first host was touched; still this after a run that died.
    Started,
    /// Every host and object was seen at the target.
    Reached,
    /// All but these hosts, which did not answer.
    ReachedExcept {
        /// Node names.
        hosts: Vec<String>,
    },
    /// The run ended with an error.
    Failed,
}

/// A named reason why something can't be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// Short and stable, such as `etcd-restore`.
    pub name: String,
    /// One sentence for people.
    pub why: String,
}
