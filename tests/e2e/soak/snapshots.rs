//! `etcd snapshot save` and `restore`, killed at every point there is, and hosts whose power is cut there.
//!
//! Afterwards a save has left nothing that is listed and not whole, and the same command works. A restore goes on by the same command,
//! and every object is as in the snapshot; or `--abort` gives back what was there before. Restores come in journeys: the same command is
//! struck again at each point that is left, and its end is judged; `--abort` is given after one strike.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;
use bed::Node;
use serde_json::Value;

use super::matrix::described;
use super::record::Place;
use super::record::Record;
use super::record::caught;
use crate::kills::journey;
use crate::kills::journey::Leg;
use crate::kills::journey::Strike;
use crate::kills::points;
use crate::kills::points::Point;
use crate::kills::points::Points;
use crate::restore::is_as;
use crate::restore::write;
use crate::restore::written;
use crate::support::Cluster;
use crate::support::Ended;

const PATIENCE: Duration = Duration::from_mins(5);
/// A folder here, told apart from all else by its name.
const HERE: &str = "kept-here";
/// What is restored.
const ORIGIN: &str = "origin";
const SAVE: [&str; 10] =
    ["-v", "--log-format", "json", "etcd", "snapshot", "save", "--name", "killed", "--local", HERE];
const RESTORE: [&str; 9] =
    ["-v", "--log-format", "json", "etcd", "snapshot", "restore", ORIGIN, "--yes", "--cluster=test"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Save,
    Restore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Killed,
    PowerCut,
}

/// The points that are left of one command for one kind of interruption and one way on.
struct Way {
    verb: Verb,
    how: How,
    /// Taken back by `--abort` after each, in the place of the same command.
    back: bool,
    /// Where the power is cut; the points lie all on it.
    host: Option<String>,
    left: BTreeSet<Point>,
}

impl Way {
    fn kind(&self, point: &Point) -> String {
        let verb = match self.verb {
            Verb::Save => "save",
            Verb::Restore => "restore",
        };
        let how = match self.how {
            How::Killed => "killed",
            How::PowerCut => "power cut",
        };
        format!("{verb}, {how}: {}", point.stratum().0)
    }

    fn strike(&self) -> Strike<'_> {
        self.host.as_deref().map_or(Strike::Kill, Strike::PowerCut)
    }
}

pub(super) fn run(nodes: Vec<Node>) -> Result<()> {
    let mut record = Record::open()?;
    let mut cluster = Cluster::of(nodes)?;
    cluster.file.metrics = false;
    cluster.write()?;
    cluster.up();
    cluster.wait_nodes_ready(PATIENCE)?;
    points::prepare(&cluster)?;
    fs::create_dir(cluster.folder().join(HERE))?;
    write(&cluster, "before")?;
    let before = written(&cluster)?;
    well(&cluster, &["save", "--name", ORIGIN, "--local", HERE])?;
    let save = points::enumerate_of(&cluster, &SAVE, 0)?;
    taken_away(&cluster)?;
    write(&cluster, "after")?;
    let restore = points::enumerate_of(&cluster, &RESTORE, 0)?;
    is_as(&cluster, &before)?;

    let note = format!("save: {}; restore: {}", counted(&save), counted(&restore));
    let mut ways: Vec<Way> = [ways(Verb::Save, &save), ways(Verb::Restore, &restore)].into_iter().flatten().collect();
    let exist = ways.iter().map(|way| way.left.len()).sum();
    record.exist(exist, &note)?;
    loop {
        let mut met = 0;
        for way in ways.iter_mut().filter(|way| !way.left.is_empty()) {
            if record.time_is_up() {
                return record.end();
            }
            let there = way.left.len();
            match way.verb {
                Verb::Save => saves(&cluster, &mut record, way)?,
                Verb::Restore => restores(&cluster, &mut record, way, &before)?,
            }
            met += there - way.left.len();
        }
        if met == 0 {
            break;
        }
    }
    let passed: usize = ways.iter().map(|way| way.left.len()).sum();
    if passed > 0 {
        record.exist(exist, &format!("{note}; {passed} of the cases were not come by"))?;
    }
    record.end()
}

/// Killed at each, and the power cut at each that is on a host; a restore goes on after each, and goes back after each.
fn ways(verb: Verb, points: &Points) -> Vec<Way> {
    let backs: &[bool] = if verb == Verb::Save { &[false] } else { &[false, true] };
    let mut on_hosts: BTreeMap<&str, BTreeSet<Point>> = BTreeMap::new();
    for point in &points.inside {
        if let Point::Inside(_, host, ..) = point {
            on_hosts.entry(host).or_default().insert(point.clone());
        }
    }
    let mut ways = Vec::new();
    for back in backs.iter().copied() {
        let all = points.all().into_iter().collect();
        ways.push(Way { verb, how: How::Killed, back, host: None, left: all });
        for (host, left) in &on_hosts {
            ways.push(Way { verb, how: How::PowerCut, back, host: Some((*host).to_owned()), left: left.clone() });
        }
    }
    ways
}

/// The next run of the command, with the host on again afterwards. Writes on the operator's disk are counted from the start of an
/// undisturbed run, so they have their turn where one begins.
fn leg(cluster: &Cluster, command: &[&str], way: &mut Way, first: bool) -> Result<Leg> {
    let call = way.left.iter().find(|point| first && matches!(point, Point::Call(..))).cloned();
    if let Some(call) = call {
        way.left.remove(&call);
        points::kill_of(cluster, command, &call)?;
        return Ok(Leg::Struck(vec![call]));
    }
    let mut left = std::mem::take(&mut way.left);
    let leg = journey::leg(cluster, command, way.strike(), &mut left);
    way.left = left;
    if let Some(name) = way.host.as_deref().filter(|_| !matches!(leg, Ok(Leg::Ended(_)))) {
        let host = cluster.host(name);
        host.power_on()?;
        host.wait()?;
    }
    leg
}

fn cases(
    cluster: &Cluster,
    record: &mut Record,
    way: &Way,
    points: &[Point],
    start: Instant,
    outcome: &Result<()>,
) -> Result<()> {
    for point in points {
        let host = point.stratum().1.map(|host| described(cluster, host)).unwrap_or_default();
        let what = format!("{point}{}", if way.back { ", then --abort" } else { "" });
        let ended = outcome.as_ref().map_err(|error| anyhow!("{error:#}")).copied();
        record.ended(&Place { kind: way.kind(point), host }, &what, start.elapsed(), ended)?;
    }
    // What went wrong without a point is a case as well.
    if points.is_empty() && outcome.is_err() {
        let ended = outcome.as_ref().map_err(|error| anyhow!("{error:#}")).copied();
        let place = Place { kind: format!("{:?}: come by nothing", way.verb), host: String::new() };
        record.ended(&place, "an undisturbed run", start.elapsed(), ended)?;
    }
    Ok(())
}

fn counted(points: &Points) -> String {
    let (lines, calls, inside) = (points.lines.len(), points.calls.len(), points.inside.len());
    format!("{lines} that a run says, {calls} writes of its own, {inside} inside its scripts on the hosts")
}

/// Saves, each struck at something that is left and judged, until one comes by nothing.
fn saves(cluster: &Cluster, record: &mut Record, way: &mut Way) -> Result<()> {
    taken_away(cluster)?;
    loop {
        let start = Instant::now();
        if record.time_is_up() || way.left.is_empty() {
            return Ok(());
        }
        let (points, outcome) = match leg(cluster, &SAVE, way, true) {
            Ok(Leg::Struck(points)) => (points, saved(cluster, way.how)),
            Ok(Leg::Ended(ended)) => (Vec::new(), whole(cluster, &ended)),
            Err(error) => (Vec::new(), Err(error)),
        };
        cases(cluster, record, way, &points, start, &outcome)?;
        // The next one begins without it, whatever became of this one.
        taken_away(cluster)?;
        if points.is_empty() {
            return Ok(());
        }
    }
}

/// A save that was interrupted left nothing that is listed and not whole, and the next one of the same name works.
fn saved(cluster: &Cluster, how: How) -> Result<()> {
    if how == How::PowerCut {
        cluster.wait_nodes_ready(PATIENCE)?;
    }
    match listed(cluster)? {
        None => whole(cluster, &cluster.bastide(&SAVE)?),
        Some(row) => {
            ensure!(!row["manifest"].is_null(), "half a snapshot is listed: {row}");
            let again = cluster.bastide(&SAVE)?;
            // It was made: on this host, or here, where the host had lost its power.
            ensure!(again.code == Some(1) && again.stderr.contains("there already"), "the same command again: {again}");
            well(cluster, &["verify", "killed", "--local", HERE]).map(drop)
        }
    }
}

/// A save that nothing disturbed, and what it made.
fn whole(cluster: &Cluster, ended: &Ended) -> Result<()> {
    ensure!(ended.code == Some(0), "the same command again: {ended}");
    well(cluster, &["verify", "killed", "--local", HERE]).map(drop)
}

/// A restore that goes on by the same command, struck as often as it comes by something that is left, or back after the first one.
fn restores(cluster: &Cluster, record: &mut Record, way: &mut Way, before: &str) -> Result<()> {
    write(cluster, "after")?;
    let after = written(cluster)?;
    ensure!(after != before, "nothing was written since the snapshot");
    let mut last: Vec<Point> = Vec::new();
    let mut start = Instant::now();
    loop {
        let first = last.is_empty();
        let leg = if record.time_is_up() && !first {
            cluster.bastide(&RESTORE).map(Leg::Ended)
        } else {
            leg(cluster, &RESTORE, way, first)
        };
        let outcome = match leg {
            Ok(Leg::Struck(points)) if !way.back => {
                cases(cluster, record, way, &std::mem::replace(&mut last, points), start, &Ok(()))?;
                start = Instant::now();
                continue;
            }
            Ok(Leg::Struck(points)) => {
                last = points;
                goes_back(cluster, before, &after)
            }
            Ok(Leg::Ended(ended)) if ended.code == Some(0) => same(cluster, before),
            Ok(Leg::Ended(ended)) => Err(anyhow!("the same command again: {ended}")),
            Err(error) => Err(error),
        };
        cases(cluster, record, way, &last, start, &outcome)?;
        if outcome.is_err() {
            // Whatever went wrong, the next one needs a cluster.
            well(cluster, &RESTORE[5..]).context("no cluster is left for the other cases")?;
        }
        return Ok(());
    }
}

fn goes_back(cluster: &Cluster, before: &str, after: &str) -> Result<()> {
    let abort = cluster.bastide(&["etcd", "snapshot", "restore", "--abort", "--yes", "--cluster", "test"])?;
    if abort.code == Some(0) {
        return same(cluster, after);
    }
    // Killed before it had begun, or when it was over: there is nothing to take back, and everything is well.
    ensure!(abort.code == Some(1), "--abort: {abort}");
    cluster.wait_nodes_ready(PATIENCE).with_context(|| format!("after {abort}"))?;
    let now = written(cluster)?;
    ensure!(now == after || now == before, "--abort refused, and the objects are neither: {abort}");
    same(cluster, &now).with_context(|| format!("after {abort}"))
}

/// [`is_as`] asserts, and what it says is an outcome here.
fn same(cluster: &Cluster, objects: &str) -> Result<()> {
    caught(|| is_as(cluster, objects))
}

/// The snapshot of the interrupted save as the list has it.
fn listed(cluster: &Cluster) -> Result<Option<Value>> {
    let listed: Value = serde_json::from_str(&well(cluster, &["list", "--local", HERE, "--output", "json"])?.stdout)?;
    let rows = listed["snapshots"].as_array().context("no list")?;
    let mut killed = rows.iter().filter(|row| row["name"] == "killed").cloned();
    let first = killed.next();
    if let Some(other) = killed.next() {
        bail!("two snapshots of one name: {first:?} and {other}");
    }
    Ok(first)
}

/// Wherever it lies.
fn taken_away(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        host.ssh("rm -f /var/lib/bastide/snapshots/killed.snapshot /var/lib/bastide/snapshots/.*.part")?;
    }
    match fs::remove_file(cluster.folder().join(HERE).join("killed.snapshot")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn well(cluster: &Cluster, arguments: &[&str]) -> Result<Ended> {
    let ended = cluster.bastide(&[&["etcd", "snapshot"], arguments].concat())?;
    ensure!(ended.code == Some(0), "etcd snapshot {arguments:?}: {ended}");
    Ok(ended)
}
