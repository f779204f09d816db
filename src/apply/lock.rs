//! One operator at a time.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::apply::Fleet;
use crate::host::HeldLock;
use crate::host::Host;
use crate::host::HostError;
use crate::model::Desired;
use crate::model::HostName;
use crate::model::LockHolder;
use crate::model::Plan;
use crate::model::utc;

/// Why a run may not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else is at work.
    #[error(
        "{} is at work on this cluster: `{}` since {} (seen on {host})", holder.who, holder.command, utc(holder.since)
    )]
    Busy {
        /// Where it was seen.
        host: HostName,
        /// Who.
        holder: LockHolder,
    },
    /// Too few members could be locked.
    #[error("only {taken} of {members} control-plane and etcd hosts could be locked: {}", reasons.join("; "))]
    NoMajority {
        /// Locked.
        taken: usize,
        /// Of all.
        members: usize,
        /// Why not the others.
        reasons: Vec<String>,
    },
}

/// The members whose majority makes a run the only one, and the other hosts that `plan` writes to: a host that is written
/// to is locked as well.
pub fn hosts_to_lock(
    target: &Desired,
    previous: Option<&Desired>,
    plan: &Plan,
) -> (BTreeSet<HostName>, BTreeSet<HostName>) {
    let members: BTreeSet<_> = std::iter::once(target)
        .chain(previous)
        .flat_map(|desired| &desired.hosts)
        .filter(|(_, host)| host.roles.control_plane() || host.roles.etcd())
        .map(|(name, _)| name.clone())
        .collect();
    let touched = plan.stages.iter().flat_map(|stage| &stage.steps).map(|step| step.host.clone());
    let others = touched.filter(|host| !members.contains(host)).collect();
    (members, others)
}

/// Locks that are held; dropping them lets go.
pub struct Locks<H: Host> {
    members: BTreeMap<HostName, H::Lock>,
    others: BTreeMap<HostName, H::Lock>,
    needed: usize,
    missing: BTreeMap<HostName, String>,
}

impl<H: Host> std::fmt::Debug for Locks<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locks")
            .field("members", &self.members.keys())
            .field("others", &self.others.keys())
            .finish_non_exhaustive()
    }
}

impl<H: Host> Locks<H> {
    /// Takes the members' locks in name order, so that of two runs that start together one gets all; then those of
    /// `others`, all at once. Everything is let go again when it can't be had.
    pub async fn take(
        fleet: &Fleet<H>,
        members: &BTreeSet<HostName>,
        others: &BTreeSet<HostName>,
        holder: &LockHolder,
    ) -> Result<Self, LockError> {
        // Where no member is left, as in the last part of a removal, there is no majority to have.
        let needed = if members.is_empty() { 0 } else { members.len() / 2 + 1 };
        let mut locks = Self { members: BTreeMap::new(), others: BTreeMap::new(), needed, missing: BTreeMap::new() };
        for name in members {
            match one(fleet, name, holder).await? {
                Ok(lock) => {
                    locks.members.insert(name.clone(), lock);
                }
                Err(reason) => {
                    locks.missing.insert(name.clone(), reason);
                }
            }
        }
        if locks.members.len() < needed {
            return Err(LockError::NoMajority {
                taken: locks.members.len(),
                members: members.len(),
                reasons: locks.missing.into_values().collect(),
            });
        }
        let mut taking: FuturesUnordered<_> =
            others.iter().map(|name| async move { (name, one(fleet, name, holder).await) }).collect();
        while let Some((name, taken)) = taking.next().await {
            match taken? {
                Ok(lock) => {
                    locks.others.insert(name.clone(), lock);
                }
                Err(reason) => {
                    locks.missing.insert(name.clone(), reason);
                }
            }
        }
        drop(taking);
        Ok(locks)
    }

    /// Hosts that could not be locked, with the reason.
    pub fn missing(&self) -> &BTreeMap<HostName, String> {
        &self.missing
    }

    /// Ends when the majority of the members is lost. Waits for ever while it is held.
    pub(super) async fn lost(&mut self) {
        let needed = self.needed;
        let mut held = self.members.len();
        let mut losses: FuturesUnordered<_> = self.members.values_mut().map(HeldLock::lost).collect();
        while held >= needed {
            if losses.next().await.is_none() {
                return std::future::pending().await;
            }
            held -= 1;
        }
    }
}

/// `Ok(Err(reason))`: the host can't be locked, and nobody else has it.
async fn one<H: Host>(
    fleet: &Fleet<H>,
    name: &HostName,
    holder: &LockHolder,
) -> Result<Result<H::Lock, String>, LockError> {
    let Some(host) = fleet.get(name) else {
        return Ok(Err(format!("{name}: is not connected")));
    };
    match host.lock(holder).await {
        Ok(lock) => Ok(Ok(lock)),
        Err(HostError::Locked { host, holder }) => Err(LockError::Busy { host, holder }),
        Err(error) => Ok(Err(error.to_string())),
    }
}
