//! What is kept, what is made anew.

use super::support::DAY;
use super::support::NOW;
use super::support::again;
use super::support::born;
use super::support::cluster;
use super::support::node;
use super::support::shown;
use crate::config::KeyAlgorithm;
use crate::model::HostName;
use crate::model::Role;
use crate::secrets::AuthorityName;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::SeededEntropy;
use crate::secrets::complete;
use crate::secrets::issue;

#[test]
fn a_second_run_keeps_everything_bit_by_bit() {
    let cluster = cluster();
    let first = born(&cluster);
    assert_eq!(again(&cluster, &first, NOW + 100 * DAY), (first, vec![]));
}

#[test]
fn a_new_cluster_has_identity_token_and_members() {
    let secrets = born(&cluster());
    assert_eq!(secrets.cluster.0.len(), 32);
    assert_eq!(secrets.etcd.token.len(), "bastide-".len() + 32);
    let members: Vec<_> = secrets.etcd.members.iter().map(|(name, url)| (name.as_str(), url.as_str())).collect();
    assert_eq!(members, [("cp1", "https://10.0.0.11:2380"), ("etcd1", "https://[fd00::12]:2380")]);
    assert_eq!(
        secrets.encryption.iter().map(|key| (key.provider.as_str(), key.key.len())).collect::<Vec<_>>(),
        [("secretbox", 32)]
    );
}

#[test]
fn leaves_are_renewed_in_their_last_ninety_days() {
    let cluster = cluster();
    let first = born(&cluster);
    let end = NOW + 365 * DAY;
    assert_eq!(again(&cluster, &first, end - 90 * DAY).1, vec![]);

    let (renewed, issued) = again(&cluster, &first, end - 90 * DAY + 1);
    assert_eq!(issued.len(), first.leaves.len());
    assert!(shown(&issued).contains(&"apiserver of cp1: ends in 89 days".to_owned()));
    assert_eq!(renewed.authorities, first.authorities);
    assert!(renewed.leaves.values().all(|leaf| leaf.not_after == end - 90 * DAY + 1 + 365 * DAY));

    assert!(shown(&again(&cluster, &first, end).1).iter().all(|line| line.ends_with(": expired")));
}

#[test]
fn an_added_name_touches_the_api_servers_alone() {
    let mut cluster = cluster();
    let first = born(&cluster);
    cluster.sans = vec!["api.example.com".to_owned(), "new.example.com".to_owned()];
    let (secrets, issued) = again(&cluster, &first, NOW);
    assert_eq!(shown(&issued), ["apiserver of cp1: names changed (+new.example.com -203.0.113.5)"]);
    let changed: Vec<_> =
        secrets.leaves.iter().filter(|(id, leaf)| first.leaves[*id] != **leaf).map(|(id, _)| id.describe()).collect();
    assert_eq!(changed, ["apiserver of cp1"]);
}

#[test]
fn a_host_that_came_gets_leaves_and_one_that_left_loses_its_keys() {
    let mut cluster = cluster();
    let first = born(&cluster);
    let left = cluster.nodes.pop().unwrap().name;
    cluster.nodes.push(node("w2", "192.0.2.22", "192.0.2.22", &[Role::Worker]));
    let (secrets, issued) = again(&cluster, &first, NOW);
    assert_eq!(
        shown(&issued),
        ["kubelet-client of w2: new", "kubelet-server of w2: new", "proxy of w2: new", "health-check of w2: new"]
    );
    assert!(secrets.leaves.keys().all(|id| id.host.as_ref() != Some(&left)));
}

#[test]
fn etcd_birth_data_outlives_a_change_of_the_file() {
    let mut cluster = cluster();
    let first = born(&cluster);
    cluster.nodes[1].internal_address = "10.0.0.99".parse().unwrap();
    cluster.name = "other".to_owned();
    let (secrets, issued) = again(&cluster, &first, NOW);
    assert_eq!((&secrets.etcd, &secrets.cluster), (&first.etcd, &first.cluster));
    assert!(shown(&issued).contains(&"etcd-peer of etcd1: names changed (+10.0.0.99 -fd00::12)".to_owned()));
}

#[test]
fn a_leaf_of_a_former_authority_stays_while_it_is_accepted_and_goes_when_it_is_not() {
    let cluster = cluster();
    let mut rotated = born(&cluster);
    let etcd = rotated.authorities.get_mut(&AuthorityName::Etcd).unwrap();
    let former = std::mem::replace(
        etcd,
        issue::authority(AuthorityName::Etcd, KeyAlgorithm::P256, NOW, &mut SeededEntropy::new(7)).unwrap(),
    );
    etcd.also_accepted.push(former.certificate);
    assert_eq!(again(&cluster, &rotated, NOW).1, vec![]);

    rotated.authorities.get_mut(&AuthorityName::Etcd).unwrap().also_accepted.clear();
    let (fresh, issued) = again(&cluster, &rotated, NOW);
    let reason = "was issued by an authority that is no longer accepted";
    assert_eq!(issued.len(), 9);
    assert!(shown(&issued).iter().all(|line| line.contains("etcd") && line.ends_with(reason)));
    assert_eq!(again(&cluster, &fresh, NOW).1, vec![]);
}

#[test]
fn another_subject_and_an_unreadable_leaf_are_replaced() {
    let cluster = cluster();
    let mut kept = born(&cluster);
    let host = HostName::new("cp1").unwrap();
    let admin = kept.leaves[&LeafId::of(LeafName::Admin, &host)].clone();
    kept.leaves.insert(LeafId::of(LeafName::Scheduler, &host), admin);
    kept.leaves.get_mut(&LeafId::of(LeafName::Proxy, &host)).unwrap().certificate.truncate(100);
    let (_, issued) = again(&cluster, &kept, NOW);
    assert_eq!(
        shown(&issued),
        ["scheduler of cp1: carries another subject or other usages", "proxy of cp1: the kept one is unreadable",]
    );
}

#[test]
fn no_leaf_outlives_its_authority_and_the_last_ones_are_not_made_again_and_again() {
    let cluster = cluster();
    let first = born(&cluster);
    let end = NOW + 3650 * DAY;
    let (last, _) = again(&cluster, &first, end - 50 * DAY);
    assert!(last.leaves.values().all(|leaf| leaf.not_after == end));
    assert_eq!(again(&cluster, &last, end - 49 * DAY).1, vec![]);
    assert_eq!(
        complete(&cluster, Some(&last), end, &mut SeededEntropy::new(1)).unwrap_err(),
        SecretsError::AuthorityExpired(AuthorityName::Kubernetes)
    );
}

#[test]
fn a_missing_or_foreign_authority_is_never_replaced_in_silence() {
    let cluster = cluster();
    let mut kept = born(&cluster);
    let proxy = kept.authorities.remove(&AuthorityName::FrontProxy).unwrap();
    let outcome = |kept: &Secrets| complete(&cluster, Some(kept), NOW, &mut SeededEntropy::new(1)).unwrap_err();
    assert_eq!(outcome(&kept), SecretsError::AuthorityMissing(AuthorityName::FrontProxy));

    kept.authorities.insert(AuthorityName::FrontProxy, proxy.clone());
    kept.authorities.get_mut(&AuthorityName::Etcd).unwrap().key = proxy.key;
    assert_eq!(outcome(&kept), SecretsError::AuthorityUnreadable(AuthorityName::Etcd));
}

#[test]
fn equal_entropy_gives_equal_keys_and_serials() {
    let cluster = cluster();
    let keys = |seed| {
        let (secrets, _) = complete(&cluster, None, NOW, &mut SeededEntropy::new(seed)).unwrap();
        let keys: Vec<_> = secrets.leaves.values().map(|leaf| leaf.key.clone()).collect();
        (secrets.cluster, secrets.etcd, secrets.encryption, secrets.service_account, keys)
    };
    assert_eq!(keys(1), keys(1));
    assert_ne!(keys(1).4, keys(2).4);
}
