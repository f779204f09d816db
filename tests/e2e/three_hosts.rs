//! Three hosts with every role, brought up once and then asked for everything that is promised of a running cluster. Each
//! check stands on its own; they share the cluster because it takes longer to make than all of them.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::io::BufReader;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use serde_json::Value;

use crate::secrecy;
use crate::support::Cluster;
use crate::support::network;
use crate::support::whole;

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn a_cluster_is_what_it_promises_to_be() -> Result<()> {
    let mut cluster = Cluster::three_all_roles()?;
    secrecy::watch_arguments(&cluster)?;
    let up = cluster.bastide(&["-v", "up", "--yes", "--no-identity-backup"])?;
    ensure!(up.code == Some(0), "{up}");
    secrecy::no_secret_is_shown(&cluster, &up)?;
    cluster.wait_nodes_ready(3 * MINUTE)?;
    cluster.wait_pods_ready(3 * MINUTE)?;
    a_second_up_changes_nothing(&cluster)?;
    kube_bench_finds_no_failure(&cluster)?;
    secrets_are_unreadable_in_etcd(&cluster)?;
    requests_leave_their_line_in_the_audit_log(&cluster)?;
    strangers_reach_the_health_paths_only(&cluster)?;
    loopback_ports_are_closed_to_other_hosts(&cluster)?;
    network::works_between_all_hosts(&cluster)?;
    pods_can_be_entered_read_and_rolled(&cluster)?;
    an_etcd_leader_gives_up_before_its_restart(&mut cluster)?;
    the_kubeconfig_is_the_owner_s_alone(&cluster)
}

/// Times of files, processes and versions of objects: nothing may move. What the cluster itself changes all the time
/// (leases, status) is left out.
fn a_second_up_changes_nothing(cluster: &Cluster) -> Result<()> {
    let before = state(cluster)?;
    let ended = cluster.up();
    ensure!(ended.took < MINUTE, "a no-op took {:?}", ended.took);
    cluster.assert_plans_nothing();
    let after = state(cluster)?;
    for (what, value) in &before {
        ensure!(after.get(what) == Some(value), "{what}: was {value}, is {:?}", after.get(what));
    }
    ensure!(
        after.len() == before.len(),
        "{:?}",
        after.keys().filter(|what| !before.contains_key(*what)).collect::<Vec<_>>()
    );
    Ok(())
}

fn state(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let mut seen = BTreeMap::new();
    for host in cluster.hosts() {
        let files = host.ssh(
            "find /etc/kubernetes /etc/etcd /etc/containerd /etc/systemd/system /etc/sysctl.d /etc/modules-load.d \
             /var/lib/kubelet/config.yaml /opt/bastide -type f -printf '%p %T@ %m %U:%G\\n'; \
             pgrep -x 'kubelet|containerd|etcd|kube-apiserver|kube-controller|kube-scheduler|kube-proxy' -l | awk '{print \"process \" $2 \" \" $1}'",
        )?;
        for line in files.lines() {
            let (what, value) = line.rsplit_once(' ').context("a line of find")?;
            seen.insert(format!("{}: {what}", host.name()), value.to_owned());
        }
    }
    let kinds = "deployments,daemonsets,services,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings";
    let objects: Value = serde_json::from_str(&cluster.kubectl(&["get", kinds, "-A", "-o", "json"])?)?;
    for object in objects["items"].as_array().context("no items")? {
        let metadata = &object["metadata"];
        let version =
            metadata["generation"].as_u64().map_or_else(|| metadata["resourceVersion"].to_string(), |n| n.to_string());
        seen.insert(format!("{} {}/{}", object["kind"], metadata["namespace"], metadata["name"]), version);
    }
    Ok(seen)
}

fn kube_bench_finds_no_failure(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        let verdict = bed::judge(&host)?;
        ensure!(verdict.fail == 0 && verdict.pass >= 90, "{}: {verdict:#?}", host.name());
        // In the words of those who look for themselves.
        let manifests = ["kube-scheduler", "kube-controller-manager"];
        let owners = manifests.map(|name| format!("stat -c %U:%G /etc/kubernetes/manifests/{name}.yaml")).join("; ");
        ensure!(host.ssh(&owners)? == "root:root\nroot:root\n", "{}", host.name());
    }
    Ok(())
}

fn secrets_are_unreadable_in_etcd(cluster: &Cluster) -> Result<()> {
    const MARK: &str = "unreadable-in-etcd-4711";
    cluster.create_secret("mark", MARK)?;
    ensure!(cluster.kubectl(&["get", "secret", "mark", "-o", "jsonpath={.data.word}"])?.len() > 10);
    for host in cluster.hosts() {
        // The name is there, so the search would have found the value.
        host.until("grep -rqa /registry/secrets/default/mark /var/lib/etcd", MINUTE)?;
        ensure!(host.ssh(&format!("grep -rla {MARK} /var/lib/etcd")).is_err(), "{}: in clear in etcd", host.name());
        ensure!(
            host.ssh("grep -rqa k8s:enc:secretbox:v1: /var/lib/etcd").is_ok(),
            "{}: no secretbox prefix",
            host.name()
        );
    }
    Ok(())
}

fn requests_leave_their_line_in_the_audit_log(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "configmap", "audited-4712"])?;
    let log = "/var/log/kubernetes/audit/audit.log";
    // The Secret's own request is there too: that its content is not is checked below.
    for object in [
        "\"resource\":\"configmaps\",\"namespace\":\"default\",\"name\":\"audited-4712\"",
        "\"resource\":\"secrets\",\"namespace\":\"default\",\"name\":\"mark\"",
    ] {
        let script = format!("grep -qF '{object}' {log}");
        let start = std::time::Instant::now();
        while !cluster.hosts().iter().any(|host| host.ssh(&script).is_ok()) {
            ensure!(start.elapsed() < MINUTE, "no host has {object} in {log}");
        }
    }
    for host in cluster.hosts() {
        let mode = host.ssh(&format!("stat -c %a:%U {log}"))?;
        ensure!(mode.trim() == "600:root", "{}: {log} is {mode}", host.name());
        ensure!(host.ssh(&format!("grep -q unreadable-in-etcd {log}")).is_err(), "{}: a Secret in {log}", host.name());
    }
    Ok(())
}

/// The host whose etcd member leads.
fn leader(cluster: &Cluster) -> Result<String> {
    let leads = "for folder in /opt/bastide/*/; do PATH=$PATH:$folder; done
        status=$(crictl exec $(crictl ps -q --name '^etcd$') etcdctl --endpoints=https://127.0.0.1:2379 \\
            --cacert=/etc/etcd/pki/ca.crt --cert=/etc/etcd/pki/healthcheck-client.crt \\
            --key=/etc/etcd/pki/healthcheck-client.key endpoint status --write-out=fields)
        field() { printf '%s\\n' \"$status\" | sed -n \"s/^\\\"$1\\\" : //p\" | head -n 1; }
        test -n \"$(field Leader)\" && test \"$(field MemberID)\" = \"$(field Leader)\"";
    let hosts = cluster.hosts();
    let leading = hosts.iter().find(|host| host.ssh(leads).is_ok()).context("no member leads")?;
    Ok(leading.name().to_owned())
}

/// What a plan asks the host for before it restarts a leader; in `soak` a whole change, whose last member is the leader.
fn an_etcd_leader_gives_up_before_its_restart(cluster: &mut Cluster) -> Result<()> {
    let before = leader(cluster)?;
    cluster.host(&before).ssh("/opt/bastide/ordered-shutdown yield")?;
    let now = leader(cluster)?;
    ensure!(now != before, "{before} leads as before");
    if !whole() {
        return Ok(());
    }
    "services:\n  etcd:\n    extra_args:\n      snapshot-count: 10001\n".clone_into(&mut cluster.file.more);
    cluster.write()?;
    let plan = cluster.bastide(&["plan", "--output", "json"])?;
    let plan: Value = serde_json::from_str(&plan.stdout)?;
    let stages = plan["plan"]["stages"].as_array().context("no stages")?;
    let etcd = stages.iter().find(|stage| stage["title"] == "etcd, one member at a time").context("no etcd")?;
    let order: Vec<_> = etcd["steps"].as_array().into_iter().flatten().map(|step| step["host"].as_str()).collect();
    ensure!(order.len() == 3 && order.last() == Some(&Some(now.as_str())), "{now} leads; the order is {order:?}");
    cluster.up();
    ensure!(leader(cluster)? != now, "{now} leads although it was the last to restart");
    cluster.assert_plans_nothing();
    Ok(())
}

fn strangers_reach_the_health_paths_only(cluster: &Cluster) -> Result<()> {
    for host in cluster.hosts() {
        let status = |path: &str| -> Result<String> {
            let url = format!("https://{}:6443{path}", host.address());
            let output = cluster
                .bed
                .command("curl")
                .args(["-sk", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", &url])
                .output()?;
            Ok(String::from_utf8(output.stdout)?)
        };
        for path in ["/livez", "/readyz", "/healthz"] {
            ensure!(status(path)? == "200", "{}: {path} {}", host.name(), status(path)?);
        }
        for path in [
            "/",
            "/version",
            "/api",
            "/apis",
            "/metrics",
            "/openapi/v3",
            "/api/v1/secrets",
            "/livez/etcd",
            "/debug/pprof/",
        ] {
            ensure!(status(path)? == "401", "{}: {path} {}", host.name(), status(path)?);
        }
    }
    Ok(())
}

/// Health, metrics and profiles of the components are for their own host alone.
fn loopback_ports_are_closed_to_other_hosts(cluster: &Cluster) -> Result<()> {
    let hosts = cluster.hosts();
    for (from, to) in hosts.iter().zip(hosts.iter().cycle().skip(1)) {
        let open = |port: u16| {
            let dial = format!("timeout 10 bash -c ': < /dev/tcp/{}/{port}' 2>/dev/null", to.address());
            from.ssh(&dial).is_ok()
        };
        // What is meant for others answers, so the way there is open.
        for port in [6443, 10250, 10256] {
            ensure!(open(port), "{}: {port} is closed to {}", to.name(), from.name());
        }
        for port in [2381, 10248, 10249, 10255, 10257, 10259] {
            ensure!(!open(port), "{}: {port} is open to {}", to.name(), from.name());
        }
        let listening = to.ssh("grep -hs ' 0A ' /proc/net/tcp /proc/net/tcp6")?;
        for port in [2381, 10248, 10249, 10257, 10259] {
            ensure!(listening.contains(&format!(":{port:04X} ")), "{}: nobody listens on {port}", to.name());
        }
    }
    Ok(())
}

fn pods_can_be_entered_read_and_rolled(cluster: &Cluster) -> Result<()> {
    // The kubelet shows a static pod in the API only at its next sync after the server came up.
    let members = ["get", "pods", "-n", "kube-system", "-l", "component=etcd", "-o", "name"];
    let listed = cluster.kubectl_until(&members, 3 * MINUTE, |text| !text.trim().is_empty())?;
    let pod = listed.lines().next().unwrap_or_default().to_owned();
    ensure!(cluster.kubectl(&["exec", "-n", "kube-system", &pod, "--", "etcd", "--version"])?.contains("etcd Version"));
    ensure!(cluster.kubectl(&["logs", "-n", "kube-system", &pod, "--tail=5"])?.lines().count() > 0);
    ports_are_forwarded(cluster, &pod)?;
    cluster.kubectl(&["rollout", "restart", "-n", "kube-system", "deployment/coredns"])?;
    cluster.kubectl(&["rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=180s"])?;
    cluster.kubectl_until(&["top", "nodes", "--no-headers"], 3 * MINUTE, |text| text.lines().count() == 3)?;
    cluster.assert_plans_nothing();
    Ok(())
}

/// etcd's own metrics, which only its host's loopback has, come through a forwarded port.
fn ports_are_forwarded(cluster: &Cluster, pod: &str) -> Result<()> {
    let mut forward = cluster.kubectl_command();
    forward.args(["port-forward", "-n", "kube-system", pod, ":2381"]).stdout(std::process::Stdio::piped());
    let mut forward = forward.spawn()?;
    let mut line = String::new();
    // It lives as long as somebody reads what it says.
    let mut said = BufReader::new(forward.stdout.take().context("no output")?);
    let heard = said.read_line(&mut line);
    let answer = heard.map_err(anyhow::Error::from).and_then(|_| {
        // `Forwarding from 127.0.0.1:40157 -> 2381`
        let address = line.split_whitespace().nth(2).with_context(|| format!("no address in {line:?}"))?;
        let output =
            cluster.bed.command("curl").args(["-s", "-m", "20", &format!("http://{address}/health")]).output()?;
        Ok(String::from_utf8(output.stdout)?)
    });
    forward.kill()?;
    forward.wait()?;
    let answer = answer?;
    ensure!(answer.contains("\"health\":\"true\""), "{line}: {answer}");
    Ok(())
}

fn the_kubeconfig_is_the_owner_s_alone(cluster: &Cluster) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = cluster.folder().join("kube_config_cluster.yml");
    ensure!(std::fs::metadata(path)?.permissions().mode() & 0o777 == 0o600);
    let may: String = cluster.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}"])?;
    ensure!(!may.contains("system:masters"), "{may}");
    Ok(())
}
