//! A run that dies, wherever it dies, is finished by the next one.
//!
//! The points are not guessed: they are what an uninterrupted run does ([`points::enumerate`]).

pub(crate) mod journey;
pub(crate) mod kinds;
pub(crate) mod points;
pub(crate) mod running;

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;

use self::kinds::Inside;
use self::kinds::Kind;
use self::kinds::Local;
use self::points::Point;
use self::points::kill_at;
use self::points::kill_at_file;
use self::points::kill_at_first;
use self::points::kill_at_line;
use self::running::Running;
use crate::support::Cluster;
use crate::support::Ended;
use crate::support::seed;

pub(crate) const UP: [&str; 6] = ["-v", "--log-format", "json", "up", "--yes", "--no-identity-backup"];

/// Bare hosts and no state, as before the first run.
fn anew(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        host.wipe()?;
        host.power_on()?;
        host.wait()?;
    }
    without_state(cluster)?;
    cluster.write()?;
    points::prepare(cluster)
}

/// The folder as before the first run.
pub(crate) fn without_state(cluster: &Cluster) -> Result<()> {
    for name in ["cluster.bastide", "config", "state"] {
        let path = cluster.folder().join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
    }
    match fs::remove_file(cluster.folder().join("kube_config_cluster.yml")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn converges(cluster: &Cluster) {
    cluster.up();
    cluster.assert_plans_nothing();
}

/// The n-th of a sequence of numbers that a seed gives (xorshift, Marsaglia 2003).
pub(crate) fn draw(seed: u64, nth: usize) -> u64 {
    (0..=nth).fold(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, |mut x, _| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^ (x << 17)
    })
}

/// A sample: the whole matrix, on three hosts, is the soak's.
#[test]
fn a_killed_run_is_finished_by_the_next_one() -> Result<()> {
    let cluster = Cluster::one_host()?;
    points::prepare(&cluster)?;
    let points = points::enumerate(&cluster)?;
    let kinds = points.kinds();
    println!("kill points: {kinds:?} lines, {} local writes, {} on the host", points.calls.len(), points.inside.len());
    cluster.assert_plans_nothing();

    // One case of every kind, each in what the one before left, the last one finished: a run may die any number of times.
    anew(&cluster)?;
    let folder = cluster.folder();
    let state = folder.join("cluster.bastide");
    let first_of = |local| points.calls.iter().find(|point| matches!(point, Point::Call(of, ..) if *of == local));
    for local in [Local::Identity, Local::Lock, Local::Pack, Local::Manifest] {
        // Every run before this one died before it changed a host, and left a state that the next one goes on with.
        match local {
            Local::Identity | Local::Lock => kill_at(&cluster, first_of(local).context("no such point")?)?,
            Local::Pack => kill_at_file(&cluster, &state.join("sealed"))?,
            _ => kill_at_file(&cluster, &state.join("manifest"))?,
        }
        println!("killed at {local:?}");
    }
    for (nth, (kind, count)) in kinds.into_iter().enumerate() {
        // What a run that died has done is not done again: the first ones are those that surely come.
        let at = if kind == Kind::File { 1 + usize::try_from(draw(seed(), nth))? % count.min(8) } else { 1 };
        kill_at_line(&cluster, kind, at)?;
        println!("killed at {kind:?} {at}");
        if kind == Kind::Image {
            kill_at_file(&cluster, &state.join("journal.jsonl"))?;
            println!("killed at {:?}", Local::Journal);
        }
    }
    kill_at_file(&cluster, &folder.join("kube_config_cluster.yml"))?;
    println!("killed at {:?}", Local::Kubeconfig);
    converges(&cluster);

    // The same for what scripts do on the host.
    anew(&cluster)?;
    for inside in Inside::ALL {
        kill_at_first(&cluster, "h1", inside)?;
        println!("killed {inside}");
    }
    converges(&cluster);

    // And one alone, drawn from all.
    let all = points.all();
    let point = &all[usize::try_from(draw(seed(), all.len()) % u64::try_from(all.len())?)?];
    anew(&cluster)?;
    println!("killed at {point}, alone");
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
    assert!(run.reaches(Kind::Image, 2)?, "no image was imported: {}", run.told());
    host.power_cut()?;
    let ended = run.end()?;
    assert_eq!(ended.code, Some(1), "the power was cut: {ended}");
    assert!(ended.stderr.contains("h1"), "{ended}");
    assert!(ended.took < Duration::from_mins(3), "a dead host was waited for: {ended}");
    println!("power cut while importing: ended after {:.1} s", ended.took.as_secs_f64());
    host.power_on()?;
    host.wait()?;

    let mut run = Running::start(&cluster)?;
    assert!(run.reaches(Kind::Unit, 1)?, "no unit was started: {}", run.told());
    host.cut()?;
    let ended = run.end()?;
    assert_eq!(ended.code, Some(1), "the network was cut: {ended}");
    assert!(ended.stderr.contains("h1"), "{ended}");
    assert!(ended.took < Duration::from_mins(3), "a silent host was waited for: {ended}");
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
    assert!(first.reaches(Kind::File, 1)?, "nothing was written: {}", first.told());
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
        assert!(start.elapsed() < Duration::from_mins(3), "the lock of a run that stands still is kept: {second}");
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
    assert!(first.stderr.contains("the lock was lost: nobody holds h1 now"), "it does not say why: {first}");
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
pub(crate) fn from(cluster: &Cluster, folder: &Path, arguments: &[&str]) -> Result<Ended> {
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
