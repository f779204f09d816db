//! Keys that are read back from what was rendered with them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::TERMS;
use super::rendered;
use crate::model::Content;
use crate::model::HostName;
use crate::model::RemotePath;
use crate::render::Rendered;
use crate::render::tests::support;
use crate::route::Exchange;
use crate::route::Files;
use crate::route::KeyLeg;
use crate::route::Places;
use crate::route::keys_after;
use crate::route::retarget;
use crate::route::taken_over;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::EncryptionProvider;
use crate::secrets::LeafName;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;
use crate::secrets::Why;

const TEXTS: [&str; 3] = [support::ONE_HOST, support::THREE_HOSTS, support::SPLIT];

/// Where keys lie, seen from other ones.
fn places(text: &str) -> Places {
    let sample = support::other_secrets(&support::cluster(text));
    let sampled = rendered(text, &sample);
    Places::of(&sampled.desired, &sampled.blobs, &sample)
}

/// What hosts answer that are at this target.
fn hosts(target: &Rendered, places: &Places) -> BTreeMap<HostName, Files> {
    let files = |name: &HostName| {
        let host = &target.desired.hosts[name];
        let read = |path: RemotePath| {
            let content = target.blobs.get(&host.files.get(&path)?.digest)?.clone();
            Some((path, content))
        };
        places.on(name).into_iter().filter_map(read).collect()
    };
    target.desired.hosts.keys().map(|name| (name.clone(), files(name))).collect()
}

fn read(text: &str, was: &Secrets, found: &BTreeMap<HostName, Files>) -> Result<Secrets, Vec<String>> {
    taken_over(&support::cluster(text), &was.cluster, &places(text), found, &mut SeededEntropy::new(5))
}

fn lost() -> BTreeSet<AuthorityName> {
    [AuthorityName::Etcd, AuthorityName::FrontProxy].into()
}

fn path(text: &str) -> RemotePath {
    RemotePath::new(text).unwrap()
}

#[test]
fn hosts_tell_every_key_but_those_of_two_authorities_and_nothing_differs_then() {
    for text in TEXTS {
        let cluster = support::cluster(text);
        let was = support::secrets(&cluster);
        let target = rendered(text, &was);
        let found = hosts(&target, &places(text));
        let mut wanted = was.clone();
        for name in lost() {
            wanted.authorities.get_mut(&name).unwrap().key = Content::default();
        }
        // What stands in a Secret of the cluster alone is issued anew.
        wanted.leaves.retain(|id, _| id.host.is_some());
        let read = read(text, &was, &found).unwrap();
        assert_eq!(read, wanted);
        let (read, issued) =
            secrets::complete(&cluster, Some(&read), support::NOW, &mut SeededEntropy::new(6)).unwrap();
        let names: Vec<_> = issued.iter().map(|one| (one.id.name, one.why.clone())).collect();
        assert_eq!(names, [(LeafName::MetricsServer, Why::Missing)]);
        assert_eq!(rendered(text, &read).desired.hosts, target.desired.hosts);
    }
}

#[test]
fn other_authorities_take_the_place_of_the_lost_ones_and_nothing_lost_is_left() {
    let text = support::THREE_HOSTS;
    let was = support::secrets(&support::cluster(text));
    let target = rendered(text, &was);
    let mut today = read(text, &was, &hosts(&target, &places(text))).unwrap();
    let (first, exchange) = (today.clone(), Exchange::Authorities(lost()));
    for _ in 0..3 {
        let leg = exchange.legs_left(&today)[0];
        today = exchange.after(leg, &today, TERMS, support::NOW, &mut SeededEntropy::new(8)).unwrap().0;
        // `up` between two legs has nothing to issue.
        let cluster = support::cluster(&format!("{text}monitoring: {{provider: none}}\n"));
        let (kept, issued) =
            secrets::complete(&cluster, Some(&today), support::NOW, &mut SeededEntropy::new(9)).unwrap();
        assert!(issued.is_empty(), "{issued:?}");
        assert_eq!(kept.authorities, today.authorities);
        assert_eq!(secrets::unseal_form(&secrets::seal_form(&today)).unwrap(), today);
    }
    assert!(today.authorities.values().all(|set| !set.is_lost() && set.also_accepted.is_empty()));
    let kubernetes = AuthorityName::Kubernetes;
    assert_eq!(today.authorities[&kubernetes], was.authorities[&kubernetes]);
    assert_eq!((&today.service_account, &today.encryption), (&was.service_account, &was.encryption));
    let moved = retarget(&target.desired, &target.blobs, &first, &today);
    for name in lost() {
        let old = was.authorities[&name].certificate.trim();
        assert!(moved.blobs.0.values().all(|blob| !blob.expose_text().is_some_and(|text| text.contains(old))));
    }
}

#[test]
fn nothing_is_issued_from_a_lost_authority() {
    let text = support::THREE_HOSTS;
    let cluster = support::cluster(text);
    let was = support::secrets(&cluster);
    let mut read = read(text, &was, &hosts(&rendered(text, &was), &places(text))).unwrap();
    read.leaves.retain(|id, _| id.name != LeafName::EtcdPeer);
    let issued = secrets::complete(&cluster, Some(&read), support::NOW, &mut SeededEntropy::new(6));
    assert_eq!(issued.unwrap_err(), secrets::SecretsError::AuthorityLost(AuthorityName::Etcd));
}

#[test]
fn what_a_lost_authority_signed_is_kept_in_its_last_days_and_all_else_is_renewed() {
    let text = support::THREE_HOSTS;
    let cluster = support::cluster(text);
    let was = support::secrets(&cluster);
    let read = read(text, &was, &hosts(&rendered(text, &was), &places(text))).unwrap();
    let late = support::NOW + 300 * 86_400;
    let (kept, issued) = secrets::complete(&cluster, Some(&read), late, &mut SeededEntropy::new(6)).unwrap();
    let old = |name| read.leaves.iter().filter(move |(id, _)| id.name == name);
    for name in [LeafName::EtcdServer, LeafName::ApiServerEtcdClient, LeafName::FrontProxyClient] {
        assert!(old(name).count() == 3 && old(name).all(|(id, leaf)| kept.leaves[id] == *leaf), "{name:?}");
        assert!(issued.iter().all(|one| one.id.name != name));
    }
    assert_eq!(issued.iter().filter(|one| one.id.name == LeafName::ApiServer).count(), 3);
}

#[test]
fn the_longest_list_of_encryption_keys_is_taken_where_all_can_read_what_is_written() {
    let text = support::THREE_HOSTS;
    let was = support::secrets(&support::cluster(text));
    let fresh =
        secrets::next_encryption_key(EncryptionProvider::Aescbc, support::NOW, &mut SeededEntropy::new(4)).unwrap();
    let added = keys_after(&was.encryption, KeyLeg::Add, Some(fresh));
    let promoted = keys_after(&added, KeyLeg::Promote, None);
    let retired = keys_after(&promoted, KeyLeg::Retire, None);
    let with = |keys: &[secrets::EncryptionKey]| {
        let secrets = Secrets { encryption: keys.to_vec(), ..was.clone() };
        hosts(&rendered(text, &secrets), &places(text))
    };
    let mixed = |one: &[secrets::EncryptionKey], others: &[secrets::EncryptionKey]| {
        let mut found = with(others);
        let first = HostName::new("h1").unwrap();
        found.insert(first.clone(), with(one)[&first].clone());
        read(text, &was, &found).map(|secrets| secrets.encryption)
    };
    assert_eq!(mixed(&added, &was.encryption).unwrap(), added);
    assert_eq!(mixed(&retired, &promoted).unwrap(), promoted);
    let both = mixed(&promoted, &added).unwrap();
    assert!(both == promoted || both == added);
    let apart = mixed(&retired, &was.encryption).unwrap_err();
    assert!(apart.iter().any(|words| words.contains("do not fit together")), "{apart:?}");
}

#[test]
fn what_hosts_do_not_tell_alike_or_not_at_all_is_named() {
    let text = support::THREE_HOSTS;
    let was = support::secrets(&support::cluster(text));
    let whole = hosts(&rendered(text, &was), &places(text));
    let others = hosts(&rendered(text, &support::other_secrets(&support::cluster(text))), &places(text));
    let second = HostName::new("h2").unwrap();
    let refused = |change: &dyn Fn(&mut Files)| {
        let mut found = whole.clone();
        change(found.get_mut(&second).unwrap());
        read(text, &was, &found).unwrap_err().join("\n")
    };
    for (file, words) in [
        ("/etc/kubernetes/pki/ca.key", "Kubernetes authority"),
        ("/etc/kubernetes/pki/signer.crt", "Kubernetes authority"),
        ("/etc/kubernetes/pki/sa.key", "service-account tokens"),
        ("/etc/kubernetes/enc/encryption.yaml", "encryption.yaml"),
        ("/etc/kubernetes/pki/front-proxy-client.key", "front"),
        ("/etc/etcd/pki/ca.crt", "etcd"),
        ("/etc/etcd/pki/peer.key", "etcd-peer"),
        ("/etc/kubernetes/manifests/etcd.yaml", "birth"),
    ] {
        let missing = refused(&|files| assert!(files.remove(&path(file)).is_some(), "{file} is not read"));
        assert!(missing.contains("h2") && missing.contains(words), "{file}: {missing}");
    }
    let foreign = refused(&|files| files.clone_from(&others[&second]));
    assert!(foreign.contains("are not those of h1"), "{foreign}");
    let mut silent = whole.clone();
    silent.remove(&second);
    assert_eq!(read(text, &was, &silent).unwrap_err(), ["h2: does not answer"]);

    let manifest = path("/etc/kubernetes/manifests/kube-apiserver.yaml");
    let other = refused(&|files| {
        let text = files[&manifest].expose_text().unwrap().replace("kube-apiserver:v1.37.1", "kube-apiserver:v1.36.0");
        files.insert(manifest.clone(), Content::new(text));
    });
    assert!(other.contains("runs Kubernetes v1.36.0"), "{other}");
}

#[test]
fn a_hosts_own_certificate_that_cannot_be_read_is_issued_anew() {
    let text = support::THREE_HOSTS;
    let cluster = support::cluster(text);
    let was = support::secrets(&cluster);
    let mut found = hosts(&rendered(text, &was), &places(text));
    let second = HostName::new("h2").unwrap();
    found.get_mut(&second).unwrap().insert(path("/etc/kubernetes/pki/scheduler/client.pem"), Content::new("damaged"));
    let read = read(text, &was, &found).unwrap();
    let (_, issued) = secrets::complete(&cluster, Some(&read), support::NOW, &mut SeededEntropy::new(6)).unwrap();
    let names: BTreeSet<_> = issued.iter().map(|one| one.id.name).collect();
    assert_eq!(names, [LeafName::Scheduler, LeafName::MetricsServer].into());
}
