//! `cargo xtask bench operations`: what is done to a running cluster of three control planes, one after the other, each with its time
//! and the channels that the hosts were asked for.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;
use bed::Bed;
use bed::ClusterFile;
use bed::Keep;
use bed::Node;

use crate::phase::phase;
use crate::phase::seconds;
use crate::setup;

const NAME: &str = "operations";
const NET: &str = "10.92.0";
const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
const CHANGE: &str = "services:\n  kube-api:\n    extra_args:\n      max-requests-inflight: \"500\"\n";

/// What is done, and on which file. Each leaves the cluster as the next one expects it.
const OPERATIONS: [(&str, &str, &[&str]); 13] = [
    ("a fresh cluster", "", &["up", "--yes", "--no-identity-backup", "--timings"]),
    ("nothing to do", "", &["up", "--yes", "--timings"]),
    ("status", "", &["status"]),
    ("a flag of the API servers", CHANGE, &["up", "--yes", "--timings"]),
    ("taken back", CHANGE, &["rollback", "--yes", "--timings"]),
    ("every leaf renewed", "", &["rotate-certs", "--yes", "--timings"]),
    ("taken back", "", &["rollback", "--yes", "--timings"]),
    ("the key for encryption at rest exchanged", "", &["encrypt", "rotate-key", "--yes", "--timings"]),
    (
        "all authorities exchanged, pods started anew",
        "",
        &["rotate-certs", "--ca", "--restart-pods", "--yes", "--timings"],
    ),
    ("a snapshot saved", "", &["etcd", "snapshot", "save", "--name", "bench"]),
    ("the snapshot verified in a scratch etcd", "", &["etcd", "snapshot", "verify", "bench"]),
    ("the snapshot restored", "", &["etcd", "snapshot", "restore", "bench", "--yes", "--cluster", NAME]),
    ("removed", "", &["remove", "--purge", "--yes", "--cluster", NAME]),
];

struct Done {
    what: &'static str,
    command: String,
    took: Duration,
    /// The most session channels and forwards of one host, where the command says.
    channels: Option<(u64, u64)>,
}

/// Runs all of them once and prints a table.
pub(crate) fn operations() -> Result<()> {
    setup::all(setup::MINOR)?;
    let program = setup::bastide_released()?;
    let bed = Bed::named(NAME, NET, Keep::Running);
    let folder = folder()?;
    bed.destroy()?;
    phase("three hosts", || bed.start(&HOSTS))?;
    let mut done = Vec::new();
    for (what, more, arguments) in OPERATIONS {
        let nodes = HOSTS.iter().map(|host| Node::all_roles(host)).collect();
        let file = ClusterFile { more: more.to_owned(), ..ClusterFile::new(NAME, nodes) };
        file.write(&bed, &folder)?;
        let mut command = bed.command(&program);
        command
            .args(arguments)
            .env("BASTIDE_CONFIG", folder.join("cluster.yml"))
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env("XDG_STATE_HOME", folder.join("state"));
        let clock = Instant::now();
        let output = phase(&arguments.join(" "), || Ok(command.output()?))?;
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        let text = String::from_utf8_lossy(&text);
        if !output.status.success() {
            bail!("bastide {}: {}\n{text}", arguments.join(" "), output.status);
        }
        let words: Vec<&str> = arguments.iter().copied().filter(|word| *word != "--timings").collect();
        done.push(Done { what, command: words.join(" "), took: clock.elapsed(), channels: channels(&text) });
    }
    bed.destroy()?;
    println!(
        "\nThree hosts with all roles; time of the whole command; the most channels that one host was asked for\n"
    );
    println!("| | `bastide …` | time | session channels | forwards |\n|---|---|---|---|---|");
    for Done { what, command, took, channels } in done {
        let (sessions, forwards) = channels.map_or((String::new(), String::new()), |(sessions, forwards)| {
            (sessions.to_string(), forwards.to_string())
        });
        println!("| {what} | `{command}` | {} | {sessions} | {forwards} |", seconds(took));
    }
    Ok(())
}

/// Of lines such as `h1: 2 session channels, 5 forwards`.
fn channels(text: &str) -> Option<(u64, u64)> {
    let counted = text.lines().filter_map(|line| {
        let (sessions, rest) = line.split_once(": ")?.1.split_once(" session channels, ")?;
        Some((sessions.parse().ok()?, rest.split_once(" forwards")?.0.parse().ok()?))
    });
    counted.reduce(|most: (u64, u64), one| (most.0.max(one.0), most.1.max(one.1)))
}

fn folder() -> Result<PathBuf> {
    let folder = crate::tree::root().join("target/operations");
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(fs::canonicalize(folder)?)
}

#[cfg(test)]
mod tests {
    use super::channels;

    #[test]
    fn the_busiest_host_counts() {
        assert_eq!(
            channels("x\nh1: 2 session channels, 5 forwards\nh2: 3 session channels, 1 forwards\n"),
            Some((3, 5))
        );
        assert_eq!(channels("nothing"), None);
    }
}
