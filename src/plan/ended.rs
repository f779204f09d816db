//! What a change leaves behind where a cluster's certificates have ended.

use std::collections::BTreeSet;

use crate::model::Desired;
use crate::model::HostName;
use crate::model::Keep;
use crate::model::Observed;
use crate::plan::seeded;

/// The hosts on which the pair that the host renews by itself ends before `until` (seconds since 1970), as it lies there.
pub fn pairs_ending(target: &Desired, observed: &Observed, until: i64) -> BTreeSet<HostName> {
    let ends = |name: &HostName| {
        let (Some(host), Some(seen)) = (target.hosts.get(name), observed.hosts.get(name)) else { return false };
        let own = host.files.iter().filter(|(_, file)| matches!(file.keep, Keep::Seeded { .. }));
        own.filter_map(|(path, _)| seen.files.get(path)).any(|file| seeded::has_ended(file, until - 1))
    };
    observed.hosts.keys().filter(|name| ends(name)).cloned().collect()
}

/// The hosts on which a certificate that has ended at `now` (seconds since 1970) would stay, because `target` holds the same.
/// None where an API server answers: the cluster works then, and what has ended there can be renewed part by part.
pub fn left_ended(target: &Desired, observed: &Observed, now: i64) -> BTreeSet<HostName> {
    if observed.objects.is_some() {
        return BTreeSet::new();
    }
    let stays = |name: &HostName| {
        let (Some(host), Some(seen)) = (target.hosts.get(name), observed.hosts.get(name)) else { return false };
        seen.files.iter().any(|(path, file)| {
            host.files.get(path).is_some_and(|wanted| wanted.digest == file.digest) && seeded::has_ended(file, now)
        })
    };
    observed.hosts.keys().filter(|name| stays(name)).cloned().collect()
}
