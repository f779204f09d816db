//! One host whose Kubernetes authority is somebody else's: openssl signs what bastide asks for.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::Cluster;
use crate::support::Ended;

/// The program must end with `code`.
#[track_caller]
fn ends(cluster: &Cluster, arguments: &[&str], code: i32) -> Ended {
    let ended = cluster.bastide(arguments).unwrap();
    assert_eq!(ended.code, Some(code), "bastide {arguments:?}: {ended}");
    ended
}

fn openssl(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output()?;
    anyhow::ensure!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The authorities' files, as a folder of certificates has them.
const KUBERNETES: &str = "kube-ca";
const ETCD: &str = "kube-etcd-ca";
const FRONT_PROXY: &str = "kube-apiserver-requestheader-ca";

/// A folder with these authorities and their keys.
fn authorities(names: &[&str]) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "900"];
    for name in names {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        let said = ["-keyout", &key, "-out", &certificate, "-subj", &format!("/CN=external {name}")];
        openssl(folder.path(), &[&new[..], &said].concat())?;
    }
    Ok(folder)
}

/// Whose that certificate is.
fn authority_of(stem: &str) -> &'static str {
    if stem.starts_with("kube-etcd") || stem.starts_with("kube-apiserver-etcd-client") {
        ETCD
    } else if stem.starts_with("kube-apiserver-proxy-client") {
        FRONT_PROXY
    } else {
        KUBERNETES
    }
}

/// Signs every request in `folder` for so many days, and puts the authorities' own certificates beside. How many were signed.
fn sign(authorities: &Path, folder: &Path, days: &str) -> Result<usize> {
    for name in [KUBERNETES, ETCD, FRONT_PROXY].map(|name| format!("{name}.pem")) {
        if authorities.join(&name).exists() {
            std::fs::copy(authorities.join(&name), folder.join(&name))?;
        }
    }
    let mut signed = 0;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        let Some(stem) = name.strip_suffix("-csr.pem") else { continue };
        let authority = authority_of(stem);
        let (request, certificate) = (folder.join(&name), folder.join(format!("{stem}.pem")));
        let (own, key) = (format!("{authority}.pem"), format!("{authority}.key"));
        let from =
            ["x509", "-req", "-in", &request.display().to_string(), "-CA", &own, "-CAkey", &key, "-CAcreateserial"];
        let to = ["-copy_extensions", "copyall", "-days", days, "-out", &certificate.display().to_string()];
        openssl(authorities, &[&from[..], &to].concat())?;
        signed += 1;
    }
    Ok(signed)
}

/// Whole days that are left of each certificate on the host, by file, without those of bastide's own authorities.
fn days(cluster: &Cluster) -> Result<Vec<(String, i64)>> {
    let seen: Value = serde_json::from_str(&ends(cluster, &["certs", "check", "--output", "json"], 0).stdout)?;
    let all = seen["certificates"].as_array().cloned().unwrap_or_default();
    let days = all
        .iter()
        .map(|one| (one["path"].as_str().unwrap_or_default().to_owned(), one["days_left"].as_i64().unwrap_or(-1)));
    Ok(days.filter(|(_, days)| *days < 350).collect())
}

#[test]
fn an_external_authority_signs_and_signs_again() -> Result<()> {
    let cluster = Cluster::one_host()?;
    let authorities = authorities(&[KUBERNETES])?;
    let folder = cluster.folder().join("cluster_certs");

    ends(&cluster, &["certs", "generate-csr", "--no-identity-backup"], 0);
    for entry in std::fs::read_dir(&folder)? {
        let bytes = std::fs::read(entry?.path())?;
        assert!(!String::from_utf8_lossy(&bytes).contains("PRIVATE KEY"), "a key lies in the folder");
    }
    assert_eq!(sign(authorities.path(), &folder, "300")?, 9);

    let plain = ends(&cluster, &["plan"], 2);
    assert!(plain.stderr.contains("without --custom-certs"), "{plain}");
    // Nothing is begun with a folder that is not whole.
    let kubelet = folder.join("kube-node-h1.pem");
    std::fs::rename(&kubelet, folder.join("aside"))?;
    let refused = ends(&cluster, &["up", "--yes", "--custom-certs"], 1);
    assert!(refused.stderr.contains("kube-node-h1.pem: is missing"), "{refused}");
    cluster.host("h1").ssh("test ! -e /etc/kubernetes && test ! -e /var/lib/bastide")?;
    std::fs::rename(folder.join("aside"), &kubelet)?;

    let up = ends(&cluster, &["up", "--yes", "--custom-certs"], 0);
    println!("up with an external authority: {:.1} s", up.took.as_secs_f64());
    cluster.assert_plans_nothing();
    ends(&cluster, &["plan", "--custom-certs"], 0);
    ends(&cluster, &["status"], 0);
    cluster.host("h1").ssh("test ! -e /etc/kubernetes/pki/ca.key && test ! -e /etc/kubernetes/pki/signer.crt")?;
    let files = days(&cluster)?;
    assert_eq!(files.len(), 8, "all but bastide's own, which is on no host: {files:?}");
    assert!(files.iter().all(|(_, days)| *days == 299), "{files:?}");

    // What only the authority could do is not begun.
    for arguments in [&["rotate-certs", "--yes"][..], &["rotate-certs", "--ca", "--yes"], &["kubeconfig"]] {
        let refused = ends(&cluster, arguments, 1);
        assert!(refused.stderr.contains("the kubernetes authority is an external one"), "{refused}");
    }
    cluster.assert_plans_nothing();

    // A renewed set.
    ends(&cluster, &["certs", "generate-csr"], 0);
    sign(authorities.path(), &folder, "250")?;
    let rotated = ends(&cluster, &["rotate-certs", "--yes", "--custom-certs"], 0);
    println!("a renewed set: {:.1} s", rotated.took.as_secs_f64());
    let files = days(&cluster)?;
    assert_eq!(files.len(), 8, "{files:?}");
    assert!(files.iter().all(|(_, days)| *days == 249), "{files:?}");
    cluster.assert_plans_nothing();
    ends(&cluster, &["status"], 0);
    let again = ends(&cluster, &["rotate-certs", "--yes", "--custom-certs"], 0);
    assert!(again.stderr.contains("Nothing to do"), "{again}");
    Ok(())
}

/// A control plane, an etcd member and a worker behind its balancer, and not one authority of bastide's own.
#[test]
#[ignore = "six minutes; `cargo xtask soak --part external` runs it"]
fn roles_apart_with_external_authorities_alone() -> Result<()> {
    let mut cluster = Cluster::roles_apart()?;
    let authorities = authorities(&[KUBERNETES, ETCD, FRONT_PROXY])?;
    let folder = cluster.folder().join("elsewhere");
    let directory = folder.display().to_string();
    let all = ["--authority", "kubernetes", "--authority", "etcd", "--authority", "front-proxy"];
    let generate = ["certs", "generate-csr", "--no-identity-backup", "--cert-dir", &directory];
    ends(&cluster, &[&generate[..], &all].concat(), 0);
    let signed = sign(authorities.path(), &folder, "300")?;
    let custom = ["--custom-certs", "--cert-dir", &directory];
    ends(&cluster, &[&["up", "--yes"][..], &custom].concat(), 0);
    cluster.assert_plans_nothing();
    ends(&cluster, &["status"], 0);
    assert_eq!(days(&cluster)?.len(), signed - 2, "all but bastide's own and metrics-server's");

    // A change and the way back, with the certificates of today.
    cluster.file.more = "services: {kube-api: {extra_args: {event-ttl: 2h}}}\n".to_owned();
    cluster.write()?;
    ends(&cluster, &["up", "--yes"], 0);
    ends(&cluster, &["rollback", "--yes"], 0);
    cluster.file.more.clear();
    cluster.write()?;
    cluster.assert_plans_nothing();

    // A renewed set, and the one before it again.
    ends(&cluster, &["certs", "generate-csr", "--cert-dir", &directory], 0);
    assert_eq!(sign(authorities.path(), &folder, "250")?, signed);
    let rotated = ends(&cluster, &[&["rotate-certs", "--yes"][..], &custom].concat(), 0);
    println!("a renewed set on three hosts: {:.1} s", rotated.took.as_secs_f64());
    assert!(days(&cluster)?.iter().all(|(_, days)| *days == 249));
    ends(&cluster, &["status"], 0);
    let refused = ends(&cluster, &["rotate-certs", "--yes", "--service", "etcd"], 1);
    assert!(refused.stderr.contains("the etcd authority is an external one"), "{refused}");
    ends(&cluster, &["rollback", "--yes"], 0);
    assert!(days(&cluster)?.iter().all(|(_, days)| *days == 299));
    ends(&cluster, &["status"], 0);
    cluster.assert_plans_nothing();
    Ok(())
}

/// Three hosts with every role: one external authority for all of them, and a second set of leaves.
#[test]
#[ignore = "six minutes; `cargo xtask soak --part external` runs it"]
fn three_control_planes_are_born_with_an_external_authority_and_renewed() -> Result<()> {
    let cluster = Cluster::three_all_roles()?;
    let authorities = authorities(&[KUBERNETES])?;
    let folder = cluster.folder().join("cluster_certs");
    ends(&cluster, &["certs", "generate-csr", "--no-identity-backup"], 0);
    let signed = sign(authorities.path(), &folder, "300")?;
    ends(&cluster, &["up", "--yes", "--custom-certs"], 0);
    cluster.assert_plans_nothing();
    ends(&cluster, &["status"], 0);
    assert_eq!(days(&cluster)?.len(), signed - 2, "all but bastide's own and metrics-server's");
    ends(&cluster, &["certs", "generate-csr"], 0);
    assert_eq!(sign(authorities.path(), &folder, "250")?, signed);
    let rotated = ends(&cluster, &["rotate-certs", "--yes", "--custom-certs"], 0);
    println!("a renewed set on three control planes: {:.1} s", rotated.took.as_secs_f64());
    let files = days(&cluster)?;
    assert!(files.len() == signed - 2 && files.iter().all(|(_, days)| *days == 249), "{files:?}");
    cluster.assert_plans_nothing();
    ends(&cluster, &["status"], 0);
    Ok(())
}

/// Whether an API server knows whom the pair at `config` is for.
fn opens(cluster: &Cluster, config: &str) -> bool {
    let asked = format!(
        "curl -sf --max-time 20 -k --cert {config}.crt --key {config}.key https://127.0.0.1:6443/api >/dev/null"
    );
    cluster.host("h1").ssh(&asked).is_ok()
}

/// Puts the API server's client certificate towards kubelets aside: whoever has it is known as long as its authority is believed.
fn put_aside(cluster: &Cluster, to: &str) -> Result<()> {
    let pki = "/etc/kubernetes/pki";
    cluster.host("h1").ssh(&format!(
        "cp {pki}/apiserver-kubelet-client.crt {to}.crt && cp {pki}/apiserver-kubelet-client.key {to}.key"
    ))?;
    Ok(())
}

/// A running cluster is given to an external authority, goes back in the middle, is given to it after all, and taken back.
#[test]
#[ignore = "nine minutes; `cargo xtask soak --part external` runs it"]
fn a_running_cluster_changes_hands() -> Result<()> {
    let cluster = Cluster::one_host()?;
    let authorities = authorities(&[KUBERNETES])?;
    let folder = cluster.folder().join("cluster_certs");
    let give = ["rotate-certs", "--ca", "--custom-certs", "--yes", "--restart-pods", "--leave-pods"];
    ends(&cluster, &["up", "--yes", "--no-identity-backup"], 0);
    put_aside(&cluster, "/root/own")?;
    assert!(opens(&cluster, "/root/own"));

    let told = ends(&cluster, &["certs", "generate-csr"], 0);
    assert!(told.stdout.contains("rotate-certs --ca --custom-certs"), "{told}");
    sign(authorities.path(), &folder, "300")?;
    // Nothing is begun with a folder that is not whole, and everything is said at once.
    let aside = |name: &str, to: &str| std::fs::rename(folder.join(name), folder.join(to));
    aside("kube-node-h1.pem", "node.aside")?;
    aside("kube-proxy-h1.pem", "proxy.aside")?;
    std::fs::copy(folder.join("kube-scheduler-h1.pem"), folder.join("kube-proxy-h1.pem"))?;
    let refused = ends(&cluster, &give, 1);
    for wanted in
        ["kube-node-h1.pem: is missing", "kube-proxy-h1.pem: CN: is", "kube-proxy-h1.pem: key: is another one"]
    {
        assert!(refused.stderr.contains(wanted), "{wanted}: {refused}");
    }
    cluster.assert_plans_nothing();
    aside("node.aside", "kube-node-h1.pem")?;
    aside("proxy.aside", "kube-proxy-h1.pem")?;

    let given = ends(&cluster, &give, 0);
    println!("given to an external authority: {:.1} s", given.took.as_secs_f64());
    assert!(given.to_string().contains("gives its place to an external one"), "{given}");
    cluster.assert_plans_nothing();
    ends(&cluster, &["status"], 0);
    let files = days(&cluster)?;
    assert!(files.len() == 8 && files.iter().all(|(_, days)| *days == 299), "{files:?}");
    cluster.host("h1").ssh("test ! -e /etc/kubernetes/pki/ca.key && test ! -e /etc/kubernetes/pki/signer.crt")?;
    assert!(!opens(&cluster, "/root/own"), "the authority of before is still believed");
    put_aside(&cluster, "/root/theirs")?;
    assert!(opens(&cluster, "/root/theirs"));

    // Back by the same legs, and there again by a second run.
    let back = ends(&cluster, &["rollback", "--to", "1", "--yes"], 0);
    println!("and back by its legs: {:.1} s", back.took.as_secs_f64());
    cluster.assert_plans_nothing();
    cluster.host("h1").ssh("test -e /etc/kubernetes/pki/ca.key && test -e /etc/kubernetes/pki/signer.crt")?;
    assert!(opens(&cluster, "/root/own") && !opens(&cluster, "/root/theirs"));
    ends(&cluster, &give, 0);
    cluster.assert_plans_nothing();

    // Taken back for good: only where it is named.
    let refused = ends(&cluster, &["rotate-certs", "--ca", "--yes"], 1);
    assert!(refused.stderr.contains("--authority kubernetes"), "{refused}");
    let take = ["rotate-certs", "--ca", "--authority", "kubernetes", "--yes", "--restart-pods", "--leave-pods"];
    let taken = ends(&cluster, &take, 0);
    println!("taken back: {:.1} s", taken.took.as_secs_f64());
    cluster.assert_plans_nothing();
    ends(&cluster, &["status"], 0);
    assert!(!opens(&cluster, "/root/own") && !opens(&cluster, "/root/theirs"));
    ends(&cluster, &["rotate-certs", "--yes"], 0);
    Ok(())
}
