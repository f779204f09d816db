//! `etcd snapshot save` and `restore`, killed at every point there is, and hosts whose power is cut there.
//!
//! Afterwards a save has left nothing that is listed and not whole, and the same command works. A restore goes on by the same command,
//! and every object is as in the snapshot; or `--abort` gives back what was there before.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use bed::Node;
use serde_json::Value;

use super::matrix::described;
use super::matrix::in_order;
use super::record::Place;
use super::record::Record;
use crate::kills::draw;
use crate::kills::points;
use crate::kills::points::Point;
use crate::kills::points::Points;
use crate::restore::is_as;
use crate::restore::write;
use crate::restore::written;
use crate::support::Cluster;
use crate::support::Ended;
use crate::support::seed;

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

#[derive(Debug, Clone)]
struct Case {
    verb: Verb,
    how: How,
    point: Point,
}

impl Case {
    fn kind(&self) -> String {
        let verb = match self.verb {
            Verb::Save => "save",
            Verb::Restore => "restore",
        };
        let how = match self.how {
            How::Killed => "killed",
            How::PowerCut => "power cut",
        };
        format!("{verb}, {how}: {}", self.point.stratum().0)
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

    let cases = [cases(Verb::Save, &save), cases(Verb::Restore, &restore)].concat();
    let note = format!(
        "save: {}; restore: {}. After each restore the seed says whether the same command is given again or `--abort`",
        counted(&save),
        counted(&restore)
    );
    record.exist(cases.len(), &note)?;
    let stratum = |case: &Case| (case.kind(), case.point.stratum().1.map(str::to_owned));
    for (nth, case) in in_order(cases, stratum).into_iter().enumerate() {
        if record.time_is_up() {
            break;
        }
        let back = case.verb == Verb::Restore && draw(seed(), nth) % 2 == 1;
        let host = case.point.stratum().1.map(|host| described(&cluster, host)).unwrap_or_default();
        let what = format!("{}{}", case.point, if back { ", then --abort" } else { "" });
        record.case(&Place { kind: case.kind(), host }, &what, || match case.verb {
            Verb::Save => saved(&cluster, &case),
            Verb::Restore => restored(&cluster, &case, back, &before),
        })?;
    }
    record.end()
}

/// Killed at each, and the power cut at each that is on a host.
fn cases(verb: Verb, points: &Points) -> Vec<Case> {
    let all = points.all().into_iter().map(|point| Case { verb, how: How::Killed, point });
    let on_hosts = points.inside.iter().cloned().map(|point| Case { verb, how: How::PowerCut, point });
    all.chain(on_hosts).collect()
}

fn counted(points: &Points) -> String {
    let (lines, calls, inside) = (points.lines.len(), points.calls.len(), points.inside.len());
    format!("{lines} that a run says, {calls} writes of its own, {inside} inside its scripts on the hosts")
}

fn interrupt(cluster: &Cluster, command: &[&str], case: &Case) -> Result<()> {
    match case.how {
        How::Killed => points::kill_of(cluster, command, &case.point),
        How::PowerCut => {
            let Point::Inside(_, name, ..) = &case.point else { bail!("{}: is on no host", case.point) };
            let cut = points::cut_at(cluster, command, name, &case.point);
            let host = cluster.host(name);
            host.power_on()?;
            host.wait()?;
            cut
        }
    }
}

/// A save that was interrupted left nothing that is listed and not whole, and the next one of the same name works.
fn saved(cluster: &Cluster, case: &Case) -> Result<()> {
    taken_away(cluster)?;
    interrupt(cluster, &SAVE, case)?;
    if case.how == How::PowerCut {
        cluster.wait_nodes_ready(PATIENCE)?;
    }
    let again = || cluster.bastide(&SAVE);
    match listed(cluster)? {
        None => {
            let again = again()?;
            ensure!(again.code == Some(0), "the same command again: {again}");
        }
        Some(row) => {
            ensure!(!row["manifest"].is_null(), "half a snapshot is listed: {row}");
            let again = again()?;
            // It was made: on this host, or here, where the host had lost its power.
            ensure!(again.code == Some(1) && again.stderr.contains("there already"), "the same command again: {again}");
        }
    }
    well(cluster, &["verify", "killed", "--local", HERE])?;
    taken_away(cluster)
}

/// A restore that was interrupted goes on, or back.
fn restored(cluster: &Cluster, case: &Case, back: bool, before: &str) -> Result<()> {
    write(cluster, "after")?;
    let after = written(cluster)?;
    ensure!(after != before, "nothing was written since the snapshot");
    let interrupted = interrupt(cluster, &RESTORE, case);
    let outcome = interrupted.and_then(|()| if back { goes_back(cluster, before, &after) } else { Ok(()) });
    if back && outcome.is_ok() {
        return Ok(());
    }
    // Whatever went wrong, the next case needs a cluster.
    let on = cluster.bastide(&RESTORE)?;
    outcome?;
    ensure!(on.code == Some(0), "the same command again: {on}");
    same(cluster, before)
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

/// [`is_as`] asserts, and the record takes panics.
fn same(cluster: &Cluster, objects: &str) -> Result<()> {
    is_as(cluster, objects)
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
