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
    let script = "find /etc /opt /usr/local /var/lib /var/log /root /home -xdev -printf 'file %p\\n' 2>/dev/null \
         | grep -vE '^file /var/(log/(journal|btmp|wtmp|lastlog)|lib/(systemd|dbus|private|apt|dpkg))|^file /etc/.*[-~]$|/etc/(subuid|subgid|.pwd.lock)|^file /opt/kube-bench|^file /root/.(cache|kube)'; \
         mount | awk '{print \"mount\", $3}' | grep -vE '/run/(user|credentials)'; \
         systemctl list-unit-files --no-legend | awk '{print \"unit\", $1}'; \
         getent passwd | cut -d: -f1 | sed 's/^/user /'; ip -br link | awk '{print \"link\", $1}' | sed 's/@.*//'; \
         ip route | sed 's/^/route /'; (iptables-save; ip6tables-save; nft list ruleset) 2>/dev/null | grep -E 'KUBE|CNI|FLANNEL' | sed 's/^/rule /'; true";
    cluster
        .hosts()
        .iter()
        .map(|host| {
            let listing = host.ssh(script)?;
            Ok((host.name().to_owned(), listing.lines().map(str::to_owned).collect()))
        })
        .collect()
}

/// Two listings of one host must be equal; the difference is shown.
pub(crate) fn assert_same(host: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) {
    let more: Vec<_> = after.difference(before).collect();
    let less: Vec<_> = before.difference(after).collect();
    assert!(more.is_empty() && less.is_empty(), "{host}: left behind {more:#?}\ngone {less:#?}");
}
