//! `plan --out` and `up --plan`: what was shown is what runs, or nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::Result;
use anyhow::ensure;

use crate::support::Cluster;
use crate::support::Ended;

/// Everything on the host that an `up` could write, with its times.
const WRITTEN: &str = "find /etc/kubernetes /etc/etcd /etc/containerd /etc/systemd/system /opt/bastide /var/lib/bastide \
                       /var/lib/kubelet/config.yaml -printf '%p %T@ %C@ %s %m\\n' 2>/dev/null | sort";

/// On one running host that has nothing to do.
pub(crate) fn a_saved_plan_runs_as_it_was_shown_or_not_at_all(cluster: &mut Cluster) -> Result<()> {
    "services:\n  kubelet:\n    extra_args:\n      max-pods: \"111\"\n".clone_into(&mut cluster.file.more);
    cluster.write()?;
    let shown = cluster.bastide(&["plan", "--out", "changes.plan"])?;
    ensure!(shown.code == Some(2), "{shown}");
    let path = cluster.folder().join("changes.plan");
    is_sealed(&fs::read(&path)?)?;
    ensure!(fs::metadata(&path)?.permissions().mode() & 0o777 == 0o600, "others may read the plan");
    let up = |cluster: &Cluster| cluster.bastide(&["up", "--yes", "--plan", "changes.plan"]);
    let refused = |cluster: &Cluster, why: &str| -> Result<()> {
        let before = cluster.host("h1").ssh(WRITTEN)?;
        let ended = up(cluster)?;
        ensure!(ended.code == Some(1) && ended.stderr.contains(why), "not refused for {why:?}: {ended}");
        ensure!(cluster.host("h1").ssh(WRITTEN)? == before, "a refused plan wrote on a host: {ended}");
        Ok(())
    };

    // More would be done than was shown.
    let policy = "/etc/kubernetes/audit/policy.yaml";
    cluster.host("h1").ssh(&format!("cp -p {policy} /root/policy; echo '# edited' >> {policy}"))?;
    refused(cluster, "a host moved since the plan was made")?;
    cluster.host("h1").ssh(&format!("cat /root/policy > {policy}"))?;

    // Something else would be done than the file says by now.
    let file = fs::read(cluster.config())?;
    fs::write(cluster.config(), [&file[..], b"# touched\n"].concat())?;
    refused(cluster, "cluster.yml changed since the plan was made")?;
    fs::write(cluster.config(), &file)?;

    // Damaged: a byte in the middle.
    let whole = fs::read(&path)?;
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&path, damaged)?;
    refused(cluster, "")?;
    fs::write(&path, &whole)?;

    let ended = up(cluster)?;
    ensure!(ended.code == Some(0), "{ended}");
    ran_what_was_shown(&shown, &ended)?;
    let capacity = ["get", "node", "h1", "-o", "jsonpath={.status.capacity.pods}"];
    cluster.kubectl_until(&capacity, Duration::from_mins(3), |pods| pods == "111")?;
    cluster.assert_plans_nothing();
    refused(cluster, "another revision was made since")
}

/// Nothing of what a plan holds can be read: no path, no key, not even in base64.
fn is_sealed(bytes: &[u8]) -> Result<()> {
    ensure!(bytes.len() > 10_000, "{} bytes are no plan", bytes.len());
    for word in ["PRIVATE KEY", "/etc/kubernetes", "max-pods", "maxPods", "kubelet", "LS0tLS1CRUdJTi", "\"plan\""] {
        let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
        ensure!(!found, "{word:?} can be read in the sealed plan");
    }
    Ok(())
}

/// The plan that `up` printed is the one that `plan` printed.
fn ran_what_was_shown(shown: &Ended, ran: &Ended) -> Result<()> {
    let changes: Vec<&str> = shown.stdout.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    ensure!(!changes.is_empty(), "{shown}");
    for line in changes {
        ensure!(ran.stderr.contains(line), "{line:?} was shown and did not run: {ran}");
    }
    Ok(())
}
