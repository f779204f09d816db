//! The strict profile on a control plane and a worker that reaches it by its own balancer; and what else needs a running cluster
//! but no third host: addons, kubeconfigs, a component that a change makes ill.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use bed::Node;
use serde_json::Value;

use crate::support::Cluster;

const MINUTE: Duration = Duration::from_mins(1);
const ADDONS: &str = "addons: |
  apiVersion: v1
  kind: Namespace
  metadata: {name: shop}
  ---
  apiVersion: v1
  kind: ConfigMap
  metadata: {name: prices, namespace: shop}
  data: {apple: '1'}
addons_include: [more.yaml]
";

#[test]
fn the_strict_profile_holds_on_hosts() -> Result<()> {
    let mut cluster = Cluster::of(vec![Node::all_roles("h1"), Node::with("h2", &["worker"])])?;
    cluster.file.metrics = false;
    ADDONS.clone_into(&mut cluster.file.more);
    "  hardening: {profile: strict}\n  deadlines: {health: 90s}\n".clone_into(&mut cluster.file.more_options);
    cluster.write()?;
    // A field that no ConfigMap has.
    let config_map = |field: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: more, namespace: default}}\n{field}: {{a: b}}\n")
    };
    cluster.add_file("more.yaml", &config_map("dta"))?;
    let up = cluster.up();
    for words in ["addon more.yaml: ConfigMap default/more", "dta"] {
        ensure!(up.stderr.contains(words), "{words:?} is not said of the addon that is refused: {up}");
    }
    let prices = || cluster.kubectl(&["get", "configmap", "-n", "shop", "prices", "-o", "jsonpath={.data.apple}"]);
    ensure!(prices()? == "1", "another addon's failure took this one along");
    cluster.add_file("more.yaml", &config_map("data"))?;
    cluster.up();
    cluster.wait_nodes_ready(3 * MINUTE)?;
    cluster.wait_pods_ready(3 * MINUTE)?;
    cluster.assert_plans_nothing();

    let verdict = bed::judge(&cluster.host("h1"))?;
    ensure!(verdict.fail == 0 && verdict.pass >= 92, "{verdict:#?}");
    strangers_reach_nothing(&cluster)?;
    every_component_has_its_health(&cluster)?;
    kubeconfigs_are_written_and_merged(&cluster)?;
    a_proxy_that_a_change_makes_ill_is_taken_back(&cluster)?;
    what_left_the_file_goes_and_data_go_by_name(&mut cluster)?;
    the_state_is_kept_until_every_host_was_cleaned(&cluster)
}

/// Not even the health paths answer without credentials.
fn strangers_reach_nothing(cluster: &Cluster) -> Result<()> {
    for path in ["/livez", "/readyz", "/healthz", "/", "/version", "/api/v1/secrets"] {
        let url = format!("https://{}:6443{path}", cluster.host("h1").address());
        let asked = ["-sk", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", &url];
        let output = cluster.bed.command("curl").args(asked).output()?;
        let status = String::from_utf8(output.stdout)?;
        ensure!(status == "401", "{path}: {status}");
    }
    Ok(())
}

fn every_component_has_its_health(cluster: &Cluster) -> Result<()> {
    let status = cluster.bastide(&["status", "--output", "json"])?;
    ensure!(status.code == Some(0), "{status}");
    let status: Value = serde_json::from_str(&status.stdout)?;
    let components = |host: &str| -> Result<Vec<String>> {
        let map = status["hosts"][host]["components"].as_object().context("no components")?;
        Ok(map.keys().cloned().collect())
    };
    let all = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet", "node"];
    ensure!(components("h1")? == all, "{status:#}");
    ensure!(components("h2")? == ["balancer", "kube-proxy", "kubelet", "node"], "{status:#}");

    // The Node stays Ready without either of them.
    for (port, component) in [("10256", "kube-proxy"), ("6443", "balancer")] {
        let rule = format!("-i lo -p tcp --dport {port} -j REJECT");
        cluster.host("h2").ssh(&format!("iptables -I INPUT {rule}"))?;
        let ill = cluster.bastide(&["status"])?;
        cluster.host("h2").ssh(&format!("iptables -D INPUT {rule}"))?;
        ensure!(ill.code == Some(4) && ill.stdout.contains(&format!("{component}: ")), "{component}: {ill}");
    }
    Ok(())
}

fn kubeconfigs_are_written_and_merged(cluster: &Cluster) -> Result<()> {
    let whoami = |path: &Path| -> Result<String> {
        let mut command = cluster.kubectl_command();
        command.env("KUBECONFIG", path).args(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
        Ok(String::from_utf8(command.output()?.stdout)?)
    };
    let printed = cluster.bastide(&["kubeconfig", "--out", "-", "--user", "anna"])?;
    ensure!(printed.code == Some(0), "{printed}");
    let path = cluster.add_file("printed", &printed.stdout)?;
    ensure!(whoami(&path)? == "anna", "{printed}");

    let merged = cluster.add_file(
        "merged",
        "apiVersion: v1\nkind: Config\nclusters: [{name: work, cluster: {server: 'https://192.0.2.1'}}]\n\
         contexts: [{name: work, context: {cluster: work, user: me}}]\nusers: [{name: me, user: {}}]\ncurrent-context: work\n",
    )?;
    fs::set_permissions(&merged, fs::Permissions::from_mode(0o644))?;
    let ended = cluster.bastide(&["kubeconfig", "--merge", "merged", "--days", "1"])?;
    ensure!(ended.code == Some(0) && whoami(&merged)? == "admin", "{ended}");
    let place = merged.display().to_string();
    let contexts = cluster.kubectl(&["config", "get-contexts", "-o", "name", "--kubeconfig", &place])?;
    ensure!(contexts.lines().any(|name| name == "work") && contexts.lines().count() == 2, "{contexts}");
    ensure!(fs::metadata(&merged)?.permissions().mode() & 0o777 == 0o600, "others may read the merged file");
    Ok(())
}

/// kube-proxy refuses such a configuration; the Node would be Ready all the same.
fn a_proxy_that_a_change_makes_ill_is_taken_back(cluster: &Cluster) -> Result<()> {
    let right = fs::read_to_string(cluster.config())?;
    let given = "        maxPerCore: 0\n";
    let wrong = right.replace(given, &format!("{given}      iptables: {{minSyncPeriod: 90s, syncPeriod: 30s}}\n"));
    ensure!(wrong != right, "{right}");
    fs::write(cluster.config(), &wrong)?;
    let ended = cluster.bastide(&["up", "--yes"])?;
    ensure!(ended.code == Some(7), "{ended}");
    for words in ["kube-proxy", "yncPeriod", "taking the cluster back"] {
        ensure!(ended.stderr.contains(words), "{words:?} is not said: {ended}");
    }
    fs::write(cluster.config(), &right)?;
    cluster.assert_plans_nothing();
    let status = cluster.bastide(&["status"])?;
    ensure!(status.code == Some(0), "{status}");
    Ok(())
}

fn what_left_the_file_goes_and_data_go_by_name(cluster: &mut Cluster) -> Result<()> {
    cluster.file.more.clear();
    cluster.write()?;
    let up = cluster.up();
    ensure!(up.stderr.contains("--prune-data Namespace/shop"), "it is not said that a namespace stays: {up}");
    let left = cluster.kubectl(&["get", "configmap,namespace", "-A", "-o", "name"])?;
    ensure!(!left.contains("configmap/prices") && !left.contains("configmap/more"), "{left}");
    ensure!(left.contains("namespace/shop"), "{left}");
    cluster.assert_plans_nothing();

    let other = cluster.bastide(&["plan", "--prune-data", "Namespace/default"])?;
    ensure!(other.code == Some(1) && other.stderr.contains("--prune-data Namespace/default"), "{other}");
    let plan = cluster.bastide(&["plan", "--prune-data", "Namespace/shop"])?;
    ensure!(plan.code == Some(2) && plan.stdout.contains("CANNOT BE UNDONE: Namespace shop"), "{plan}");
    let gone = cluster.bastide(&["up", "--yes", "--prune-data", "Namespace/shop"])?;
    ensure!(gone.code == Some(0), "{gone}");
    ensure!(!cluster.kubectl(&["get", "namespace", "-o", "name"])?.contains("shop"), "{gone}");
    cluster.assert_plans_nothing();
    Ok(())
}

fn the_state_is_kept_until_every_host_was_cleaned(cluster: &Cluster) -> Result<()> {
    let state = cluster.folder().join("cluster.bastide");
    let remove = || cluster.bastide(&["remove", "--yes", "--cluster", "test"]);
    cluster.host("h2").cut()?;
    let missed = remove()?;
    ensure!(missed.code == Some(3) && missed.stderr.contains("h2"), "{missed}");
    ensure!(state.exists(), "the keys are gone, and h2 still holds some: {missed}");
    cluster.host("h2").heal()?;
    cluster.host("h2").wait()?;
    let removed = remove()?;
    ensure!(removed.code == Some(0) && !state.exists(), "{removed}");
    cluster.host("h2").ssh("test ! -e /var/lib/bastide && test ! -e /etc/kubernetes").map(drop)
}
