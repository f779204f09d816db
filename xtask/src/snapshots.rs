//! `cargo xtask bench snapshot`: an etcd with a large database on one test host; what each command on snapshots takes of memory, at the
//! operator's end and at the host's, and how fast it is; and sealing beside the `age` program.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;
use bed::Bed;
use bed::ClusterFile;
use bed::Host;
use bed::Keep;
use bed::Node;

use crate::phase::phase;
use crate::phase::seconds;
use crate::setup;
use crate::tree::root;
use crate::tree::run;

const NAME: &str = "snapshot";
const NET: &str = "10.93.0";
const FOLDER: &str = "/var/lib/bastide/snapshots";
/// The promise: so much memory at most, whatever the size of the database.
const MOST: u64 = 64 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Half of each value is noise, as Secrets that are encrypted at rest are; half is text, as all else is, with no two alike. Entries in
/// the log are let go early, so that etcd's own memory holds few of them.
const FILL: &str = r#"
crictl=$(ls /opt/bastide/crictl-*/crictl | head -n 1)
etcd=$(pgrep -xo etcd)
put() { "/proc/$etcd/root/usr/local/bin/etcdctl" --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/pki/ca.crt \
  --cert=/etc/etcd/pki/healthcheck-client.crt --key=/etc/etcd/pki/healthcheck-client.key --command-timeout=60s put "$1" >/dev/null; }
at=0
while [ "$at" -lt SIZE ]; do
  { head -c 524288 /dev/urandom; tr -dc 'a-z0-9 ":{}' < /dev/urandom | head -c 4096 | tee /tmp/line >/dev/null
    for part in $(seq 128); do cat /tmp/line; done; } | put "/bench/$at" || exit 1
  at=$((at + 1))
done
rm -f /tmp/line
"#;

/// The largest resident sizes that were seen while something ran.
#[derive(Debug, Default)]
struct Peaks {
    /// Of bastide as the operator runs it.
    here: u64,
    /// Of bastide on the host; 0 where it did not run.
    there: u64,
    /// Of the other programs on the host that began meanwhile, by name.
    helpers: BTreeMap<String, u64>,
}

struct Done {
    what: String,
    took: Duration,
    peaks: Peaks,
}

/// Measures all and prints each. An error where memory is above the promise.
pub(crate) fn snapshots(size: u32) -> Result<()> {
    setup::all(setup::MINOR)?;
    let program = setup::bastide_released()?;
    let age = setup::age()?;
    let bed = Bed::named(NAME, NET, Keep::Running);
    let folder = folder()?;
    bed.destroy()?;
    phase("one host", || bed.start(&["h1"]))?;
    let mut file = ClusterFile::new(NAME, vec![Node::all_roles("h1")]);
    file.recurring = true;
    file.metrics = false;
    "services:\n  etcd:\n    extra_args: {snapshot-count: \"100\", snapshot-catchup-entries: \"50\"}\n"
        .clone_into(&mut file.more);
    file.write(&bed, &folder)?;
    let bench = Bench { bed: &bed, program: &program, folder: &folder };
    phase("up", || bench.measured(&["up", "--yes", "--no-identity-backup"]).map(drop))?;
    let host = bed.host("h1");
    phase("the database", || host.ssh(&FILL.replace("SIZE", &size.to_string())).map(drop))?;
    let database = bed.folder().join("h1/var/lib/etcd/member/snap/db");
    let bytes = fs::metadata(&database)?.len();
    let copy = folder.join("db");
    fs::copy(&database, &copy)?;

    println!("\nOne host; a database of {} MiB; largest resident sizes\n", mib(bytes));
    println!("| | time | MB/s of the database | bastide here | bastide on the host | its largest helpers there |");
    println!("|---|---|---|---|---|---|");
    let mut above = Vec::new();
    let place = folder.join("here").display().to_string();
    fs::create_dir(&place)?;
    for arguments in [
        &["etcd", "snapshot", "save", "--name", "big"][..],
        &["etcd", "snapshot", "save", "--name", "here", "--local", &place],
        &["etcd", "snapshot", "verify", "big"],
        &["etcd", "snapshot", "verify", "here", "--local", &place],
        &["drill"],
        &["etcd", "snapshot", "restore", "big", "--yes", "--cluster", NAME],
    ] {
        above.extend(bench.measured(arguments)?.row(bytes));
    }
    // After the restore what the hosts agreed on in etcd is gone, and one is due.
    above.extend(bench.recurring(&host)?.row(bytes));
    let sealed = fs::metadata(bed.folder().join(format!("h1{FOLDER}/big.snapshot")))?.len();
    println!("\nAs a snapshot: {} MiB", mib(sealed));
    bed.destroy()?;

    phase("sealing", || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut bench = Command::new(cargo);
        bench.current_dir(root()).args(["bench", "--locked", "--bench", "sealing", "--", "--age"]);
        run(bench.arg(&age).arg(&copy))
    })?;
    fs::remove_file(&copy)?;
    if above.is_empty() { Ok(()) } else { bail!("above {} MiB: {}", mib(MOST), above.join("; ")) }
}

impl Done {
    /// Prints it. Returns what it is where it took more memory than was promised.
    fn row(self, bytes: u64) -> Option<String> {
        let Self { what, took, peaks } = self;
        let mut helpers: Vec<_> = peaks.helpers.iter().collect();
        helpers.sort_by_key(|(_, size)| std::cmp::Reverse(**size));
        let helpers: Vec<_> =
            helpers.into_iter().take(3).map(|(name, size)| format!("{name} {}", mib(*size))).collect();
        println!(
            "| `{what}` | {} | {:.0} | {} MiB | {} MiB | {} |",
            seconds(took),
            rate(bytes, took),
            mib(peaks.here),
            mib(peaks.there),
            helpers.join(", ")
        );
        (peaks.here.max(peaks.there) > MOST).then_some(what)
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[allow(clippy::cast_precision_loss)]
fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

struct Bench<'a> {
    bed: &'a Bed,
    program: &'a Path,
    folder: &'a Path,
}

impl Bench<'_> {
    /// Runs bastide to its end and watches it, and the host.
    fn measured(&self, arguments: &[&str]) -> Result<Done> {
        let mut command = self.bed.command(self.program);
        command
            .args(arguments)
            .env("BASTIDE_CONFIG", self.folder.join("cluster.yml"))
            .env("XDG_CONFIG_HOME", self.folder.join("config"))
            .env("XDG_STATE_HOME", self.folder.join("state"));
        let log = self.folder.join("log");
        watched(arguments.join(" "), command, &log, true)
    }

    fn recurring(&self, host: &Host<'_>) -> Result<Done> {
        let before = host.ssh(&format!("ls {FOLDER}"))?;
        let start = host
            .command("systemctl start bastide-snapshots.service || { journalctl -n 20 -u bastide-snapshots; exit 1; }");
        let done = watched("bastide-snapshots.service".to_owned(), start, &self.folder.join("log"), false)?;
        if host.ssh(&format!("ls {FOLDER}"))? == before {
            bail!("the host took no snapshot");
        }
        Ok(done)
    }
}

/// `is_ours`: whether the command is bastide itself.
fn watched(what: String, mut command: Command, log: &Path, is_ours: bool) -> Result<Done> {
    let known: Vec<u32> = processes().collect();
    let (out, start) = (fs::File::create(log)?, Instant::now());
    let mut child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn()?;
    let own = fs::read_link("/proc/self/ns/pid")?;
    let mut peaks = Peaks::default();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if is_ours && let Some((_, size)) = peak(child.id()) {
            peaks.here = peaks.here.max(size);
        }
        for process in processes().filter(|process| !known.contains(process)) {
            let elsewhere = fs::read_link(format!("/proc/{process}/ns/pid")).is_ok_and(|other| other != own);
            let Some((name, size)) = peak(process).filter(|_| elsewhere) else { continue };
            if name == "bastide" {
                peaks.there = peaks.there.max(size);
            } else {
                let most = peaks.helpers.entry(name).or_default();
                *most = size.max(*most);
            }
        }
        thread::sleep(LOOK_EVERY);
    };
    let took = start.elapsed();
    if !status.success() {
        bail!("{what}: {status}\n{}", fs::read_to_string(log)?);
    }
    Ok(Done { what, took, peaks })
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process's name and its largest resident size so far, in bytes.
fn peak(process: u32) -> Option<(String, u64)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let kib: u64 = value("VmHWM:")?.trim_end_matches(" kB").parse().ok()?;
    Some((value("Name:")?.to_owned(), kib << 10))
}

fn folder() -> Result<PathBuf> {
    let folder = root().join("target/bench-snapshot");
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(fs::canonicalize(folder)?)
}
