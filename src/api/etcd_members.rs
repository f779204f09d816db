//! Who belongs to an etcd cluster, read and changed through one of its members.

use serde_json::Value;
use serde_json::json;

use crate::api::etcd::Etcd;
use crate::api::probe::EtcdMember;
use crate::api::probe::ProbeError;
use crate::api::probe::members_of;
use crate::host::Dial;

const LIST: &str = "/v3/cluster/member/list";

/// One change of who belongs to it. etcd takes each through its log: wholly, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// It belongs no more, and its number never comes back.
    Remove {
        /// Its number, decimal.
        id: String,
    },
    /// A member without a vote that gets everything from the others.
    AddLearner {
        /// Where its peers will reach it.
        peer: String,
    },
    /// A learner gets its vote. etcd itself refuses it to one that has not caught up.
    Promote {
        /// Its number, decimal.
        id: String,
    },
}

impl<H: Dial> Etcd<'_, H> {
    /// Who belongs to the cluster. Goes through the leader, so it needs quorum, and no member that was taken out can answer it.
    pub async fn members(&self) -> Result<Vec<EtcdMember>, ProbeError> {
        let answer = self.ask(LIST, &json!({ "linearizable": true })).await?;
        members_of(&answer).ok_or_else(|| self.broken(LIST, "this is no list of members"))
    }

    /// Makes a change. After an error it may have been made all the same.
    pub async fn change_members(&self, change: &MemberChange) -> Result<(), ProbeError> {
        let (path, body) = request(change);
        self.ask(path, &body).await.map(drop)
    }
}

fn request(change: &MemberChange) -> (&'static str, Value) {
    match change {
        MemberChange::Remove { id } => ("/v3/cluster/member/remove", json!({ "ID": id })),
        MemberChange::AddLearner { peer } => {
            ("/v3/cluster/member/add", json!({ "peerURLs": [peer], "isLearner": true }))
        }
        MemberChange::Promote { id } => ("/v3/cluster/member/promote", json!({ "ID": id })),
    }
}
