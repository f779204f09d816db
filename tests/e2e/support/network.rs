//! Pod-to-pod over hosts, ClusterIP, NodePort and DNS, from everywhere to everywhere.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use bed::Cache;

use crate::support::Cluster;

const PATIENCE: Duration = Duration::from_mins(1);

const WEB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/addons/web.yaml");

/// A web server on each node, behind a service.
pub(crate) fn runs_a_web_server_on_each(cluster: &Cluster) -> Result<()> {
    let image = Cache::from_environment().bundle(&cluster.file.minor).join("images/toolbox.tar");
    for host in cluster.hosts() {
        host.put(&image, "/root/toolbox.tar")?;
        host.ssh("PATH=$PATH:$(dirname $(readlink -f /proc/$(pgrep -xo containerd)/exe)); ctr -n k8s.io images import --local /root/toolbox.tar; rm /root/toolbox.tar")?;
    }
    cluster.kubectl(&["apply", "-f", WEB])?;
    cluster.kubectl(&["rollout", "status", "ds/web", "--timeout=180s"]).map(drop)
}

/// Runs a web server on each node and calls it in every way there is.
pub(crate) fn works_between_all_hosts(cluster: &Cluster) -> Result<()> {
    runs_a_web_server_on_each(cluster)?;
    let columns = "custom-columns=N:.metadata.name,I:.status.podIP";
    let listed = cluster.kubectl(&["get", "pods", "-l", "app=web", "--no-headers", "-o", columns])?;
    let pods: Vec<(&str, &str)> = listed
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            Ok((words.next().context("name")?, words.next().context("address")?))
        })
        .collect::<Result<_>>()?;
    anyhow::ensure!(pods.len() == cluster.hosts().len(), "{listed}");
    let service = cluster.kubectl(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"])?;

    for (pod, _) in &pods {
        let inside = |words: &[&str]| cluster.kubectl(&[&["exec", pod, "--", "/bin/bedhelper"], words].concat());
        for (other, address) in &pods {
            patiently(&format!("{pod} to {other}"), || inside(&["get", &format!("http://{address}:8080/")]))?;
        }
        patiently(&format!("{pod} to the service"), || inside(&["get", &format!("http://{service}/")]))?;
        patiently(&format!("{pod} asks DNS"), || inside(&["lookup", "kubernetes.default.svc.cluster.local"]))?;
        patiently(&format!("{pod} asks DNS by search list"), || inside(&["lookup", "web"]))?;
    }
    for host in cluster.hosts() {
        patiently(&format!("{} to the service", host.name()), || host.ssh(&format!("curl -sfm5 http://{service}/")))?;
        patiently(&format!("node port of {}", host.name()), || {
            let url = format!("http://{}:30080/", host.address());
            let output = cluster.bed.command("curl").args(["-sfm5", &url]).output()?;
            anyhow::ensure!(output.status.success(), "{url}: {}", output.status);
            Ok(String::new())
        })?;
    }
    cluster.kubectl(&["delete", "-f", WEB, "--wait=false"])?;
    Ok(())
}

/// Rules and routes follow a pod by a moment: an answer counts when it comes within a minute.
fn patiently(what: &str, mut attempt: impl FnMut() -> Result<String>) -> Result<()> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE => return Err(error.context(what.to_owned())),
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}
