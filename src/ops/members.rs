//! Changes of who belongs to a living etcd cluster, each let through by the one guard ([`route::guard`]).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::api::EtcdMember;
use crate::api::MemberChange;
use crate::model::HostName;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::doors::Doors;
use crate::route;
use crate::route::Change;
use crate::route::Member;

/// How long a change may be refused: etcd takes none until all members have been connected for 5 s.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_secs(1);

/// The members of a cluster, as they are changed.
pub(super) struct Membership<'a> {
    pub doors: &'a Doors<RealHost>,
    /// Every etcd host's peer address.
    pub peers: &'a BTreeMap<HostName, String>,
    /// Hosts that the cluster goes without, or whose turn it is.
    pub leaving: &'a [HostName],
    pub talk: &'a dyn Talk,
}

impl Membership<'_> {
    /// Who belongs to it, and how each is. Told by a member that has a quorum: whoever was taken out, or holds another cluster's
    /// data, cannot answer.
    pub(super) async fn look(&self) -> Result<Vec<Member>, OpsError> {
        let statuses = self.doors.etcd_members().map(|(_, etcd)| async move { etcd.status().await.ok() });
        let statuses: Vec<_> = join_all(statuses).await.into_iter().flatten().collect();
        let mut trouble = None;
        for (name, etcd) in self.doors.etcd_members() {
            match etcd.members().await {
                Ok(listed) => {
                    let member = |member: &EtcdMember| Member {
                        id: member.id.clone(),
                        host: self.host_of(&member.peer_urls),
                        started: !member.name.is_empty(),
                        learner: member.learner,
                        well: statuses.iter().any(|status| status.id == member.id && status.leader != "0"),
                    };
                    return Ok(listed.iter().map(member).collect());
                }
                Err(error) => trouble = Some(OpsError::etcd(name)(error)),
            }
        }
        Err(trouble.unwrap_or_else(|| OpsError::Impossible("no etcd member answers".to_owned())))
    }

    fn host_of(&self, urls: &[String]) -> Option<HostName> {
        let ours = self.peers.iter().find(|(_, peer)| urls.contains(peer));
        ours.map(|(name, _)| name.clone())
    }

    /// Takes everything out that is listed for these hosts and is not what it was.
    pub(super) async fn take_out_stale(&self, away: &[HostName]) -> Result<(), OpsError> {
        let members = self.look().await?;
        for member in route::stale(&members, away) {
            if let Some(host) = &member.host {
                self.talk.doing(host, "leaves etcd, to which it has not belonged since");
            }
            self.make(&MemberChange::Remove { id: member.id.clone() }).await?;
        }
        Ok(())
    }

    /// Why one of these hosts cannot be taken out now; asked before anything is changed.
    pub(super) fn refuses_to_take_out(members: &[Member], away: &[HostName]) -> Result<(), OpsError> {
        for member in route::stale(members, away) {
            route::guard(members, Change::Remove(member), away)
                .map_err(|reasons| refused(&MemberChange::Remove { id: member.id.clone() }, reasons))?;
        }
        Ok(())
    }

    /// A learner at the peer address of `host`, under a number that no member has had. What is listed there is taken out before,
    /// however well it may have been a moment ago: a number whose log is gone must never answer again, or the others take what it once
    /// acknowledged for something it still has.
    pub(super) async fn add_learner(&self, host: &HostName) -> Result<(), OpsError> {
        let nowhere = || OpsError::Impossible(format!("{host}: has no peer address among etcd's members"));
        let peer = self.peers.get(host).ok_or_else(nowhere)?.clone();
        self.talk.doing(host, "joins etcd as a learner");
        for member in self.look().await? {
            if member.host.as_ref() == Some(host) {
                self.make(&MemberChange::Remove { id: member.id }).await?;
            }
        }
        self.make(&MemberChange::AddLearner { peer }).await
    }

    /// Gives the learner on `host` its vote once it holds what the others hold. An error where it gets no further for `patience`.
    pub(super) async fn promote(&self, host: &HostName, patience: Duration) -> Result<(), OpsError> {
        self.talk.waiting(Some(host), "the other members' data");
        let (mut seen, mut since) = ((0, 0), Instant::now());
        loop {
            let reason = match self.try_promote(host).await {
                Ok(()) => break,
                Err(error) => error.to_string(),
            };
            let now = self.progress(host).await.unwrap_or(seen);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            if since.elapsed() > patience {
                return Err(OpsError::NeverCaughtUp { host: host.clone(), patience, reason });
            }
            sleep(POLL).await;
        }
        self.talk.waited(Some(host), "the other members' data");
        Ok(())
    }

    async fn try_promote(&self, host: &HostName) -> Result<(), OpsError> {
        let members = self.look().await?;
        let member = members.iter().find(|member| member.host.as_ref() == Some(host));
        let member = member.ok_or_else(|| OpsError::Impossible(format!("{host}: etcd does not list it any more")))?;
        if !member.learner {
            return Ok(());
        }
        let change = MemberChange::Promote { id: member.id.clone() };
        route::guard(&members, Change::Promote(member), self.leaving).map_err(|reasons| refused(&change, reasons))?;
        self.ask(&change, &members).await
    }

    /// Takes the learner on `host` out again; a member that got its vote stays.
    pub(super) async fn take_out(&self, host: &HostName) -> Result<(), OpsError> {
        let members = self.look().await?;
        let learner = members.iter().find(|member| member.learner && member.host.as_ref() == Some(host));
        let Some(member) = learner else { return Ok(()) };
        self.make(&MemberChange::Remove { id: member.id.clone() }).await
    }

    /// What the member on `host` has applied, and how large its database is.
    async fn progress(&self, host: &HostName) -> Option<(u64, u64)> {
        let (_, etcd) = self.doors.etcd_members().find(|(name, _)| *name == host)?;
        let status = etcd.status().await.ok()?;
        Some((status.raft_applied, status.size))
    }

    /// Makes a change, and sees that it was made.
    async fn make(&self, change: &MemberChange) -> Result<(), OpsError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let error = match self.try_to_make(change).await {
                Ok(true) => return Ok(()),
                Ok(false) => continue,
                Err(error) => error,
            };
            if Instant::now() >= until {
                return Err(error);
            }
            tracing::debug!(?change, %error, "a change of etcd's members is tried again");
            sleep(POLL).await;
        }
    }

    /// True where it is made already; false where it was asked for, so that it can be looked at.
    async fn try_to_make(&self, change: &MemberChange) -> Result<bool, OpsError> {
        let members = self.look().await?;
        let by_id = |id: &String| members.iter().find(|member| member.id == *id);
        let asked = match change {
            MemberChange::Remove { id } => match by_id(id) {
                Some(member) => Change::Remove(member),
                None => return Ok(true),
            },
            MemberChange::Promote { id } => match by_id(id) {
                Some(member) if member.learner => Change::Promote(member),
                _ => return Ok(true),
            },
            MemberChange::AddLearner { peer } => {
                let host = self.host_of(std::slice::from_ref(peer));
                if members.iter().any(|member| member.learner && member.host == host) {
                    return Ok(true);
                }
                Change::AddLearner
            }
        };
        route::guard(&members, asked, self.leaving).map_err(|reasons| refused(change, reasons))?;
        self.ask(change, &members).await.map(|()| false)
    }

    /// Asks the members that have a vote and are well, one after the other.
    async fn ask(&self, change: &MemberChange, members: &[Member]) -> Result<(), OpsError> {
        let mut trouble = None;
        for (name, etcd) in self.doors.etcd_members() {
            let may = |member: &Member| member.host.as_ref() == Some(name) && member.well && !member.learner;
            if !members.iter().any(may) {
                continue;
            }
            match etcd.change_members(change).await {
                Ok(()) => return Ok(()),
                Err(error) => trouble = Some(OpsError::etcd(name)(error)),
            }
        }
        Err(trouble.unwrap_or_else(|| OpsError::Impossible("no etcd member with a vote is well".to_owned())))
    }
}

fn refused(change: &MemberChange, reasons: Vec<String>) -> OpsError {
    let what = match change {
        MemberChange::Remove { .. } => "a member cannot be taken out",
        MemberChange::AddLearner { .. } => "a member cannot be added",
        MemberChange::Promote { .. } => "a learner cannot be given its vote",
    };
    OpsError::Membership { what, reasons }
}
