//! What is in the certificates, judged by OpenSSL.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::support::NOW;
use super::support::born;
use super::support::cluster;
use super::support::node;
use crate::config::KeyAlgorithm;
use crate::model::HostName;
use crate::model::Role;
use crate::secrets::AuthorityName;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;
use crate::secrets::complete;
use crate::secrets::inspect::Seen;
use crate::secrets::leaf::table;

#[test]
fn the_table_of_a_small_cluster() {
    let mut text = String::new();
    for (id, template) in table(&cluster()) {
        let organization = template.organization.map(|name| format!(", O={name}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "{} <- {}: CN={}{organization}, {:?}",
            id.describe(),
            template.authority,
            template.common_name,
            template.usage
        );
        for san in template.sans {
            let _ = writeln!(text, "    {san:?}");
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn every_leaf_reads_back_as_the_table_has_it() {
    let cluster = cluster();
    let secrets = born(&cluster);
    let table = table(&cluster);
    assert_eq!(table.keys().collect::<Vec<_>>(), secrets.leaves.keys().collect::<Vec<_>>());
    for (id, template) in table {
        let leaf = &secrets.leaves[&id];
        let seen = Seen::read(&leaf.certificate).unwrap();
        assert!(seen.same_subject(&template), "{}", id.describe());
        assert_eq!(seen.sans, template.sans, "{}", id.describe());
        assert_eq!((seen.not_after, leaf.not_after), (NOW + 365 * 86_400, NOW + 365 * 86_400));
    }
}

/// `openssl verify` as strict as it goes, at the time of issue.
fn verifies(folder: &Path, authority: AuthorityName, leaf: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-check_ss_sig", "-attime", &NOW.to_string(), "-CAfile"])
        .arg(folder.join(format!("{authority}.crt")))
        .args(arguments)
        .arg(leaf)
        .output()
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn write_all(secrets: &Secrets) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, set) in &secrets.authorities {
        std::fs::write(folder.path().join(format!("{name}.crt")), set.trust_bundle()).unwrap();
    }
    for (id, leaf) in &secrets.leaves {
        std::fs::write(folder.path().join(id.describe()), &leaf.certificate).unwrap();
    }
    folder
}

#[test]
fn openssl_accepts_every_leaf_for_its_purpose_and_no_other() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Rsa2048] {
        let mut cluster = cluster();
        cluster.options.key_algorithm = algorithm;
        if algorithm == KeyAlgorithm::Rsa2048 {
            // RSA keys are slow to draw; one host with all roles has every kind of leaf but the balancer's.
            cluster.nodes.truncate(1);
        }
        let secrets = born(&cluster);
        let folder = write_all(&secrets);
        for (id, template) in table(&cluster) {
            let leaf = folder.path().join(id.describe());
            for (purpose, wanted) in [("sslclient", template.usage.client()), ("sslserver", template.usage.server())] {
                let verdict = verifies(folder.path(), template.authority, &leaf, &["-purpose", purpose]);
                assert_eq!(verdict.is_ok(), wanted, "{algorithm:?} {} as {purpose}: {verdict:?}", id.describe());
            }
            for other in AuthorityName::ALL.into_iter().filter(|name| *name != template.authority) {
                assert!(verifies(folder.path(), other, &leaf, &[]).is_err(), "{} under {other}", id.describe());
            }
        }
    }
}

#[test]
fn openssl_finds_names_and_addresses_of_an_api_server() {
    let secrets = born(&cluster());
    let folder = write_all(&secrets);
    let leaf = folder.path().join("apiserver of cp1");
    for name in ["kubernetes.default.svc.cluster.local", "localhost", "cp1", "api.example.com", "k8s.example.com"] {
        verifies(folder.path(), AuthorityName::Kubernetes, &leaf, &["-verify_hostname", name]).unwrap();
    }
    for address in ["10.43.0.1", "127.0.0.1", "::1", "192.0.2.11", "10.0.0.11", "203.0.113.5"] {
        verifies(folder.path(), AuthorityName::Kubernetes, &leaf, &["-verify_ip", address]).unwrap();
    }
    for name in ["etcd1", "example.com"] {
        verifies(folder.path(), AuthorityName::Kubernetes, &leaf, &["-verify_hostname", name]).unwrap_err();
    }
}

#[test]
fn openssl_reads_every_key_and_finds_it_in_its_certificate() {
    let secrets = born(&cluster());
    let folder = tempfile::tempdir().unwrap();
    let public = |arguments: &[&str], text: &[u8]| {
        let path = folder.path().join("pem");
        std::fs::write(&path, text).unwrap();
        let output = Command::new("openssl").args(arguments).arg("-in").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let pairs = secrets
        .leaves
        .values()
        .map(|leaf| (&leaf.certificate, &leaf.key))
        .chain(secrets.authorities.values().map(|set| (&set.certificate, &set.key)));
    for (certificate, key) in pairs {
        assert_eq!(
            public(&["x509", "-noout", "-pubkey"], certificate.as_bytes()),
            public(&["pkey", "-pubout"], key.expose())
        );
    }
    assert_eq!(
        public(&["pkey", "-pubout"], secrets.service_account.signing.expose()),
        secrets.service_account.verifying[0].as_bytes()
    );
}

#[test]
fn serial_numbers_are_positive_and_differ() {
    let secrets = born(&cluster());
    let mut serials = std::collections::BTreeSet::new();
    for leaf in secrets.leaves.values() {
        let (_, block) = x509_parser::pem::parse_x509_pem(leaf.certificate.as_bytes()).unwrap();
        let raw = block.parse_x509().unwrap().raw_serial().to_vec();
        assert_eq!((raw.len(), raw[0] & 0xc0), (16, 0x40));
        serials.insert(raw);
    }
    assert_eq!(serials.len(), secrets.leaves.len());
}

#[test]
fn a_thousand_leaves_take_well_under_a_second_when_optimized() {
    let mut cluster = cluster();
    cluster.nodes.truncate(1);
    for number in 1..=249 {
        let address = format!("10.1.0.{number}");
        cluster.nodes.push(node(&format!("worker{number}"), &address, &address, &[Role::Worker]));
    }
    let start = Instant::now();
    let (secrets, issued) = complete(&cluster, None, NOW, &mut SeededEntropy::new(1)).unwrap();
    let made = start.elapsed();
    let start = Instant::now();
    let (_, none) = complete(&cluster, Some(&secrets), NOW, &mut SeededEntropy::new(1)).unwrap();
    eprintln!("{} leaves made in {made:?}, found good in {:?}", issued.len(), start.elapsed());
    assert!(issued.len() >= 1000 && none.is_empty());
    // Optimized this is about a tenth of a second; the bound leaves room for debug builds on a busy machine.
    assert!(made.as_secs() < 10);
}

#[test]
fn a_worker_gets_nothing_but_its_own_three_leaves_and_the_health_check() {
    let worker = HostName::new("192.0.2.21").unwrap();
    let secrets = born(&cluster());
    let names: Vec<_> =
        secrets.leaves.keys().filter(|id| id.host.as_ref() == Some(&worker)).map(|id| id.name).collect();
    assert_eq!(names, [LeafName::KubeletClient, LeafName::KubeletServer, LeafName::Proxy, LeafName::HealthCheck]);
    assert!(secrets.leaves.contains_key(&LeafId::of(LeafName::Proxy, &worker)));
}
