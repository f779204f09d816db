//! A real etcd, killed right after a write: what its log holds is there again.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use super::read_log;

struct Etcd {
    programs: PathBuf,
    folder: PathBuf,
    child: Child,
}

impl Etcd {
    fn start(programs: &Path, folder: &Path, more: &[&str]) -> Self {
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(programs.join("etcd"))
            .args(["--data-dir", "data", "--listen-peer-urls", "unix://peer:0", "--log-level", "warn"])
            .args(["--initial-advertise-peer-urls", "http://localhost:2380"])
            .args(["--listen-client-urls", "unix://client:0", "--advertise-client-urls", "unix://client:0"])
            .args(more)
            .current_dir(folder)
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { programs: programs.to_owned(), folder: folder.to_owned(), child };
        let begun = Instant::now();
        while etcd.ask(&["get", "nothing"]).is_none() {
            assert!(begun.elapsed() < Duration::from_mins(1), "etcd does not serve: {}", etcd.words());
            std::thread::sleep(Duration::from_millis(100));
        }
        etcd
    }
    fn ask(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new(self.programs.join("etcdctl"))
            .args(["--endpoints", "unix://client:0", "--command-timeout", "2s"])
            .args(arguments)
            .current_dir(&self.folder)
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }
    fn words(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("data/member/wal")).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "wal")).collect();
    logs.sort();
    logs
}

/// What an etcd alone on a copy of the data knows of the last write.
fn alone(programs: &Path, data: &Path, everything: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(data.join("data")).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    if everything {
        let last = logs(folder.path()).pop().unwrap();
        let mut bytes = fs::read(&last).unwrap();
        let end = read_log([bytes.as_slice()]).unwrap();
        bytes.truncate(usize::try_from(end.offset).unwrap());
        bytes.extend(end.commit_all().expect("the last write was acknowledged, and nothing said so in the log"));
        fs::write(&last, bytes).unwrap();
    }
    let etcd = Etcd::start(programs, folder.path(), &["--force-new-cluster"]);
    etcd.ask(&["get", "acknowledged", "--print-value-only"]).unwrap().trim().to_owned()
}

#[test]
fn a_write_that_was_acknowledged_just_before_the_end_is_there_after_it() {
    let programs = bed::Cache::from_environment().folder().join("artifacts/etcd-3.7");
    if !programs.join("etcdctl").exists() {
        eprintln!("skipped: {} is not built yet", programs.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Nothing reaches the database file by itself: all that is known is in the log.
    let etcd = Etcd::start(&programs, folder.path(), &["--backend-batch-interval", "1h"]);
    for at in 0..40 {
        etcd.ask(&["put", &format!("key-{at}"), &"value ".repeat(at * 20)]).unwrap();
    }
    etcd.ask(&["put", "acknowledged", "yes"]).unwrap();
    etcd.kill();
    assert_eq!(alone(&programs, folder.path(), true), "yes");
    assert_eq!(alone(&programs, folder.path(), false), "", "etcd keeps it by itself: this is not needed any more");
}
