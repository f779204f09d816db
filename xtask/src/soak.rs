//! `cargo xtask soak`: the long matrices, part by part, and docs/faults.md, which nothing else writes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use clap::ValueEnum;
use serde::Deserialize;

use crate::checks::cargo;
use crate::checks::fresh_seed;
use crate::checks::shown;
use crate::phase::seconds;
use crate::setup;
use crate::tree::read;
use crate::tree::root;

/// What can be run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Every test on hosts, with all its cases
    Hosts,
    /// A fresh `up` of three hosts with all roles, killed at every point, one after the other
    Kills,
    /// The same, but each point alone, from bare hosts on: a minute for each
    KillsAlone,
    /// The same with control plane, etcd and worker apart
    KillsApart,
    /// The same as kills, on the older minor
    KillsOlder,
    /// Every change of one host, and the way back of each, killed at every point, and the host's power cut
    Changes,
    /// Keys for encryption at rest, and what encrypts, exchanged by runs that die, and taken back
    Keys,
    /// Changes that make a component ill, each another one, taken back by themselves; changes while a worker is away
    Ill,
    /// Authorities exchanged on one and on three hosts, by runs that die, and taken back
    Authorities,
    /// Roles apart, with external authorities alone, and a renewed set of certificates and back
    External,
    /// One and three hosts taken over without state and identity, by runs that die too
    Identity,
    /// One and three hosts that were off until all of their certificates had ended, and one whose components take up new ones
    Revival,
    /// The strict profile on three hosts, and the change from one profile to the other and back
    Strict,
    /// Three hosts on the older minor
    Older,
    /// The next patch version on three hosts, and back, also from a run that died
    Patch,
    /// etcd restored on one and on three hosts, disks lost, hosts away, cut off at every kind of step
    Restore,
    /// A snapshot saved and restored on one host: the run killed, and the host's power cut, at every point
    Snapshots,
    /// The same as snapshots, on three hosts
    SnapshotsThree,
    /// Every operation on three control planes and two workers under a steady load, and back
    Load,
    /// One stock virtual machine, emulated
    Machine,
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn title(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    fn setup(self) -> Result<()> {
        setup::all(setup::MINOR)?;
        match self {
            Self::KillsOlder | Self::Older | Self::Restore => setup::all(setup::OLDER_MINOR),
            Self::Patch => setup::all(setup::NEXT_PATCH),
            Self::Load => setup::load(),
            Self::Machine => setup::install(&[("qemu-system-x86_64", "qemu-system-x86"), ("qemu-img", "qemu-utils")]),
            _ => Ok(()),
        }
    }

    /// Whether it writes nothing down itself: its tests are its cases.
    fn cases_are_tests(self) -> bool {
        matches!(
            self,
            Self::Hosts
                | Self::Keys
                | Self::Ill
                | Self::Authorities
                | Self::External
                | Self::Identity
                | Self::Revival
                | Self::Restore
                | Self::Machine
        )
    }

    /// What cargo is asked to run.
    fn arguments(self) -> Vec<&'static str> {
        let of_soak = |test| vec!["--test", "e2e", "--", "--ignored", "--exact", "--nocapture", test];
        match self {
            Self::Hosts => {
                vec!["--no-fail-fast", "--test", "api", "--test", "machine", "--test", "e2e", "--", "--test-threads=1"]
            }
            Self::Kills => of_soak("soak::kills_of_three_hosts"),
            Self::KillsAlone => of_soak("soak::kills_of_three_hosts_each_alone"),
            Self::KillsApart => of_soak("soak::kills_with_roles_apart"),
            Self::KillsOlder => of_soak("soak::kills_of_three_hosts_on_the_older_minor"),
            Self::Changes => of_soak("soak::kills_of_changes"),
            Self::Keys => {
                vec!["--no-fail-fast", "--test", "e2e", "--", "--ignored", "--test-threads=1", "encryption::"]
            }
            Self::Ill => {
                vec!["--no-fail-fast", "--test", "e2e", "--", "--ignored", "--test-threads=1", "ill::", "away::"]
            }
            Self::Authorities => {
                vec!["--no-fail-fast", "--test", "e2e", "--", "--ignored", "--test-threads=1", "authorities::"]
            }
            Self::External => {
                vec!["--no-fail-fast", "--test", "e2e", "--", "--ignored", "--test-threads=1", "external::"]
            }
            Self::Identity => {
                vec!["--no-fail-fast", "--test", "e2e", "--", "--ignored", "--test-threads=1", "identity::"]
            }
            Self::Revival => {
                vec!["--no-fail-fast", "--test", "e2e", "--", "--ignored", "--test-threads=1", "revival::"]
            }
            Self::Strict => of_soak("soak::strict_profile"),
            Self::Older => of_soak("soak::three_hosts_on_the_older_minor"),
            Self::Patch => of_soak("versions::the_next_patch_and_back"),
            Self::Restore => {
                let hosts = ["--no-fail-fast", "--test", "e2e", "--", "--ignored", "--test-threads=1"];
                hosts.into_iter().chain(["restore::", "losses::", "rejoin::", "recurring::"]).collect()
            }
            Self::Snapshots => of_soak("soak::snapshots_of_one_host"),
            Self::SnapshotsThree => of_soak("soak::snapshots_of_three_hosts"),
            Self::Load => of_soak("load::operations_under_a_steady_load"),
            Self::Machine => vec!["--test", "vm"],
        }
    }
}

/// A line of what a part writes down about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Line {
    Exist { exist: usize, note: String },
    Case(Case),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Case {
    kind: String,
    host: String,
    what: String,
    why: Option<String>,
    seconds: u64,
}

/// What is known of a part after its run.
#[derive(Debug, Default)]
struct Outcome {
    exist: usize,
    note: String,
    cases: Vec<Case>,
    /// Why the part itself broke off.
    broke: Option<String>,
    took: Duration,
}

/// Runs these parts, or all, and writes docs/faults.md after each.
pub(crate) fn soak(parts: &[Part], minutes: Option<u64>, seed: Option<u64>) -> Result<()> {
    let seed = seed.map_or_else(fresh_seed, Ok)?;
    let parts = if parts.is_empty() { Part::value_variants() } else { parts };
    println!("seed {seed}");
    let mut failed = Vec::new();
    for part in parts {
        println!("==> {}", part.title());
        let commit = commit()?;
        let outcome = run(*part, minutes, seed)?;
        let wrong = outcome.cases.iter().filter(|case| case.why.is_some()).count();
        println!(
            "==> {}: {} of {} cases run, {wrong} did not end as promised, {}",
            part.name(),
            outcome.cases.len(),
            outcome.exist,
            seconds(outcome.took)
        );
        if wrong > 0 || outcome.broke.is_some() || outcome.cases.is_empty() {
            failed.push(part.name());
        }
        let page = root().join("docs/faults.md");
        let old = fs::read_to_string(&page).unwrap_or_default();
        fs::write(&page, replaced(&old, *part, &section(*part, &outcome, &commit, &date()?, seed)))?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("not as promised: {}", failed.join(", ")) }
}

fn run(part: Part, minutes: Option<u64>, seed: u64) -> Result<Outcome> {
    part.setup()?;
    let record = record(part)?;
    let start = Instant::now();
    let mut command = cargo();
    command.args(["test", "--locked"]).args(part.arguments());
    command
        .env("BASTIDE_TEST_SEED", seed.to_string())
        .env("BASTIDE_TEST_WHOLE", "1")
        .env("BASTIDE_SOAK_RECORD", &record);
    if let Some(minutes) = minutes {
        command.env("BASTIDE_SOAK_MINUTES", minutes.to_string());
    }
    let mut tests = Vec::new();
    let ended = shown(&mut command, |line| tests.extend(test(line)))?;
    let mut outcome = Outcome { took: start.elapsed(), ..Outcome::default() };
    for line in fs::read_to_string(&record).unwrap_or_default().lines() {
        match serde_json::from_str(line).with_context(|| line.to_owned())? {
            Line::Exist { exist, note } => (outcome.exist, outcome.note) = (exist, note),
            Line::Case(case) => outcome.cases.push(case),
        }
    }
    if part.cases_are_tests() {
        (outcome.exist, outcome.cases) = (tests.len(), tests);
    }
    if !ended.success() && outcome.cases.iter().all(|case| case.why.is_none()) {
        outcome.broke = Some(format!("the test program ended with {ended}"));
    }
    Ok(outcome)
}

/// An empty file for what the part writes down.
fn record(part: Part) -> Result<PathBuf> {
    let folder = fs::canonicalize(root())?.join("target/soak");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}.jsonl", part.name()));
    fs::write(&path, "")?;
    Ok(path)
}

/// A line such as `test faults::a_cluster ... ok`.
fn test(line: &str) -> Option<Case> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let why = match result {
        "ok" => None,
        "FAILED" => Some("failed".to_owned()),
        _ => return None,
    };
    Some(Case { kind: "test".to_owned(), host: String::new(), what: name.to_owned(), why, seconds: 0 })
}

fn commit() -> Result<String> {
    let git = |arguments: &[&str]| read(Command::new("git").current_dir(root()).args(arguments));
    let changed = git(&["status", "--porcelain", "--", ".", ":!docs/faults.md"])?;
    let changed = if changed.is_empty() { "" } else { ", with uncommitted changes" };
    Ok(format!("{}{changed}", git(&["rev-parse", "HEAD"])?.trim()))
}

fn date() -> Result<String> {
    Ok(read(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]))?.trim().to_owned())
}

const HEAD: &str = "\
# What the soak found

Written by `cargo xtask soak` and by nothing else. Each section is the last run of that part: how many of the cases that exist
were run (`--minutes` bounds a part; the seed gives the order, one of every kind and host first), and how they ended. *As
promised* means, for a kill alone: the next `bastide up` finished what the killed one began, `bastide plan` then planned nothing, and
no file was left half written. Where kills come one after the other, in a journey: the next `bastide up` went on at least to the
point where it was killed in its turn, and the last one of the journey, which nothing disturbed, ended as after a kill alone (that
end is a case of its own). A point that a journey passed by, because what lies there was done, comes in the next one; what none came
by is killed at alone. A write on the operator's disk is a journey's first. For a change (`changes`): the same command went on at least to where it was
interrupted in its turn, and at last to the target, or `rollback` from another copy of the state, after one interruption, led to every
file's digest of before; `bastide plan` and `diff --live` then found nothing. For a save of a snapshot: nothing half is listed, and the
same command works. For a restore: the same command went on at least to where it was interrupted in its turn, and at last to its end, or
`--abort`, after one interruption, put the old data back, and every object was as it had to be. What a journey does not prove is that
the state at each of its points is finished by one undisturbed run.
";

fn section(part: Part, outcome: &Outcome, commit: &str, date: &str, seed: u64) -> String {
    let wrong: Vec<&Case> = outcome.cases.iter().filter(|case| case.why.is_some()).collect();
    let mut text = format!(
        "## {}\n\n{}.\n\n| | |\n|---|---|\n| commit | {commit} |\n| date (UTC) | {date} |\n| seed | {seed} |\n\
         | cases run | {} of {} that exist |\n| not as promised | {} |\n| time | {} |\n",
        part.name(),
        part.title(),
        outcome.cases.len(),
        outcome.exist,
        wrong.len(),
        seconds(outcome.took)
    );
    if !outcome.note.is_empty() {
        _ = write!(text, "\nThe cases: {}.\n", outcome.note);
    }
    if let Some(broke) = &outcome.broke {
        _ = write!(text, "\n**The part broke off: {broke}.**\n");
    }
    let mut table: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for case in &outcome.cases {
        let counts = table.entry((&case.kind, &case.host)).or_default();
        counts.0 += 1;
        counts.1 += usize::from(case.why.is_none());
    }
    text.push_str("\n| kind | host | run | as promised |\n|---|---|---|---|\n");
    for ((kind, host), (run, right)) in table {
        _ = writeln!(text, "| {kind} | {host} | {run} | {right} |");
    }
    if !wrong.is_empty() {
        text.push_str("\nNot as promised:\n\n");
        for case in wrong {
            let why = case.why.as_deref().unwrap_or_default();
            let error = why.lines().find(|line| line.contains("error")).or(why.lines().next()).unwrap_or_default();
            let error: String = error.chars().take(300).collect();
            let what = case.what.replace('`', "'");
            _ = writeln!(text, "- {}, `{what}`, after {} s: {error}", case.kind, case.seconds);
        }
    }
    text
}

/// The page with this part's section in the place of its old one.
fn replaced(page: &str, part: Part, section: &str) -> String {
    let mut sections: BTreeMap<usize, String> = BTreeMap::new();
    let place = |name: &str| Part::value_variants().iter().position(|part| part.name() == name);
    for old in page.split("\n## ").skip(1) {
        if let Some(at) = place(old.lines().next().unwrap_or_default()) {
            sections.insert(at, format!("## {}\n", old.trim_end()));
        }
    }
    if let Some(at) = place(&part.name()) {
        sections.insert(at, section.to_owned());
    }
    let sections: Vec<String> = sections.into_values().collect();
    format!("{HEAD}\n{}", sections.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(why: Option<&str>) -> Outcome {
        let case = Case {
            kind: "a file is written".to_owned(),
            host: "h1 (etcd)".to_owned(),
            what: "h1: writes /x (1)".to_owned(),
            why: why.map(str::to_owned),
            seconds: 7,
        };
        Outcome { exist: 9, cases: vec![case], ..Outcome::default() }
    }

    #[test]
    fn a_part_replaces_its_own_section_and_keeps_the_others() {
        let kills = section(Part::Kills, &outcome(Some("first\nerror: broken")), "abc", "2026-01-01 00:00", 5);
        let page = replaced("", Part::Kills, &kills);
        assert!(page.contains("| cases run | 1 of 9 that exist |"), "{page}");
        assert!(page.contains("| a file is written | h1 (etcd) | 1 | 0 |"), "{page}");
        assert!(page.contains("- a file is written, `h1: writes /x (1)`, after 7 s: error: broken\n"), "{page}");
        let strict = section(Part::Strict, &outcome(None), "def", "2026-01-02 00:00", 6);
        let page = replaced(&page, Part::Strict, &strict);
        assert!(page.contains("| commit | abc |") && page.contains("| commit | def |"), "{page}");
        let hosts = section(Part::Hosts, &outcome(None), "fed", "2026-01-03 00:00", 7);
        let page = replaced(&page, Part::Hosts, &hosts);
        let at = |name: &str| page.find(name).map_or(usize::MAX, |at| at);
        assert!(at("\n## hosts\n") < at("\n## kills\n") && at("\n## kills\n") < at("\n## strict\n"), "{page}");
        let again = replaced(&page, Part::Kills, &section(Part::Kills, &outcome(None), "xyz", "2026-01-04 00:00", 8));
        assert!(again.contains("| commit | xyz |") && !again.contains("| commit | abc |"), "{again}");
        assert_eq!(again.matches("\n## ").count(), 3, "{again}");
    }

    #[test]
    fn lines_of_test_programs_are_cases() {
        assert_eq!(test("test a::b ... ok").and_then(|case| case.why), None);
        assert_eq!(test("test a::b ... FAILED").and_then(|case| case.why).as_deref(), Some("failed"));
        assert_eq!(test("test a::b ... ignored, a part of the soak"), None);
        assert_eq!(test("running 3 tests"), None);
    }
}
