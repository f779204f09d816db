//! Every point at which a fresh `up` can be killed: what it says it does, every durable write that strace sees it make on the
//! operator's disk, and everything that its scripts do on the hosts.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

use super::UP;
use super::kinds::Inside;
use super::kinds::Kind;
use super::kinds::Local;
use super::running::Running;
use super::running::Said;
use crate::support::Cluster;

/// Where a run is killed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    /// When it has said this for the n-th time, counted from 1.
    Line(Kind, Said, usize),
    /// Where it begins the n-th of these system calls on its main thread, which is about this file.
    Call(Local, String, usize),
    /// While a script on this host is about to do this for the n-th time.
    Inside(Inside, String, String, usize),
}

impl Point {
    /// What it is counted with: a sample has one of each.
    pub(crate) fn stratum(&self) -> (String, Option<&str>) {
        match self {
            Self::Line(kind, said, _) => (kind.to_string(), said.host.as_deref()),
            Self::Call(local, ..) => (local.to_string(), None),
            Self::Inside(inside, host, ..) => (inside.to_string(), Some(host)),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(_, said, nth) => {
                let host = said.host.as_ref().map(|host| format!("{host}: ")).unwrap_or_default();
                write!(f, "{host}{} ({nth})", said.message)
            }
            Self::Call(local, name, nth) => write!(f, "{local}: {name} {nth}"),
            Self::Inside(_, host, call, nth) => {
                let call: String = call.chars().take(120).collect();
                write!(f, "{host}: {call} ({nth})")
            }
        }
    }
}

/// Every point of a fresh run.
#[derive(Debug, Default)]
pub(crate) struct Points {
    /// In the order in which they came.
    pub(crate) lines: Vec<Point>,
    pub(crate) calls: Vec<Point>,
    pub(crate) inside: Vec<Point>,
}

impl Points {
    pub(crate) fn all(&self) -> Vec<Point> {
        [&self.lines[..], &self.calls, &self.inside].concat()
    }

    /// The kinds of lines in the order in which they come, with how many there are.
    pub(crate) fn kinds(&self) -> Vec<(Kind, usize)> {
        let mut kinds: Vec<(Kind, usize)> = Vec::new();
        for point in &self.lines {
            let Point::Line(kind, ..) = point else { continue };
            match kinds.iter_mut().find(|(other, _)| other == kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((*kind, 1)),
            }
        }
        kinds
    }

    /// No kind may be without a point.
    fn check(self) -> Result<Self> {
        for kind in Kind::ALL {
            ensure!(
                self.lines.iter().any(|point| matches!(point, Point::Line(of, ..) if *of == kind)),
                "{kind:?}: none"
            );
        }
        for local in Local::ALL {
            ensure!(
                self.calls.iter().any(|point| matches!(point, Point::Call(of, ..) if *of == local)),
                "no kill point of the kind {local:?}"
            );
        }
        for inside in Inside::ALL {
            ensure!(
                self.inside.iter().any(|point| matches!(point, Point::Inside(of, ..) if *of == inside)),
                "no kill point of the kind {inside:?} on a host"
            );
        }
        Ok(self)
    }
}

/// Puts the stand-ins on every host.
pub(crate) fn prepare(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        bed::Points::install(&cluster.bed, host.name(), &Inside::PROGRAMS)?;
    }
    Ok(())
}

/// Every point of a fresh `up`.
pub(crate) fn enumerate(cluster: &Cluster) -> Result<Points> {
    enumerate_of(cluster, &UP, 0)?.check()
}

/// One uninterrupted run of this command, which ends with this code, watched here by strace and on the hosts by stand-ins.
pub(crate) fn enumerate_of(cluster: &Cluster, arguments: &[&str], code: i32) -> Result<Points> {
    let trace = cluster.folder().join("trace");
    for host in cluster.hosts() {
        bed::Points::on(&cluster.bed, host.name()).watch()?;
    }
    let output = traced(cluster, arguments, &trace, &["-y", "-s", "400"]).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "the uninterrupted run: {}\n{told}", output.status);
    let mut points = Points { lines: lines(&told), calls: calls(&fs::read_to_string(&trace)?)?, inside: Vec::new() };
    for host in cluster.hosts() {
        let calls = bed::Points::on(&cluster.bed, host.name()).calls()?;
        points.inside.extend(inside(host.name(), &calls));
    }
    Ok(points)
}

fn lines(told: &str) -> Vec<Point> {
    let said: Vec<Said> = told.lines().filter_map(Said::read).collect();
    let mut seen: BTreeMap<Said, usize> = BTreeMap::new();
    // What is said last is no point: the run may end before the reader has it. Local writes and scripts have points there.
    let reader = said.len().saturating_sub(Running::LEAD);
    let points = said.into_iter().take(reader).filter_map(|said| {
        let kind = Kind::of(&said.message)?;
        let said = steady(&said);
        let nth = seen.entry(said.clone()).or_default();
        *nth += 1;
        Some(Point::Line(kind, said, *nth))
    });
    points.collect()
}

fn calls(trace: &str) -> Result<Vec<Point>> {
    // `1234  fsync(5</path>) = 0`; the main thread is the first that appears, since it makes the state.
    let main = trace.split_whitespace().next().context("strace saw nothing")?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut points = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        if thread != main {
            continue;
        }
        let count = counts.entry(name).or_default();
        *count += 1;
        if let Some(local) = Local::of(call) {
            points.push(Point::Call(local, name.to_owned(), *count));
        }
    }
    Ok(points)
}

fn inside(host: &str, calls: &[String]) -> Vec<Point> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let points = calls.iter().filter_map(|call| {
        let kind = Inside::of(call)?;
        let call = without_digests(call);
        let nth = seen.entry(call.clone()).or_default();
        *nth += 1;
        Some(Point::Inside(kind, host.to_owned(), call, *nth))
    });
    points.collect()
}

/// The same words without what is another in each run.
pub(super) fn steady(said: &Said) -> Said {
    Said { host: said.host.clone(), message: without_digests(&said.message) }
}

/// Keys are drawn anew in each run, and with them digests; so are names of runs and times: a `#` stands for each.
fn without_digests(call: &str) -> String {
    let mut text = String::new();
    let mut word = String::new();
    for c in call.chars().chain([' ']) {
        if c.is_ascii_hexdigit() || matches!(c, 'T' | 'Z') {
            word.push(c);
            continue;
        }
        let changes = word.len() >= 16 || word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_digit());
        text.push_str(if changes { "#" } else { &word });
        word.clear();
        text.push(c);
    }
    text.pop();
    text
}

/// The call as a pattern of the shell.
fn pattern(call: &str) -> String {
    let mut text = String::new();
    for c in call.chars() {
        match c {
            '#' => text.push('*'),
            '*' | '?' | '[' | ']' | '\\' => text.extend(['\\', c]),
            _ => text.push(c),
        }
    }
    text
}

const DURABLE: &str = "fsync,fdatasync,rename,renameat,renameat2,flock";

fn traced(cluster: &Cluster, arguments: &[&str], trace: &Path, more: &[&str]) -> std::process::Command {
    let program = cluster.command(arguments);
    let mut command = cluster.bed.command("strace");
    command.args(["-f", "-qq", "-o"]).arg(trace).args(["-e", &format!("trace={DURABLE}")]).args(more);
    command.arg(env!("CARGO_BIN_EXE_bastide")).args(arguments).current_dir(cluster.folder());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Runs `up` until the point and kills there; an error where the run ended before.
pub(crate) fn kill_at(cluster: &Cluster, point: &Point) -> Result<()> {
    kill_of(cluster, &UP, point)
}

/// The same of any command that tells all.
pub(crate) fn kill_of(cluster: &Cluster, command: &[&str], point: &Point) -> Result<()> {
    let what = point.to_string();
    match point {
        Point::Line(_, said, nth) => {
            kill_when(cluster, command, &what, |run| run.says(*nth, |other| steady(other) == *said))
        }
        Point::Call(_, name, nth) => {
            kill_at_call(cluster, command, &what, &[&format!("--inject={name}:signal=SIGKILL:when={nth}")])
        }
        Point::Inside(_, host, call, nth) => {
            kill_inside(cluster, command, host, &pattern(call), *nth).with_context(|| what)
        }
    }
}

/// Kills while the first thing of this kind is about to be done on `host`.
pub(crate) fn kill_at_first(cluster: &Cluster, host: &str, inside: Inside) -> Result<()> {
    kill_inside(cluster, &UP, host, inside.first(), 1).with_context(|| format!("{host}: {inside}"))
}

fn kill_inside(cluster: &Cluster, command: &[&str], host: &str, pattern: &str, nth: usize) -> Result<()> {
    let points = bed::Points::on(&cluster.bed, host);
    points.hold_at(nth, pattern)?;
    let killed = kill_when_held(cluster, command, &points);
    // Whatever became of the run: the script goes on, as it does on a host whose operator is gone.
    points.go_on()?;
    points.calls()?;
    killed
}

/// Kills at the `nth` line of a kind.
pub(crate) fn kill_at_line(cluster: &Cluster, kind: Kind, nth: usize) -> Result<()> {
    kill_when(cluster, &UP, &format!("{kind:?} {nth}"), |run| run.reaches(kind, nth))
}

fn kill_when(
    cluster: &Cluster,
    command: &[&str],
    what: &str,
    reached: impl FnOnce(&mut Running) -> Result<bool>,
) -> Result<()> {
    let mut run = Running::with(cluster, command)?;
    let reached = reached(&mut run)?;
    // It may have ended, and then was not killed.
    _ = run.signal("KILL");
    let ended = run.end()?;
    ensure!(reached && ended.code.is_none(), "{what} was not reached: {ended}");
    Ok(())
}

fn kill_when_held(cluster: &Cluster, command: &[&str], points: &bed::Points) -> Result<()> {
    let mut run = Held::start(cluster, command)?;
    let reached = run.until(points)?;
    // It may have ended, and then was not killed.
    _ = run.child.kill();
    run.child.wait()?;
    ensure!(reached, "was not reached: {}", run.told()?);
    Ok(())
}

/// A run that a script on a host keeps waiting.
struct Held {
    child: Child,
    log: PathBuf,
}

impl Held {
    fn start(cluster: &Cluster, command: &[&str]) -> Result<Self> {
        let log = cluster.folder().join("killed.log");
        let child = cluster.command(command).stdout(fs::File::create(&log)?).stderr(fs::File::create(&log)?).spawn()?;
        Ok(Self { child, log })
    }
    /// False where it ended before.
    fn until(&mut self, points: &bed::Points) -> Result<bool> {
        while !points.reached() {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }
    fn told(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }
}

fn kill_at_call(cluster: &Cluster, command: &[&str], what: &str, options: &[&str]) -> Result<()> {
    let output = traced(cluster, command, Path::new("/dev/null"), options).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code().is_none(), "{what} was not reached: {}\n{told}", output.status);
    Ok(())
}

/// Kills at the first durable call on this file.
pub(crate) fn kill_at_file(cluster: &Cluster, path: &Path) -> Result<()> {
    let path = path.display().to_string();
    kill_at_call(cluster, &UP, &path, &["-P", &path, &format!("--inject={DURABLE}:signal=SIGKILL:when=1")])
}
