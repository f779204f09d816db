//! One host: its authorities are exchanged, and its key for service-account tokens; by runs that are killed, and back.

use std::fs;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use serde_json::Value;

use crate::support::Cluster;

const CA: [&str; 3] = ["rotate-certs", "--ca", "--yes"];
const TOKEN_KEY: [&str; 3] = ["rotate-certs", "--service-account-key", "--yes"];
/// Words of the legs in the history.
const ACCEPT: &str = "accepted beside";
const ISSUE: &str = "issues";
const SIGN: &str = "the new one signs";
const DROP: &str = "accepted no more";

/// Kills a run a moment after it began a leg whose words these are.
fn killed_in(cluster: &Cluster, arguments: &[&str], words: &str, later: Duration) -> Result<()> {
    let before = cluster.newest()?["id"]["number"].as_u64();
    let mut child = cluster.command(arguments).stderr(std::process::Stdio::null()).spawn()?;
    let start = Instant::now();
    loop {
        let newest = cluster.newest()?;
        let begun = newest["id"]["number"].as_u64() > before && newest["state"]["state"] == "started";
        if begun && newest["why"].as_str().is_some_and(|why| why.contains(words)) {
            std::thread::sleep(later);
            child.kill()?;
            child.wait()?;
            println!("killed in {words:?} after {:.1} s", start.elapsed().as_secs_f64());
            return Ok(());
        }
        let ended = child.try_wait()?;
        anyhow::ensure!(ended.is_none(), "the run ended ({ended:?}) before {words:?}: {newest}");
        anyhow::ensure!(start.elapsed() < Duration::from_mins(6), "{words:?} never came: {newest}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The names of the three authorities, as their files on the first host have them.
fn authorities(cluster: &Cluster) -> Result<Vec<String>> {
    let script = "for f in /etc/kubernetes/pki/ca.crt /etc/etcd/pki/ca.crt /etc/kubernetes/pki/front-proxy-ca.crt; do \
                  openssl crl2pkcs7 -nocrl -certfile $f | openssl pkcs7 -print_certs -noout | sed -n 's/^subject=CN *= *//p'; done";
    Ok(cluster.host("h1").ssh(script)?.lines().map(str::to_owned).collect())
}

/// All that the servers say in a handshake who listen on any port of any host, on loopback alone too, and metrics-server in its pod: the
/// certificates that they show, and the names of the authorities that they accept of a client. A heading for each that speaks TLS.
fn handshakes(cluster: &Cluster) -> Result<String> {
    const ASK: &str = "ask() { said=$(timeout 10 openssl s_client -connect $1 -showcerts </dev/null 2>/dev/null | grep -o 'CN *= *[^,/]*' | sort -u); \
                       [ -z \"$said\" ] || printf '== %s\n%s\n' $1 \"$said\"; }; ";
    let script = format!(
        "{ASK} a=$(hostname -I | cut -d' ' -f1); \
         for hex in $(awk '$4 == \"0A\" {{ sub(/.*:/, \"\", $2); print $2 }}' /proc/net/tcp /proc/net/tcp6 | sort -u); do \
         p=$(printf '%d' 0x$hex); [ $p = 22 ] || {{ ask $a:$p; ask 127.0.0.1:$p; }}; done"
    );
    let mut all: String = cluster.hosts().iter().map(|host| host.ssh(&script)).collect::<Result<_>>()?;
    if cluster.file.metrics {
        let pods = [
            "-n",
            "kube-system",
            "get",
            "pods",
            "-l",
            "k8s-app=metrics-server",
            "-o",
            "jsonpath={.items[*].status.podIP}",
        ];
        for pod in cluster.kubectl(&pods)?.split_whitespace() {
            all.push_str(&cluster.host("h1").ssh(&format!("{ASK} ask {pod}:10250"))?);
        }
    }
    Ok(all)
}

/// Addresses and ports of one host's servers that speak TLS, and with which certificates.
const SPEAKERS: [&str; 6] = [":6443\n", ":10250\n", ":2379\n", ":2380\n", "127.0.0.1:10257\n", "127.0.0.1:10259\n"];

/// Everything answers, in the cluster too, and nothing differs.
fn well(cluster: &Cluster) -> Result<()> {
    let answers = |text: &str| text.contains("h1");
    let nodes = ["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"];
    cluster.kubectl_until(&nodes, Duration::from_mins(2), answers)?;
    // Its logs go through the kubelet. API servers close their connections to kubelets when they take up another certificate.
    let logs = ["-n", "kube-system", "logs", "deployment/coredns", "--tail=1"];
    cluster.kubectl_until(&logs, Duration::from_secs(20), |text| !text.is_empty())?;
    // Where the only API server was restarted several times, what ended with it is started anew after a growing pause.
    let start = Instant::now();
    loop {
        let status = cluster.bastide(&["status"])?;
        if status.code == Some(0) {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(3), "{status}");
        std::thread::sleep(Duration::from_secs(2));
    }
    cluster.assert_plans_nothing();
    Ok(())
}

/// Whoever reads metrics sees whether the front proxy and the kubelets are believed.
fn with_metrics() -> Result<Cluster> {
    let mut cluster = Cluster::one_host()?;
    cluster.file.metrics = true;
    cluster.write()?;
    Ok(cluster)
}

/// Hosts at rest, the names of their authorities, and the operator's kubeconfig.
fn begin(cluster: Cluster) -> Result<(Cluster, Vec<String>, String)> {
    cluster.up();
    cluster.wait_pods_ready(Duration::from_mins(3))?;
    let old = authorities(&cluster)?;
    assert_eq!(old.len(), 3, "{old:?}");
    let operators = fs::read_to_string(cluster.folder().join("kube_config_cluster.yml"))?;
    Ok((cluster, old, operators))
}

/// Three others are there, and nobody shows or believes one of the old ones.
fn exchanged(cluster: &Cluster, old: &[String], operators: &str) -> Result<()> {
    let new = authorities(cluster)?;
    assert_eq!(new.len(), 3, "{new:?}");
    let shown = handshakes(cluster)?;
    for speaker in SPEAKERS {
        assert!(shown.matches(speaker).count() >= cluster.hosts().len(), "{speaker}: {shown}");
    }
    assert!(old.iter().all(|name| !new.contains(name) && !shown.contains(name.as_str())), "{old:?}\n{shown}");
    // The servers are signed by the first two, and the third stands among those that an API server accepts.
    assert!(new.iter().all(|name| shown.contains(name.as_str())), "{new:?}\n{shown}");
    let published =
        ["-n", "kube-system", "get", "configmap", "extension-apiserver-authentication", "-o", "jsonpath={.data}"];
    assert_eq!(cluster.kubectl(&published)?.matches("BEGIN CERTIFICATE").count(), 2);
    refused(cluster, operators)?;
    well(cluster)
}

#[test]
fn authorities_are_exchanged_on_a_running_host() -> Result<()> {
    let (cluster, old, operators) = begin(with_metrics()?)?;
    // The last leg does not begin while pods hold the old trust; with that they go on.
    let stopped = cluster.ends(&CA, 1);
    assert!(stopped.stderr.contains("coredns") && stopped.stderr.contains("--restart-pods"), "{stopped}");
    assert_eq!(authorities(&cluster)?.len(), 6);
    let shown = handshakes(&cluster)?;
    assert!(old.iter().all(|name| shown.contains(name.as_str())), "{old:?}\n{shown}");
    well(&cluster)?;
    assert_eq!(cluster.snapshots_before("before-rotate-certs-ca")?, 1, "one before two legs");
    cluster.ends(&[&CA[..], &["--restart-pods", "--no-last-snapshot"]].concat(), 0);
    assert_eq!(cluster.snapshots_before("before-rotate-certs-ca")?, 1, "none where nobody wants one");
    exchanged(&cluster, &old, &operators)
}

#[test]
fn the_token_key_is_exchanged_on_a_running_host() -> Result<()> {
    let (cluster, ..) = begin(with_metrics()?)?;
    token_key(&cluster)
}

#[test]
#[ignore = "long: soak alone"]
fn authorities_are_exchanged_by_runs_that_die_and_come_back() -> Result<()> {
    let (cluster, old, operators) = begin(with_metrics()?)?;
    let moment = Duration::from_secs(4);
    killed_in(&cluster, &CA, ACCEPT, moment)?;
    killed_in(&cluster, &CA, ISSUE, moment)?;
    cluster.ends(&["rollback", "--to", "1", "--yes"], 0);
    assert_eq!(authorities(&cluster)?, old);
    let shown = handshakes(&cluster)?;
    assert!(old.iter().all(|name| shown.contains(name.as_str())), "{old:?}\n{shown}");
    well(&cluster)?;

    let to_the_end = [&CA[..], &["--restart-pods"]].concat();
    killed_in(&cluster, &to_the_end, DROP, Duration::from_secs(90))?;
    cluster.ends(&to_the_end, 0);
    exchanged(&cluster, &old, &operators)?;
    // One leg back, and forward again.
    cluster.ends(&["rollback", "--yes"], 0);
    assert_eq!(authorities(&cluster)?.len(), 6);
    well(&cluster)?;
    cluster.ends(&to_the_end, 0);
    exchanged(&cluster, &old, &operators)
}

#[test]
#[ignore = "long: soak alone"]
fn authorities_are_exchanged_on_three_hosts() -> Result<()> {
    let (cluster, old, operators) = begin(Cluster::three_all_roles()?)?;
    let to_the_end = [&CA[..], &["--restart-pods"]].concat();
    cluster.ends(&to_the_end, 0);
    exchanged(&cluster, &old, &operators)?;
    cluster.ends(&["rollback", "--to", "1", "--yes"], 0);
    assert_eq!(authorities(&cluster)?, old);
    well(&cluster)
}

/// The names of the keys that verify tokens.
fn token_keys(cluster: &Cluster) -> Result<Vec<String>> {
    let keys: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", "/openid/v1/jwks"])?)?;
    let keys = keys["keys"].as_array().context("no keys")?;
    Ok(keys.iter().map(|key| key["kid"].to_string()).collect())
}

#[test]
#[ignore = "long: soak alone"]
fn the_token_key_is_exchanged_by_runs_that_die_and_comes_back() -> Result<()> {
    let (cluster, ..) = begin(with_metrics()?)?;
    let (old, moment) = (token_keys(&cluster)?, Duration::from_secs(4));
    killed_in(&cluster, &TOKEN_KEY, ACCEPT, moment)?;
    killed_in(&cluster, &TOKEN_KEY, SIGN, moment)?;
    cluster.ends(&["rollback", "--to", "1", "--yes"], 0);
    assert_eq!(token_keys(&cluster)?, old);
    well(&cluster)?;
    let to_the_end = [&TOKEN_KEY[..], &["--distrust-old", "--restart-pods"]].concat();
    killed_in(&cluster, &to_the_end, DROP, moment)?;
    cluster.ends(&to_the_end, 0);
    let new = token_keys(&cluster)?;
    assert!(new.len() == 1 && new != old, "{old:?} {new:?}");
    well(&cluster)
}

/// A kubeconfig of before, even with today's authority in it, opens nothing.
fn refused(cluster: &Cluster, operators: &str) -> Result<()> {
    let authority = |text: &str| {
        let line = text.lines().find(|line| line.trim().starts_with("certificate-authority-data"));
        line.map(|line| line.trim().to_owned()).context("no authority in a kubeconfig")
    };
    let today = fs::read_to_string(cluster.folder().join("kube_config_cluster.yml"))?;
    let mixed = operators.replace(&authority(operators)?, &authority(&today)?);
    for (text, why) in [(operators, "certificate signed by unknown authority"), (&mixed, "nauthorized")] {
        let file = cluster.add_file("old.yml", text)?.display().to_string();
        let refused = cluster.kubectl(&["--kubeconfig", &file, "get", "--raw", "/api"]);
        let words = refused.err().context("the old kubeconfig still opens the cluster")?.to_string();
        assert!(words.contains(why), "{words}");
    }
    Ok(())
}

/// The name of the key that signed the token in a Secret.
fn signed_by(cluster: &Cluster) -> Result<String> {
    let token = cluster.kubectl(&["get", "secret", "legacy", "-o", "jsonpath={.data.token}"])?;
    let script = format!(
        "echo {token} | base64 -d | cut -d. -f1 | tr _- /+ | sed 's/$/==/' | base64 -d 2>/dev/null | grep -o 'kid\":\"[^\"]*'"
    );
    cluster.host("h1").ssh(&script)
}

fn token_key(cluster: &Cluster) -> Result<()> {
    let legacy = "apiVersion: v1\nkind: Secret\nmetadata: {name: legacy, namespace: default, annotations: {kubernetes.io/service-account.name: default}}\ntype: kubernetes.io/service-account-token\n";
    let file = cluster.add_file("legacy.yml", legacy)?;
    cluster.kubectl(&["create", "-f", &file.display().to_string()])?;
    let path = ["get", "secret", "legacy", "-o", "jsonpath={.data.token}"];
    cluster.kubectl_until(&path, Duration::from_secs(30), |text| !text.is_empty())?;
    let before = signed_by(cluster)?;

    let waits = cluster.ends(&TOKEN_KEY, 1);
    assert!(waits.stderr.contains("must have read them anew"), "{waits}");
    assert!(waits.stderr.contains("may still be in use until 20"), "{waits}");
    well(cluster)?;
    let distrusted = [&TOKEN_KEY[..], &["--distrust-old"]].concat();
    let pods = cluster.ends(&distrusted, 1);
    assert!(pods.stderr.contains("coredns"), "{pods}");
    cluster.ends(&[&distrusted[..], &["--restart-pods", "--reissue-tokens"]].concat(), 0);
    assert_ne!(signed_by(cluster)?, before);
    assert_eq!(token_keys(cluster)?.len(), 1);
    well(cluster)?;
    let barred = cluster.ends(&["rollback", "--yes"], 1);
    assert!(barred.stderr.contains("old-distrusted"), "{barred}");
    Ok(())
}
