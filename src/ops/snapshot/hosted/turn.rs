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
        now - self.taken_at >= wait
    }
}

/// `recurring_20261122T140300Z`
pub(super) fn name(now: i64) -> Result<SnapshotName, OpsError> {
    let time = utc(now).replace(['-', ':'], "");
    SnapshotName::new(format!("{PREFIX}{time}")).map_err(|error| OpsError::Impossible(error.to_string()))
}
