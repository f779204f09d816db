//! Whether the hosts take their recurring snapshots, by their own word and by their units' states.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;

use crate::apply::Fleet;
use crate::host::Host as _;
use crate::model::Desired;
use crate::model::HostName;
use crate::model::Observed;
use crate::model::RemotePath;
use crate::ops::OpsError;
use crate::ops::connect::RealHost;
use crate::ops::snapshot::HostReport;
use crate::ops::snapshot::REPORT;
use crate::ops::snapshot::report_of;

const TIMER: &str = "bastide-snapshots.timer";
const SERVICE: &str = "bastide-snapshots.service";
/// How much later than asked for the newest one may be: a timer's ticks, and the time that one takes.
const LATE: Duration = Duration::from_hours(1);

/// What the hosts tell, and what is wrong.
#[derive(Debug, Default)]
pub(super) struct Recurring {
    pub(super) reports: BTreeMap<HostName, HostReport>,
    pub(super) troubles: BTreeMap<HostName, Vec<String>>,
    /// That there is none, or none for too long.
    pub(super) overdue: Option<String>,
}

/// Asks every host that has a timer and answers: one session each. `since` is when the revision was made that runs.
pub(super) async fn look(
    desired: &Desired,
    observed: &Observed,
    fleet: &Fleet<RealHost>,
    interval: Duration,
    (since, now): (i64, i64),
) -> Result<Recurring, OpsError> {
    let takes = |name: &&HostName| {
        let host = desired.hosts.get(*name);
        host.is_some_and(|host| host.units.iter().any(|unit| unit.name.as_str() == TIMER))
    };
    let all: BTreeSet<&HostName> = desired.hosts.keys().filter(takes).collect();
    if all.is_empty() {
        return Ok(Recurring::default());
    }
    let path = RemotePath::new(REPORT).map_err(|error| OpsError::Impossible(error.to_string()))?;
    let paths = BTreeSet::from([path.clone()]);
    let asked = all.iter().filter_map(|name| {
        let (host, paths) = (fleet.get(name)?, &paths);
        Some(async move { ((*name).clone(), host.read(paths).await) })
    });
    let mut reports = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, answer) in join_all(asked).await {
        match answer {
            Ok(files) => {
                reports.insert(name, files.get(&path).and_then(report_of).unwrap_or_default());
            }
            Err(error) => wrong.push(error),
        }
    }
    if !wrong.is_empty() {
        return Err(OpsError::Hosts(wrong));
    }
    let failed = reports.keys().filter(|name| {
        let units = observed.hosts.get(*name).map(|host| &host.units);
        units.into_iter().flatten().any(|(unit, seen)| unit.as_str() == SERVICE && seen.failed)
    });
    let failed: BTreeSet<_> = failed.cloned().collect();
    let silent = reports.len() < all.len();
    Ok(judged(reports, &failed, interval, (since, now), silent))
}

/// A failure counts until a newer snapshot is there, whoever took it.
fn judged(
    reports: BTreeMap<HostName, HostReport>,
    failed: &BTreeSet<HostName>,
    interval: Duration,
    (since, now): (i64, i64),
    silent: bool,
) -> Recurring {
    let newest = reports.values().filter_map(|report| Some(report.last.as_ref()?.taken_at)).max();
    let mut troubles: BTreeMap<HostName, Vec<String>> = BTreeMap::new();
    for (name, report) in &reports {
        let mut found = Vec::new();
        if let Some(trouble) = report.trouble.as_ref().filter(|trouble| newest.is_none_or(|at| at < trouble.at)) {
            // The host named itself, as whoever shows its report does.
            let own = format!("{name}: ");
            found.push(trouble.reason.strip_prefix(&own).unwrap_or(&trouble.reason).to_owned());
        }
        if let Some(last) = report.last.as_ref().filter(|last| Some(last.taken_at) == newest) {
            found.extend(last.troubles.iter().map(|trouble| format!("{}: {trouble}", last.name)));
        }
        if found.is_empty() && failed.contains(name) {
            found.push(format!("{SERVICE} failed; `journalctl -u {SERVICE}` there says why"));
        }
        if !found.is_empty() {
            troubles.insert(name.clone(), found);
        }
    }
    let patience = i64::try_from((interval + LATE).as_secs()).unwrap_or(i64::MAX);
    let late = now - newest.unwrap_or(since) > patience;
    let hours = interval.as_secs() / 3600;
    // A host that does not answer may have a newer one.
    let overdue = (late && !silent).then(|| match newest {
        Some(at) => {
            format!("the newest recurring snapshot is {} hours old; one every {hours} is asked for", (now - at) / 3600)
        }
        None => format!("no recurring snapshot was ever taken; one every {hours} hours is asked for"),
    });
    Recurring { reports, troubles, overdue }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::judged;
    use crate::model::HostName;
    use crate::model::SnapshotName;
    use crate::ops::HostReport;
    use crate::ops::HostTaken;
    use crate::ops::HostTrouble;

    const HOUR: i64 = 3600;
    const DAY: Duration = Duration::from_hours(24);

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn report(taken: Option<(i64, &[&str])>, trouble: Option<i64>) -> HostReport {
        HostReport {
            looked_at: 0,
            last: taken.map(|(taken_at, troubles)| HostTaken {
                name: SnapshotName::new("one").unwrap(),
                taken_at,
                size: 1,
                etcd_revision: 1,
                seconds: 1.0,
                troubles: troubles.iter().map(|text| (*text).to_owned()).collect(),
            }),
            trouble: trouble.map(|at| HostTrouble { at, reason: "h1: no etcd".to_owned() }),
        }
    }

    fn check(reports: &[(&str, HostReport)], failed: &[&str], now: i64, expected: &[(&str, &str)], overdue: bool) {
        let reports = reports.iter().map(|(name, report)| (host(name), report.clone())).collect();
        let failed: BTreeSet<_> = failed.iter().map(|name| host(name)).collect();
        let found = judged(reports, &failed, DAY, (0, now), false);
        let troubles: BTreeMap<_, _> =
            expected.iter().map(|(name, words)| (host(name), vec![(*words).to_owned()])).collect();
        assert_eq!(found.troubles, troubles);
        assert_eq!(found.overdue.is_some(), overdue, "{:?}", found.overdue);
    }

    #[test]
    fn a_failure_counts_until_somebody_took_a_newer_one() {
        let good = || ("h2", report(Some((10 * HOUR, &[])), None));
        check(&[("h1", report(None, Some(9 * HOUR))), good()], &["h1"], 11 * HOUR, &[("h1", WORDS)], false);
        check(&[("h1", report(None, Some(9 * HOUR))), good()], &[], 11 * HOUR, &[], false);
        check(&[("h1", report(None, Some(11 * HOUR))), good()], &["h1"], 12 * HOUR, &[("h1", "no etcd")], false);
        check(&[("h1", report(Some((5, &["s3: full"])), None))], &[], HOUR, &[("h1", "one: s3: full")], false);
        check(&[("h1", report(Some((5, &["s3: full"])), None)), good()], &[], 11 * HOUR, &[], false);
    }

    const WORDS: &str = "bastide-snapshots.service failed; `journalctl -u bastide-snapshots.service` there says why";

    #[test]
    fn none_for_too_long_is_said() {
        check(&[("h1", report(None, None))], &[], 24 * HOUR, &[], false);
        check(&[("h1", report(None, None))], &[], 26 * HOUR, &[], true);
        check(&[("h1", report(Some((10 * HOUR, &[])), None))], &[], 34 * HOUR, &[], false);
        check(&[("h1", report(Some((10 * HOUR, &[])), None))], &[], 36 * HOUR, &[], true);
    }
}
