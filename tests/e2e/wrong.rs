//! What is wrong before a run begins is said at once, with its place, and nothing is written.

use std::fs;

use anyhow::Result;
use bed::Node;

use crate::support::Cluster;
use crate::support::Ended;

/// Exit code 1, and all these words on stderr.
#[track_caller]
fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is not said: {ended}");
    }
}

/// Everything that a run could write on a host.
fn listing(cluster: &Cluster) -> Result<Vec<String>> {
    let script = "find /etc /opt /usr/local /root /home /var/lib -xdev \\( -path /var/lib/systemd -o -path /var/lib/private \\) -prune \
                  -o -printf '%p %T@ %s %m %U\\n' | sort; getent passwd; systemctl list-unit-files --no-legend";
    cluster.hosts().iter().map(|host| host.ssh(script)).collect()
}

#[test]
fn host_keys_and_foreign_ground_stop_a_run_before_it_writes() -> Result<()> {
    let cluster = Cluster::three_all_roles()?;
    let known_hosts = cluster.folder().join("known_hosts");
    let right = fs::read_to_string(&known_hosts)?;

    fs::write(&known_hosts, "")?;
    let before = listing(&cluster)?;
    for command in [&["plan"][..], &["up", "--yes", "--no-identity-backup"]] {
        let unknown = cluster.bastide(command)?;
        assert_refused(&unknown, &["SHA256:", "bastide hosts trust", "h1", "h2", "h3"]);
    }
    let trust = cluster.bastide(&["hosts", "trust", "--yes"])?;
    assert_eq!(trust.code, Some(0), "{trust}");
    assert_eq!(sorted(&fs::read_to_string(&known_hosts)?), sorted(&right), "not the hosts' own keys were recorded");
    let plan = cluster.bastide(&["plan"])?;
    assert_eq!(plan.code, Some(2), "{plan}");

    // h1 answers with its key where h2's is recorded for it.
    let lines: Vec<&str> = right.lines().collect();
    let key = |line: &str| line.split_once(' ').map(|(_, key)| key.to_owned()).unwrap_or_default();
    let address = cluster.host("h1").address();
    fs::write(&known_hosts, format!("# a comment\n{address} {}\n{}\n{}\n", key(lines[1]), lines[1], lines[2]))?;
    let wrong = cluster.bastide(&["up", "--yes", "--no-identity-backup"])?;
    assert_refused(&wrong, &["h1", &format!("{}:2", known_hosts.display()), "SHA256:"]);
    let accepting = cluster.bastide(&["plan", "--accept-new-host-keys"])?;
    assert_refused(&accepting, &["h1", &format!("{}:2", known_hosts.display())]);
    fs::write(&known_hosts, &right)?;
    assert_eq!(listing(&cluster)?, before, "a run that was refused wrote on a host");

    cluster.host("h1").ssh("mkdir -p /var/lib/etcd/member")?;
    cluster.host("h2").ssh("systemd-run --quiet --unit squatter systemd-socket-activate -l 6443 /bin/cat")?;
    cluster
        .host("h2")
        .until("grep -q ':192B .* 0A ' /proc/net/tcp /proc/net/tcp6", std::time::Duration::from_mins(1))?;
    let record = r#"{
  "schema": 1,
  "cluster": "0123456789abcdef0123456789abcdef",
  "cluster_name": "other",
  "revision": {"number": 1, "nonce": "0123456789abcdef"},
  "parent": null,
  "complete": true,
  "files": {},
  "directories": [],
  "units": [],
  "users": [],
  "images": {}
}"#;
    cluster
        .host("h3")
        .ssh(&format!("mkdir -m 700 /var/lib/bastide && cat > /var/lib/bastide/record.json <<'EOF'\n{record}\nEOF"))?;
    let before = listing(&cluster)?;
    let refused = cluster.bastide(&["up", "--yes", "--no-identity-backup"])?;
    assert_refused(
        &refused,
        &["h1: /var/lib/etcd", "h2: port 6443", "h3: belongs to cluster other", "nothing was changed"],
    );
    assert_eq!(listing(&cluster)?, before, "a run that was refused wrote on a host");
    assert!(!cluster.folder().join("cluster.bastide").exists(), "a run that was refused left state");

    cluster.host("h1").ssh("rmdir /var/lib/etcd/member")?;
    cluster.host("h2").ssh("systemctl stop squatter")?;
    cluster.host("h3").ssh("rm -r /var/lib/bastide")?;
    let plan = cluster.bastide(&["plan"])?;
    assert_eq!(plan.code, Some(2), "{plan}");
    Ok(())
}

#[test]
fn a_user_with_sudo_a_full_disk_and_an_sshd_that_forwards_nothing() -> Result<()> {
    let mut cluster = Cluster::of(vec![Node { user: "ops", ..Node::all_roles("h1") }])?;

    cluster.host("h1").ssh("mount -t tmpfs -o size=20m tmpfs /opt")?;
    let full = cluster.bastide(&["up", "--yes", "--no-identity-backup"])?;
    assert_refused(&full, &["h1", "/opt/", "No space left on device"]);
    cluster.host("h1").ssh("umount /opt")?;

    forbid_forwarding(&cluster, true)?;
    let closed = cluster.bastide(&["up", "--yes"])?;
    assert_refused(&closed, &["h1", "AllowTcpForwarding yes"]);
    forbid_forwarding(&cluster, false)?;

    cluster.up();
    cluster.wait_nodes_ready(std::time::Duration::from_mins(5))?;
    cluster.assert_plans_nothing();
    forbid_forwarding(&cluster, true)?;
    let closed = cluster.bastide(&["plan"])?;
    assert_refused(&closed, &["h1", "AllowTcpForwarding yes"]);
    // `direct` is enough for a whole run: every component is asked for its health, none through sshd's forwarding.
    "  api:\n    dial: direct\n".clone_into(&mut cluster.file.more_options);
    cluster.write()?;
    cluster.assert_plans_nothing();
    let status = cluster.bastide(&["status"])?;
    assert_eq!(status.code, Some(0), "{status}");
    forbid_forwarding(&cluster, false)?;
    cluster.file.more_options.clear();
    cluster.write()?;
    cluster.assert_plans_nothing();
    a_gate_that_stayed_shut_is_waited_for_again(&mut cluster)
}

/// A run whose only trouble is a gate leaves nothing to change: the next one must not call that well.
fn a_gate_that_stayed_shut_is_waited_for_again(cluster: &mut Cluster) -> Result<()> {
    const RULE: &str = "-i lo -p tcp --dport 10259 -j REJECT";
    cluster.host("h1").ssh(&format!("iptables -I INPUT {RULE}"))?;
    "services:\n  scheduler:\n    extra_args:\n      v: 3\n".clone_into(&mut cluster.file.more);
    "  deadlines:\n    health: 30s\n".clone_into(&mut cluster.file.more_options);
    cluster.write()?;
    let shut = cluster.bastide(&["up", "--yes", "--auto-rollback=off"])?;
    assert_refused(&shut, &["h1: kube-scheduler"]);
    let again = cluster.bastide(&["up", "--yes", "--auto-rollback=off"])?;
    assert_refused(&again, &["h1: kube-scheduler"]);
    cluster.host("h1").ssh(&format!("iptables -D INPUT {RULE}"))?;
    cluster.file.more_options.clear();
    cluster.write()?;
    cluster.up();
    cluster.assert_plans_nothing();
    Ok(())
}

fn forbid_forwarding(cluster: &Cluster, forbid: bool) -> Result<()> {
    let line = if forbid { "echo 'AllowTcpForwarding no' >" } else { "rm -f" };
    let script = format!("{line} /etc/ssh/sshd_config.d/00-forwarding.conf && systemctl restart ssh");
    cluster.host("h1").ssh(&script)?;
    cluster.host("h1").wait()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}
