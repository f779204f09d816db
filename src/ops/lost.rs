//! After an error that makes a run doubt its locks: whether they are gone, and who has them now.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;

use crate::apply::ApplyError;
use crate::apply::Fleet;
use crate::apply::Outcome;
use crate::apply::Report;
use crate::host::Host as _;
use crate::host::HostError;
use crate::host::Machine;
use crate::model::HostName;
use crate::model::LockHolder;
use crate::model::Scope;
use crate::ops::OpsError;
use crate::ops::connect::RealHost;

/// A host that does not say within this time who holds its lock says nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// `error`, or what is behind it: that of the `members` too few are still locked by this run.
pub(super) async fn explained(
    error: OpsError,
    fleet: &Fleet<RealHost>,
    members: &BTreeSet<HostName>,
    run: &str,
) -> OpsError {
    if !doubtful(&error) {
        return error;
    }
    let looks = members.iter().filter_map(|name| {
        let host = fleet.get(name)?;
        Some(async move { (name.clone(), holder(host).await) })
    });
    let (mut lost, mut held) = (BTreeMap::new(), 0);
    for (name, seen) in join_all(looks).await {
        match seen {
            Ok(Some(holder)) if holder.run == run => held += 1,
            Ok(holder) => {
                lost.insert(name, holder);
            }
            // Nobody knows.
            Err(_) => {}
        }
    }
    if lost.is_empty() || held > members.len() / 2 {
        return error;
    }
    OpsError::LockLost { hosts: lost, cause: Box::new(error) }
}

/// A connection that died may have taken the lock with it, and a script that failed may have been ended with it.
fn doubtful(error: &OpsError) -> bool {
    let host = |error: &HostError| {
        matches!(error, HostError::Lost { .. } | HostError::LockLost { .. } | HostError::Failed { .. })
    };
    let report = |report: &Report| {
        report.outcome == Outcome::LockLost
            || report.errors.iter().any(|error| matches!(error, ApplyError::Host(error) if host(error)))
    };
    match error {
        OpsError::Stopped(stopped) => report(stopped),
        OpsError::Hosts(errors) => errors.iter().any(host),
        _ => false,
    }
}

/// Asked over a connection of its own.
async fn holder(host: &RealHost) -> Result<Option<LockHolder>, HostError> {
    let look = async {
        let wire = host.wire().again().await?;
        Machine::new(host.name().clone(), wire, PATIENCE).observe(&Scope::default()).await
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(seen) => Ok(seen?.lock),
        Err(_) => Err(HostError::Lost { host: host.name().clone(), doing: "asking who holds the lock".to_owned() }),
    }
}
