//! A cluster whose hosts are switched off until everything that was issued has ended, and switched on again.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use crate::support::Cluster;

/// The shortest that cluster.yml allows.
const LEAF_LIFETIME: &str = "  pki: {leaf_lifetime: 10m}\n";
const LIFETIME: Duration = Duration::from_mins(10);
/// Clocks and certificates count whole seconds.
const MOMENT: Duration = Duration::from_secs(5);

/// How many certificates there are beside the authorities', and how many of them have ended, as `certs check` sees them on disk.
fn ended(cluster: &Cluster) -> Result<(usize, usize)> {
    let seen = cluster.bastide(&["certs", "check", "--output", "json"])?;
    let seen: serde_json::Value = serde_json::from_str(&seen.stdout)?;
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())?;
    let authority = |path: &str| path.ends_with("ca.crt") || path.ends_with("signer.crt");
    let leaf = |one: &&serde_json::Value| one["path"].as_str().is_some_and(|path| !authority(path));
    let all: Vec<_> = seen["certificates"].as_array().into_iter().flatten().filter(leaf).collect();
    let over = all.iter().filter(|one| one["not_after"].as_i64().is_some_and(|end| end <= now)).count();
    Ok((all.len(), over))
}

/// Off until past the end of everything, kubelets' own pairs too, and on again.
fn asleep(cluster: &Cluster) -> Result<()> {
    // The newest of all: kubelets renew their own after half of that time.
    let begun = Instant::now();
    for host in cluster.hosts() {
        host.shut_down()?;
    }
    std::thread::sleep((LIFETIME + MOMENT).saturating_sub(begun.elapsed()));
    for host in cluster.hosts() {
        host.power_on()?;
    }
    for host in cluster.hosts() {
        host.wait()?;
    }
    let (all, over) = ended(cluster)?;
    assert!(all > 10 && all == over, "{over} of {all} have ended");
    Ok(())
}

/// What a person would try first, what it says, and the one command.
fn comes_back(cluster: &Cluster) -> Result<()> {
    asleep(cluster)?;
    let seen = cluster.bastide(&["status"])?;
    println!("{seen}");
    assert!(seen.stdout.contains("bastide rotate-certs"), "{seen}");
    let plan = cluster.bastide(&["plan"])?;
    println!("{plan}");
    assert!(plan.code == Some(2) && plan.stdout.contains("certificates have ended"), "{plan}");

    let revived = cluster.bastide(&["rotate-certs", "--yes", "--timings"])?;
    println!("{revived}");
    assert_eq!(revived.code, Some(0), "{revived}");
    println!("revived in {:.1} s", revived.took.as_secs_f64());
    cluster.wait_nodes_ready(Duration::from_secs(1))?;
    cluster.assert_plans_nothing();
    cluster.wait_pods_ready(Duration::from_mins(3))?;
    let healthy = |text: &str| text == "kept";
    cluster.kubectl_until(&["get", "configmap", "x", "-o", "jsonpath={.data.a}"], MOMENT, healthy)?;
    let (all, over) = ended(cluster)?;
    assert!(all > 10 && over == 0, "{over} of {all} have ended");
    Ok(())
}

fn begin(mut cluster: Cluster) -> Result<Cluster> {
    LEAF_LIFETIME.clone_into(&mut cluster.file.more_options);
    cluster.write()?;
    cluster.up();
    cluster.wait_pods_ready(Duration::from_mins(3))?;
    cluster.kubectl(&["create", "configmap", "x", "--from-literal=a=kept"])?;
    Ok(cluster)
}

/// The ids of the containers that are clients with a certificate of bastide's.
fn clients(cluster: &Cluster) -> Result<Vec<String>> {
    let script = "for name in kube-controller-manager kube-scheduler kube-proxy; do \
                  /opt/bastide/crictl-*/crictl ps -q --name \"^$name$\"; done";
    cluster.hosts().iter().map(|host| host.ssh(script)).collect()
}

/// When the certificate that this component was given ends, as the file has it.
fn end_of(cluster: &Cluster, component: &str) -> Result<i64> {
    let file = format!("/etc/kubernetes/pki/{component}/client.pem");
    Ok(cluster
        .host("h1")
        .ssh(&format!("date -d \"$(openssl x509 -in {file} -noout -enddate | cut -d= -f2)\" +%s"))?
        .trim()
        .parse()?)
}

#[test]
#[ignore = "long: certificates have to end; soak alone"]
fn renewed_certificates_are_taken_up_without_a_restart() -> Result<()> {
    let cluster = begin(Cluster::one_host()?)?;
    let components = ["controller-manager", "scheduler", "proxy"];
    let ends = || components.iter().map(|component| end_of(&cluster, component)).collect::<Result<Vec<_>>>();
    let now = || Ok::<_, anyhow::Error>(cluster.host("h1").ssh("date +%s")?.trim().parse::<i64>()?);
    let (old, started) = (ends()?, clients(&cluster)?);
    assert_eq!(started[0].lines().count(), 3, "{started:?}");
    let first = *old.iter().min().unwrap();
    // Five minutes and a half before the end: what is looked at every five minutes is seen in time.
    while now()? < first - 330 {
        std::thread::sleep(Duration::from_secs(1));
    }
    let rotated = cluster.bastide(&["rotate-certs", "--yes"])?;
    assert_eq!(rotated.code, Some(0), "{rotated}");
    println!("rotate-certs: {:.1} s", rotated.took.as_secs_f64());
    let (new, last) = (ends()?, *old.iter().max().unwrap());
    assert!(new.iter().all(|end| *end > last + 60), "{old:?} {new:?}");
    while now()? <= last {
        std::thread::sleep(Duration::from_secs(1));
    }
    // Pods are made, placed and reached: by the three of them, with certificates that they read while they ran.
    crate::support::network::works_between_all_hosts(&cluster)?;
    assert_eq!(clients(&cluster)?, started, "a container was restarted");
    cluster.assert_plans_nothing();
    Ok(())
}

#[test]
#[ignore = "long: certificates have to end; soak alone"]
fn one_host_comes_back_after_everything_has_ended() -> Result<()> {
    comes_back(&begin(Cluster::one_host()?)?)
}

#[test]
#[ignore = "long: certificates have to end; soak alone"]
fn three_hosts_come_back_after_everything_has_ended() -> Result<()> {
    comes_back(&begin(Cluster::three_all_roles()?)?)
}
