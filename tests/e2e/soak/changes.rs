//! Every change of a cluster of one host, and the way back of each: killed at every point there is, and the host's power cut; then
//! the same command goes on to the target, or another copy of the state goes back to what was.
//!
//! The host swings from one side to the other and is not begun anew for each case. Where the same command goes on, it is struck again at each
//! point that is left (a journey, as in [`journey`]), and its end is judged; a way back is taken after one strike, and is judged itself.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use serde_json::Value;
use tempfile::TempDir;

use super::matrix::described;
use super::record::Place;
use super::record::Record;
use crate::kills::from;
use crate::kills::journey;
use crate::kills::journey::Leg;
use crate::kills::journey::Strike;
use crate::kills::kinds::Inside;
use crate::kills::kinds::Local;
use crate::kills::points;
use crate::kills::points::Point;
use crate::support::Cluster;
use crate::support::Ended;

const HOST: &str = "h1";
const PATIENCE: Duration = Duration::from_mins(5);
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Killed,
    PowerCut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Then {
    GoesOn,
    GoesBack,
}

/// A host at rest with everything that its operator had then.
struct Rest {
    /// Of the host's file systems.
    snapshot: &'static str,
    folder: TempDir,
    /// All that bastide manages there, but for programs and what the kubelet renews.
    digests: String,
    newest: Value,
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

        let mut swings = Vec::new();
        for (operation, points) in [(&forward, there), (&back, home)] {
            let ways = ways(&points)?;
            let cases: usize = ways.iter().map(|way| way.left.len()).sum();
            note.push(format!("{}: {cases}", operation.name));
            exist += cases;
            swings.push(ways);
        }
        record.exist(exist, &note.join(", "))?;
        let flagged = change == Change::Flag;
        let mut pendulum = Pendulum {
            cluster: &cluster,
            record: &mut record,
            before: &before,
            after: &after,
            operations: [&forward, &back],
            flagged,
            until,
            at: Some(Side::Before),
        };
        pendulum.swings(&mut swings)?;
        let left: usize = swings.iter().flatten().map(|way| way.left.len()).sum();
        let why = if pendulum.time_is_up() { "left when the time was up" } else { "that no run came by" };
        if left > 0 {
            note.push(format!("of these two {left} {why}"));
        }
    }
    record.exist(exist, &note.join(", "))?;
    record.end()
}

/// The points that are left of one operation for one kind of interruption and one way on.
struct Way {
    how: How,
    then: Then,
    left: BTreeSet<Point>,
}

/// Where the host is at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// A host that goes from one side to the other and back, interrupted on the way. Only where something went wrong is it brought back to what was
/// kept of it.
struct Pendulum<'a> {
    cluster: &'a Cluster,
    record: &'a mut Record,
    before: &'a Rest,
    after: &'a Rest,
    /// The change, and the way back.
    operations: [&'a Operation; 2],
    flagged: bool,
    until: Option<Instant>,
    /// None where nobody knows.
    at: Option<Side>,
}

impl Pendulum<'_> {
    fn time_is_up(&self) -> bool {
        self.record.time_is_up() || self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Every way in its turn, until nothing is left, or a whole round comes by nothing that is.
    fn swings(&mut self, operations: &mut [Vec<Way>]) -> Result<()> {
        loop {
            let mut met = 0;
            for nth in 0..operations.first().map_or(0, Vec::len) {
                for (side, ways) in [Side::Before, Side::After].into_iter().zip(operations.iter_mut()) {
                    if self.time_is_up() {
                        return Ok(());
                    }
                    let Some(way) = ways.get_mut(nth).filter(|way| !way.left.is_empty()) else { continue };
                    let there = way.left.len();
                    if self.starts(side)? {
                        self.swing(side, way)?;
                    }
                    met += there - way.left.len();
                }
            }
            if met == 0 {
                return Ok(());
            }
        }
    }

    fn operation(&self, from: Side) -> &Operation {
        match from {
            Side::Before => self.operations[0],
            Side::After => self.operations[1],
        }
    }

    /// At rest on this side, by an undisturbed run where it is on the other; false, and written down, where that went wrong.
    fn starts(&mut self, side: Side) -> Result<bool> {
        if self.at.is_none() {
            self.before.again(self.cluster)?;
            self.at = Some(Side::Before);
        }
        let wanted = if self.flagged { self.after } else { self.before };
        fs::copy(wanted.folder.path().join("cluster.yml"), self.cluster.config())?;
        let Some(from) = self.at.filter(|at| *at != side) else { return Ok(true) };
        let start = Instant::now();
        let ended = self.cluster.bastide(&self.operation(from).words())?;
        let outcome = self.over(from, &ended);
        self.at = outcome.is_ok().then_some(side);
        let name = self.operation(from).name.clone();
        if let Err(error) = outcome {
            self.written(&format!("{name}: undisturbed"), &name, start, Err(error))?;
        }
        Ok(self.at.is_some())
    }

    /// From one side on: the same command until an end, struck as often as it comes by something that is left; or struck once, and back.
    fn swing(&mut self, from: Side, way: &mut Way) -> Result<()> {
        let told: Vec<String> = self.operation(from).told().into_iter().map(str::to_owned).collect();
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        let mut last: Vec<Point> = Vec::new();
        let mut start = Instant::now();
        loop {
            let first = last.is_empty();
            let leg = if self.time_is_up() && !first {
                self.cluster.bastide(&told).map(Leg::Ended)
            } else {
                self.leg(&told, way, first)
            };
            let ended = match leg {
                Ok(Leg::Struck(points)) if way.then == Then::GoesOn => {
                    self.cases(from, way, std::mem::replace(&mut last, points), start, &Ok(()))?;
                    start = Instant::now();
                    continue;
                }
                Ok(Leg::Struck(points)) => {
                    last = points;
                    self.goes_back().map(|()| Side::Before)
                }
                Ok(Leg::Ended(ended)) => self.over(from, &ended).map(|()| match from {
                    Side::Before => Side::After,
                    Side::After => Side::Before,
                }),
                Err(error) => Err(error),
            };
            self.at = ended.as_ref().ok().copied();
            let outcome = ended.map(|_| ());
            if last.is_empty() && outcome.is_err() {
                let name = self.operation(from).name.clone();
                return self.written(&format!("{name}: come by nothing"), &name, start, outcome);
            }
            return self.cases(from, way, last, start, &outcome);
        }
    }

    /// The next run of the command, with the host on again afterwards. Writes on the operator's disk are counted from the start of
    /// an undisturbed run, so they have their turn where one begins.
    fn leg(&self, told: &[&str], way: &mut Way, first: bool) -> Result<Leg> {
        let call = way.left.iter().find(|point| first && matches!(point, Point::Call(..))).cloned();
        if let Some(call) = call {
            way.left.remove(&call);
            points::kill_of(self.cluster, told, &call)?;
            return Ok(Leg::Struck(vec![call]));
        }
        let strike = if way.how == How::Killed { Strike::Kill } else { Strike::PowerCut(HOST) };
        let leg = journey::leg(self.cluster, told, strike, &mut way.left);
        if way.how == How::PowerCut && !matches!(leg, Ok(Leg::Ended(_))) {
            let host = self.cluster.host(HOST);
            host.power_on()?;
            host.wait()?;
        }
        leg
    }

    /// An operation that ended by itself is at its target.
    fn over(&self, from: Side, ended: &Ended) -> Result<()> {
        ensure!(ended.code == Some(self.operation(from).code), "the same command: {ended}");
        let (goal, exactly) = match from {
            Side::Before => (self.after, self.flagged),
            Side::After => (self.before, true),
        };
        // Keys are drawn anew by each run: only without them are two targets equal, and their words always.
        goal.is_reached(self.cluster, self.cluster.folder(), exactly)
    }

    /// By another copy of the state, which is the state from then on.
    fn goes_back(&self) -> Result<()> {
        let copy = tempfile::tempdir()?;
        copy_folder(self.cluster.folder(), copy.path())?;
        let number = self.before.newest["id"]["number"].to_string();
        let ended = from(self.cluster, copy.path(), &["rollback", "--to", &number, "--yes"])?;
        ensure!(ended.code == Some(0), "rollback from another copy: {ended}");
        self.before.is_reached(self.cluster, copy.path(), true)?;
        taken_over(copy.path(), self.cluster.folder())
    }

    fn cases(&mut self, from: Side, way: &Way, points: Vec<Point>, start: Instant, outcome: &Result<()>) -> Result<()> {
        let name = self.operation(from).name.clone();
        for point in points {
            let (kind, _) = point.stratum();
            let how = if way.how == How::Killed { kind } else { format!("power cut: {kind}") };
            let then = if way.then == Then::GoesOn { "goes on" } else { "goes back" };
            let ended = outcome.as_ref().map_err(|error| anyhow!("{error:#}")).copied();
            self.written(&format!("{name}: {how}"), &format!("{name}, {point}, then it {then}"), start, ended)?;
        }
        Ok(())
    }

    fn written(&mut self, kind: &str, what: &str, start: Instant, ended: Result<()>) -> Result<()> {
        let place = Place { kind: kind.to_owned(), host: described(self.cluster, HOST) };
        self.record.ended(&place, what, start.elapsed(), ended)
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
    let each = |(how, left): (How, BTreeSet<Point>)| {
        [Then::GoesOn, Then::GoesBack].map(|then| Way { how, then, left: left.clone() })
    };
    Ok([(How::Killed, all), (How::PowerCut, on_host)].into_iter().flat_map(each).collect())
}

impl Rest {
    /// Keeps the host as it is, and leaves it off.
    fn of(cluster: &Cluster, snapshot: &'static str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        copy_folder(cluster.folder(), folder.path())?;
        let digests = digests(cluster)?;
        let newest = newest(cluster, cluster.folder())?;
        let host = cluster.host(HOST);
        host.shut_down()?;
        host.save(snapshot)?;
        Ok(Self { snapshot, folder, digests, newest })
    }

    fn again(&self, cluster: &Cluster) -> Result<()> {
        let host = cluster.host(HOST);
        // It may be off, after the last case or because it was kept.
        _ = host.power_cut();
        host.restore(self.snapshot)?;
        taken_over(self.folder.path(), cluster.folder())?;
        started(cluster)
    }

    /// The state in `folder` says so, nothing differs from it, nothing is half done; `exactly`: every file has the digest of then.
    fn is_reached(&self, cluster: &Cluster, folder: &Path, exactly: bool) -> Result<()> {
        let newest = newest(cluster, folder)?;
        ensure!(newest["state"]["state"] == "reached", "{newest}");
        if exactly {
            let digests = digests(cluster)?;
            let differ: Vec<_> = digests.lines().filter(|line| !self.digests.contains(*line)).collect();
            ensure!(digests == self.digests, "other files than then: {differ:?}");
        } else {
            ensure!(newest["why"] == self.newest["why"], "{newest} in the place of {}", self.newest);
        }
        let live = from(cluster, folder, &["diff", "--live"])?;
        ensure!(live.code == Some(0), "diff --live: {live}");
        // What was taken back is in cluster.yml still.
        let file = folder.join("cluster.yml");
        let text = fs::read_to_string(&file)?;
        fs::copy(self.folder.path().join("cluster.yml"), &file)?;
        let plan = from(cluster, folder, &["plan"])?;
        fs::write(&file, text)?;
        ensure!(plan.code == Some(0), "plan: {plan}");
        let left = cluster.host(HOST).ssh("find /etc /opt /var/lib/bastide -name '.*.bastide' -o -path /var/lib/bastide/staging -o -path /var/lib/bastide/pending")?;
        ensure!(left.is_empty(), "half done: {left}");
        Ok(())
    }
}

fn started(cluster: &Cluster) -> Result<()> {
    let host = cluster.host(HOST);
    host.power_on()?;
    host.wait()?;
    cluster.wait_nodes_ready(PATIENCE)?;
    cluster.wait_pods_ready(PATIENCE)
}

fn digests(cluster: &Cluster) -> Result<String> {
    cluster.host(HOST).ssh(
        "find /etc/kubernetes /etc/etcd /etc/containerd /etc/systemd/system /var/lib/kube-proxy /var/lib/kubelet/config.yaml \
         -type f -exec sha256sum {} + 2>/dev/null | sort -k 2; ls /opt/bastide",
    )
}

fn newest(cluster: &Cluster, folder: &Path) -> Result<Value> {
    let ended: Ended = from(cluster, folder, &["history", "--output", "json"])?;
    let seen: Value = serde_json::from_str(&ended.stdout).with_context(|| ended.to_string())?;
    seen["revisions"].as_array().and_then(|all| all.last().cloned()).context("no revision")
}

/// The state in one folder takes the place of the one in another.
fn taken_over(from: &Path, to: &Path) -> Result<()> {
    for name in ["cluster.bastide", "config", "state"] {
        let path = to.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
    }
    copy_folder(from, to)
}

/// All that lies in a folder into another one.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let everything: PathBuf = from.join(".");
    let status = Command::new("cp").arg("-a").arg(&everything).arg(to).status()?;
    ensure!(status.success(), "cp {}: {status}", from.display());
    Ok(())
}
