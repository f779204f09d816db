//! What becomes of a cluster whose authority is an external one: the real openssl signs what bastide asks for.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::external::Authority;
use super::external::Folder;
use super::external::asked;
use super::external::born;
use super::external::now;
use super::external::two_hosts;
use super::support::DAY;
use super::support::node;
use crate::config::KeyAlgorithm;
use crate::model::Content;
use crate::model::HostName;
use crate::model::Role;
use crate::secrets::AuthorityName;
use crate::secrets::CustomFiles;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Operator;
use crate::secrets::Prefer;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::SeededEntropy;
use crate::secrets::Terms;
use crate::secrets::bring;
use crate::secrets::bring_again;
use crate::secrets::carry;
use crate::secrets::complete;
use crate::secrets::issuer;
use crate::secrets::leaf::Usage;
use crate::secrets::leaf::rows;
use crate::secrets::operator_leaf;
use crate::secrets::renew;
use crate::secrets::seal_form;
use crate::secrets::unseal_form;

#[test]
fn what_openssl_signs_is_used_and_its_authority_s_key_is_nowhere() {
    let (cluster, authority) = (two_hosts(), Authority::new("external"));
    let folder = asked(&cluster, None, CustomFiles::default(), 1).signed(&authority);
    let names: Vec<_> = folder.requests.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "kube-admin",
            "kube-admin-conf-cp1",
            "kube-apiserver-cp1",
            "kube-apiserver-kubelet-client-cp1",
            "kube-controller-manager-cp1",
            "kube-health-check-w1",
            "kube-kubelet-cp1",
            "kube-kubelet-w1",
            "kube-metrics-server",
            "kube-node-cp1",
            "kube-node-w1",
            "kube-proxy-cp1",
            "kube-proxy-w1",
            "kube-scheduler-cp1",
        ]
    );
    let secrets = born(&cluster, &folder);
    assert_eq!(secrets.external(), [AuthorityName::Kubernetes].into());
    assert!(secrets.authorities[&AuthorityName::Kubernetes].key.is_empty());
    assert_eq!(
        secrets.leaves.keys().collect::<Vec<_>>(),
        rows(&cluster, &secrets.external()).keys().collect::<Vec<_>>()
    );
    assert_eq!(unseal_form(&seal_form(&secrets)).unwrap(), secrets);
    // bastide's own way in is the one that was signed for it.
    let own =
        operator_leaf(&secrets, Operator::SuperAdmin, KeyAlgorithm::P256, now(), &mut SeededEntropy::new(1)).unwrap();
    assert_eq!(own, secrets.leaves[&LeafId { name: LeafName::Operator, host: None }]);
    // Once more: nothing is anything else.
    let again = bring(&cluster, Some(&secrets), &folder.files, now(), &mut SeededEntropy::new(8)).unwrap();
    assert_eq!((again.secrets, again.changed), (secrets, BTreeSet::new()));
}

#[test]
fn requests_stay_as_they_are_until_their_certificates_are_in_use() {
    let (cluster, authority) = (two_hosts(), Authority::new("external"));
    let first = asked(&cluster, None, CustomFiles::default(), 1);
    let second = asked(&cluster, None, first.files.clone(), 2);
    assert_eq!(first.requests, second.requests);
    // Another name: another request with the same key, and all others stay.
    let mut named = two_hosts();
    named.sans.push("api.example.com".to_owned());
    let third = asked(&named, None, second.files.clone(), 3);
    let changed: Vec<_> =
        third.requests.iter().filter(|(stem, text)| first.requests[*stem] != **text).map(|(stem, _)| stem).collect();
    assert_eq!(changed, ["kube-apiserver-cp1"]);
    assert_eq!(third.files.keys, first.files.keys);
    // In use: the next ones are for other keys.
    let folder = second.signed(&authority);
    let secrets = born(&cluster, &folder);
    let next = asked(&cluster, Some(&secrets), folder.files.clone(), 4);
    assert!(next.requests.iter().all(|(stem, text)| folder.requests[stem] != *text));
    assert!(next.files.keys.iter().all(|(stem, key)| folder.files.keys[stem] != *key));
}

#[test]
fn files_as_rke_has_them_do() {
    let (cluster, authority) = (two_hosts(), Authority::new("external"));
    let mut folder = asked(&cluster, None, CustomFiles::default(), 1).signed(&authority);
    // One pair for all hosts, its key beside it in the form of RKE (PKCS#1), made by somebody else.
    for host in ["cp1", "w1"] {
        folder.files.files.remove(&format!("kube-proxy-{host}.pem")).unwrap();
        folder.files.keys.remove(&format!("kube-proxy-{host}"));
    }
    authority.openssl(
        &["req", "-newkey", "rsa:2048", "-nodes"],
        &["-keyout", "proxy.key", "-out", "proxy", "-subj", "/CN=system:kube-proxy"],
    );
    authority.openssl(&["rsa", "-traditional", "-in", "proxy.key"], &["-out", "proxy.pkcs1"]);
    let request = std::fs::read_to_string(authority.path().join("proxy")).unwrap();
    folder.put("kube-proxy.pem", authority.sign_as(&request, "extendedKeyUsage=clientAuth,serverAuth\n", &[]));
    let key = Content::new(std::fs::read(authority.path().join("proxy.pkcs1")).unwrap());
    assert!(key.expose_text().unwrap().starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    folder.put("kube-proxy-key.pem", key);
    folder.put("kube-service-account-token.pem", authority.certificate());
    let brought = folder.brought(&cluster).unwrap();
    assert_eq!(brought.unused, ["kube-service-account-token.pem"]);
    let of = |host| brought.secrets.leaves[&LeafId::of(LeafName::Proxy, &HostName::new(host).unwrap())].clone();
    assert_eq!(of("cp1"), of("w1"));

    // Whoever shares goes on sharing.
    let next = Folder { files: folder.files.clone(), requests: BTreeMap::new() };
    let mut next = Folder { requests: asked(&cluster, Some(&brought.secrets), next.files.clone(), 3).requests, ..next };
    next.files.keys = asked(&cluster, Some(&brought.secrets), next.files.clone(), 3).files.keys;
    let torn = bring_again(&brought.secrets, &next.signed(&authority).files, Terms::of(&cluster), now()).unwrap_err();
    assert_eq!(
        torn.to_string(),
        "kube-proxy-w1.pem: other hosts have the same certificate today, and must go on sharing one"
    );
}

#[test]
fn an_authority_with_its_key_is_the_cluster_s_own() {
    let (cluster, authority) = (two_hosts(), Authority::new("brought"));
    let mut folder = Folder { files: CustomFiles::default(), requests: BTreeMap::new() }.signed(&authority);
    folder.put("kube-ca-key.pem", authority.key());
    let brought = folder.brought(&cluster).unwrap();
    assert!(brought.secrets.external().is_empty());
    let (secrets, issued) = complete(&cluster, Some(&brought.secrets), now(), &mut SeededEntropy::new(9)).unwrap();
    assert_eq!(issued.len(), secrets.leaves.len());
    let again = bring(&cluster, Some(&secrets), &folder.files, now(), &mut SeededEntropy::new(8)).unwrap();
    assert_eq!(again.changed, BTreeSet::new());
    folder.put("kube-ca-key.pem", Content::new(std::fs::read(Authority::new("other").path().join("ca.key")).unwrap()));
    assert!(folder.misfits(&cluster)[0].starts_with("kube-ca.pem: key: kube-ca-key.pem is not its key"));
}

#[test]
fn nothing_is_issued_in_an_external_authority_s_name() {
    let (mut cluster, authority) = (two_hosts(), Authority::new("external"));
    let folder = asked(&cluster, None, CustomFiles::default(), 1).signed(&authority);
    let secrets = born(&cluster, &folder);
    let entropy = &mut SeededEntropy::new(4);
    let terms = Terms::of(&cluster);
    let wanted = |error: SecretsError| match error {
        SecretsError::AuthorityExternal { name: AuthorityName::Kubernetes, wanted } => wanted,
        other => panic!("{other:?}"),
    };
    // Not when they end, not even after it: there is nothing better.
    for later in [250, 400] {
        let (kept, issued) = complete(&cluster, Some(&secrets), now() + later * DAY, entropy).unwrap();
        assert!(issued.iter().all(|one| issuer(one.id.name) != AuthorityName::Kubernetes), "{issued:?}");
        assert_eq!(
            kept.leaves[&LeafId { name: LeafName::Operator, host: None }],
            secrets.leaves[&LeafId { name: LeafName::Operator, host: None }]
        );
    }
    let all = secrets.leaves.keys().cloned().collect();
    assert_eq!(wanted(renew(&secrets, &all, terms, now(), entropy).unwrap_err()).len(), folder.requests.len());
    let etcd = [LeafId::of(LeafName::EtcdServer, &HostName::new("cp1").unwrap())].into();
    assert_eq!(renew(&secrets, &etcd, terms, now(), entropy).unwrap().1.len(), 1);
    let person = Operator::Person { name: "alice", days: 30 };
    let asked_for = wanted(operator_leaf(&secrets, person, KeyAlgorithm::P256, now(), entropy).unwrap_err());
    assert_eq!(asked_for, ["a client certificate with CN=alice and O=bastide:admins"]);

    // A way back takes what there is along, however soon it ends, but nothing that has ended.
    let back = |days| carry(&secrets, &secrets, Prefer::Stored, terms, now() + days * DAY, &mut SeededEntropy::new(5));
    let leaves = |of: &Secrets| -> Vec<_> {
        of.leaves
            .iter()
            .filter(|(id, _)| issuer(id.name) == AuthorityName::Kubernetes)
            .map(|(_, leaf)| leaf.clone())
            .collect()
    };
    assert_eq!(leaves(&back(290).unwrap().0), leaves(&secrets));
    assert_eq!(wanted(back(301).unwrap_err()).len(), folder.requests.len());

    // What the file asks for beyond them is named, and not made.
    cluster.sans.push("api.example.com".to_owned());
    cluster.nodes.push(node("w2", "192.0.2.22", "192.0.2.22", &[Role::Worker]));
    let missing = wanted(complete(&cluster, Some(&secrets), now(), entropy).unwrap_err());
    assert_eq!(
        missing,
        [
            "certificate apiserver of cp1: names changed (+api.example.com)",
            "certificate kubelet-client of w2: new",
            "certificate kubelet-server of w2: new",
            "certificate proxy of w2: new",
            "certificate health-check of w2: new",
        ]
    );
    // Requests for these alone are new.
    let more = asked(&cluster, Some(&secrets), folder.files.clone(), 6);
    assert!(more.requests.contains_key("kube-node-w2"));
}

#[test]
fn a_renewed_folder_changes_what_is_another_and_must_say_as_much() {
    let (cluster, authority) = (two_hosts(), Authority::new("external"));
    let folder = asked(&cluster, None, CustomFiles::default(), 1).signed(&authority);
    let secrets = born(&cluster, &folder);
    let next = asked(&cluster, Some(&secrets), folder.files.clone(), 4).signed(&authority);
    let brought = bring_again(&secrets, &next.files, Terms::of(&cluster), now()).unwrap();
    assert_eq!(brought.changed.len(), next.requests.len());
    assert_eq!(brought.secrets.authorities, secrets.authorities);
    // Some of them do as well, and a certificate that was renewed for the same key.
    let mut some = CustomFiles::default();
    some.files.insert(
        "kube-scheduler-cp1.pem".to_owned(),
        authority.sign(&folder.requests["kube-scheduler-cp1"], &["-days", "400"]),
    );
    let brought = bring_again(&secrets, &some, Terms::of(&cluster), now()).unwrap();
    assert_eq!(
        brought.changed.into_iter().collect::<Vec<_>>(),
        [LeafId::of(LeafName::Scheduler, &HostName::new("cp1").unwrap())]
    );
    // Another authority is none of this cluster's.
    let stranger = asked(&cluster, Some(&secrets), folder.files.clone(), 4).signed(&Authority::new("external"));
    let refused = bring_again(&secrets, &stranger.files, Terms::of(&cluster), now()).unwrap_err().to_string();
    assert!(refused.contains("kube-ca.pem: is another kubernetes authority"), "{refused}");
    assert!(refused.contains("kube-proxy-w1.pem: issuer: is not signed by"), "{refused}");
    // And a cluster of bastide's own has nothing to be brought to.
    let (own, _) = complete(&cluster, None, now(), &mut SeededEntropy::new(1)).unwrap();
    let refused = bring_again(&own, &next.files, Terms::of(&cluster), now()).unwrap_err().to_string();
    assert!(refused.contains("rotate-certs --ca --custom-certs"), "{refused}");
}

#[test]
fn the_usages_of_the_rows_are_those_of_the_table() {
    for (id, template) in rows(&super::support::cluster(), &AuthorityName::ALL.into()) {
        assert_eq!(Usage::of(id.name), template.usage, "{}", id.describe());
    }
}
