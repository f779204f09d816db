//! One host with Secrets: its encryption key is exchanged, and what encrypts, by runs that are killed on each leg, and comes back.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use serde_json::Value;

use crate::support::Cluster;

const SECRETS: usize = 300;

/// How many Secrets begin with which mark, as etcd's own client reads them.
fn marks(cluster: &Cluster) -> Result<BTreeMap<String, usize>> {
    let script = "export PATH=$PATH:$(dirname $(find /opt/bastide -name crictl | head -1)); \
                  crictl exec $(crictl ps --name '^etcd$' -q | head -1) etcdctl --endpoints https://127.0.0.1:2379 \
                  --cacert /etc/etcd/pki/ca.crt --cert /etc/etcd/pki/healthcheck-client.crt --key /etc/etcd/pki/healthcheck-client.key \
                  get --prefix /registry/secrets/ --print-value-only | grep -a -o 'k8s:enc:[a-z]*:v[12]:[a-z0-9-]*:' | sort | uniq -c";
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
    Ok(serde_json::from_str(&cluster.ends(&["encrypt", "status", "--output", "json"], code).stdout)?)
}

/// Kills a run once it has said these words, one after another.
fn killed_when(cluster: &Cluster, arguments: &[&str], words: &[&str]) -> Result<()> {
    let start = Instant::now();
    let mut command = cluster.command(arguments);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (sender, lines) = mpsc::channel();
    let streams: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().context("stdout")?), Box::new(child.stderr.take().context("stderr")?)];
    for stream in streams {
        let sender = sender.clone();
        thread::spawn(move || {
            BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
    }
    drop(sender);
    let mut seen = Vec::new();
    let mut left = words.iter().peekable();
    while let Some(word) = left.peek() {
        let Ok(line) = lines.recv_timeout(Duration::from_mins(10)) else {
            child.kill()?;
            anyhow::bail!("it never said {word:?}: {seen:#?}\n{}", child.wait()?)
        };
        if line.contains(**word) {
            left.next();
        }
        seen.push(line);
    }
    child.kill()?;
    child.wait()?;
    println!("killed at {words:?} after {:?}", start.elapsed());
    Ok(())
}

/// Kills a run on each leg of an exchange of encryption keys: while API servers take them up, and among the objects.
fn killed_on_each_leg(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    // How many objects are done is said on terminals, and elsewhere to whoever asks.
    let arguments = &[arguments, &["--verbose"]].concat();
    killed_when(cluster, arguments, &["(legs left: 3)", "takes up the encryption keys"])?;
    killed_when(cluster, arguments, &["(legs left: 2)", "takes up the encryption keys"])?;
    killed_when(cluster, arguments, &["then they are dropped", "objects are written anew"])
}

const UP: &[&str] = &["up", "--yes", "--no-identity-backup"];

/// An `EncryptionConfiguration` of cluster.yml's own with these providers for Secrets.
fn custom(providers: &str) -> String {
    format!(
        "services:
  kube-api:
    secrets_encryption_config:
      enabled: true
      custom_config:
        apiVersion: apiserver.config.k8s.io/v1
        kind: EncryptionConfiguration
        resources:
          - resources: [secrets]
            providers: [{providers}]
"
    )
}

/// What RKE gives a cluster: a key of 32 bytes for AES-CBC, and what lies there in clear.
const RKE: &str =
    "{aescbc: {keys: [{name: key-fw5hn, secret: QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoyMzQ1Njc=}]}}, {identity: {}}";

/// Every Secret lies under one key of this provider, and can be read.
fn all_lie_under(cluster: &Cluster, provider: &str) -> Result<String> {
    let seen = marks(cluster)?;
    assert_eq!(seen.len(), 1, "{seen:?}");
    let (mark, count) = seen.into_iter().next().context("no Secrets")?;
    assert!(mark.starts_with(&format!("k8s:enc:{provider}:")), "{mark}");
    let names = cluster.kubectl(&["get", "secrets", "-A", "-o", "name"])?;
    assert_eq!(names.lines().count(), count);
    assert_eq!(cluster.kubectl(&["get", "secret", "s7", "-o", "jsonpath={.data.a}"])?, "dmFsdWUtNw==");
    Ok(mark)
}

#[test]
fn what_rke_encrypted_is_walked_to_a_key_of_bastide_s_own() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    cluster.file.more = custom(RKE);
    cluster.write()?;
    cluster.up();
    cluster.create_secrets(10)?;
    assert_eq!(all_lie_under(&cluster, "aescbc")?, "k8s:enc:aescbc:v1:key-fw5hn:");
    let server = api_server(&cluster)?;

    cluster.file.more = String::new();
    cluster.write()?;
    let plan = cluster.ends(&["plan"], 2);
    assert!(plan.stdout.contains("leg by leg"), "{plan}");
    let walked = cluster.ends(UP, 0);
    assert!(walked.stderr.contains("keys for encryption at rest change: a snapshot is taken before"), "{walked}");
    assert_eq!(cluster.snapshots_before("before-up-encryption")?, 1, "one before all legs: {walked}");
    all_lie_under(&cluster, "secretbox")?;
    let seen = status(&cluster, 0)?;
    assert_eq!(seen["settled"], true);
    assert_eq!(seen["resources"]["secrets"].as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!(api_server(&cluster)?, server, "the API server was restarted");
    cluster.assert_plans_nothing();
    Ok(())
}

#[test]
#[ignore = "long: soak alone"]
fn a_cluster_without_encryption_gets_it_by_runs_that_die_and_gives_it_up_where_that_is_allowed() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    cluster.file.more = custom("{identity: {}}");
    cluster.write()?;
    let refused = cluster.ends(UP, 1);
    assert!(refused.stderr.contains("kube-api.encryption"), "{refused}");
    let allow = "  hardening:\n    allow: [{setting: kube-api.encryption, reason: a test}]\n";
    cluster.file.more_options = allow.to_owned();
    cluster.write()?;
    cluster.up();
    cluster.create_secrets(SECRETS)?;
    assert_eq!(marks(&cluster)?, BTreeMap::new());
    let server = api_server(&cluster)?;

    cluster.file.more = String::new();
    cluster.file.more_options = "  encryption: {provider: secretbox}\n".to_owned();
    cluster.write()?;
    killed_on_each_leg(&cluster, UP)?;
    cluster.ends(UP, 0);
    let first = all_lie_under(&cluster, "secretbox")?;
    assert_eq!(status(&cluster, 0)?["settled"], true);
    cluster.assert_plans_nothing();

    // Another provider for bastide's own key, by runs that die, and back leg by leg.
    let before = newest(&cluster)?;
    cluster.file.more_options = "  encryption: {provider: aescbc}\n".to_owned();
    cluster.write()?;
    killed_on_each_leg(&cluster, UP)?;
    cluster.ends(UP, 0);
    all_lie_under(&cluster, "aescbc")?;
    assert_eq!(status(&cluster, 0)?["settled"], true);
    cluster.ends(&["rollback", "--to", &before.to_string(), "--yes"], 0);
    assert_eq!(all_lie_under(&cluster, "secretbox")?, first);

    // Back to nothing, where that is allowed.
    cluster.file.more = custom("{identity: {}}");
    cluster.file.more_options = String::new();
    cluster.write()?;
    cluster.ends(UP, 1);
    assert_eq!(all_lie_under(&cluster, "secretbox")?, first);
    cluster.file.more_options = allow.to_owned();
    cluster.write()?;
    cluster.ends(UP, 0);
    assert_eq!(marks(&cluster)?, BTreeMap::new());
    assert_eq!(cluster.kubectl(&["get", "secret", "s7", "-o", "jsonpath={.data.a}"])?, "dmFsdWUtNw==");
    assert_eq!(api_server(&cluster)?, server, "the API server was restarted");
    cluster.assert_plans_nothing();
    Ok(())
}

fn newest(cluster: &Cluster) -> Result<u64> {
    cluster.newest()?["id"]["number"].as_u64().context("no number")
}

const RESTORE: &[&str] = &["etcd", "snapshot", "restore", "with-plugin", "--yes", "--cluster", "test"];

/// The bed's own plugin, a real one whose key lies in a file.
const PLUGIN: &str = "  encryption:
    provider: PROVIDER
    kms:
      name: vault
      image: kms
      command: [/kms, --listen=/run/kmsplugin/socket.sock, --key=/etc/kms/key]
      extra_binds: ['/etc/kms:/etc/kms']
";

#[test]
#[ignore = "long: soak alone"]
fn a_cluster_is_born_with_a_key_service() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    cluster.host("h1").ssh("install -d -m 700 /etc/kms")?;
    cluster.file.more_options = PLUGIN.replace("PROVIDER", "kms");
    cluster.write()?;
    cluster.up();
    cluster.create_secrets(10)?;
    assert_eq!(all_lie_under(&cluster, "kms")?, "k8s:enc:kms:v2:vault:");
    assert_eq!(status(&cluster, 0)?["api_servers"]["h1"]["plugins"], "ok");
    cluster.assert_plans_nothing();

    // Given up since, it is missed by a snapshot of its time: that is told before anything stops, and cluster.yml is enough to mend it.
    cluster.ends(&["etcd", "snapshot", "save", "--name", "with-plugin"], 0);
    cluster.file.more_options = PLUGIN.replace("PROVIDER", "secretbox");
    cluster.write()?;
    cluster.ends(UP, 0);
    let running = cluster.host("h1").ssh("pgrep -x etcd; pgrep -x kube-apiserver")?;
    for options in [cluster.file.more_options.clone(), String::new()] {
        cluster.file.more_options = options;
        cluster.write()?;
        let refused = cluster.ends(RESTORE, 1);
        assert!(refused.stderr.contains("secrets: kms:vault"), "{refused}");
    }
    assert_eq!(cluster.host("h1").ssh("pgrep -x etcd; pgrep -x kube-apiserver")?, running, "something was stopped");
    cluster.file.more_options = PLUGIN.replace("PROVIDER", "kms");
    cluster.write()?;
    let restored = cluster.ends(RESTORE, 0);
    assert!(restored.to_string().contains("at one go"), "{restored}");
    assert_eq!(all_lie_under(&cluster, "kms")?, "k8s:enc:kms:v2:vault:");
    cluster.wait_nodes_ready(Duration::from_mins(3))?;
    cluster.assert_plans_nothing();
    Ok(())
}

#[test]
#[ignore = "long: soak alone"]
fn a_key_service_encrypts_through_its_plugin_and_is_given_up_again() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    cluster.up();
    cluster.create_secrets(SECRETS)?;
    let first = all_lie_under(&cluster, "secretbox")?;
    cluster.host("h1").ssh("install -d -m 700 /etc/kms")?;
    cluster.file.more_options = PLUGIN.replace("PROVIDER", "kms");
    cluster.write()?;
    killed_on_each_leg(&cluster, UP)?;
    cluster.ends(UP, 0);
    assert_eq!(all_lie_under(&cluster, "kms")?, "k8s:enc:kms:v2:vault:");
    let seen = status(&cluster, 0)?;
    assert_eq!(seen["api_servers"]["h1"]["plugins"], "ok", "{seen}");
    assert_eq!(seen["resources"]["secrets"], serde_json::json!(["kms:vault"]));
    cluster.assert_plans_nothing();
    cluster.ends(&["encrypt", "rotate-key", "--yes"], 1);

    // After a power cut both come back by themselves, whichever is first.
    cluster.host("h1").power_cut()?;
    cluster.host("h1").power_on()?;
    cluster.host("h1").wait()?;
    cluster.wait_nodes_ready(Duration::from_mins(5))?;
    all_lie_under(&cluster, "kms")?;
    cluster.assert_plans_nothing();

    // A plugin that does not answer is told of.
    cluster.host("h1").ssh("pkill -STOP -x kms")?;
    let start = Instant::now();
    loop {
        let ended = cluster.bastide(&["encrypt", "status"])?;
        if ended.code == Some(4) && ended.stdout.contains("plugins") {
            break;
        }
        anyhow::ensure!(start.elapsed() < Duration::from_mins(3), "nobody noticed: {ended}");
    }
    cluster.host("h1").ssh("pkill -CONT -x kms")?;

    // It stays as long as something is encrypted with it.
    cluster.file.more_options = String::new();
    cluster.write()?;
    let refused = cluster.ends(UP, 1);
    assert!(refused.stderr.contains("bastide.encryption.kms"), "{refused}");
    cluster.file.more_options = PLUGIN.replace("PROVIDER", "secretbox");
    cluster.write()?;
    cluster.ends(UP, 0);
    assert_eq!(all_lie_under(&cluster, "secretbox")?, first);
    cluster.file.more_options = String::new();
    cluster.write()?;
    cluster.ends(UP, 0);
    assert_eq!(cluster.host("h1").ssh("pgrep -x kms || echo none")?.trim(), "none");
    assert_eq!(status(&cluster, 0)?["settled"], true);
    cluster.assert_plans_nothing();
    Ok(())
}

#[test]
#[ignore = "long: soak alone"]
fn an_encryption_key_is_exchanged_by_runs_that_die_and_comes_back() -> Result<()> {
    let cluster = Cluster::one_host()?;
    cluster.up();
    cluster.create_secrets(SECRETS)?;
    let (before, server) = (marks(&cluster)?, api_server(&cluster)?);
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!(status(&cluster, 0)?["settled"], true);

    killed_on_each_leg(&cluster, &["encrypt", "rotate-key", "--yes"])?;
    cluster.ends(&["encrypt", "rotate-key", "--yes"], 0);
    let after = marks(&cluster)?;
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!(after.values().sum::<usize>(), before.values().sum::<usize>());
    assert_ne!(after.keys().next(), before.keys().next());
    assert_eq!(status(&cluster, 0)?["settled"], true);
    assert_eq!(api_server(&cluster)?, server, "the API server was restarted");
    let path = "jsonpath={.data.a}";
    assert_eq!(cluster.kubectl(&["get", "secret", "s7", "-o", path])?, "dmFsdWUtNw==");
    cluster.assert_plans_nothing();

    cluster.ends(&["rollback", "--to", "1", "--yes"], 0);
    assert_eq!(marks(&cluster)?, before);
    assert_eq!(status(&cluster, 0)?["settled"], true);
    assert_eq!(cluster.kubectl(&["get", "secret", "s7", "-o", path])?, "dmFsdWUtNw==");
    cluster.assert_plans_nothing();
    Ok(())
}
