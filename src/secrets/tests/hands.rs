//! A running cluster's authority that changes hands: an external one takes the place of bastide's own, and the other way round. openssl is
//! that authority, and judges.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::process::Command;

use super::external::Authority;
use super::external::Folder;
use super::external::asked;
use super::external::now;
use super::external::two_hosts;
use super::support::DAY;
use crate::config::Cluster;
use crate::model::Content;
use crate::model::HostName;
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
use crate::secrets::accept_new_authorities;
use crate::secrets::bring_authorities;
use crate::secrets::carry;
use crate::secrets::complete;
use crate::secrets::drop_old_authorities;
use crate::secrets::issue_from_new_authorities;
use crate::secrets::issued_by;
use crate::secrets::issuer;
use crate::secrets::leaf::rows;
use crate::secrets::operator_leaf;
use crate::secrets::seal_form;
use crate::secrets::serving_chain;
use crate::secrets::unseal_form;

const KUBERNETES: AuthorityName = AuthorityName::Kubernetes;

fn own(cluster: &Cluster) -> Secrets {
    complete(cluster, None, now(), &mut SeededEntropy::new(1)).unwrap().0
}

fn names() -> BTreeSet<AuthorityName> {
    [KUBERNETES].into()
}

fn accepted(cluster: &Cluster, today: &Secrets, folder: &Folder) -> Result<Secrets, SecretsError> {
    let terms = Terms::of(cluster);
    bring_authorities(today, &BTreeSet::new(), &folder.files, terms, now(), &mut SeededEntropy::new(8)).map(
        |(secrets, names, _)| {
            assert_eq!(names, self::names());
            secrets
        },
    )
}

fn issuing(cluster: &Cluster, accepted: &Secrets, at: i64) -> Result<Secrets, SecretsError> {
    let entropy = &mut SeededEntropy::new(9);
    issue_from_new_authorities(accepted, &names(), Terms::of(cluster), at, entropy).map(|(secrets, _)| secrets)
}

/// Everything that is wrong, one line each.
fn misfits(answer: Result<Secrets, SecretsError>) -> Vec<String> {
    match answer {
        Err(SecretsError::Misfits(all)) => all.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn leaves(secrets: &Secrets) -> BTreeMap<LeafId, String> {
    let theirs = secrets.leaves.iter().filter(|(id, _)| issuer(id.name) == KUBERNETES);
    theirs.map(|(id, leaf)| (id.clone(), leaf.certificate.clone())).collect()
}

/// Whether openssl, which trusts `trust` alone, accepts what the server shows.
fn openssl_accepts(trust: &str, chain: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (leaf, rest) = chain.split_at(chain.find("-----END CERTIFICATE-----").unwrap() + 26);
    for (name, text) in [("trust", trust), ("leaf", leaf), ("rest", rest)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let more: &[&str] = if rest.trim().is_empty() { &[] } else { &["-untrusted", "rest"] };
    let mut openssl = Command::new("openssl");
    openssl.args(["verify", "-purpose", "sslserver", "-CAfile", "trust"]).args(more).arg("leaf");
    openssl.current_dir(folder.path()).output().unwrap().status.success()
}

#[test]
fn an_external_authority_takes_the_place_of_the_cluster_s_own_and_gives_it_back() {
    let (cluster, authority) = (two_hosts(), Authority::new("elsewhere"));
    let before = own(&cluster);
    let folder = asked(&cluster, Some(&before), CustomFiles::default(), 2).signed(&authority);
    let first = accepted(&cluster, &before, &folder).unwrap();
    // The first leg issues nothing and takes nothing away.
    assert_eq!((&first.leaves, first.external()), (&before.leaves, BTreeSet::new()));
    assert_eq!(first.authorities[&KUBERNETES].trust_bundle().matches("BEGIN").count(), 2);
    assert_eq!(unseal_form(&seal_form(&first)).unwrap(), first);
    let second = issuing(&cluster, &first, now()).unwrap();
    let set = &second.authorities[&KUBERNETES];
    assert!(set.external && set.key.is_empty() && !set.is_lost());
    assert_eq!(second.leaves.keys().collect::<Vec<_>>(), rows(&cluster, &names()).keys().collect::<Vec<_>>());
    assert!(leaves(&second).values().all(|leaf| issued_by(set, leaf)));
    assert_eq!(unseal_form(&seal_form(&second)).unwrap(), second);
    // Who trusts the old one alone goes on: that one signed the new one, whose key bastide has never seen.
    let id = LeafId::of(LeafName::ApiServer, &HostName::new("cp1").unwrap());
    let (old, chain) = (before.authorities[&KUBERNETES].trust_bundle(), serving_chain(&second, &id).unwrap());
    assert!(openssl_accepts(&old, &chain));
    assert!(!openssl_accepts(&old, &second.leaves[&id].certificate), "without what leads there");
    let third = drop_old_authorities(&second, &names()).unwrap();
    assert!(openssl_accepts(&third.authorities[&KUBERNETES].trust_bundle(), &serving_chain(&third, &id).unwrap()));
    assert!(!openssl_accepts(&old, &serving_chain(&third, &id).unwrap()));

    // And back: nobody signs the cluster's new one with the external one's key.
    let entropy = &mut SeededEntropy::new(5);
    let back = accept_new_authorities(&third, &names(), cluster.options.key_algorithm, now(), entropy).unwrap();
    assert!(back.authorities[&KUBERNETES].other.as_ref().unwrap().cross_signed.is_none());
    let mine = issuing(&cluster, &back, now()).unwrap();
    assert_eq!(mine.external(), BTreeSet::new());
    assert!(!mine.authorities[&KUBERNETES].is_lost(), "its key is elsewhere, not lost");
    assert_eq!(mine.leaves.keys().collect::<Vec<_>>(), before.leaves.keys().collect::<Vec<_>>());
    assert!(leaves(&mine).values().all(|leaf| issued_by(&mine.authorities[&KUBERNETES], leaf)));
    // What tells whether the external one is still believed stays until it is not.
    let other = mine.authorities[&KUBERNETES].other.as_ref().unwrap();
    assert_eq!(other.leaves.keys().map(|id| id.name).collect::<Vec<_>>(), [LeafName::Operator]);
    assert_eq!(unseal_form(&seal_form(&mine)).unwrap(), mine);
}

#[test]
fn an_authority_that_comes_with_its_key_is_the_cluster_s_own() {
    let (cluster, authority) = (two_hosts(), Authority::new("given"));
    let before = own(&cluster);
    let mut folder = Folder { files: CustomFiles::default(), requests: BTreeMap::new() };
    folder.put("kube-ca.pem", authority.certificate());
    folder.put("kube-ca-key.pem", authority.key());
    let first = accepted(&cluster, &before, &folder).unwrap();
    let second = issuing(&cluster, &first, now()).unwrap();
    assert_eq!(second.external(), BTreeSet::new());
    assert!(leaves(&second).values().all(|leaf| issued_by(&second.authorities[&KUBERNETES], leaf)));
    assert_eq!(second.leaves.keys().collect::<Vec<_>>(), before.leaves.keys().collect::<Vec<_>>());
    folder.put("kube-ca-key.pem", Authority::new("another").key());
    let wrong = misfits(accepted(&cluster, &before, &folder));
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].starts_with("kube-ca.pem: key: kube-ca-key.pem is not its key"), "{wrong:?}");
}

#[test]
fn everything_that_is_wrong_with_a_folder_is_said_at_once() {
    let (cluster, authority) = (two_hosts(), Authority::new("elsewhere"));
    let before = own(&cluster);
    let mut folder = asked(&cluster, Some(&before), CustomFiles::default(), 2).signed(&authority);
    let request = |stem: &str| folder.requests[stem].clone();
    let bad = [
        // Of a stranger, ended, without its names, for the wrong purpose, and with the key of another request.
        ("kube-proxy-w1.pem", Authority::new("elsewhere").sign(&request("kube-proxy-w1"), &[])),
        ("kube-scheduler-cp1.pem", authority.sign(&request("kube-scheduler-cp1"), &["-days", "-1"])),
        (
            "kube-apiserver-cp1.pem",
            authority.sign_as(&request("kube-apiserver-cp1"), "extendedKeyUsage=serverAuth", &[]),
        ),
        ("kube-node-w1.pem", authority.sign_as(&request("kube-node-w1"), "extendedKeyUsage=serverAuth", &[])),
    ];
    for (file, content) in bad {
        folder.put(file, content);
    }
    folder.files.files.remove("kube-kubelet-w1.pem");
    folder.files.keys.remove("kube-admin");
    let wrong = misfits(accepted(&cluster, &before, &folder));
    let wanted = [
        "kube-admin.pem: key: is nowhere",
        "kube-apiserver-cp1.pem: subjectAltName: lacks",
        "kube-kubelet-w1.pem: is missing",
        "kube-node-w1.pem: extendedKeyUsage: lacks clientAuth",
        "kube-proxy-w1.pem: issuer: is not signed by",
        "kube-scheduler-cp1.pem: validity: has ended",
    ];
    assert_eq!(wrong.len(), wanted.len(), "{wrong:#?}");
    for (seen, wanted) in wrong.iter().zip(wanted) {
        assert!(seen.starts_with(wanted), "{seen}: {wanted}");
    }
}

#[test]
fn an_authority_that_is_there_already_or_has_its_name_or_key_takes_no_place() {
    let (cluster, authority) = (two_hosts(), Authority::new("elsewhere"));
    let before = own(&cluster);
    let with = |content: Content| {
        let mut folder = asked(&cluster, Some(&before), CustomFiles::default(), 2).signed(&authority);
        folder.put("kube-ca.pem", content);
        misfits(accepted(&cluster, &before, &folder))
    };
    let of = |name| Content::new(before.authorities[&name].certificate.as_bytes());
    assert!(with(of(KUBERNETES)).iter().any(|line| line.starts_with("kube-ca.pem: is missing")));
    let etcd = with(of(AuthorityName::Etcd));
    assert!(etcd.iter().any(|line| line.contains("is the authority of this cluster's etcd authority too")), "{etcd:?}");
    // A rotation from one external authority to another of the same name.
    let born = issuing(
        &cluster,
        &accepted(&cluster, &before, &asked(&cluster, Some(&before), CustomFiles::default(), 2).signed(&authority))
            .unwrap(),
        now(),
    );
    let today = drop_old_authorities(&born.unwrap(), &names()).unwrap();
    let twin = asked(&cluster, Some(&today), CustomFiles::default(), 6).signed(&Authority::new("elsewhere"));
    assert_eq!(misfits(accepted(&cluster, &today, &twin)).len(), 1);
    let other = asked(&cluster, Some(&today), CustomFiles::default(), 6).signed(&Authority::new("another"));
    let first = accepted(&cluster, &today, &other).unwrap();
    assert!(first.authorities[&KUBERNETES].other.as_ref().unwrap().cross_signed.is_none());
    let second = issuing(&cluster, &first, now()).unwrap();
    assert!(second.external() == names() && second.leaves != today.leaves);
}

#[test]
fn the_second_leg_is_not_taken_with_what_does_no_more() {
    let (mut cluster, authority) = (two_hosts(), Authority::new("elsewhere"));
    let before = own(&cluster);
    let folder = asked(&cluster, Some(&before), CustomFiles::default(), 2).signed(&authority);
    let first = accepted(&cluster, &before, &folder).unwrap();
    let late = misfits(issuing(&cluster, &first, now() + 301 * DAY));
    assert_eq!(late.len(), folder.requests.len());
    assert!(late[0].contains("has ended") && late[0].contains("bastide rollback"), "{late:?}");
    // `up` between the legs: a name more, of which the external authority knows nothing.
    cluster.sans.push("more.example".to_owned());
    let (grown, _) = complete(&cluster, Some(&first), now(), &mut SeededEntropy::new(3)).unwrap();
    let lacks = misfits(issuing(&cluster, &grown, now()));
    assert_eq!(lacks.len(), 1, "{lacks:?}");
    assert!(lacks[0].starts_with("kube-apiserver-cp1.pem: lacks a name that was added"), "{lacks:?}");
}

#[test]
fn a_target_of_before_is_taken_up_with_the_authority_of_today() {
    let (cluster, authority) = (two_hosts(), Authority::new("elsewhere"));
    let before = own(&cluster);
    let folder = asked(&cluster, Some(&before), CustomFiles::default(), 2).signed(&authority);
    let theirs = issuing(&cluster, &accepted(&cluster, &before, &folder).unwrap(), now()).unwrap();
    let theirs = drop_old_authorities(&theirs, &names()).unwrap();
    let terms = Terms::of(&cluster);
    for (stored, today) in [(&before, &theirs), (&theirs, &before)] {
        let (carried, _) = carry(stored, today, Prefer::Todays, terms, now(), &mut SeededEntropy::new(4)).unwrap();
        assert_eq!(carried, *today);
        let entropy = &mut SeededEntropy::new(6);
        let leaf = operator_leaf(&carried, Operator::SuperAdmin, terms.algorithm, now(), entropy).unwrap();
        assert!(issued_by(&today.authorities[&KUBERNETES], &leaf.certificate));
    }
}
