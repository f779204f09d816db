//! `up --auto-rollback`: a change that makes a component ill is taken back, within the limits of design 11.4.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::ApplyError;
use crate::apply::Cluster as _;
use crate::apply::Health;
use crate::apply::LockError;
use crate::apply::Outcome;
use crate::apply::Report;
use crate::host::Host;
use crate::host::HostError;
use crate::model::Desired;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::RevisionId;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::doors::Doors;
use crate::ops::prepare::Prepared;
use crate::ops::reach;
use crate::ops::reach::Errand;
use crate::ops::rollback;

/// The command in history and locks.
const COMMAND: &str = "up (taken back)";

/// How long a failure in a step may take to show in a component: a kubelet names its dead container runtime after half a minute.
const SHOWS: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_secs(3);

/// The failed run's own locks end a moment after it.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_secs(2);

/// What made a run stop, where that is a component that is ill on a host of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Culprit {
    host: HostName,
    /// None: a unit or pod that did not come up in its step.
    gate: Option<Gate>,
}

/// Takes the cluster back to what was reached before the run that ended in `report`. The answer is the error with which
/// that run ends: taken back, or stopped where it is, with the reason said.
pub(super) async fn take_back(
    report: Box<Report>,
    invocation: &Invocation,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> OpsError {
    let culprits = match culprits(&report) {
        Ok(culprits) => culprits,
        Err(reason) => {
            talk.warn(&format!("the cluster is left as it is: {reason}"));
            return OpsError::Stopped(report);
        }
    };
    for error in &report.errors {
        // The last words of what is ill are told once, with the error at the end.
        talk.warn(error.to_string().lines().next().unwrap_or_default());
    }
    let mut tries = LOCK_TRIES;
    loop {
        tries -= 1;
        match Box::pin(back(&culprits, &report, invocation, talk, cancel)).await {
            Ok(to) => return OpsError::TakenBack { report, to },
            Err(OpsError::Lock(LockError::Busy { .. })) if tries > 0 => tokio::time::sleep(LOCK_PAUSE).await,
            Err(error) => {
                talk.warn(&format!("the cluster is left as it is: {error}"));
                return OpsError::Stopped(report);
            }
        }
    }
}

async fn back(
    culprits: &[Culprit],
    report: &Report,
    invocation: &Invocation,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<RevisionId, OpsError> {
    let invocation = Invocation { command: COMMAND, ..invocation.clone() };
    let (prepared, way) = Box::pin(rollback::leg(&invocation, None, talk)).await?;
    allowed(culprits, &prepared).await?;
    let errand = rollback::errand(&way)?;
    let to = errand.returns_to.clone();
    let to = to.ok_or_else(|| OpsError::Impossible("the way back has no goal".to_owned()))?;
    let ill = report.errors.first().map(ToString::to_string).unwrap_or_default();
    let why = format!("back to {to} by itself: {}", ill.lines().next().unwrap_or_default());
    talk.say(&format!("taking the cluster back to revision {to}"));
    let errand = Errand { yes: true, why, ..errand };
    Box::pin(reach::reach(prepared, &invocation, &errand, talk, cancel)).await?;
    Ok(to)
}

/// Who is to blame, or why that cannot be told well enough to act on it.
fn culprits(report: &Report) -> Result<Vec<Culprit>, String> {
    if report.outcome != Outcome::Failed {
        return Err("the run was interrupted".to_owned());
    }
    let culprit = |error: &ApplyError| match error {
        ApplyError::Gate { which, .. } => match which.host() {
            Some(host) => Ok(Culprit { host: host.clone(), gate: Some(which.clone()) }),
            None => Err("no single component is ill".to_owned()),
        },
        ApplyError::Host(HostError::Failed { host, .. }) => Ok(Culprit { host: host.clone(), gate: None }),
        other => Err(format!("no component is ill: {other}")),
    };
    report.errors.iter().map(culprit).collect()
}

/// The hosts answer, the components are ill there, and etcd can decide.
async fn allowed(culprits: &[Culprit], prepared: &Prepared) -> Result<(), OpsError> {
    let refuse = |reason: String| Err(OpsError::Impossible(reason));
    for Culprit { host, gate } in culprits {
        if prepared.fleet.get(host).is_none() {
            return refuse(format!("{host} does not answer, so nobody knows whether the change is to blame"));
        }
        if let Some(gate) = gate
            && prepared.doors.gate(gate).await == Ok(Health::Well)
        {
            return refuse(format!("{host} is well by now; `bastide up` goes on"));
        }
        if gate.is_none() && !falls_ill(&prepared.doors, host, &prepared.target.desired, SHOWS).await {
            return refuse(format!("every component of {host} is well, so that no change made one ill"));
        }
    }
    let members: Vec<_> =
        prepared.target.desired.hosts.iter().filter(|(_, host)| host.roles.etcd()).map(|(name, _)| name).collect();
    let asked = members.iter().map(|name| prepared.doors.etcd_commits(name));
    let well = futures::future::join_all(asked).await.into_iter().filter(|well| *well).count();
    // Where etcd itself is what the change made ill, the way back is what gives it its quorum again.
    let blamed = culprits.iter().filter(|culprit| matches!(culprit.gate, Some(Gate::EtcdMember { .. }))).count();
    let only_member = members.len() == 1 && blamed == 1;
    if well < members.len() / 2 + 1 && !only_member {
        return refuse(format!("etcd has no quorum ({well} of {} members are well)", members.len()));
    }
    Ok(())
}

/// Whether any component of the host is ill, or becomes so within `patience`: a step fails as well where a disk is full or a tool is
/// missing, and no way back is better then.
async fn falls_ill<H: Host>(doors: &Doors<H>, name: &HostName, desired: &Desired, patience: Duration) -> bool {
    let Some(host) = desired.hosts.get(name) else { return false };
    let until = Instant::now() + patience;
    loop {
        if doors.components(name, &host.roles).await.values().any(Option::is_some) {
            return true;
        }
        if Instant::now() + LOOK > until {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::Culprit;
    use super::culprits;
    use crate::apply::ApplyError;
    use crate::apply::Outcome;
    use crate::apply::Report;
    use crate::host::HostError;
    use crate::model::Gate;
    use crate::model::HostName;

    fn host() -> HostName {
        HostName::new("h1").unwrap()
    }

    fn report(outcome: Outcome, errors: Vec<ApplyError>) -> Report {
        Report { outcome, stages_done: 1, errors, ..Report::of(2) }
    }

    fn shut(which: Gate) -> ApplyError {
        ApplyError::Gate {
            gate: "h1: kube-apiserver".to_owned(),
            which,
            reason: "refused".to_owned(),
            answered: false,
            waited: Duration::from_mins(1),
            last_words: String::new(),
        }
    }

    #[test]
    fn a_component_that_is_ill_on_its_host_is_to_blame() {
        let gate = Gate::ApiServer { host: host() };
        let found = culprits(&report(Outcome::Failed, vec![shut(gate.clone())]));
        assert_eq!(found, Ok(vec![Culprit { host: host(), gate: Some(gate) }]));
    }

    #[test]
    fn silence_interruptions_and_what_has_no_host_lead_nowhere() {
        let lost = ApplyError::Host(HostError::LockLost { host: host() });
        for report in [
            report(Outcome::Cancelled, Vec::new()),
            report(Outcome::LockLost, Vec::new()),
            report(Outcome::Failed, vec![shut(Gate::SystemWorkloads)]),
            report(Outcome::Failed, vec![shut(Gate::ApiServer { host: host() }), lost]),
        ] {
            assert!(culprits(&report).is_err(), "{report:?}");
        }
    }
}
