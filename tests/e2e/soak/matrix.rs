//! A fresh `up` of several hosts, killed at every point there is; each time the next `up` must finish it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use bed::Host;
use bed::Node;

use super::journey::Journey;
use super::journey::Then;
use super::journey::Way;
use super::journey::named;
use super::record::Place;
use super::record::Record;
use super::rest::nothing_is_half_done;
use crate::kills::UP;
use crate::kills::draw;
use crate::kills::points;
use crate::kills::points::Point;
use crate::kills::without_state;
use crate::support::Cluster;
use crate::support::Ended;
use crate::support::seed;

/// What the hosts were before the first run.
const BARE: &str = "bare";

/// How the points are come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// In journeys, each from bare hosts until a run comes by no new point, and each begun with a write on the operator's disk while
    /// one is left; what journeys pass by comes alone after them.
    Journeys,
    /// Each alone, from bare hosts to a run that nothing disturbs.
    Alone,
}

pub(super) fn run(nodes: Vec<Node>, minor: Option<&str>, by: By) -> Result<()> {
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
    let mut note = format!(
        "{} that a run says, {} writes of its own, {} inside its scripts on the hosts",
        points.lines.len(),
        points.calls.len(),
        points.inside.len()
    );
    let all = points.all();
    record.exist(all.len(), &note)?;
    let mut left: BTreeSet<Point> = all.iter().cloned().collect();
    if by == By::Journeys {
        let mut way = Way { cut: None, then: Then::GoesOn, left };
        let journeys = journeys(&cluster, &mut record, &mut way)?;
        let passed = if way.left.is_empty() || record.time_is_up() {
            String::new()
        } else {
            format!("; no journey came by {}", named([&way]))
        };
        left = way.left;
        _ = write!(
            note,
            "; {journeys} journeys, whose ends are cases too, left {} of them for runs of their own{passed}",
            left.len()
        );
        record.exist(all.len() + journeys, &note)?;
    }
    for point in in_order(left.into_iter().collect(), |point| owned(point.stratum())) {
        if record.time_is_up() {
            break;
        }
        record.case(&place(&cluster, &point), &point.to_string(), || finished_by_the_next_one(&cluster, &point))?;
    }
    record.end()
}

fn place(cluster: &Cluster, point: &Point) -> Place {
    let (kind, host) = point.stratum();
    Place { kind, host: host.map(|host| described(cluster, host)).unwrap_or_default() }
}

/// Journeys until one comes by nothing that is left, and how many that were.
fn journeys(cluster: &Cluster, record: &mut Record, way: &mut Way) -> Result<usize> {
    let case = |point: &Point| (place(cluster, point), point.to_string());
    let journey = Journey { cluster, command: &UP, until: None, case: &case };
    let mut journeys = 0;
    loop {
        if way.left.is_empty() || record.time_is_up() {
            return Ok(journeys);
        }
        journeys += 1;
        let (before, start) = (way.left.len(), Instant::now());
        bare(cluster)?;
        let end = journey.travel(record, way, |up| finished(cluster, up.context("one strike is not all")?))?;
        let what = format!("journey {journeys}, killed at {} points", before - way.left.len());
        let place = Place { kind: "a journey's end".to_owned(), host: String::new() };
        record.ended(&place, &what, start.elapsed(), end.outcome)?;
        if way.left.len() == before {
            return Ok(journeys);
        }
    }
}

/// No host has anything, nor has the operator.
fn bare(cluster: &Cluster) -> Result<()> {
    each(cluster, |host| {
        host.power_cut()?;
        host.restore(BARE)?;
        host.power_on()?;
        host.wait()
    })?;
    without_state(cluster)
}

fn finished_by_the_next_one(cluster: &Cluster, point: &Point) -> Result<()> {
    bare(cluster)?;
    points::kill_at(cluster, point)?;
    finished(cluster, &cluster.bastide(&UP)?)
}

/// The run ended well, nothing is left to do, and nothing is half done.
fn finished(cluster: &Cluster, up: &Ended) -> Result<()> {
    ensure!(up.code == Some(0), "the up after it: {up}");
    let plan = cluster.bastide(&["plan"])?;
    ensure!(plan.code == Some(0), "the plan after that: {plan}");
    for host in cluster.hosts() {
        nothing_is_half_done(&host)?;
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
fn in_order<T, S: Ord>(items: Vec<T>, stratum: impl Fn(&T) -> S) -> Vec<T> {
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

fn owned((kind, host): (String, Option<&str>)) -> (String, Option<String>) {
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
