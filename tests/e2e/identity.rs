//! The state and the identity that opens it are lost: the cluster is taken over from its hosts, by runs that are killed too.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;

use crate::support::Cluster;

const TAKE_OVER: [&str; 6] = ["state", "recover", "--without-identity", "--yes", "--cluster", "test"];
const WORD: &str = "still-readable";

fn state(cluster: &Cluster) -> PathBuf {
    cluster.folder().join("cluster.bastide")
}

fn identities(cluster: &Cluster) -> PathBuf {
    cluster.folder().join("config/bastide/identities")
}

/// The digests of the authorities' certificates on each host: Kubernetes, etcd, front proxy.
fn authorities(cluster: &Cluster) -> Result<Vec<Vec<String>>> {
    let script = "sha256sum /etc/kubernetes/pki/ca.crt /etc/etcd/pki/ca.crt /etc/kubernetes/pki/front-proxy-ca.crt | cut -d' ' -f1";
    cluster.hosts().iter().map(|host| Ok(host.ssh(script)?.lines().map(str::to_owned).collect())).collect()
}

/// Something that only the old key for encryption reads, and something that only the old key for tokens verifies.
struct Witnesses {
    token: String,
    authorities: Vec<Vec<String>>,
}

impl Witnesses {
    fn call(cluster: &Cluster) -> Result<Self> {
        cluster.create_secret("witness", WORD)?;
        let token = cluster.kubectl(&["create", "token", "default"])?.trim().to_owned();
        Ok(Self { token, authorities: authorities(cluster)? })
    }

    /// All that was to be kept is there, all that was lost has another in its place, and nothing differs.
    fn hear(&self, cluster: &Cluster) -> Result<()> {
        let word = ["get", "secret", "witness", "-o", "jsonpath={.data.word}"];
        let encoded = cluster.kubectl_until(&word, Duration::from_mins(1), |text| !text.is_empty())?;
        assert_eq!(cluster.host("h1").ssh(&format!("echo {encoded} | base64 -d"))?.trim(), WORD);
        let review =
            format!("apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nspec: {{token: \"{}\"}}\n", self.token);
        let review = cluster.add_file("review.yml", &review)?.display().to_string();
        let judged = cluster.kubectl(&["create", "-f", &review, "-o", "jsonpath={.status.authenticated}"])?;
        assert_eq!(judged, "true", "the token of before is not believed any more");
        for (was, is) in self.authorities.iter().zip(authorities(cluster)?) {
            assert_eq!(was[0], is[0], "the Kubernetes authority is another one");
            assert!(was[1] != is[1] && was[2] != is[2], "a lost authority is still believed: {was:?} {is:?}");
        }
        cluster.ends(&["state", "check"], 0);
        cluster.assert_plans_nothing();
        Ok(())
    }
}

/// Nothing is lost; then only the folder is; then both, and another cluster is meant.
fn refused_where_something_opens(cluster: &Cluster) -> Result<()> {
    let whole = cluster.ends(&TAKE_OVER, 1);
    assert!(whole.stderr.contains("nothing is lost"), "{whole}");
    fs::remove_dir_all(state(cluster))?;
    let folder = cluster.ends(&TAKE_OVER, 1);
    let words = ["only the folder is lost", "state recover --host h1"];
    assert!(words.iter().all(|words| folder.stderr.contains(words)), "{folder}");
    assert!(!state(cluster).exists(), "a refused run made a folder");
    fs::remove_dir_all(identities(cluster))?;
    cluster.ends(&["state", "recover", "--without-identity", "--yes", "--cluster", "other"], 1);
    assert!(!state(cluster).exists() && !identities(cluster).exists(), "a refused run made something");
    Ok(())
}

/// On one running host: what is lost is told from what is not, and the keys are read as they lie there. The legs take three
/// minutes, so that this stops where they begin; `soak` goes on.
pub(crate) fn is_taken_over_only_when_nothing_opens(cluster: &Cluster) -> Result<()> {
    refused_where_something_opens(cluster)?;
    killed_when(cluster, Duration::ZERO, || begun(cluster, "accepted beside"))?;
    cluster.ends(&["state", "check"], 0);
    let all = cluster.history()?;
    // The host lacked a key to sign its snapshots with for which the new identity vouches.
    let whys: Vec<_> = all.iter().rev().take(4).filter_map(|revision| revision["why"].as_str()).collect();
    let [accept, lacked, taken, known] = whys[..] else { anyhow::bail!("{all:?}") };
    assert!(
        accept.contains("accepted beside")
            && lacked.contains("lacked")
            && taken.contains("taken over")
            && known.contains("records"),
        "{whys:?}"
    );
    Ok(())
}

#[test]
#[ignore = "long: soak alone"]
fn one_host_is_taken_over_without_state_and_identity() -> Result<()> {
    let cluster = Cluster::one_host()?;
    cluster.up();
    cluster.wait_pods_ready(Duration::from_mins(3))?;
    let witnesses = Witnesses::call(&cluster)?;
    refused_where_something_opens(&cluster)?;
    let taken = cluster.ends(&[&TAKE_OVER[..], &["--no-identity-backup"]].concat(), 0);
    assert!(
        taken.stderr.contains("replaced  the authorities whose keys are on no host (etcd, front-proxy)"),
        "{taken}"
    );
    assert!(
        !taken.stderr.contains("Before the legs the hosts are brought"),
        "the keys were not read as they lie there: {taken}"
    );
    witnesses.hear(&cluster)?;
    cluster.ends(&TAKE_OVER, 0);
    // Nothing can be issued from a lost authority: no way leads back over the leg since which another one issues.
    let number = cluster.newest()?["id"]["number"].as_u64().context("no number")?;
    let back = cluster.ends(&["rollback", "--to", &(number - 2).to_string(), "--yes"], 1);
    assert!(back.stderr.contains("authority-lost"), "{back}");
    // From now on it is a state like any other.
    fs::remove_dir_all(state(&cluster))?;
    cluster.ends(&["state", "recover", "--host", "h1"], 0);
    cluster.assert_plans_nothing();
    Ok(())
}

/// Whether the newest revision is one that was begun, and its reason has these words.
fn begun(cluster: &Cluster, words: &str) -> bool {
    cluster.newest().is_ok_and(|newest| {
        newest["state"]["state"] == "started" && newest["why"].as_str().is_some_and(|why| why.contains(words))
    })
}

/// Kills a run a moment after `reached` is true.
fn killed_when(cluster: &Cluster, later: Duration, reached: impl Fn() -> bool) -> Result<()> {
    let arguments = [&TAKE_OVER[..], &["--no-identity-backup"]].concat();
    let mut child = cluster.command(&arguments).stderr(std::process::Stdio::null()).spawn()?;
    let start = Instant::now();
    while !reached() {
        let ended = child.try_wait()?;
        anyhow::ensure!(ended.is_none(), "the run ended ({ended:?}) before it was to be killed");
        anyhow::ensure!(start.elapsed() < Duration::from_mins(6), "what was waited for never came");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(later);
    child.kill()?;
    child.wait()?;
    println!("killed after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

#[test]
#[ignore = "long: soak alone"]
fn three_hosts_are_taken_over_without_state_and_identity_by_runs_that_die() -> Result<()> {
    let cluster = Cluster::three_all_roles()?;
    cluster.up();
    cluster.wait_pods_ready(Duration::from_mins(3))?;
    let witnesses = Witnesses::call(&cluster)?;
    // The folder is left, and nobody opens it.
    fs::remove_dir_all(identities(&cluster))?;
    // A member that is away may not be missed: nothing is issued for it.
    cluster.host("h3").shut_down()?;
    let away = cluster.ends(&TAKE_OVER, 1);
    assert!(away.stderr.contains("h3: does not answer"), "{away}");
    cluster.host("h3").power_on()?;
    cluster.host("h3").wait()?;
    cluster.wait_pods_ready(Duration::from_mins(5))?;

    let aside = cluster.folder().join("cluster.bastide.unreadable-1");
    killed_when(&cluster, Duration::ZERO, || aside.exists())?;
    killed_when(&cluster, Duration::ZERO, || state(&cluster).join("manifest").exists())?;
    for (words, later) in [("accepted beside", 4), ("issues", 6), ("accepted no more", 4)] {
        killed_when(&cluster, Duration::from_secs(later), || begun(&cluster, words)).context(words)?;
    }
    cluster.ends(&[&TAKE_OVER[..], &["--no-identity-backup"]].concat(), 0);
    cluster.wait_pods_ready(Duration::from_mins(3))?;
    witnesses.hear(&cluster)?;
    // Every member has a copy that the new identity opens.
    for host in ["h1", "h2", "h3"] {
        fs::remove_dir_all(state(&cluster))?;
        cluster.ends(&["state", "recover", "--host", host], 0);
        cluster.assert_plans_nothing();
    }
    Ok(())
}
