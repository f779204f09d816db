//! One host whose Kubernetes authority is somebody else's: openssl signs what bastide asks for.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::Cluster;
use crate::support::Ended;

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
fn made(names: &[&str]) -> Result<TempDir> {
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

/// Authorities that are not bastide's own, and the folder where it asks them for certificates.
struct Authorities {
    own: TempDir,
    folder: PathBuf,
    /// The options that say where that is; none where bastide looks there by itself.
    elsewhere: Vec<String>,
}

impl Authorities {
    fn new(cluster: &Cluster, names: &[&str]) -> Result<Self> {
        Ok(Self { own: made(names)?, folder: cluster.folder().join("cluster_certs"), elsewhere: Vec::new() })
    }

    fn ends(&self, cluster: &Cluster, arguments: &[&str], code: i32) -> Ended {
        let elsewhere = self.elsewhere.iter().map(String::as_str);
        cluster.ends(&arguments.iter().copied().chain(elsewhere).collect::<Vec<_>>(), code)
    }

    /// Signs every request in the folder for so many days, and puts their own certificates beside. How many were signed.
    fn sign(&self, days: &str) -> Result<usize> {
        for name in [KUBERNETES, ETCD, FRONT_PROXY].map(|name| format!("{name}.pem")) {
            if self.own.path().join(&name).exists() {
                fs::copy(self.own.path().join(&name), self.folder.join(&name))?;
            }
        }
        let mut signed = 0;
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name().into_string().unwrap_or_default();
            let Some(stem) = name.strip_suffix("-csr.pem") else { continue };
            let authority = authority_of(stem);
            let (request, certificate) = (self.folder.join(&name), self.folder.join(format!("{stem}.pem")));
            let (own, key) = (format!("{authority}.pem"), format!("{authority}.key"));
            let from =
                ["x509", "-req", "-in", &request.display().to_string(), "-CA", &own, "-CAkey", &key, "-CAcreateserial"];
            let to = ["-copy_extensions", "copyall", "-days", days, "-out", &certificate.display().to_string()];
            openssl(self.own.path(), &[&from[..], &to].concat())?;
            signed += 1;
        }
        Ok(signed)
    }

    /// The cluster comes up with certificates for 300 days. How many there are.
    fn bear(&self, cluster: &Cluster, more: &[&str]) -> Result<usize> {
        self.ends(cluster, &[&["certs", "generate-csr", "--no-identity-backup"], more].concat(), 0);
        let signed = self.sign("300")?;
        self.ends(cluster, &["up", "--yes", "--custom-certs"], 0);
        stands(cluster, signed, 299)?;
        Ok(signed)
    }

    /// Others for 250 days take their place.
    fn renew(&self, cluster: &Cluster, signed: usize) -> Result<()> {
        self.ends(cluster, &["certs", "generate-csr"], 0);
        assert_eq!(self.sign("250")?, signed);
        self.ends(cluster, &["rotate-certs", "--yes", "--custom-certs"], 0);
        stands(cluster, signed, 249)
    }
}

/// So many certificates of external authorities are in use, each with so many days left, and all is well.
fn stands(cluster: &Cluster, signed: usize, days: i64) -> Result<()> {
    cluster.assert_plans_nothing();
    cluster.ends(&["status"], 0);
    // Pods are given a changed Secret within a minute or two.
    let start = Instant::now();
    let seen = loop {
        let seen = cluster.bastide(&["certs", "check", "--output", "json"])?;
        if seen.code == Some(0) {
            break seen;
        }
        assert!(start.elapsed() < Duration::from_mins(4), "disk and wire still differ: {seen}");
        std::thread::sleep(Duration::from_secs(3));
    };
    let seen: Value = serde_json::from_str(&seen.stdout)?;
    let all = seen["certificates"].as_array().context("no certificates")?;
    let left =
        all.iter().map(|one| (one["path"].as_str().unwrap_or_default(), one["days_left"].as_i64().unwrap_or(-1)));
    // bastide's own authorities sign for a year.
    let theirs: Vec<_> = left.filter(|(_, left)| *left < 350).collect();
    let right = theirs.len() == signed && theirs.iter().all(|(_, left)| *left == days);
    anyhow::ensure!(right, "not {signed} of {days} days: {theirs:?}");
    Ok(())
}

#[test]
fn an_external_authority_signs_and_signs_again() -> Result<()> {
    let cluster = Cluster::one_host()?;
    let authorities = Authorities::new(&cluster, &[KUBERNETES])?;
    cluster.ends(&["certs", "generate-csr", "--no-identity-backup"], 0);
    for entry in fs::read_dir(&authorities.folder)? {
        let bytes = fs::read(entry?.path())?;
        assert!(!String::from_utf8_lossy(&bytes).contains("PRIVATE KEY"), "a key lies in the folder");
    }
    assert_eq!(authorities.sign("300")?, 9);

    let plain = cluster.ends(&["plan"], 2);
    assert!(plain.stderr.contains("without --custom-certs"), "{plain}");
    // Nothing is begun with a folder that is not whole.
    let kubelet = authorities.folder.join("kube-node-h1.pem");
    fs::rename(&kubelet, authorities.folder.join("aside"))?;
    let refused = cluster.ends(&["up", "--yes", "--custom-certs"], 1);
    assert!(refused.stderr.contains("kube-node-h1.pem: is missing"), "{refused}");
    cluster.host("h1").ssh("test ! -e /etc/kubernetes && test ! -e /var/lib/bastide")?;
    fs::rename(authorities.folder.join("aside"), &kubelet)?;

    cluster.ends(&["up", "--yes", "--custom-certs"], 0);
    stands(&cluster, 9, 299)?;
    cluster.ends(&["plan", "--custom-certs"], 0);
    cluster.host("h1").ssh("test ! -e /etc/kubernetes/pki/ca.key && test ! -e /etc/kubernetes/pki/signer.crt")?;

    // What only the authority could do is not begun.
    for arguments in [&["rotate-certs", "--yes"][..], &["rotate-certs", "--ca", "--yes"], &["kubeconfig"]] {
        let refused = cluster.ends(arguments, 1);
        assert!(refused.stderr.contains("the kubernetes authority is an external one"), "{refused}");
    }
    cluster.assert_plans_nothing();

    authorities.renew(&cluster, 9)?;
    let again = cluster.ends(&["rotate-certs", "--yes", "--custom-certs"], 0);
    assert!(again.stderr.contains("Nothing to do"), "{again}");
    Ok(())
}

/// A control plane, an etcd member and a worker behind its balancer, and not one authority of bastide's own.
#[test]
#[ignore = "six minutes; `cargo xtask soak --part external` runs it"]
fn roles_apart_with_external_authorities_alone() -> Result<()> {
    let mut cluster = Cluster::roles_apart()?;
    let mut authorities = Authorities::new(&cluster, &[KUBERNETES, ETCD, FRONT_PROXY])?;
    authorities.folder = cluster.folder().join("elsewhere");
    authorities.elsewhere = vec!["--cert-dir".to_owned(), authorities.folder.display().to_string()];
    let all = ["--authority", "kubernetes", "--authority", "etcd", "--authority", "front-proxy"];
    let signed = authorities.bear(&cluster, &all)?;

    // A change and the way back, with the certificates of today.
    cluster.file.more = "services: {kube-api: {extra_args: {event-ttl: 2h}}}\n".to_owned();
    cluster.write()?;
    cluster.ends(&["up", "--yes"], 0);
    cluster.ends(&["rollback", "--yes"], 0);
    cluster.file.more.clear();
    cluster.write()?;
    cluster.assert_plans_nothing();

    // A renewed set, and the one before it again.
    authorities.renew(&cluster, signed)?;
    let refused = cluster.ends(&["rotate-certs", "--yes", "--service", "etcd"], 1);
    assert!(refused.stderr.contains("the etcd authority is an external one"), "{refused}");
    cluster.ends(&["rollback", "--yes"], 0);
    stands(&cluster, signed, 299)
}

/// Three hosts with every role: one external authority for all of them, and a second set of leaves.
#[test]
#[ignore = "six minutes; `cargo xtask soak --part external` runs it"]
fn three_control_planes_are_born_with_an_external_authority_and_renewed() -> Result<()> {
    let cluster = Cluster::three_all_roles()?;
    let authorities = Authorities::new(&cluster, &[KUBERNETES])?;
    let signed = authorities.bear(&cluster, &[])?;
    authorities.renew(&cluster, signed)
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
    let authorities = Authorities::new(&cluster, &[KUBERNETES])?;
    let folder = &authorities.folder;
    let give = ["rotate-certs", "--ca", "--custom-certs", "--yes", "--restart-pods", "--leave-pods"];
    cluster.ends(&["up", "--yes", "--no-identity-backup"], 0);
    put_aside(&cluster, "/root/own")?;
    assert!(opens(&cluster, "/root/own"));

    let told = cluster.ends(&["certs", "generate-csr"], 0);
    assert!(told.stdout.contains("rotate-certs --ca --custom-certs"), "{told}");
    authorities.sign("300")?;
    // Nothing is begun with a folder that is not whole, and everything is said at once.
    let aside = |name: &str, to: &str| fs::rename(folder.join(name), folder.join(to));
    aside("kube-node-h1.pem", "node.aside")?;
    aside("kube-proxy-h1.pem", "proxy.aside")?;
    fs::copy(folder.join("kube-scheduler-h1.pem"), folder.join("kube-proxy-h1.pem"))?;
    let refused = cluster.ends(&give, 1);
    for wanted in
        ["kube-node-h1.pem: is missing", "kube-proxy-h1.pem: CN: is", "kube-proxy-h1.pem: key: is another one"]
    {
        assert!(refused.stderr.contains(wanted), "{wanted}: {refused}");
    }
    cluster.assert_plans_nothing();
    aside("node.aside", "kube-node-h1.pem")?;
    aside("proxy.aside", "kube-proxy-h1.pem")?;

    let given = cluster.ends(&give, 0);
    assert!(given.to_string().contains("gives its place to an external one"), "{given}");
    stands(&cluster, 9, 299)?;
    cluster.host("h1").ssh("test ! -e /etc/kubernetes/pki/ca.key && test ! -e /etc/kubernetes/pki/signer.crt")?;
    assert!(!opens(&cluster, "/root/own"), "the authority of before is still believed");
    put_aside(&cluster, "/root/theirs")?;
    assert!(opens(&cluster, "/root/theirs"));

    // Back by the same legs, and there again by a second run.
    cluster.ends(&["rollback", "--to", "1", "--yes"], 0);
    cluster.assert_plans_nothing();
    cluster.host("h1").ssh("test -e /etc/kubernetes/pki/ca.key && test -e /etc/kubernetes/pki/signer.crt")?;
    assert!(opens(&cluster, "/root/own") && !opens(&cluster, "/root/theirs"));
    cluster.ends(&give, 0);
    cluster.assert_plans_nothing();

    // Taken back for good: only where it is named.
    let refused = cluster.ends(&["rotate-certs", "--ca", "--yes"], 1);
    assert!(refused.stderr.contains("--authority kubernetes"), "{refused}");
    let take = ["rotate-certs", "--ca", "--authority", "kubernetes", "--yes", "--restart-pods", "--leave-pods"];
    cluster.ends(&take, 0);
    cluster.assert_plans_nothing();
    cluster.ends(&["status"], 0);
    assert!(!opens(&cluster, "/root/own") && !opens(&cluster, "/root/theirs"));
    cluster.ends(&["rotate-certs", "--yes"], 0);
    Ok(())
}
