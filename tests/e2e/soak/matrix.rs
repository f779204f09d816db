//! A fresh `up` of several hosts, killed at every point there is; each time the next `up` must finish it.

use std::collections::BTreeMap;

use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use bed::Host;
use bed::Node;

use super::record::Place;
use super::record::Record;
use crate::kills::draw;
use crate::kills::points;
use crate::kills::points::Point;
use crate::kills::without_state;
use crate::support::Cluster;
use crate::support::seed;

/// What the hosts were before the first run.
const BARE: &str = "bare";

pub(super) fn run(nodes: Vec<Node>, minor: Option<&str>) -> Result<()> {
    let mut record = Record::open()?;
    let mut cluster = Cluster::of(nodes)?;
    // Its objects are like all others, and each case would wait half a minute longer.
    cluster.file.metrics = false;
    if let Some(minor) = minor {
        minor.clone_into(&mut cluster.file.minor);
    }
    cluster.write()?;
    points::prepare(&cluster)?;
    each(&cluster, |host| {
        host.power_cut()?;
        host.save(BARE)?;
        host.power_on()?;
        host.wait()
    })?;
    let points = points::enumerate(&cluster)?;
    cluster.assert_plans_nothing();
    let note = format!(
        "{} that a run says, {} writes of its own, {} inside its scripts on the hosts",
        points.lines.len(),
        points.calls.len(),
        points.inside.len()
    );
    let all = points.all();
    record.exist(all.len(), &note)?;
    for point in in_order(all, |point| owned(point.stratum())) {
        if record.time_is_up() {
            break;
        }
        let (kind, host) = point.stratum();
        let place = Place { kind, host: host.map(|host| described(&cluster, host)).unwrap_or_default() };
        record.case(&place, &point.to_string(), || finished_by_the_next_one(&cluster, &point))?;
    }
    record.end()
}

fn finished_by_the_next_one(cluster: &Cluster, point: &Point) -> Result<()> {
    each(cluster, |host| {
        host.power_cut()?;
        host.restore(BARE)?;
        host.power_on()?;
        host.wait()
    })?;
    without_state(cluster)?;
    points::kill_at(cluster, point)?;
    let up = cluster.bastide(&["up", "--yes", "--no-identity-backup"])?;
    ensure!(up.code == Some(0), "the up after it: {up}");
    let plan = cluster.bastide(&["plan"])?;
    ensure!(plan.code == Some(0), "the plan after that: {plan}");
    for host in cluster.hosts() {
        let left = host.ssh("find /etc /opt /var/lib/bastide -name '.*.bastide' -o -path /var/lib/bastide/staging -o -path /var/lib/bastide/pending")?;
        ensure!(left.is_empty(), "{}: half done: {left}", host.name());
    }
    Ok(())
}

/// Does the same to all hosts at once.
pub(super) fn each(cluster: &Cluster, work: impl Fn(&Host) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = cluster.hosts().into_iter().map(|host| scope.spawn(move || work(&host))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("panicked"),
        })
    })
}

pub(super) fn described(cluster: &Cluster, host: &str) -> String {
    let node = cluster.file.nodes.iter().find(|node| node.host == host);
    node.map(|node| format!("{host} ({})", node.roles.join(", "))).unwrap_or_default()
}

/// One of each kind and host, then another of each, as the seed has it: wherever it is cut off, no kind was forgotten.
pub(super) fn in_order<T, S: Ord>(items: Vec<T>, stratum: impl Fn(&T) -> S) -> Vec<T> {
    let mut strata: BTreeMap<S, Vec<T>> = BTreeMap::new();
    for item in shuffled(items) {
        strata.entry(stratum(&item)).or_default().push(item);
    }
    let mut strata = shuffled(strata.into_values().collect());
    let mut order = Vec::new();
    while !strata.is_empty() {
        for stratum in &mut strata {
            order.extend(stratum.pop());
        }
        strata.retain(|stratum| !stratum.is_empty());
    }
    order
}

pub(super) fn owned((kind, host): (String, Option<&str>)) -> (String, Option<String>) {
    (kind, host.map(str::to_owned))
}

/// Fisher and Yates.
fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    for at in (1..items.len()).rev() {
        let other = draw(seed(), at) % (u64::try_from(at).unwrap_or(u64::MAX) + 1);
        items.swap(at, usize::try_from(other).unwrap_or(0));
    }
    items
}
