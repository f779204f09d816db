//! What is checked on a running cluster.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use anyhow::Result;

use crate::support::Cluster;
use crate::support::Ended;

/// `h1: 4 session channels, 7 forwards` lines of `--timings`.
pub(crate) fn sessions(ended: &Ended) -> BTreeMap<String, u32> {
    let counts: BTreeMap<_, _> = ended
        .stderr
        .lines()
        .filter_map(|line| {
            let (host, rest) = line.split_once(": ")?;
            Some((host.to_owned(), rest.split_once(" session channels")?.0.parse().ok()?))
        })
        .collect();
    assert!(!counts.is_empty(), "no channels were counted: {ended}");
    counts
}

/// What a host holds that `up` could leave behind: a listing a line.
pub(crate) fn traces(cluster: &Cluster) -> Result<BTreeMap<String, BTreeSet<String>>> {
    // Not the values that move by themselves, and not those that docs/remove.md names.
    const SCRIPT: &str = r#"
        find /etc /opt /usr /var/lib /var/log /var/spool /var/tmp /root /home /run /dev/shm -xdev -printf 'file %p\n' 2>/dev/null |
            grep -vE '^file /var/(log/(journal|btmp|wtmp|lastlog)|lib/(systemd|dbus|private|apt|dpkg))|^file /etc/.*[-~]$|/etc/(subuid|subgid|.pwd.lock)|^file /opt/kube-bench|^file /root/.(cache|kube)|^file /run/(user|systemd|udev|log|sudo|dbus|credentials|utmp)'
        mount | awk '{print "mount", $3}' | grep -vE '/run/(user|credentials)'
        systemctl list-unit-files --no-legend | awk '{print "unit", $1}'
        systemctl list-units --all --failed --no-legend --plain | awk '{print "failed", $1}'
        getent passwd | cut -d: -f1 | sed 's/^/user /'; getent group | cut -d: -f1 | sed 's/^/group /'
        ip -br link | awk '{print "link", $1}' | sed 's/@.*//'; ip -br address | awk '{print "address", $1, $3}' | sed 's/@[^ ]*//'
        ip route | sed 's/^/route /'; ip rule | sed 's/^/rule /'; ip netns | sed 's/^/space /'
        (iptables-save; ip6tables-save) 2>/dev/null | grep -v '^#' | sed -E 's/ \[[0-9]+:[0-9]+\]//; s/^/iptables /'
        nft -s list ruleset | sed 's/^/nft /'
        find /sys/fs/cgroup -name '*kubepods*' -prune -printf 'group %p\n' 2>/dev/null
        ls /proc/*/exe -l 2>/dev/null | sed -n 's|.* -> \(/[^ ]*\).*|process \1|p' | grep -v -e /usr/ -e /sbin/ -e /bin/
        sysctl -a 2>/dev/null | sed 's/^/sysctl /' | grep -vE 'sysctl (fs\.(dentry-state|file-nr|inode|aio-nr|quota)|kernel\.(random|pty\.nr|ns_last_pid|sched_domain|keys)|net\.(netfilter\.nf_conntrack_(count|max|buckets)|ipv4\.conf\.(veth|cni)|ipv4\.tcp_mem)|vm\.)'
        true"#;
    cluster
        .hosts()
        .iter()
        .map(|host| {
            let listing = host.ssh(SCRIPT)?;
            Ok((host.name().to_owned(), listing.lines().map(str::to_owned).collect()))
        })
        .collect()
}

/// Names of the values of the kernel's that bastide sets on a host, which stay until the next boot (docs/remove.md).
pub(crate) fn sysctls(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let script = "sed -n 's/^-*\\([a-z][^ ]*\\) = .*/\\1/p' /etc/sysctl.d/90-bastide.conf";
    let names: BTreeSet<_> = cluster.hosts()[0].ssh(script)?.lines().map(str::to_owned).collect();
    anyhow::ensure!(names.contains("net.ipv4.ip_forward"), "{names:?}");
    Ok(names)
}

/// Whether a line of [`traces`] is about one of these, or follows from it.
pub(crate) fn is_set(trace: &str, names: &BTreeSet<String>) -> bool {
    trace.strip_prefix("sysctl ").and_then(|line| line.split_once(" = ")).is_some_and(|(name, _)| {
        names.contains(name) || name.starts_with("net.ipv4.conf.") && name.ends_with(".forwarding")
    })
}

/// Two listings of one host must be equal; the difference is shown.
pub(crate) fn assert_same(host: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) {
    let more: Vec<_> = after.difference(before).collect();
    let less: Vec<_> = before.difference(after).collect();
    assert!(more.is_empty() && less.is_empty(), "{host}: left behind {more:#?}\ngone {less:#?}");
}
