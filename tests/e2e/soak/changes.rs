//! Every change of a cluster of one host, and the way back of each: killed at every point there is, and the host's power cut; then
//! the same command goes on to the target, or another copy of the state goes back to what was.
//!
//! The host swings from one side to the other and is not begun anew for each case. Where the same command goes on, it is struck again at each
//! point that is left (a journey, as in [`journey`]), and its end is judged; a way back is taken after one strike, and is judged itself.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;

use super::journey::Journey;
use super::journey::Then;
use super::journey::Turn;
use super::journey::Way;
use super::journey::in_rounds;
use super::journey::named;
use super::matrix::described;
use super::record::Place;
use super::record::Record;
use super::rest::HOST;
use super::rest::PATIENCE;
use super::rest::Rest;
use super::rest::copy_folder;
use super::rest::started;
use super::rest::taken_over;
use crate::kills::from;
use crate::kills::kinds::Inside;
use crate::kills::kinds::Local;
use crate::kills::points;
use crate::kills::points::Point;
use crate::support::Cluster;
use crate::support::Ended;

/// What is said on the way, a line each.
const TOLD: [&str; 3] = ["-v", "--log-format", "json"];
const FLAG: &str = "services: {kube-api: {extra_args: {event-ttl: 2h}}}\n";

/// A change, in the order from the shortest to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Flag,
    Leaves,
    TokenKey,
    Authorities,
    EncryptionKey,
}

impl Change {
    const ALL: [Self; 5] = [Self::Flag, Self::Leaves, Self::TokenKey, Self::Authorities, Self::EncryptionKey];

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Flag => &["up", "--yes", "--no-identity-backup"],
            Self::Leaves => &["rotate-certs", "--yes"],
            // Its last leg waits for a day: what it does at once are two.
            Self::TokenKey => &["rotate-certs", "--service-account-key", "--yes"],
            Self::Authorities => &["rotate-certs", "--ca", "--restart-pods", "--yes"],
            Self::EncryptionKey => &["encrypt", "rotate-key", "--yes"],
        }
    }

    /// How it ends.
    fn code(self) -> i32 {
        i32::from(self == Self::TokenKey)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "extra_args",
            Self::Leaves => "rotate-certs",
            Self::TokenKey => "rotate-certs --service-account-key",
            Self::Authorities => "rotate-certs --ca",
            Self::EncryptionKey => "encrypt rotate-key",
        })
    }
}

/// What is interrupted: a change, or the way back from it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Operation {
    name: String,
    arguments: Vec<String>,
    code: i32,
}

impl Operation {
    fn words(&self) -> Vec<&str> {
        self.arguments.iter().map(String::as_str).collect()
    }

    fn told(&self) -> Vec<&str> {
        TOLD.into_iter().chain(self.words()).collect()
    }
}

pub(super) fn run() -> Result<()> {
    let mut record = Record::open()?;
    let mut cluster = Cluster::one_host()?;
    points::prepare(&cluster)?;
    cluster.up();
    cluster.wait_pods_ready(PATIENCE)?;
    let before = Rest::of(&cluster, "before")?;
    let number = before.newest["id"]["number"].to_string();
    let (mut exist, mut note) = (0, Vec::new());
    for (left, change) in (1u32..=5).rev().zip(Change::ALL) {
        if record.time_is_up() {
            note.push(format!("{change}: not come to"));
            continue;
        }
        // Each has its share of the time that is left.
        let until = record.left().map(|time| Instant::now() + time / left);
        before.again(&cluster)?;
        with_flag(&mut cluster, change)?;
        let forward = Operation {
            name: change.to_string(),
            arguments: change.arguments().iter().map(|word| (*word).to_owned()).collect(),
            code: change.code(),
        };
        let there = points::enumerate_of(&cluster, &forward.told(), forward.code)?;
        cluster.wait_pods_ready(PATIENCE)?;
        let after = Rest::of(&cluster, "after")?;
        ensure!(before.digests != after.digests, "{change}: changed nothing");
        started(&cluster)?;
        let back = Operation {
            name: format!("rollback of {change}"),
            arguments: ["rollback", "--to", &number, "--yes"].map(str::to_owned).to_vec(),
            code: 0,
        };
        let home = points::enumerate_of(&cluster, &back.told(), back.code)?;
        before.is_reached(&cluster, cluster.folder(), true)?;

        let (there, home) = (ways(&there)?, ways(&home)?);
        for (operation, ways) in [(&forward, &there), (&back, &home)] {
            let cases: usize = ways.iter().map(|way| way.left.len()).sum();
            note.push(format!("{}: {cases}", operation.name));
            exist += cases;
        }
        record.exist(exist, &note.join(", "))?;
        let there = there.into_iter().map(|way| (Side::Before, way));
        let home = home.into_iter().map(|way| (Side::After, way));
        let mut ways: Vec<_> = there.zip(home).flat_map(|(there, home)| [there, home]).collect();
        let flagged = change == Change::Flag;
        let sides = Sides { cluster: &cluster, before: &before, after: &after, operations: [&forward, &back], flagged };
        let mut pendulum = Pendulum { sides, record: &mut record, until, at: Some(Side::Before) };
        in_rounds(&mut ways, |side, way| pendulum.turn(side, way))?;
        let time_is_up = pendulum.time_is_up();
        let left: usize = ways.iter().map(|(_, way)| way.left.len()).sum();
        if left > 0 && time_is_up {
            note.push(format!("of these two {left} left when the time was up"));
        } else if left > 0 {
            let names = named(ways.iter().map(|(_, way)| way));
            note.push(format!("of these two {left} that no run came by ({names})"));
        }
    }
    record.exist(exist, &note.join(", "))?;
    record.end()
}

/// Where the host is at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// The two sides, and how one comes from the one to the other.
struct Sides<'a> {
    cluster: &'a Cluster,
    before: &'a Rest,
    after: &'a Rest,
    /// The change, and the way back.
    operations: [&'a Operation; 2],
    flagged: bool,
}

impl<'a> Sides<'a> {
    fn operation(&self, from: Side) -> &'a Operation {
        match from {
            Side::Before => self.operations[0],
            Side::After => self.operations[1],
        }
    }

    /// An operation that ended by itself is at its target, which is the other side.
    fn over(&self, from: Side, ended: &Ended) -> Result<Side> {
        ensure!(ended.code == Some(self.operation(from).code), "the same command: {ended}");
        let (goal, exactly, side) = match from {
            Side::Before => (self.after, self.flagged, Side::After),
            Side::After => (self.before, true, Side::Before),
        };
        // Keys are drawn anew by each run: only without them are two targets equal, and their words always.
        goal.is_reached(self.cluster, self.cluster.folder(), exactly)?;
        Ok(side)
    }

    /// By another copy of the state, which is the state from then on.
    fn goes_back(&self) -> Result<Side> {
        let copy = tempfile::tempdir()?;
        copy_folder(self.cluster.folder(), copy.path())?;
        let number = self.before.newest["id"]["number"].to_string();
        let ended = from(self.cluster, copy.path(), &["rollback", "--to", &number, "--yes"])?;
        ensure!(ended.code == Some(0), "rollback from another copy: {ended}");
        self.before.is_reached(self.cluster, copy.path(), true)?;
        taken_over(copy.path(), self.cluster.folder())?;
        Ok(Side::Before)
    }
}

/// A host that goes from one side to the other and back, interrupted on the way. Only where something went wrong is it brought back to what was
/// kept of it.
struct Pendulum<'a> {
    sides: Sides<'a>,
    record: &'a mut Record,
    until: Option<Instant>,
    /// None where nobody knows.
    at: Option<Side>,
}

impl Pendulum<'_> {
    fn time_is_up(&self) -> bool {
        self.record.time_is_up() || self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn turn(&mut self, side: Side, way: &mut Way) -> Result<Turn> {
        if self.time_is_up() {
            return Ok(Turn::TimeIsUp);
        }
        if self.starts(side)? {
            self.swing(side, way)?;
        }
        Ok(Turn::Taken)
    }

    /// At rest on this side, by an undisturbed run where it is on the other; false, and written down, where that went wrong.
    fn starts(&mut self, side: Side) -> Result<bool> {
        let Sides { cluster, before, after, flagged, .. } = self.sides;
        if self.at.is_none() {
            before.again(cluster)?;
            self.at = Some(Side::Before);
        }
        let wanted = if flagged { after } else { before };
        fs::copy(wanted.folder.path().join("cluster.yml"), cluster.config())?;
        let Some(from) = self.at.filter(|at| *at != side) else { return Ok(true) };
        let (operation, start) = (self.sides.operation(from), Instant::now());
        let ended = cluster.bastide(&operation.words())?;
        match self.sides.over(from, &ended) {
            Ok(side) => self.at = Some(side),
            Err(error) => {
                self.at = None;
                self.written(operation, "undisturbed", start.elapsed(), error)?;
            }
        }
        Ok(self.at.is_some())
    }

    /// From one side on: the same command until an end, struck as often as it comes by something that is left; or struck once, and back.
    fn swing(&mut self, from: Side, way: &mut Way) -> Result<()> {
        let (sides, operation) = (&self.sides, self.sides.operation(from));
        let host = described(sides.cluster, HOST);
        let how = if way.cut.is_some() { "power cut: " } else { "" };
        let then = if way.then == Then::GoesOn { "goes on" } else { "goes back" };
        let case = |point: &Point| {
            let kind = format!("{}: {how}{}", operation.name, point.stratum().0);
            (Place { kind, host: host.clone() }, format!("{}, {point}, then it {then}", operation.name))
        };
        let journey = Journey { cluster: sides.cluster, command: &operation.told(), until: self.until, case: &case };
        let end = journey.travel(self.record, way, |ended| match ended {
            Some(ended) => sides.over(from, ended),
            None => sides.goes_back(),
        })?;
        self.at = end.outcome.as_ref().ok().copied();
        match (end.alone, end.outcome) {
            (Some(took), Err(error)) => self.written(operation, "come by nothing", took, error),
            _ => Ok(()),
        }
    }

    /// What went wrong without a point.
    fn written(&mut self, operation: &Operation, kind: &str, took: Duration, error: anyhow::Error) -> Result<()> {
        let kind = format!("{}: {kind}", operation.name);
        let place = Place { kind, host: described(self.sides.cluster, HOST) };
        self.record.ended(&place, &operation.name, took, Err(error))
    }
}

/// cluster.yml as the change wants it.
fn with_flag(cluster: &mut Cluster, change: Change) -> Result<()> {
    let flag = if change == Change::Flag { FLAG } else { "" };
    flag.clone_into(&mut cluster.file.more);
    cluster.write()
}

/// Each point with each way on. No kind that every change has may be without one; a short one says so little that all of it comes
/// last, where only writes and scripts have points.
fn ways(points: &points::Points) -> Result<Vec<Way>> {
    let kinds: BTreeSet<String> = points.all().iter().map(|point| point.stratum().0).collect();
    let local = [Local::Lock, Local::Pack, Local::Manifest, Local::Journal].map(|kind| kind.to_string());
    let inside =
        [Inside::Lock, Inside::Staging, Inside::Seal, Inside::Record, Inside::File].map(|kind| kind.to_string());
    for kind in local.into_iter().chain(inside) {
        ensure!(kinds.contains(&kind), "no point of the kind {kind:?}");
    }
    let all: BTreeSet<Point> = points.all().into_iter().collect();
    let on_host: BTreeSet<Point> = [&points.lines[..], &points.inside].concat().into_iter().collect();
    let each = |(cut, left): (Option<&str>, BTreeSet<Point>)| {
        [Then::GoesOn, Then::Once].map(|then| Way { cut: cut.map(str::to_owned), then, left: left.clone() })
    };
    Ok([(None, all), (Some(HOST), on_host)].into_iter().flat_map(each).collect())
}
