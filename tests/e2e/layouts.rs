//! Roles on hosts of their own, and what becomes of a run while one of these hosts is out of reach.

use std::time::Duration;

use anyhow::Result;

use crate::kills::kinds::Inside;
use crate::kills::points;
use crate::support::Cluster;

#[test]
fn roles_apart_and_hosts_out_of_reach() -> Result<()> {
    let mut cluster = Cluster::roles_apart()?;
    // Nobody is there to be asked: every command takes the identity's passphrase from where the file says.
    cluster.add_file("passphrase", "correct horse battery staple\n")?;
    "  state: {passphrase_file: passphrase}\n".clone_into(&mut cluster.file.more_options);
    cluster.write()?;
    // The first run dies three times: in the middle of something on a host of each role.
    points::prepare(&cluster)?;
    for (host, inside) in [("h3", Inside::Folder), ("h2", Inside::File), ("h1", Inside::Unit)] {
        points::kill_at_first(&cluster, host, inside)?;
    }
    let up = cluster.bastide(&["up", "--yes"])?;
    assert_eq!(up.code, Some(0), "{up}");
    the_identity_is_closed(&cluster)?;
    println!("up with roles apart: {:.1} s", up.took.as_secs_f64());
    cluster.wait_nodes_ready(Duration::from_mins(5))?;
    cluster.assert_plans_nothing();
    // The worker reaches the API server by its own balancer.
    cluster.host("h3").ssh("grep -q 'https://127.0.0.1:' /etc/kubernetes/kubelet.conf && pidof haproxy")?;

    other_certificates_do_not_interrupt_the_balancer(&cluster)?;

    // A worker that does not answer does not keep the others from what is to be done.
    for name in ["h1", "h3"] {
        cluster.host(name).ssh("rm /etc/crictl.yaml")?;
    }
    cluster.host("h3").cut()?;
    let except = cluster.bastide(&["up", "--yes"])?;
    assert_eq!(except.code, Some(3), "{except}");
    assert!(except.stderr.contains("h3"), "{except}");
    cluster.host("h1").ssh("test -e /etc/crictl.yaml")?;
    cluster.host("h3").heal()?;
    cluster.host("h3").wait()?;
    cluster.host("h3").ssh("test ! -e /etc/crictl.yaml")?;
    cluster.up();
    cluster.host("h3").ssh("test -e /etc/crictl.yaml")?;
    cluster.assert_plans_nothing();

    // A control plane or an etcd member that does not answer stops the run before anything is written.
    for silent in ["h1", "h2"] {
        cluster.host("h3").ssh("rm /etc/crictl.yaml")?;
        let files = "find /etc/kubernetes /etc/systemd/system /opt/bastide /var/lib/bastide /etc -maxdepth 1 -printf '%p %T@\\n'";
        let before = cluster.host("h3").ssh(files)?;
        cluster.host(silent).cut()?;
        let refused = cluster.bastide(&["up", "--yes"])?;
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains(silent), "{silent} is not named: {refused}");
        // h1 has the only API server, h2 all that it serves.
        let status = cluster.bastide(&["status"])?;
        assert_eq!(status.code, Some(5), "{silent} does not answer: {status}");
        assert_eq!(cluster.host("h3").ssh(files)?, before, "something was written: {refused}");
        cluster.host(silent).heal()?;
        cluster.host(silent).wait()?;
        cluster.up();
    }
    cluster.assert_plans_nothing();
    no_member_is_added_by_the_way(&mut cluster)
}

/// The same program goes on with the same sockets, and another process of it has read the files.
fn other_certificates_do_not_interrupt_the_balancer(cluster: &Cluster) -> Result<()> {
    let host = cluster.host("h3");
    let crictl = "export PATH=$PATH:$(dirname $(find /opt/bastide -name crictl | head -1))";
    let container = format!("{crictl}; crictl ps -q --name '^haproxy$'");
    let files = "sha256sum < /etc/kubernetes/balancer/health-check.pem";
    // The master, then its workers, newest last.
    let processes = "ps -o pid=,lstart= --sort=start_time -C haproxy";
    let (id, pem, before) = (host.ssh(&container)?, host.ssh(files)?, host.ssh(processes)?);
    // One connection a tenth of a second; a refusal ends the loop, and the file stays away.
    host.ssh(
        "cat > /run/ask.sh <<'end'\nuntil [ -e /run/ask-stop ]; do timeout 5 bash -c ': < /dev/tcp/127.0.0.1/6443' || exit 1; sleep 0.1; done\n\
         touch /run/ask-well\nend\nsystemd-run --quiet --unit ask sh /run/ask.sh",
    )?;
    let renewed = cluster.bastide(&["rotate-certs", "--service", "balancer", "--yes"])?;
    assert_eq!(renewed.code, Some(0), "{renewed}");
    host.ssh("touch /run/ask-stop")?;
    host.until("[ -e /run/ask-well ]", Duration::from_secs(10))?;
    assert_ne!(host.ssh(files)?, pem);
    assert_eq!(host.ssh(&container)?, id, "the balancer's container was started anew");
    let after = host.ssh(processes)?;
    assert_eq!(after.lines().next(), before.lines().next(), "the master is another one:\n{before}\n{after}");
    assert_ne!(after.lines().last(), before.lines().last(), "nobody has read the files:\n{before}\n{after}");
    cluster.assert_plans_nothing();
    Ok(())
}

/// A changed set of etcd or control-plane hosts is refused whole, before anything is written (design 11.7).
fn no_member_is_added_by_the_way(cluster: &mut Cluster) -> Result<()> {
    cluster.file.nodes[2].roles = vec!["etcd", "worker"];
    "services:\n  scheduler:\n    extra_args:\n      v: 3\n".clone_into(&mut cluster.file.more);
    cluster.write()?;
    let files = "find /etc/kubernetes /etc/etcd /var/lib/etcd /var/lib/bastide -maxdepth 1 -printf '%p %T@\\n'; true";
    let before: Vec<_> = cluster.hosts().iter().map(|host| host.ssh(files)).collect::<Result<_, _>>()?;
    let refused = cluster.bastide(&["up", "--yes"])?;
    assert_eq!(refused.code, Some(1), "{refused}");
    for word in ["h3", "etcd", "nothing was changed"] {
        assert!(refused.stderr.contains(word), "{word:?} is not said: {refused}");
    }
    let after: Vec<_> = cluster.hosts().iter().map(|host| host.ssh(files)).collect::<Result<_, _>>()?;
    assert_eq!(after, before, "something was written: {refused}");
    Ok(())
}

fn the_identity_is_closed(cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder().join("config/bastide/identities");
    let paths: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    assert_eq!(paths.len(), 1, "{paths:?}");
    let text = std::fs::read_to_string(paths[0].path())?;
    assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"), "the identity is not protected");
    cluster.add_file("passphrase", "another\n")?;
    let refused = cluster.bastide(&["plan"])?;
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("the passphrase does not open the identity"), "{refused}");
    cluster.add_file("passphrase", "correct horse battery staple\n")?;
    Ok(())
}
