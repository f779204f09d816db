//! The members of etcd: how they are, and the care they need.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::api::EtcdMember;
use crate::api::etcd::Alarm;
use crate::api::etcd::Etcd;
use crate::api::etcd::EtcdStatus;
use crate::api::etcd::HashKv;
use crate::api::probe;
use crate::model::HostName;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::snapshot::Site;

/// A member answers nobody while it defragments: about a second for 100 MB.
const DEFRAGMENTING: Duration = Duration::from_mins(10);
/// How long a member may take to be well again after it.
const RECOVERY: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(500);
/// etcd's documentation: the 99th percentile of a write to the log should be under 10 ms.
const SLOW_FSYNC: f64 = 0.010;
/// Members' logs are never equal under load; a member that is so far behind is not keeping up.
const BEHIND: u64 = 5_000;

/// All members.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EtcdOverview {
    /// Layout of this document.
    pub schema: u32,
    /// Whether every member answers and nothing ails one.
    pub healthy: bool,
    /// By host.
    pub members: BTreeMap<HostName, MemberStatus>,
    /// What is wrong with the whole.
    pub notes: Vec<String>,
}

/// One member.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MemberStatus {
    /// Why it cannot be asked.
    pub unreachable: Option<String>,
    /// Its number, hexadecimal, as etcd's own tools print it.
    pub id: String,
    /// Of etcd.
    pub version: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it has no vote yet.
    pub learner: bool,
    /// Size of the file in bytes.
    pub db_size: u64,
    /// How much of that is in use.
    pub db_in_use: u64,
    /// Newest revision that it has applied.
    pub revision: u64,
    /// Newest committed entry of the log.
    pub raft_index: u64,
    /// Newest entry that it has applied.
    pub raft_applied: u64,
    /// Term of the election.
    pub raft_term: u64,
    /// Hash over all keys at the revision that all members have.
    pub hash: Option<u32>,
    /// What was compacted away when that hash was made.
    pub compact_revision: Option<i64>,
    /// 99th percentile of the time that a write to the log took since its start, in seconds (upper bound of its bucket).
    pub fsync_p99: Option<f64>,
    /// Alarms that it has raised.
    pub alarms: Vec<String>,
    /// What ails it, in words.
    pub ailments: Vec<String>,
    /// What should be looked at, although it works.
    pub warnings: Vec<String>,
}

/// Asks every member, each through its own host.
pub async fn etcd_status(invocation: &Invocation, talk: &Arc<dyn Talk>) -> Result<EtcdOverview, OpsError> {
    let site = Site::open(invocation, talk).await?;
    Ok(overview(&site).await)
}

async fn overview(site: &Site) -> EtcdOverview {
    let asked = site.members().map(|name| async move { (name.clone(), member(site.etcd(name)).await) });
    let mut members: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
    let mut notes = Vec::new();
    let (alarms, listed) = told(site).await;
    for alarm in alarms {
        let id = hexadecimal(&alarm.member);
        match members.values_mut().find(|member| member.id == id) {
            Some(member) => {
                member.ailments.push(format!("alarm {}: {}", alarm.name, cause(&alarm.name)));
                member.alarms.push(alarm.name);
            }
            None => notes.push(format!("alarm {} of a member that is not in cluster.yml ({id})", alarm.name)),
        }
    }
    if !listed.is_empty() {
        notes.extend(strangers(&listed, &site.peers()));
    }
    compare(site, &mut members, &mut notes).await;
    let leaders = members.values().filter(|member| member.leader).count();
    if leaders != 1 {
        notes.push(format!("{leaders} members lead; there must be one"));
    }
    let newest = members.values().map(|member| member.raft_index).max().unwrap_or_default();
    for member in members.values_mut().filter(|member| member.unreachable.is_none()) {
        let behind = newest.saturating_sub(member.raft_applied);
        if behind > BEHIND {
            member.ailments.push(format!("{behind} entries behind the others"));
        }
    }
    let well = |member: &MemberStatus| member.unreachable.is_none() && member.ailments.is_empty();
    EtcdOverview { schema: 1, healthy: notes.is_empty() && members.values().all(well), members, notes }
}

/// Alarms and members, each by the first member that tells them: one that is down says nothing of the others, and alarms need quorum.
async fn told(site: &Site) -> (Vec<Alarm>, Vec<EtcdMember>) {
    let (mut alarms, mut listed) = (None, None);
    for etcd in site.members().filter_map(|name| site.etcd(name)) {
        if alarms.is_none() {
            alarms = etcd.alarms().await.ok();
        }
        if listed.is_none() {
            listed = etcd.members_it_knows().await.ok();
        }
    }
    (alarms.unwrap_or_default(), listed.unwrap_or_default())
}

async fn member(etcd: Option<Etcd<'_, RealHost>>) -> MemberStatus {
    let Some(etcd) = etcd else {
        return MemberStatus { unreachable: Some("the host does not answer".to_owned()), ..MemberStatus::default() };
    };
    let (status, metrics) = (etcd.status().await, etcd.metrics().await);
    let status = match status {
        Ok(status) => status,
        Err(error) => return MemberStatus { unreachable: Some(error.to_string()), ..MemberStatus::default() },
    };
    let fsync_p99 = metrics.ok().and_then(|text| percentile(&text, "etcd_disk_wal_fsync_duration_seconds", 0.99));
    let mut warnings = Vec::new();
    if let Some(seconds) = fsync_p99.filter(|seconds| *seconds > SLOW_FSYNC) {
        warnings
            .push(format!("its disk is slow: one write to the log in a hundred takes over {:.0} ms", seconds * 500.0));
    }
    let ailments = status.learner.then(|| "it is a learner: it has no vote yet".to_owned());
    MemberStatus { ailments: ailments.into_iter().collect(), warnings, ..shown(status, fsync_p99) }
}

fn shown(status: EtcdStatus, fsync_p99: Option<f64>) -> MemberStatus {
    MemberStatus {
        leader: status.leads(),
        id: hexadecimal(&status.id),
        version: status.version,
        learner: status.learner,
        db_size: status.size,
        db_in_use: status.in_use,
        revision: status.revision,
        raft_index: status.raft_index,
        raft_applied: status.raft_applied,
        raft_term: status.raft_term,
        fsync_p99,
        ..MemberStatus::default()
    }
}

/// Where etcd's own list and cluster.yml differ. `peers` are the hosts' own addresses.
fn strangers(listed: &[EtcdMember], peers: &BTreeMap<HostName, IpAddr>) -> Vec<String> {
    let of = |member: &EtcdMember| {
        let address =
            |url: &String| url.parse::<http::Uri>().ok()?.host()?.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let addresses: Vec<_> = member.peer_urls.iter().filter_map(address).collect();
        peers.iter().find(|(_, peer)| addresses.contains(peer)).map(|(name, _)| name)
    };
    let stranger = |member: &EtcdMember| {
        let id = hexadecimal(&member.id);
        match (of(member), member.name.is_empty()) {
            (None, _) => Some(format!(
                "etcd lists a member that no host of cluster.yml is: {id} at {}",
                member.peer_urls.join(", ")
            )),
            (Some(host), true) => Some(format!("etcd lists a member for {host} that has not started: {id}")),
            (Some(_), false) => None,
        }
    };
    let known: Vec<_> = listed.iter().filter_map(of).collect();
    let missing = peers.keys().filter(|name| !known.contains(name));
    let missing = missing.map(|name| format!("{name}: etcd lists no member for it"));
    listed.iter().filter_map(stranger).chain(missing).collect()
}

/// Two members of which one is corrupt, with their hashes. Only hashes of equal compaction can be compared.
pub(super) fn at_odds(hashes: &[(HostName, HashKv)]) -> Option<[&(HostName, HashKv); 2]> {
    hashes.iter().enumerate().find_map(|(at, one)| {
        let other = hashes[at + 1..].iter().find(|(_, other)| {
            other.revision == one.1.revision
                && other.compact_revision == one.1.compact_revision
                && other.hash != one.1.hash
        });
        Some([one, other?])
    })
}

/// Hashes at the revision that all members have; only those with equal compaction are compared.
async fn compare(site: &Site, members: &mut BTreeMap<HostName, MemberStatus>, notes: &mut Vec<String>) {
    let reached = members.values().filter(|member| member.unreachable.is_none()).map(|member| member.revision);
    let Some(common) = reached.min() else { return };
    let mut seen = Vec::new();
    for (name, member) in members {
        let Some(etcd) = site.etcd(name).filter(|_| member.unreachable.is_none()) else { continue };
        let Ok(found) = etcd.hash(common).await else { continue };
        (member.hash, member.compact_revision) = (Some(found.hash), Some(found.compact_revision));
        seen.push((name.clone(), found));
    }
    if let Some([(one, _), (other, _)]) = at_odds(&seen) {
        notes.push(format!("{one} and {other} hold different data at revision {common}: one of them is corrupt"));
    }
}

/// What raised an alarm, and what to do.
fn cause(alarm: &str) -> &'static str {
    match alarm {
        "NOSPACE" => {
            "the database reached its quota (quota-backend-bytes) and takes no more writes; `bastide etcd defrag` gives back \
             what is free and takes the alarm back where that is enough"
        }
        "CORRUPT" => "this member's data differ from the others'; replace the member, or restore a snapshot",
        _ => "unknown to this bastide",
    }
}

/// Gives every member's free pages back, one member at a time, the leader last; each must be well again before the next one's
/// turn. Afterwards alarms for want of space are taken back where there is space again.
pub async fn defragment(
    invocation: &Invocation,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<EtcdOverview, OpsError> {
    let site = Site::open(invocation, talk).await?;
    let before = overview(&site).await;
    let ill: Vec<_> = before
        .members
        .iter()
        .filter_map(|(name, member)| Some(format!("{name}: {}", member.unreachable.as_ref()?)))
        .collect();
    if !ill.is_empty() {
        // A member that defragments is as good as down for so long.
        let words = "every member must answer before one is kept busy; nothing was changed";
        return Err(OpsError::Impossible(format!("{words}\n{}", ill.join("\n"))));
    }
    let mut order: Vec<_> = before.members.iter().map(|(name, member)| (member.leader, name.clone())).collect();
    order.sort();
    for (_, name) in &order {
        if cancel.is_cancelled() {
            return Err(OpsError::Impossible("interrupted between two members".to_owned()));
        }
        let failed = OpsError::etcd(name);
        let gone = || OpsError::Impossible(format!("{name}: does not answer any more"));
        let etcd = Etcd { deadline: DEFRAGMENTING, ..site.etcd(name).ok_or_else(gone)? };
        talk.doing(name, "defragmenting etcd");
        etcd.defragment().await.map_err(failed)?;
        await_health(&site, name).await?;
    }
    disarm(&site, &**talk).await?;
    Ok(overview(&site).await)
}

/// Waits until the member can commit again. An alarm for want of space is what brought a person here: it is taken back at last.
async fn await_health(site: &Site, name: &HostName) -> Result<(), OpsError> {
    let start = tokio::time::Instant::now();
    loop {
        let host = site.fleet.get(name).ok_or_else(|| OpsError::Impossible(format!("{name}: does not answer")))?;
        match probe::etcd_but_for_space(&**host, POLL * 10).await {
            Ok(probe::Health::Ok) => return Ok(()),
            answer if start.elapsed() > RECOVERY => {
                let words = match answer {
                    Ok(probe::Health::Unwell(words)) => words,
                    Ok(probe::Health::Ok) => String::new(),
                    Err(error) => error.to_string(),
                };
                return Err(OpsError::Impossible(format!(
                    "{name}: etcd is not well after its defragmentation, the other members were left alone: {words}"
                )));
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// Takes alarms for want of space back; every other alarm stays.
async fn disarm(site: &Site, talk: &dyn Talk) -> Result<(), OpsError> {
    let Some((name, etcd)) = site.members().find_map(|name| Some((name, site.etcd(name)?))) else { return Ok(()) };
    let failed = OpsError::etcd(name);
    for alarm in etcd.alarms().await.map_err(failed)? {
        if alarm.name != "NOSPACE" {
            talk.warn(&format!("alarm {} stays: {}", alarm.name, cause(&alarm.name)));
            continue;
        }
        // etcd raises it again by itself where the quota is still exceeded.
        etcd.disarm(&alarm).await.map_err(failed)?;
        talk.say(&format!("took back alarm NOSPACE of member {}: {}", hexadecimal(&alarm.member), cause("NOSPACE")));
    }
    Ok(())
}

/// etcd's tools print numbers of members in hexadecimal, its JSON has them in decimal.
fn hexadecimal(decimal: &str) -> String {
    decimal.parse::<u64>().map_or_else(|_| decimal.to_owned(), |number| format!("{number:x}"))
}

/// The upper bound of the bucket that holds this quantile of a Prometheus histogram; none where nothing was measured, or where it
/// lies beyond the last bound.
fn percentile(metrics: &str, name: &str, quantile: f64) -> Option<f64> {
    let prefix = format!("{name}_bucket{{le=\"");
    let mut buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter_map(|line| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            Some((bound.replace("+Inf", "inf").parse().ok()?, count.trim().parse().ok()?))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = buckets.last()?.1;
    let found = buckets.iter().find(|(_, count)| all > 0.0 && *count >= quantile * all)?.0;
    found.is_finite().then_some(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::at_odds;
    use super::hexadecimal;
    use super::percentile;
    use super::strangers;
    use crate::api::EtcdMember;
    use crate::api::etcd::HashKv;
    use crate::model::HostName;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    #[test]
    fn members_are_at_odds_only_where_as_much_was_compacted() {
        let of = |name: &str, hash, compact_revision| (host(name), HashKv { hash, revision: 9, compact_revision });
        assert_eq!(at_odds(&[of("h1", 1, 4), of("h2", 1, 4), of("h3", 2, 5)]), None);
        assert_eq!(at_odds(&[of("h1", 1, 4)]), None);
        let all = [of("h1", 1, 5), of("h2", 1, 4), of("h3", 2, 4)];
        assert_eq!(at_odds(&all), Some([&all[1], &all[2]]));
        let mut later = of("h3", 2, 4);
        later.1.revision = 10;
        assert_eq!(at_odds(&[of("h1", 1, 4), later]), None, "hashes of two revisions");
    }

    #[test]
    fn members_that_no_host_is_and_hosts_that_are_no_member_are_told() {
        let member = |id: &str, name: &str, url: &str| EtcdMember {
            id: id.to_owned(),
            name: name.to_owned(),
            peer_urls: vec![url.to_owned()],
            learner: false,
        };
        let peers: BTreeMap<_, _> = [("h1", "192.0.2.11"), ("h2", "2001:db8::2"), ("h3", "192.0.2.13")]
            .map(|(name, address)| (host(name), address.parse().unwrap()))
            .into();
        let one = member("10", "h1", "https://192.0.2.11:2380");
        let two = member("11", "h2", "https://[2001:db8::2]:2380");
        let three = member("12", "h3", "https://192.0.2.13:2380");
        assert!(strangers(&[one.clone(), two.clone(), three], &peers).is_empty());
        let learner = member("13", "", "https://192.0.2.13:2380");
        let stranger = member("255", "h9", "https://192.0.2.19:2380");
        assert_eq!(
            strangers(&[one.clone(), two.clone(), learner, stranger], &peers),
            [
                "etcd lists a member for h3 that has not started: d",
                "etcd lists a member that no host of cluster.yml is: ff at https://192.0.2.19:2380"
            ]
        );
        assert_eq!(strangers(&[one, two], &peers), ["h3: etcd lists no member for it"]);
    }

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket() {
        let metrics = "# HELP f x\nf_bucket{le=\"0.001\"} 10\nf_bucket{le=\"0.002\"} 98\nf_bucket{le=\"0.004\"} 99\n\
                       f_bucket{le=\"+Inf\"} 100\nf_sum 1\nf_count 100\n";
        assert_eq!(percentile(metrics, "f", 0.5), Some(0.002));
        assert_eq!(percentile(metrics, "f", 0.99), Some(0.004));
        assert_eq!(percentile(metrics, "f", 0.999), None);
        assert_eq!(percentile("", "f", 0.99), None);
        assert_eq!(percentile("f_bucket{le=\"+Inf\"} 0\n", "f", 0.99), None);
    }

    #[test]
    fn members_are_named_as_etcds_own_tools_name_them() {
        assert_eq!(hexadecimal("10276657743932975437"), "8e9e05c52164694d");
        assert_eq!(hexadecimal("?"), "?");
    }
}
