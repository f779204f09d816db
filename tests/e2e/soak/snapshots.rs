//! `etcd snapshot save` and `restore`, killed at every point there is, and hosts whose power is cut there.
//!
//! Afterwards a save has left nothing that is listed and not whole, and the same command works. A restore goes on by the same command,
//! and every object is as in the snapshot; or `--abort` gives back what was there before. Restores come in journeys: the same command is
//! struck again at each point that is left, and its end is judged; `--abort` is given after one strike.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;
use bed::Node;
use serde_json::Value;

use super::journey::End;
use super::journey::Journey;
use super::journey::Then;
use super::journey::Turn;
use super::journey::Way;
use super::journey::in_rounds;
use super::journey::named;
use super::matrix::described;
use super::record::Place;
use super::record::Record;
use super::record::caught;
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
    let mut ways: Vec<(Verb, Way)> =
        [ways(Verb::Save, &save), ways(Verb::Restore, &restore)].into_iter().flatten().collect();
    let exist = ways.iter().map(|(_, way)| way.left.len()).sum();
    record.exist(exist, &note)?;
    in_rounds(&mut ways, |verb, way| {
        if record.time_is_up() {
            return Ok(Turn::TimeIsUp);
        }
        match verb {
            Verb::Save => saves(&cluster, &mut record, way)?,
            Verb::Restore => restores(&cluster, &mut record, way, &before)?,
        }
        Ok(Turn::Taken)
    })?;
    let passed: usize = ways.iter().map(|(_, way)| way.left.len()).sum();
    if passed > 0 && !record.time_is_up() {
        let names = named(ways.iter().map(|(_, way)| way));
        record.exist(exist, &format!("{note}; {passed} of the cases were not come by: {names}"))?;
    }
    record.end()
}

/// Killed at each, and the power cut at each that is on a host; a restore goes on after each, and goes back after each.
fn ways(verb: Verb, points: &Points) -> Vec<(Verb, Way)> {
    let thens: &[Then] = if verb == Verb::Save { &[Then::Once] } else { &[Then::GoesOn, Then::Once] };
    let mut on_hosts: BTreeMap<&str, BTreeSet<Point>> = BTreeMap::new();
    for point in &points.inside {
        if let Point::Inside(_, host, ..) = point {
            on_hosts.entry(host).or_default().insert(point.clone());
        }
    }
    let mut ways = Vec::new();
    for then in thens.iter().copied() {
        ways.push((verb, Way { cut: None, then, left: points.all().into_iter().collect() }));
        for (host, left) in &on_hosts {
            ways.push((verb, Way { cut: Some((*host).to_owned()), then, left: left.clone() }));
        }
    }
    ways
}

/// Where a point of this way belongs, and what is said of it.
fn case<'a>(cluster: &'a Cluster, verb: Verb, way: &Way) -> impl Fn(&Point) -> (Place, String) + use<'a> {
    let how = if way.cut.is_some() { "power cut" } else { "killed" };
    let (name, then) = match (verb, way.then) {
        (Verb::Save, _) => ("save", ""),
        (Verb::Restore, Then::GoesOn) => ("restore", ""),
        (Verb::Restore, Then::Once) => ("restore", ", then --abort"),
    };
    move |point| {
        let (kind, host) = point.stratum();
        let host = host.map(|host| described(cluster, host)).unwrap_or_default();
        (Place { kind: format!("{name}, {how}: {kind}"), host }, format!("{point}{then}"))
    }
}

/// What went wrong without a point is a case as well.
fn undisturbed(record: &mut Record, verb: Verb, end: End<()>) -> Result<()> {
    let (Some(took), Err(error)) = (end.alone, end.outcome) else { return Ok(()) };
    let place = Place { kind: format!("{verb:?}: come by nothing"), host: String::new() };
    record.ended(&place, "an undisturbed run", took, Err(error))
}

fn counted(points: &Points) -> String {
    let (lines, calls, inside) = (points.lines.len(), points.calls.len(), points.inside.len());
    format!("{lines} that a run says, {calls} writes of its own, {inside} inside its scripts on the hosts")
}

/// Saves, each struck at something that is left and judged, until one comes by nothing.
fn saves(cluster: &Cluster, record: &mut Record, way: &mut Way) -> Result<()> {
    let case = case(cluster, Verb::Save, way);
    let journey = Journey { cluster, command: &SAVE, until: None, case: &case };
    let cut = way.cut.is_some();
    taken_away(cluster)?;
    loop {
        if record.time_is_up() || way.left.is_empty() {
            return Ok(());
        }
        let end = journey.travel(record, way, |ended| match ended {
            Some(ended) => whole(cluster, ended),
            None => saved(cluster, cut),
        })?;
        let last = end.alone.is_some();
        undisturbed(record, Verb::Save, end)?;
        // The next one begins without it, whatever became of this one.
        taken_away(cluster)?;
        if last {
            return Ok(());
        }
    }
}

/// A save that was interrupted left nothing that is listed and not whole, and the next one of the same name works.
fn saved(cluster: &Cluster, cut: bool) -> Result<()> {
    if cut {
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
    let case = case(cluster, Verb::Restore, way);
    let journey = Journey { cluster, command: &RESTORE, until: None, case: &case };
    let end = journey.travel(record, way, |ended| match ended {
        Some(ended) if ended.code == Some(0) => same(cluster, before),
        Some(ended) => Err(anyhow!("the same command again: {ended}")),
        None => goes_back(cluster, before, &after),
    })?;
    let failed = end.outcome.is_err();
    undisturbed(record, Verb::Restore, end)?;
    if failed {
        // Whatever went wrong, the next one needs a cluster.
        well(cluster, &RESTORE[5..]).context("no cluster is left for the other cases")?;
    }
    Ok(())
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
