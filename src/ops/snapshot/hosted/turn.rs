//! Whose turn it is, as the hosts agree on it in etcd itself.

use serde::Deserialize;
use serde::Serialize;

use crate::api::etcd::Etcd;
use crate::api::probe::ProbeError;
use crate::host::Dial;
use crate::model::HostName;
use crate::model::SnapshotName;
use crate::model::utc;
use crate::ops::OpsError;
use crate::secrets::HostSnapshots;

/// Held by whoever is taking one. Outside of the API server's prefix.
pub(super) const CLAIM: &str = "/bastide/snapshots/claim";
/// The newest one.
const LAST: &str = "/bastide/snapshots/last";
/// Hosts' clocks may differ by less; one that was further ahead must not keep the others waiting for its time.
const AHEAD: i64 = 60 * 60;
/// What the names of recurring ones begin with.
pub(super) const PREFIX: &str = "recurring_";

/// The newest recurring snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    pub(super) name: SnapshotName,
    pub(super) host: HostName,
    pub(super) taken_at: i64,
}

impl Last {
    /// None where there was never one, or where what stands there cannot be read: then one is due.
    pub(super) async fn read<H: Dial>(etcd: &Etcd<'_, H>) -> Result<Option<Self>, ProbeError> {
        Ok(etcd.get(LAST).await?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// False where `holder` does not hold the claim any more.
    pub(super) async fn write<H: Dial>(&self, etcd: &Etcd<'_, H>, holder: &str) -> Result<bool, ProbeError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        etcd.put_holding((CLAIM, holder), LAST, &text).await
    }

    /// Whether the next one is due on this host. Half a tick early, so that late timers do not add up; whoever took the last one leaves
    /// others a tick's time, so that the newest snapshots lie on different hosts.
    pub(super) fn is_due(&self, settings: &HostSnapshots, now: i64) -> bool {
        let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let mut wait = seconds(settings.interval.saturating_sub(settings.tick / 2));
        if self.host == settings.host && !settings.alone {
            wait += seconds(settings.tick);
        }
        let age = now - self.taken_at;
        age >= wait || age < -AHEAD
    }
}

/// `recurring_20261122T140300Z`
pub(super) fn name(now: i64) -> Result<SnapshotName, OpsError> {
    let time = utc(now).replace(['-', ':'], "");
    SnapshotName::new(format!("{PREFIX}{time}")).map_err(|error| OpsError::Impossible(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::Last;
    use crate::model::ClusterId;
    use crate::model::Content;
    use crate::model::HostName;
    use crate::model::SnapshotName;
    use crate::secrets::HostSnapshots;

    const HOUR: i64 = 3600;

    fn check(host: &str, alone: bool, hours: &[(i64, bool)]) {
        let settings = HostSnapshots {
            cluster: ClusterId("c1".to_owned()),
            cluster_name: "test".to_owned(),
            kubernetes: "v1.37.1".parse().unwrap(),
            host: HostName::new(host).unwrap(),
            alone,
            interval: Duration::from_hours(12),
            tick: Duration::from_hours(1),
            retention: 6,
            timeout: Duration::from_mins(5),
            identity: String::new(),
            signers: Vec::new(),
            signing_key: Content::default(),
            bucket: None,
        };
        let name = SnapshotName::new("one").unwrap();
        let last = Last { name, host: HostName::new("h1").unwrap(), taken_at: 100 * HOUR };
        for (half_hours, due) in hours {
            let now = 100 * HOUR + half_hours * HOUR / 2;
            assert_eq!(last.is_due(&settings, now), *due, "{host}, {half_hours} half hours later");
        }
    }

    #[test]
    fn the_next_one_is_due_after_the_interval_and_another_hosts_first() {
        check("h2", false, &[(0, false), (22, false), (23, true), (24, true)]);
        check("h1", false, &[(23, false), (24, false), (25, true)]);
        check("h1", true, &[(22, false), (23, true)]);
        // A clock that was ahead by minutes, and one by a year.
        check("h2", false, &[(-1, false), (-2 * 24 * 365, true)]);
    }
}
