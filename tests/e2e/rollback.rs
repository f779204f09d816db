//! One host: a change and the way back, a change that makes the API server ill, renewed certificates.

use anyhow::Result;

use crate::support::Cluster;

const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

fn api_server_flags(cluster: &mut Cluster, flags: &str) -> Result<()> {
    cluster.file.more = format!("services: {{kube-api: {{extra_args: {{{flags}}}}}}}\n");
    cluster.write()
}

#[test]
fn changes_go_back_by_hand_and_by_themselves_and_certificates_are_renewed() -> Result<()> {
    let mut cluster = Cluster::one_host()?;
    // It has a certificate too.
    cluster.file.metrics = true;
    cluster.write()?;
    cluster.up();
    let first = cluster.host("h1").ssh(&format!("cat {MANIFEST}"))?;
    there_and_back(&mut cluster, &first)?;
    ill(&mut cluster, &first)?;
    renewed(&cluster)?;
    Ok(())
}

/// Revision 2 changes a flag, `diff` shows it by name, revision 3 is revision 1 again.
fn there_and_back(cluster: &mut Cluster, first: &str) -> Result<()> {
    api_server_flags(cluster, "event-ttl: 2h")?;
    with_more(cluster)?;
    cluster.up();
    assert_eq!(more(cluster)?, THERE);
    let diff = cluster.ends(&["diff"], 2);
    for words in ["--event-ttl: 2h", "label tier", "taint reserved", "ConfigMap default/from-addon"] {
        assert!(diff.stdout.contains(words), "{words}: {diff}");
    }
    cluster.ends(&["diff", "--live"], 0);
    cluster.host("h1").ssh("echo '# edited' >> /etc/kubernetes/audit/policy.yaml")?;
    let drift = cluster.ends(&["diff", "--live"], 2);
    assert!(
        drift.stdout.contains("/etc/kubernetes/audit/policy.yaml") && drift.stdout.contains("+# edited"),
        "{drift}"
    );

    let back = cluster.ends(&["rollback", "--yes"], 0);
    println!("rollback of a flag, a label, a taint and an addon on one host: {:.1} s", back.took.as_secs_f64());
    assert_eq!(more(cluster)?, "||");
    assert!(back.stderr.contains("from revision 2 back to revision 1, in one leg"), "{back}");
    let told = cluster.ends(&["history"], 0);
    assert!(told.stdout.contains("reached, rolled back to 1 by 3"), "{told}");
    assert_eq!(cluster.host("h1").ssh(&format!("cat {MANIFEST}"))?, first, "the manifest is not the one of then");
    cluster.ends(&["diff", "--live"], 0);
    let past = cluster.history()?;
    assert_eq!(past.len(), 3);
    assert_eq!(past[2]["returns_to"]["number"], 1, "{past:?}");
    assert_eq!(past[1]["undone"]["to"]["number"], 1, "{past:?}");
    // cluster.yml is ahead, and said to be.
    let status = cluster.bastide(&["status"])?;
    assert!(status.stdout.contains("ahead of it"), "{status}");
    let ahead = cluster.ends(&["plan"], 2);
    assert!(ahead.stdout.contains("took the cluster back to 1"), "{ahead}");
    cluster.file.more.clear();
    cluster.write()?;
    cluster.assert_plans_nothing();
    Ok(())
}

/// What revision 2 says besides: as RKE has them, a label, a taint and an addon.
fn with_more(cluster: &Cluster) -> Result<()> {
    let text = std::fs::read_to_string(cluster.config())?;
    let node =
        "    labels: {tier: front}\n    taints: [{key: reserved, value: us, effect: PreferNoSchedule}]\n    role: [";
    let addon = "addons: |\n  apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: from-addon, namespace: default}\n  data: {a: there}\n";
    let text = format!("{addon}{}", text.replacen("    role: [", node, 1));
    Ok(std::fs::write(cluster.config(), text)?)
}

const THERE: &str = "front|us|there";

/// The label, the taint, and what the addon holds, as the API has them.
fn more(cluster: &Cluster) -> Result<String> {
    let node = "jsonpath={.metadata.labels.tier}|{.spec.taints[?(@.key==\"reserved\")].value}|";
    let node = cluster.kubectl(&["get", "node", "h1", "-o", node])?;
    let map = ["get", "configmap", "from-addon", "--ignore-not-found", "-o", "jsonpath={.data.a}"];
    Ok(format!("{node}{}", cluster.kubectl(&map)?))
}

/// A value that the flag table cannot know to be wrong ends the API server at each start.
fn ill(cluster: &mut Cluster, first: &str) -> Result<()> {
    // The component that never becomes well is waited for this long. What comes back then must be well as soon.
    "  deadlines: {health: 90s}\n".clone_into(&mut cluster.file.more_options);
    api_server_flags(cluster, "event-ttl: soon")?;
    let taken_back = cluster.ends(&["up", "--yes"], 7);
    assert!(taken_back.stderr.contains("event-ttl"), "the API server's own words are not shown: {taken_back}");
    assert_eq!(cluster.host("h1").ssh(&format!("cat {MANIFEST}"))?, first);
    cluster.kubectl(&["get", "--raw", "/readyz"])?;
    cluster.file.more_options.clear();
    cluster.file.more.clear();
    cluster.write()?;
    cluster.assert_plans_nothing();
    Ok(())
}

/// Every leaf is another one afterwards, on disk and on the wire, and no static pod's container was restarted.
fn renewed(cluster: &Cluster) -> Result<()> {
    cluster.ends(&["certs", "check"], 0);
    let serials = "for f in /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/*/client.pem /etc/etcd/pki/*.crt /var/lib/kubelet/pki/kubelet-client-current.pem; do \
                   echo $f $(sed -n '/BEGIN CERT/,/END CERT/p' $f | sha256sum); done";
    let before = cluster.host("h1").ssh(serials)?;
    // Asked of the runtime: the kubelet shows a static pod in the API only at its next sync after the server is back.
    let containers = "for name in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do \
                      /opt/bastide/crictl-*/crictl ps -q --name \"^$name$\"; done";
    let started = cluster.host("h1").ssh(containers)?;
    assert_eq!(started.lines().count(), 5, "{started}");
    cluster.ends(&["rotate-certs", "--yes"], 0);
    let after = cluster.host("h1").ssh(serials)?;
    for (old, new) in before.lines().zip(after.lines()) {
        let authority = ["/ca.crt", "ca.crt ", "/signer.crt"].iter().any(|name| old.contains(name));
        assert_eq!(old == new, authority, "{old}\n{new}");
    }
    assert_eq!(cluster.host("h1").ssh(containers)?, started, "a container was restarted");
    assert_eq!(after.lines().filter(|line| line.contains("client.pem")).count(), 3, "{after}");
    cluster.host("h1").ssh("test -L /var/lib/kubelet/pki/kubelet-client-current.pem")?;
    cluster.assert_plans_nothing();
    // API server and kubelet look for new pairs once a minute; pods are given a changed Secret within a minute or two.
    let start = std::time::Instant::now();
    loop {
        let check = cluster.bastide(&["certs", "check", "--output", "json"])?;
        if check.code == Some(0) {
            break;
        }
        assert!(start.elapsed() < std::time::Duration::from_mins(4), "disk and wire still differ: {check}");
        std::thread::sleep(std::time::Duration::from_secs(3));
    }
    Ok(())
}
