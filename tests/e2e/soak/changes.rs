//! Every change of a cluster of one host, and the way back of each: killed at every point there is, and the host's power cut; then
//! the same command goes on to the target, or another copy of the state goes back to what was.

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
use anyhow::ensure;
use serde_json::Value;
use tempfile::TempDir;

use super::matrix::described;
use super::matrix::in_order;
use super::matrix::owned;
use super::record::Place;
use super::record::Record;
use crate::kills::from;
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

struct Case {
    point: Point,
    how: How,
    then: Then,
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
        let share = record.left().map(|time| Instant::now() + time / left);
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

        let sides = [(&forward, there, &before), (&back, home, &after)];
        let mut order: Vec<Vec<(&Operation, &Rest, Case)>> = Vec::new();
        for (operation, points, start) in sides {
            let cases = cases(&points)?;
            note.push(format!("{}: {}", operation.name, cases.len()));
            exist += cases.len();
            let stratum = |case: &Case| (owned(case.point.stratum()), case.how, case.then);
            order.push(in_order(cases, stratum).into_iter().map(|case| (operation, start, case)).collect());
        }
        record.exist(exist, &note.join(", "))?;
        // The change and its way back in turn.
        let (mut first, mut second) = (order.remove(0).into_iter(), order.remove(0).into_iter());
        let mut turns = std::iter::from_fn(|| match (first.next(), second.next()) {
            (None, None) => None,
            (one, other) => Some([one, other]),
        });
        let until = |record: &Record| record.time_is_up() || share.is_some_and(|until| Instant::now() >= until);
        while !until(&record) {
            let Some(pair) = turns.next() else { break };
            for (operation, start, case) in pair.into_iter().flatten() {
                if until(&record) {
                    break;
                }
                let host = described(&cluster, HOST);
                let (kind, _) = case.point.stratum();
                let how = if case.how == How::Killed { kind } else { format!("power cut: {kind}") };
                let then = if case.then == Then::GoesOn { "goes on" } else { "goes back" };
                let place = Place { kind: format!("{}: {how}", operation.name), host };
                let what = format!("{}, {}, then it {then}", operation.name, case.point);
                let flagged = change == Change::Flag;
                record.case(&place, &what, || held(&cluster, operation, start, (&before, &after), &case, flagged))?;
            }
        }
    }
    record.exist(exist, &note.join(", "))?;
    record.end()
}

/// cluster.yml as the change wants it.
fn with_flag(cluster: &mut Cluster, change: Change) -> Result<()> {
    let flag = if change == Change::Flag { FLAG } else { "" };
    flag.clone_into(&mut cluster.file.more);
    cluster.write()
}

/// Each point with each way on. No kind that every change has may be without one; a short one says so little that all of it comes
/// last, where only writes and scripts have points.
fn cases(points: &points::Points) -> Result<Vec<Case>> {
    let kinds: BTreeSet<String> = points.all().iter().map(|point| point.stratum().0).collect();
    let local = [Local::Lock, Local::Pack, Local::Manifest, Local::Journal].map(|kind| kind.to_string());
    let inside =
        [Inside::Lock, Inside::Staging, Inside::Seal, Inside::Record, Inside::File].map(|kind| kind.to_string());
    for kind in local.into_iter().chain(inside) {
        ensure!(kinds.contains(&kind), "no point of the kind {kind:?}");
    }
    let on_host = [&points.lines[..], &points.inside].concat();
    let killed = points.all().into_iter().map(|point| (point, How::Killed));
    let all = killed.chain(on_host.into_iter().map(|point| (point, How::PowerCut)));
    let each = |(point, how): (Point, How)| {
        [Then::GoesOn, Then::GoesBack].map(|then| Case { point: point.clone(), how, then })
    };
    Ok(all.flat_map(each).collect())
}

fn held(
    cluster: &Cluster,
    operation: &Operation,
    start: &Rest,
    (before, after): (&Rest, &Rest),
    case: &Case,
    flagged: bool,
) -> Result<()> {
    start.again(cluster)?;
    let wanted = if flagged { after } else { before };
    fs::copy(wanted.folder.path().join("cluster.yml"), cluster.config())?;
    let told = operation.told();
    match case.how {
        How::Killed => points::kill_of(cluster, &told, &case.point)?,
        How::PowerCut => {
            points::cut_at(cluster, &told, HOST, &case.point)?;
            let host = cluster.host(HOST);
            host.power_on()?;
            host.wait()?;
        }
    }
    let copy = tempfile::tempdir()?;
    let went_back = operation.arguments[0] == "rollback";
    match case.then {
        Then::GoesOn => {
            let ended = cluster.bastide(&operation.words())?;
            ensure!(ended.code == Some(operation.code), "the same command: {ended}");
            let goal = if went_back { before } else { after };
            // Keys are drawn anew by each run: only without them are two targets equal, and their words always.
            goal.is_reached(cluster, cluster.folder(), went_back || flagged)
        }
        Then::GoesBack => {
            copy_folder(cluster.folder(), copy.path())?;
            let number = before.newest["id"]["number"].to_string();
            let ended = from(cluster, copy.path(), &["rollback", "--to", &number, "--yes"])?;
            ensure!(ended.code == Some(0), "rollback from another copy: {ended}");
            before.is_reached(cluster, copy.path(), true)
        }
    }
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
        for name in ["cluster.bastide", "config", "state"] {
            let path = cluster.folder().join(name);
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
        }
        copy_folder(self.folder.path(), cluster.folder())?;
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

/// All that lies in a folder into another one.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let everything: PathBuf = from.join(".");
    let status = Command::new("cp").arg("-a").arg(&everything).arg(to).status()?;
    ensure!(status.success(), "cp {}: {status}", from.display());
    Ok(())
}
