//! Ctrl-C, once and twice, before a run has begun and in its middle. The host is named as RKE names one that is given no name.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;

use crate::kills::kinds::Kind;
use crate::kills::running::Running;
use crate::support::Cluster;

const INTERRUPTED: Option<i32> = Some(130);

#[test]
fn a_run_that_is_interrupted_says_where_it_stands_and_the_next_one_goes_on() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    let address = cluster.host("h1").address();
    cluster.file.nodes[0].name.clone_from(&address);
    cluster.write()?;

    // Nothing is under way yet: there is nothing to finish.
    let host = cluster.host("h1");
    host.cut()?;
    for command in [&["up", "--yes", "--no-identity-backup"][..], &["plan"]] {
        let run = Running::with(&cluster, &[&["--log-format", "json"], command].concat())?;
        std::thread::sleep(Duration::from_secs(1));
        let asked = Instant::now();
        run.signal("INT")?;
        let ended = run.end()?;
        ensure!(ended.code == INTERRUPTED, "{command:?}: {ended}");
        ensure!(ended.stderr.contains("nothing more was changed"), "{command:?}: {ended}");
        ensure!(asked.elapsed() < Duration::from_secs(8), "{command:?}: the connection was waited for: {ended}");
    }
    host.heal()?;
    host.wait()?;
    ensure!(!cluster.folder().join("cluster.bastide").exists(), "a run that had not begun left state");

    let mut once = Running::start(&cluster)?;
    ensure!(once.reaches(Kind::Image, 1)?, "no image was imported: {}", once.told());
    once.signal("INT")?;
    let ended = once.end()?;
    ensure!(ended.code == INTERRUPTED, "{ended}");
    for words in ["interrupted; the running steps were finished", "stages are done", "the same command goes on"] {
        ensure!(ended.stderr.contains(words), "{words:?} is not said: {ended}");
    }
    // The step was finished: what it began stands.
    host.ssh("systemctl is-active kubelet && test -s /etc/kubernetes/manifests/kube-apiserver.yaml")?;

    host.ssh("rm /etc/crictl.yaml; systemctl stop kubelet")?;
    let mut twice = Running::start(&cluster)?;
    ensure!(twice.reaches(Kind::File, 1)?, "nothing was written: {}", twice.told());
    twice.signal("INT")?;
    // One signal that is pending swallows another one of its kind.
    ensure!(twice.says(1, |said| said.message.contains("once more stops now"))?, "{}", twice.told());
    twice.signal("INT")?;
    let ended = twice.end()?;
    ensure!(ended.code == INTERRUPTED && ended.stderr.contains("stopped in the middle"), "{ended}");

    cluster.up();
    cluster.assert_plans_nothing();
    let ready = "jsonpath={.items[0].metadata.name} {.items[0].status.conditions[?(@.type==\"Ready\")].status}";
    let seen = |text: &str| text == format!("{address} True");
    cluster.kubectl_until(&["get", "nodes", "-o", ready], Duration::from_mins(3), seen)?;
    // One check less than where the name is the system's own: the flag that says it.
    let verdict = bed::judge(&host)?;
    ensure!(verdict.fail == 0 && verdict.pass >= 89, "{verdict:#?}");
    Ok(())
}
