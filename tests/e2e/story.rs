//! One new cluster of three hosts: what drifts, what is lost with the state, and what is left when it is removed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;

use crate::checks;
use crate::support::Cluster;

#[test]
fn three_bare_hosts_become_a_cluster_and_bare_hosts_again() -> Result<()> {
    let mut cluster = Cluster::three_all_roles()?;
    let before = checks::traces(&cluster)?;
    // Whoever has this SSH key can open the state when the identity is lost.
    let key = std::fs::read_to_string(cluster.bed.key().with_extension("pub"))?;
    cluster.file.more_options = format!("  state: {{recipients: ['{}']}}\n", key.trim());
    cluster.write()?;

    let planned = cluster.bastide(&["plan"])?;
    assert_eq!(planned.code, Some(2), "a plan with changes: {planned}");
    assert!(!cluster.folder().join("cluster.bastide").exists(), "`plan` left state behind");

    let up = cluster.bastide(&["up", "--yes", "--timings"])?;
    assert_eq!(up.code, Some(0), "the first up: {up}");
    let (_, signer) = up.stderr.split_once("Its signer is ").context("no signer is named")?;
    let signer = signer.split(':').next().unwrap_or_default().to_owned();
    println!("up of three hosts: {:.1} s", up.took.as_secs_f64());
    for (host, sessions) in checks::sessions(&up) {
        println!("{host}: {sessions} session channels for a fresh up");
        assert!(sessions <= 10, "{host}: {sessions} session channels");
    }
    cluster.wait_nodes_ready(Duration::from_mins(5))?;
    let second = cluster.bastide(&["up", "--yes", "--timings"])?;
    assert_eq!(second.code, Some(0), "the second up: {second}");
    assert!(second.stderr.contains("Nothing to do"), "{second}");
    for (host, sessions) in checks::sessions(&second) {
        assert!(sessions <= 2, "{host}: {sessions} session channels for a no-op");
    }
    cluster.assert_plans_nothing();
    let status = cluster.bastide(&["status", "--output", "json"])?;
    assert_eq!(status.code, Some(0), "{status}");
    let status: serde_json::Value = serde_json::from_str(&status.stdout)?;
    assert_eq!(status["health"], "healthy");

    drift(&cluster)?;
    lost_state(&cluster)?;
    lost_identity(&cluster, &signer)?;

    let kept = checks::sysctls(&cluster)?;
    let removed = cluster.bastide(&["remove", "--yes", "--cluster", "test"])?;
    assert_eq!(removed.code, Some(0), "{removed}");
    let after = checks::traces(&cluster)?;
    let rest = |traces: &BTreeSet<String>| -> BTreeSet<String> {
        traces.iter().filter(|trace| !checks::is_set(trace, &kept)).cloned().collect()
    };
    for (host, traces) in &before {
        checks::assert_same(host, &rest(traces), &rest(&after[host]));
    }
    Ok(())
}

/// What differs from the file is named, and put right; foreign files are left alone.
fn drift(cluster: &Cluster) -> Result<()> {
    let host = cluster.host("h2");
    host.ssh("echo '# edited' >> /etc/kubernetes/audit/policy.yaml; touch /etc/kubernetes/mine.txt")?;
    cluster.kubectl(&["-n", "kube-system", "label", "configmap", "coredns", "touched=yes"])?;
    cluster.kubectl(&["-n", "kube-system", "scale", "deployment", "coredns", "--replicas=1"])?;
    let plan = cluster.bastide(&["plan"])?;
    assert_eq!(plan.code, Some(2), "{plan}");
    assert!(plan.stdout.contains("/etc/kubernetes/audit/policy.yaml"), "{plan}");
    assert!(plan.stdout.contains("coredns"), "{plan}");
    assert!(!plan.stdout.contains("mine.txt"), "a foreign file is planned for: {plan}");
    let status = cluster.bastide(&["status"])?;
    assert_eq!(status.code, Some(4), "{status}");
    assert!(status.stdout.contains("/etc/kubernetes/audit/policy.yaml"), "{status}");
    cluster.up();
    host.ssh("! grep -q edited /etc/kubernetes/audit/policy.yaml && test -e /etc/kubernetes/mine.txt && rm /etc/kubernetes/mine.txt")?;
    cluster.assert_plans_nothing();
    Ok(())
}

/// Without the state nothing is written; a host's sealed copy brings it back.
fn lost_state(cluster: &Cluster) -> Result<()> {
    let state = cluster.folder().join("cluster.bastide");
    let aside = cluster.folder().join("aside");
    std::fs::rename(&state, &aside)?;
    let refused = cluster.bastide(&["up", "--yes", "--no-identity-backup"])?;
    assert_eq!(refused.code, Some(1), "{refused}");
    for host in cluster.hosts() {
        assert!(refused.stderr.contains(host.name()), "{}: is not named: {refused}", host.name());
    }
    assert!(refused.stderr.contains("state recover"), "{refused}");
    let recovered = cluster.bastide(&["state", "recover", "--host", "h3"])?;
    assert_eq!(recovered.code, Some(0), "{recovered}");
    cluster.assert_plans_nothing();

    // The folder that was put aside is now the older of two copies as soon as the other one is used.
    cluster.host("h1").ssh("rm /etc/kubernetes/admin.conf")?;
    cluster.up();
    std::fs::remove_dir_all(&state)?;
    std::fs::rename(&aside, &state)?;
    let refused = cluster.bastide(&["up", "--yes"])?;
    assert_eq!(refused.code, Some(1), "an older copy of the state was used: {refused}");
    assert!(refused.stderr.contains("older copy"), "{refused}");
    let recovered = cluster.bastide(&["state", "recover", "--host", "h2"])?;
    assert_eq!(recovered.code, Some(0), "{recovered}");
    cluster.assert_plans_nothing();
    Ok(())
}

/// The state and the identity are gone: a recipient's key and a host bring both back.
fn lost_identity(cluster: &Cluster, signer: &str) -> Result<()> {
    std::fs::remove_dir_all(cluster.folder().join("cluster.bastide"))?;
    std::fs::remove_dir_all(cluster.folder().join("config/bastide/identities"))?;
    let refused = cluster.bastide(&["state", "recover", "--host", "h1"])?;
    assert_eq!(refused.code, Some(1), "{refused}");
    let key = cluster.bed.key().display().to_string();
    let recover = |signer: &str| {
        let arguments = ["state", "recover", "--host", "h1", "--recipient-key", &key, "--signer", signer];
        cluster.bastide(&arguments)
    };
    let other = signer.chars().rev().collect::<String>();
    let forged = recover(&other)?;
    assert_eq!(forged.code, Some(1), "a copy of another signer was taken: {forged}");
    let recovered = recover(signer)?;
    assert_eq!(recovered.code, Some(0), "{recovered}");
    cluster.assert_plans_nothing();
    Ok(())
}
