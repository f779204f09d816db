//! `cargo xtask test`: every check there is, the long matrices as a sample, with times and one line of totals at the end.

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use bed::Cache;

use crate::phase::seconds;
use crate::setup;
use crate::tree::root;
use crate::tree::run;

/// The test programs that need root and what `setup` built. Those on clusters run two at a time, each on a bed of its own, because
/// they mostly wait; those of the second group run one by one beside them.
const ON_CLUSTERS: (&str, &str) = ("tests on clusters", "e2e");
const ON_HOSTS: [(&str, &str); 3] =
    [("tests with a real API server", "api"), ("tests with a real S3 server", "s3"), ("tests on hosts", "machine")];

/// What was counted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    passed: u32,
    failed: u32,
}

/// Runs everything, goes on after a failure, and ends in an error where anything failed.
pub(crate) fn all(seed: Option<u64>) -> Result<()> {
    let seed = seed.map_or_else(fresh_seed, Ok)?;
    let start = Instant::now();
    println!("seed {seed}");
    let mut checks = Checks { seed, count: Count::default(), times: Vec::new() };
    checks.one("format", || run(cargo().args(["fmt", "--all", "--check"])));
    // Before anything is compiled: it brings the compiler's own needs, and the programs that tests of all kinds call.
    checks.one("setup", || setup::all(setup::MINOR));
    checks.one("clippy", || {
        run(cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
        // `test = false` keeps a program out of all targets.
        let named = ["api", "s3", "machine", "e2e", "vm"].map(|name| ["--test", name]);
        run(cargo().args(["clippy", "--locked"]).args(named.concat()).args(["--", "-D", "warnings"]))
    });
    checks.one("dependencies", dependencies);
    checks.one("Vagrantfile", vagrantfile);
    checks.tests("unit and integration tests", &["test", "--locked", "--workspace", "--no-fail-fast"]);
    checks.on_hosts();
    println!();
    for (title, took) in &checks.times {
        println!("{took:>13}  {title}");
    }
    println!("{:>13}  all, seed {seed}", seconds(start.elapsed()));
    println!("{} passed, {} failed", checks.count.passed, checks.count.failed);
    if checks.count.failed > 0 {
        bail!("{} failed", checks.count.failed);
    }
    Ok(())
}

struct Checks {
    seed: u64,
    count: Count,
    times: Vec<(String, String)>,
}

impl Checks {
    /// A check that holds or does not.
    fn one(&mut self, title: &str, check: impl FnOnce() -> Result<()>) {
        self.timed(title, |_| match check() {
            Ok(()) => Count { passed: 1, failed: 0 },
            Err(error) => {
                println!("{error:#}");
                Count { passed: 0, failed: 1 }
            }
        });
    }

    /// A run of cargo's tests, each of which counts.
    fn tests(&mut self, title: &str, arguments: &[&str]) {
        self.timed(title, |checks| run_tests(checks.cargo().args(arguments), |line| println!("{line}")));
    }

    /// The tests on hosts, in two rows side by side. What the shorter row says is shown when it has ended.
    fn on_hosts(&mut self) {
        let (title, program) = ON_CLUSTERS;
        let all = [&[program][..], &ON_HOSTS.map(|(_, program)| program)].concat();
        let compiled = all.iter().flat_map(|program| ["--test", program]);
        self.one("tests on hosts, compiled", || run(cargo().args(["test", "--locked", "--no-run"]).args(compiled)));
        let beside = self.beside();
        let rows = std::thread::spawn(move || {
            beside.map(|(title, mut command)| {
                let start = Instant::now();
                let mut said = String::new();
                let count = run_tests(&mut command, |line| {
                    said.push_str(line);
                    said.push('\n');
                });
                (title, said, count, start.elapsed())
            })
        });
        self.tests(title, &["test", "--locked", "--no-fail-fast", "--test", program, "--", "--test-threads=2"]);
        let Ok(rows) = rows.join() else {
            self.one("tests beside them", || bail!("the thread that ran them panicked"));
            return;
        };
        for (title, said, count, took) in rows {
            print!("==> {title}, beside\n{said}");
            self.counted(title, count, took);
        }
    }

    fn beside(&self) -> [(&'static str, Command); 3] {
        ON_HOSTS.map(|(title, program)| {
            let mut command = self.cargo();
            command.args(["test", "--locked", "--no-fail-fast", "--test", program, "--", "--test-threads=1"]);
            // Shown with the rest, when these have ended.
            command.stderr(Stdio::null());
            (title, command)
        })
    }

    fn cargo(&self) -> Command {
        let mut command = cargo();
        command.env("BASTIDE_TEST_SEED", self.seed.to_string());
        command
    }

    fn timed(&mut self, title: &str, work: impl FnOnce(&Self) -> Count) {
        println!("==> {title}");
        let start = Instant::now();
        let count = work(self);
        self.counted(title, count, start.elapsed());
    }

    fn counted(&mut self, title: &str, Count { passed, failed }: Count, took: Duration) {
        let took = seconds(took);
        println!("==> {title}: {passed} passed, {failed} failed in {took}");
        self.times.push((title.to_owned(), took));
        self.count.passed += passed;
        self.count.failed += failed;
    }
}

/// Runs the tests, tells `say` what they print as it comes, and counts what the test programs report. A program that ends
/// without a report, or tests that did not compile, count as one failure.
fn run_tests(command: &mut Command, mut say: impl FnMut(&str)) -> Count {
    let mut count = Count::default();
    let start = Instant::now();
    let mut last = start;
    let ended = heard(command, |line| {
        say(line);
        // When a test ended, where somebody may wonder where the time went.
        let ended = line.starts_with("test ") && !line.contains(" has been running ");
        if ended && last.elapsed() > Duration::from_secs(10) {
            say(&format!("     {} after the start", seconds(start.elapsed())));
            last = Instant::now();
        }
        let Count { passed, failed } = counted(line);
        count.passed += passed;
        count.failed += failed;
    });
    match ended {
        Ok(ended) if ended.success() || count.failed > 0 => {}
        Ok(_) => count.failed = 1,
        Err(error) => {
            say(&format!("{error:#}"));
            count.failed += 1;
        }
    }
    count
}

/// Runs a command, shows what it prints as it comes, and has each line heard.
pub(crate) fn shown(command: &mut Command, mut hear: impl FnMut(&str)) -> Result<ExitStatus> {
    heard(command, |line| {
        println!("{line}");
        hear(line);
    })
}

fn heard(command: &mut Command, mut hear: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("{command:?}"))?;
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        hear(&line?);
    }
    Ok(child.wait()?)
}

/// What a line such as `test result: ok. 3 passed; 0 failed; ..` adds.
fn counted(line: &str) -> Count {
    let Some(result) = line.strip_prefix("test result: ") else { return Count::default() };
    let number = |what: &str| {
        let words: Vec<&str> = result.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
        let at = words.iter().position(|word| *word == what)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    Count { passed: number("passed").unwrap_or(0), failed: number("failed").unwrap_or(0) }
}

/// Licences, bans and sources. Advisories need the advisory database, so they are checked only where it can be fetched.
fn dependencies() -> Result<()> {
    let program = cargo_deny()?;
    let deny = |what: &[&str]| {
        run(Command::new(&program).current_dir(root()).args(["--locked", "--all-features", "check"]).args(what))
    };
    deny(&["licenses", "bans", "sources"])?;
    let reachable = Command::new("git")
        .args(["ls-remote", "--exit-code", "https://github.com/rustsec/advisory-db", "HEAD"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .is_ok_and(|output| output.status.success());
    if !reachable {
        println!("advisories: the database can't be reached, not checked");
        return Ok(());
    }
    deny(&["advisories"])
}

/// Whether Vagrant accepts the machines' description. No hypervisor is needed for that.
fn vagrantfile() -> Result<()> {
    setup::install(&[("vagrant", "vagrant")])?;
    let home = fs::canonicalize(root())?.join("target/vagrant");
    run(Command::new("vagrant")
        .args(["validate", "--ignore-provider"])
        .current_dir(root().join("vagrant"))
        .env("VAGRANT_HOME", home.join("home"))
        .env("VAGRANT_DOTFILE_PATH", home.join("machines")))
}

/// cargo-deny, built once and kept outside the checkout.
fn cargo_deny() -> Result<PathBuf> {
    const VERSION: &str = "0.20.2";
    let tools = Cache::from_environment().folder().join("tools");
    let program = tools.join("bin/cargo-deny");
    let current = Command::new(&program).arg("--version").output();
    if !current.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(VERSION)) {
        run(cargo()
            .args(["install", "--quiet", "cargo-deny", "--version", VERSION, "--locked", "--root"])
            .arg(&tools))?;
    }
    Ok(program)
}

pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

pub(crate) fn fresh_seed() -> Result<u64> {
    use std::io::Read as _;
    let mut bytes = [0; 4];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::Count;
    use super::counted;

    #[test]
    fn the_reports_of_test_programs_are_counted() {
        let ok = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.51s";
        assert_eq!(counted(ok), Count { passed: 12, failed: 0 });
        assert_eq!(counted("test result: FAILED. 1 passed; 2 failed; 0 ignored"), Count { passed: 1, failed: 2 });
        assert_eq!(counted("test a ... ok"), Count::default());
    }
}
