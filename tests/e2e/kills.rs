//! A run that dies, wherever it dies, is finished by the next one.
//!
//! The points are not guessed: they are what an uninterrupted run says it does, line by line, and every durable write that
//! strace sees it make on the operator's disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::process::Child;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use serde_json::Value;

use crate::support::Cluster;
use crate::support::Ended;
use crate::support::seed;
use crate::support::whole;

const UP: [&str; 6] = ["-v", "--log-format", "json", "up", "--yes", "--no-identity-backup"];

/// What a run does at a point, as its own words tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    User,
    Folder,
    File,
    Reload,
    Unit,
    Image,
    Pod,
    Gate,
    Object,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::User,
        Self::Folder,
        Self::File,
        Self::Reload,
        Self::Unit,
        Self::Image,
        Self::Pod,
        Self::Gate,
        Self::Object,
    ];

    fn of(message: &str) -> Option<Self> {
        let begins = |words: &str| message.starts_with(words);
        match () {
            () if begins("makes the user ") => Some(Self::User),
            () if begins("makes the folder ") => Some(Self::Folder),
            () if begins("writes /") => Some(Self::File),
            () if begins("reloads systemd") => Some(Self::Reload),
            () if begins("starts ") || begins("restarts ") => Some(Self::Unit),
            () if begins("imports ") => Some(Self::Image),
            () if begins("waits for ") && (message.contains(": ") || message.contains("workloads")) => Some(Self::Gate),
            () if begins("waits for ") => Some(Self::Pod),
            () if begins("applies ") || begins("labels node ") => Some(Self::Object),
            () => None,
        }
    }
}

/// The local files whose durable writes are points of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Local {
    Identity,
    Manifest,
    Pack,
    Journal,
    Kubeconfig,
}

impl Local {
    const ALL: [Self; 5] = [Self::Identity, Self::Manifest, Self::Pack, Self::Journal, Self::Kubeconfig];

    fn of(call: &str) -> Option<Self> {
        match () {
            () if call.contains("/config/") => Some(Self::Identity),
            () if call.contains("kube_config_") => Some(Self::Kubeconfig),
            () if call.contains("journal") => Some(Self::Journal),
            () if call.contains("/sealed") => Some(Self::Pack),
            () if call.contains("cluster.bastide/") => Some(Self::Manifest),
            () => None,
        }
    }
}

/// Where a run is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Point {
    /// At the n-th line of this kind, counted from 1.
    Line(Kind, usize),
    /// Where it begins the n-th of these system calls on its main thread, which is about this file.
    Call(Local, String, usize),
}

/// Every point of a fresh run, by kind.
#[derive(Debug, Default)]
struct Points {
    lines: BTreeMap<Kind, usize>,
    /// In the order in which the kinds come.
    order: Vec<Kind>,
    calls: Vec<Point>,
}

impl Points {
    fn all(&self) -> Vec<Point> {
        let lines = self.lines.iter().flat_map(|(kind, count)| (1..=*count).map(|at| Point::Line(*kind, at)));
        lines.chain(self.calls.iter().cloned()).collect()
    }
}

/// One uninterrupted run under strace.
fn enumerate(cluster: &Cluster) -> Result<Points> {
    let trace = cluster.folder().join("trace");
    let mut command = traced(cluster, &trace, &["-y", "-s", "400"]);
    let output = command.output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the uninterrupted run: {}\n{told}", output.status);
    let mut points = Points::default();
    for kind in told.lines().filter_map(message).filter_map(|message| Kind::of(&message)) {
        if !points.order.contains(&kind) {
            points.order.push(kind);
        }
        *points.lines.entry(kind).or_default() += 1;
    }
    let trace = fs::read_to_string(&trace)?;
    // `1234  fsync(5</path>) = 0`; the main thread is the first that appears, since it makes the state.
    let main = trace.split_whitespace().next().context("strace saw nothing")?.to_owned();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        if thread != main {
            continue;
        }
        let count = counts.entry(name.to_owned()).or_default();
        *count += 1;
        if let Some(local) = Local::of(call) {
            points.calls.push(Point::Call(local, name.to_owned(), *count));
        }
    }
    for kind in Kind::ALL {
        assert!(points.lines.contains_key(&kind), "no kill point of the kind {kind:?} in\n{told}");
    }
    for local in Local::ALL {
        let has = points.calls.iter().any(|point| matches!(point, Point::Call(of, ..) if *of == local));
        assert!(has, "no kill point of the kind {local:?} in\n{trace}");
    }
    Ok(points)
}

const DURABLE: &str = "fsync,fdatasync,rename,renameat,renameat2";

fn traced(cluster: &Cluster, trace: &Path, more: &[&str]) -> std::process::Command {
    let program = cluster.command(&UP);
    let mut command = cluster.bed.command("strace");
    command.args(["-f", "-qq", "-o"]).arg(trace).args(["-e", &format!("trace={DURABLE}")]).args(more);
    command.arg(env!("CARGO_BIN_EXE_bastide")).args(UP).current_dir(cluster.folder());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn message(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    line["message"].as_str().map(str::to_owned)
}

/// A run whose words are read as they come.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
    told: String,
}

impl Running {
    fn start(cluster: &Cluster) -> Result<Self> {
        let mut child = cluster.command(&UP).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("stderr")?;
        Ok(Self { child, lines: BufReader::new(stderr).lines(), told: String::new() })
    }

    /// Returns at the n-th line of this kind; false where the run ended before.
    fn reaches(&mut self, kind: Kind, mut at: usize) -> Result<bool> {
        for line in self.lines.by_ref() {
            let line = line?;
            self.told.push_str(&line);
            self.told.push('\n');
            if message(&line).and_then(|message| Kind::of(&message)) == Some(kind) {
                at -= 1;
                if at == 0 {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn signal(&self, name: &str) -> Result<()> {
        let status = std::process::Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "kill -s {name}: {status}");
        Ok(())
    }

    fn end(mut self) -> Result<Ended> {
        let start = Instant::now();
        for line in self.lines.by_ref() {
            self.told.push_str(&line?);
            self.told.push('\n');
        }
        let status = self.child.wait()?;
        Ok(Ended { code: status.code(), stdout: String::new(), stderr: self.told, took: start.elapsed() })
    }
}

/// Runs until the point and kills there.
fn kill_at(cluster: &Cluster, point: &Point) -> Result<()> {
    match point {
        Point::Line(kind, at) => {
            let mut run = Running::start(cluster)?;
            let reached = run.reaches(*kind, *at)?;
            run.signal("KILL").ok();
            let ended = run.end()?;
            assert!(reached && ended.code.is_none(), "{point:?} was not reached: {ended}");
        }
        Point::Call(_, name, at) => {
            kill_at_call(cluster, &format!("{point:?}"), &[&format!("--inject={name}:signal=SIGKILL:when={at}")])?;
        }
    }
    Ok(())
}

fn kill_at_call(cluster: &Cluster, what: &str, options: &[&str]) -> Result<()> {
    let output = traced(cluster, Path::new("/dev/null"), options).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_none(), "{what} was not reached: {}\n{told}", output.status);
    Ok(())
}

/// Kills at the first durable call on this file.
fn kill_at_file(cluster: &Cluster, path: &Path) -> Result<()> {
    let path = path.display().to_string();
    kill_at_call(cluster, &path, &["-P", &path, &format!("--inject={DURABLE}:signal=SIGKILL:when=1")])
}

/// Bare hosts and no state, as before the first run.
fn anew(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        host.wipe()?;
        host.power_on()?;
        host.wait()?;
    }
    for name in ["cluster.bastide", "config", "state"] {
        let path = cluster.folder().join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
    }
    fs::remove_file(cluster.folder().join("kube_config_cluster.yml"))
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    cluster.write()
}

fn converges(cluster: &Cluster) {
    cluster.up();
    cluster.assert_plans_nothing();
}

/// The n-th of a sequence of numbers that a seed gives (xorshift, Marsaglia 2003).
fn draw(seed: u64, nth: usize) -> u64 {
    (0..=nth).fold(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, |mut x, _| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^ (x << 17)
    })
}

#[test]
fn a_killed_run_is_finished_by_the_next_one() -> Result<()> {
    let cluster = if whole() { Cluster::three_all_roles()? } else { Cluster::one_host()? };
    let points = enumerate(&cluster)?;
    println!("kill points: {:?} lines, {} local writes", points.lines, points.calls.len());
    cluster.assert_plans_nothing();
    if whole() {
        for point in points.all() {
            anew(&cluster)?;
            println!("{point:?}");
            kill_at(&cluster, &point)?;
            converges(&cluster);
        }
        return Ok(());
    }

    // One case of every kind, each in what the one before left, the last one finished: a run may die any number of times.
    anew(&cluster)?;
    let folder = cluster.folder();
    let state = folder.join("cluster.bastide");
    let first_of = |local| points.calls.iter().find(|point| matches!(point, Point::Call(of, ..) if *of == local));
    for local in [Local::Identity, Local::Pack, Local::Manifest] {
        // Every run before this one died before it changed a host, and left a state that the next one goes on with.
        if local == Local::Identity {
            kill_at(&cluster, first_of(local).context("no such point")?)?;
        } else {
            let path = state.join(if local == Local::Pack { "sealed" } else { "manifest" });
            kill_at_file(&cluster, &path)?;
        }
        println!("killed at {local:?}");
    }
    for (nth, kind) in points.order.iter().enumerate() {
        let count = points.lines[kind];
        // What a run that died has done is not done again: the first ones are those that surely come.
        let at = if *kind == Kind::File { 1 + usize::try_from(draw(seed(), nth))? % count.min(8) } else { 1 };
        kill_at(&cluster, &Point::Line(*kind, at))?;
        println!("killed at {kind:?} {at}");
        if *kind == Kind::Image {
            kill_at_file(&cluster, &state.join("journal.jsonl"))?;
            println!("killed at {:?}", Local::Journal);
        }
    }
    kill_at_file(&cluster, &folder.join("kube_config_cluster.yml"))?;
    println!("killed at {:?}", Local::Kubeconfig);
    converges(&cluster);

    // And one alone, drawn from all.
    let all = points.all();
    let point = &all[usize::try_from(draw(seed(), all.len()) % u64::try_from(all.len())?)?];
    anew(&cluster)?;
    println!("killed at {point:?}, alone");
    kill_at(&cluster, point)?;
    converges(&cluster);
    Ok(())
}

#[test]
fn power_network_and_a_stopped_operator_are_survived() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    cluster.file.more_options = "  deadlines:\n    transfer: 60s\n".to_owned();
    cluster.write()?;
    let host = cluster.host("h1");

    let mut run = Running::start(&cluster)?;
    assert!(run.reaches(Kind::Image, 2)?, "no image was imported: {}", run.told);
    host.power_cut()?;
    let ended = run.end()?;
    assert_eq!(ended.code, Some(1), "the power was cut: {ended}");
    assert!(ended.stderr.contains("h1"), "{ended}");
    assert!(ended.took < Duration::from_secs(90), "a dead host was waited for: {ended}");
    println!("power cut while importing: ended after {:.1} s", ended.took.as_secs_f64());
    host.power_on()?;
    host.wait()?;

    let mut run = Running::start(&cluster)?;
    assert!(run.reaches(Kind::Unit, 1)?, "no unit was started: {}", run.told);
    host.cut()?;
    let ended = run.end()?;
    assert_eq!(ended.code, Some(1), "the network was cut: {ended}");
    assert!(ended.stderr.contains("h1"), "{ended}");
    assert!(ended.took < Duration::from_secs(90), "a silent host was waited for: {ended}");
    println!("network cut while activating: ended after {:.1} s", ended.took.as_secs_f64());
    host.heal()?;
    host.wait()?;

    stopped_operator(&cluster)?;
    converges_from(&cluster, cluster.folder())
}

/// Another machine with the same state takes over from a run that stands still.
fn stopped_operator(cluster: &Cluster) -> Result<()> {
    let host = cluster.host("h1");
    // Whatever the runs before left, this one has something to do on the host.
    host.ssh("rm -rf /etc/kubernetes/audit /etc/kubernetes/manifests; systemctl stop kubelet 2>/dev/null || true")?;
    let mut first = Running::start(cluster)?;
    assert!(first.reaches(Kind::File, 1)?, "nothing was written: {}", first.told);
    first.signal("STOP")?;
    let start = Instant::now();

    let other = tempfile::tempdir()?;
    let status = std::process::Command::new("cp")
        .args(["-a", &format!("{}/.", cluster.folder().display())])
        .arg(other.path())
        .status()?;
    anyhow::ensure!(status.success(), "cp: {status}");
    let second = loop {
        let second = from(cluster, other.path(), &["up", "--yes"])?;
        if second.code != Some(6) {
            break second;
        }
        assert!(second.stderr.contains("is at work"), "{second}");
        assert!(start.elapsed() < Duration::from_secs(90), "the lock of a run that stands still is kept: {second}");
        std::thread::sleep(Duration::from_secs(1));
    };
    println!("a run that stands still lost its lock and was finished after {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(second.code, Some(0), "the run that took over: {second}");
    assert!(start.elapsed() > Duration::from_secs(25), "it took over from a run that held the lock: {second}");

    let look = || {
        host.ssh(
            "find /etc/kubernetes /etc/etcd /etc/systemd/system /opt/bastide /etc/containerd /var/lib/bastide \
             -printf '%p %T@ %s %m\\n' | sort",
        )
    };
    let before = look()?;
    first.signal("CONT")?;
    let first = first.end()?;
    assert_eq!(first.code, Some(1), "the run that stood still: {first}");
    // Which it notices first is a matter of moments: that the lock is gone, or that the host has closed the connection.
    let why = first.stderr.contains("lock") || first.stderr.contains("connection lost");
    assert!(why, "it does not say why: {first}");
    assert_eq!(look()?, before, "a run that had lost its lock wrote: {first}");
    converges_from(cluster, other.path())?;

    // The machine that lost the lock has the older state now, and says so.
    let refused = cluster.bastide(&["up", "--yes"])?;
    assert_eq!(refused.code, Some(1), "an older state was used: {refused}");
    let recovered = cluster.bastide(&["state", "recover", "--host", "h1"])?;
    assert_eq!(recovered.code, Some(0), "{recovered}");
    Ok(())
}

/// The program on a copy of the cluster's folder.
fn from(cluster: &Cluster, folder: &Path, arguments: &[&str]) -> Result<Ended> {
    let start = Instant::now();
    let output =
        cluster.command(arguments).current_dir(folder).env("BASTIDE_CONFIG", folder.join("cluster.yml")).output()?;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: start.elapsed(),
    })
}

fn converges_from(cluster: &Cluster, folder: &Path) -> Result<()> {
    let up = from(cluster, folder, &["up", "--yes", "--no-identity-backup"])?;
    assert_eq!(up.code, Some(0), "{up}");
    let plan = from(cluster, folder, &["plan"])?;
    assert_eq!(plan.code, Some(0), "{plan}");
    Ok(())
}
