//! Who belongs to an etcd cluster, read and changed through one of its members.

use serde_json::Value;
use serde_json::json;

use crate::api::etcd::Etcd;
use crate::api::probe::ProbeError;
use crate::host::Dial;

const LIST: &str = "/v3/cluster/member/list";

/// One member of an etcd cluster, as the member that was asked sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its number, as etcd writes it in JSON: decimal.
    pub id: String,
    /// Empty until it has started for the first time.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it has no vote yet.
    pub learner: bool,
}

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
        self.list(true).await
    }

    /// Who belongs to the cluster as this member knows it, which is of use without quorum too.
    pub async fn members_it_knows(&self) -> Result<Vec<EtcdMember>, ProbeError> {
        self.list(false).await
    }

    async fn list(&self, linearizable: bool) -> Result<Vec<EtcdMember>, ProbeError> {
        let answer = self.ask(LIST, &json!({ "linearizable": linearizable })).await?;
        listed(&answer).ok_or_else(|| self.broken(LIST, "this is no list of members"))
    }

    /// Makes a change. After an error it may have been made all the same.
    pub async fn change_members(&self, change: &MemberChange) -> Result<(), ProbeError> {
        let (path, body) = request(change);
        self.ask(path, &body).await.map(drop)
    }
}

fn listed(answer: &Value) -> Option<Vec<EtcdMember>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let members = answer["members"].as_array()?.iter().map(|member| EtcdMember {
        id: text(&member["ID"]),
        name: text(&member["name"]),
        peer_urls: member["peerURLs"].as_array().into_iter().flatten().map(text).collect(),
        learner: member["isLearner"] == true,
    });
    Some(members.collect())
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
