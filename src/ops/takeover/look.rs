//! Whether there is anything to take over: what the hosts' records say, and what this machine still opens.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::apply::Fleet;
use crate::host::Host as _;
use crate::model::ClusterId;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::Observed;
use crate::model::RevisionId;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::kept;
use crate::ops::kept::Kept;
use crate::store;
use crate::store::StoreError;

/// What the hosts' own records say.
pub(super) struct Records {
    /// Which cluster they carry.
    pub cluster: ClusterId,
    /// Every revision that a host was brought to, oldest first, and whether the host was brought to its end.
    pub revisions: BTreeMap<RevisionId, bool>,
    /// Control planes and etcd hosts.
    pub members: BTreeSet<HostName>,
}

/// Every control plane and every member must be there and of this one cluster, with nobody at work.
pub(super) fn records(local: &Local, seen: &Observed) -> Result<Records, OpsError> {
    let nodes = &local.cluster.nodes;
    let members = nodes.iter().filter(|node| node.roles.control_plane() || node.roles.etcd());
    let members: BTreeSet<_> = members.map(|node| node.name.clone()).collect();
    let mut reasons = Vec::new();
    let mut cluster: Option<ClusterId> = None;
    let mut revisions = BTreeMap::new();
    for node in nodes {
        let member = members.contains(&node.name);
        let Some(host) = seen.hosts.get(&node.name) else {
            if member {
                reasons.push(format!("{}: does not answer; every control plane and every etcd host must", node.name));
            }
            continue;
        };
        if let Some(holder) = &host.lock {
            reasons.push(format!("{}: {} is at work there (`{}`)", node.name, holder.who, holder.command));
        }
        let Some(HostRecord { cluster: id, cluster_name, revision, complete, .. }) = &host.record else {
            if member {
                reasons.push(format!("{}: carries no cluster of bastide's", node.name));
            }
            continue;
        };
        if *cluster_name != local.cluster.name || cluster.as_ref().is_some_and(|known| known != id) {
            reasons.push(format!("{}: belongs to cluster {cluster_name} ({id})", node.name));
            continue;
        }
        cluster = Some(id.clone());
        let whole = revisions.entry(revision.clone()).or_insert(true);
        *whole &= *complete;
    }
    match cluster {
        Some(cluster) if reasons.is_empty() => Ok(Records { cluster, revisions, members }),
        _ => Err(OpsError::NotTakenOver { reasons }),
    }
}

/// What this machine has of the cluster's.
pub(super) enum Here {
    /// A state that its identity opens.
    State(Box<Kept>),
    /// No state that anybody opens; an earlier try may have got as far as an identity, which is drawn then, and an empty folder of it.
    Nothing { kept: Box<Kept>, made: bool },
}

/// Refuses where nothing but the folder is lost.
pub(super) async fn here(
    local: &Local,
    id: &ClusterId,
    fleet: &Fleet<RealHost>,
    talk: &dyn Talk,
) -> Result<Here, OpsError> {
    let empty = || Kept::nothing(&local.path);
    match store::peek(&store::folder_for(&local.path)) {
        Ok(peek) if peek.cluster != *id => {
            return Err(OpsError::NotTakenOver {
                reasons: vec![format!(
                    "{} holds the state of cluster {} ({}), and the hosts carry {id}",
                    store::folder_for(&local.path).display(),
                    peek.name,
                    peek.cluster
                )],
            });
        }
        _ => {}
    }
    let identity = match kept::identity(id, &local.cluster, talk) {
        Ok(identity) => identity,
        Err(OpsError::Store(StoreError::IdentityMissing { .. })) => {
            return Ok(Here::Nothing { kept: Box::new(empty()), made: false });
        }
        Err(OpsError::Store(error @ (StoreError::PassphraseWrong { .. } | StoreError::IdentityDamaged { .. }))) => {
            return Err(OpsError::Impossible(format!(
                "{error}. Where that can't be had again, move the file aside, so that it is never mistaken for the new one"
            )));
        }
        Err(error) => return Err(error),
    };
    match Kept::open(&local.path, &local.cluster, talk) {
        Ok(kept) if kept.secrets.is_some() => return Ok(Here::State(Box::new(kept))),
        Ok(kept) if kept.store.is_some() => return Ok(Here::Nothing { kept: Box::new(kept), made: false }),
        // A folder of the lost identity, or a damaged one: the hosts' copies tell which.
        _ => {}
    }
    for (name, machine) in fleet.iter() {
        let copy = machine.fetch_state().await.map_err(|error| OpsError::Hosts(vec![error]))?;
        if copy.is_some_and(|copy| store::secrets_of(&copy, &identity).is_ok()) {
            return Err(OpsError::Impossible(format!(
                "the identity {} opens the sealed copy of the state on {name}: only the folder is lost. `bastide state recover \
                 --host {name}` rebuilds it; nothing was changed",
                store::identity_path(&store::identities_folder()?, id).display()
            )));
        }
    }
    let kept = Kept { unborn: Some(identity), ..empty() };
    Ok(Here::Nothing { kept: Box::new(kept), made: true })
}
