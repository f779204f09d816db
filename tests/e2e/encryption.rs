//! One host with many Secrets: its encryption key is exchanged by runs that are killed on each leg, and comes back.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use serde_json::Value;

use crate::support::Cluster;
use crate::support::Ended;

const SECRETS: usize = 300;

#[track_caller]
fn ends(cluster: &Cluster, arguments: &[&str], code: i32) -> Ended {
    let ended = cluster.bastide(arguments).unwrap();
    assert_eq!(ended.code, Some(code), "bastide {arguments:?}: {ended}");
    ended
}

/// How many Secrets begin with which mark, as etcd's own client reads them.
fn marks(cluster: &Cluster) -> Result<BTreeMap<String, usize>> {
    let script = "export PATH=$PATH:$(dirname $(find /opt/bastide -name crictl | head -1)); \
                  crictl exec $(crictl ps --name '^etcd$' -q | head -1) etcdctl --endpoints https://127.0.0.1:2379 \
                  --cacert /etc/etcd/pki/ca.crt --cert /etc/etcd/pki/healthcheck-client.crt --key /etc/etcd/pki/healthcheck-client.key \
                  get --prefix /registry/secrets/ --print-value-only | grep -a -o 'k8s:enc:[a-z]*:v1:[a-z0-9-]*:' | sort | uniq -c";
    let seen = cluster.host("h1").ssh(script)?;
    let lines = seen.lines().filter_map(|line| line.trim().split_once(' '));
    lines.map(|(count, mark)| Ok((mark.to_owned(), count.parse()?))).collect()
}

fn api_server(cluster: &Cluster) -> Result<String> {
    cluster.host("h1").ssh(
        "export PATH=$PATH:$(dirname $(find /opt/bastide -name crictl | head -1)); crictl ps --name kube-apiserver -q",
    )
}

fn status(cluster: &Cluster, code: i32) -> Result<Value> {
    Ok(serde_json::from_str(&ends(cluster, &["encrypt", "status", "--output", "json"], code).stdout)?)
}

/// Kills a rotation once the history's newest revision has this number.
fn killed_at(cluster: &Cluster, revision: u64) -> Result<()> {
    let mut child = cluster.command(&["encrypt", "rotate-key", "--yes"]).spawn()?;
    let start = Instant::now();
    loop {
        let history = cluster.bastide(&["history", "--output", "json"])?;
        let seen: Value = serde_json::from_str(&history.stdout)?;
        let newest = seen["revisions"].as_array().and_then(|all| all.last()?["id"]["number"].as_u64());
        let number = newest.context("no revision")?;
        if number >= revision {
            child.kill()?;
            child.wait()?;
            println!("killed in revision {number} after {:?}", start.elapsed());
            return Ok(());
        }
        anyhow::ensure!(start.elapsed() < Duration::from_mins(10), "revision {revision} never came: {seen}");
    }
}

#[test]
#[ignore = "long: soak alone"]
fn an_encryption_key_is_exchanged_by_runs_that_die_and_comes_back() -> Result<()> {
    let cluster = Cluster::one_host()?;
    cluster.up();
    let many: String = (0..SECRETS)
        .map(|n| format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s{n}, namespace: default}}\nstringData: {{a: value-{n}}}\n"))
        .collect();
    let file = cluster.add_file("secrets.yml", &many)?;
    cluster.kubectl(&["create", "-f", &file.display().to_string()])?;
    let (before, server) = (marks(&cluster)?, api_server(&cluster)?);
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!(status(&cluster, 0)?["settled"], true);

    // One leg is one revision; the last run goes to the end.
    for revision in 2..=4 {
        killed_at(&cluster, revision)?;
    }
    ends(&cluster, &["encrypt", "rotate-key", "--yes"], 0);
    let after = marks(&cluster)?;
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!(after.values().sum::<usize>(), before.values().sum::<usize>());
    assert_ne!(after.keys().next(), before.keys().next());
    assert_eq!(status(&cluster, 0)?["settled"], true);
    assert_eq!(api_server(&cluster)?, server, "the API server was restarted");
    let path = "jsonpath={.data.a}";
    assert_eq!(cluster.kubectl(&["get", "secret", "s7", "-o", path])?, "dmFsdWUtNw==");
    cluster.assert_plans_nothing();

    ends(&cluster, &["rollback", "--to", "1", "--yes"], 0);
    assert_eq!(marks(&cluster)?, before);
    assert_eq!(status(&cluster, 0)?["settled"], true);
    assert_eq!(cluster.kubectl(&["get", "secret", "s7", "-o", path])?, "dmFsdWUtNw==");
    cluster.assert_plans_nothing();
    Ok(())
}
