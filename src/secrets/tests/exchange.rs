//! Authorities and token keys that take each other's place, judged by OpenSSL.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::support::NOW;
use super::support::born;
use super::support::cluster;
use crate::config::KeyAlgorithm;
use crate::secrets::AuthorityName;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;
use crate::secrets::accept_new_authorities;
use crate::secrets::accept_new_token_key;
use crate::secrets::carry::issuer;
use crate::secrets::complete;
use crate::secrets::drop_old_authorities;
use crate::secrets::drop_old_token_keys;
use crate::secrets::inspect::Seen;
use crate::secrets::issue_from_new_authorities;
use crate::secrets::issued_by;
use crate::secrets::leaf::LEAF_LIFETIME;
use crate::secrets::leaf::Terms;
use crate::secrets::seal_form;
use crate::secrets::serving_chain;
use crate::secrets::sign_with_new_token_key;
use crate::secrets::token_key_id;
use crate::secrets::trial_leaf;
use crate::secrets::unseal_form;

const ALGORITHM: KeyAlgorithm = KeyAlgorithm::P256;
const TERMS: Terms = Terms { algorithm: ALGORITHM, lifetime: LEAF_LIFETIME };

/// The keys of before, and after each of the three legs.
fn passed(names: &BTreeSet<AuthorityName>) -> [Secrets; 4] {
    let before = born(&cluster());
    let entropy = &mut SeededEntropy::new(7);
    let accepted = accept_new_authorities(&before, names, ALGORITHM, NOW, entropy).unwrap();
    let (issuing, issued) = issue_from_new_authorities(&accepted, names, TERMS, NOW, entropy).unwrap();
    assert_eq!(issued.len(), before.leaves.keys().filter(|id| names.contains(&issuer(id.name))).count());
    let dropped = drop_old_authorities(&issuing, names).unwrap();
    [before, accepted, issuing, dropped]
}

fn all() -> BTreeSet<AuthorityName> {
    AuthorityName::ALL.into()
}

/// Whether openssl, with nothing but `trust`, accepts the server's certificate in `chain` with what follows it there.
fn openssl_accepts(folder: &Path, trust: &str, chain: &str) -> bool {
    let (leaf, rest) = chain.split_at(chain.find("-----END CERTIFICATE-----").unwrap() + 26);
    for (name, text) in [("trust", trust), ("leaf", leaf), ("rest", rest)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let mut openssl = Command::new("openssl");
    openssl.args(["verify", "-x509_strict", "-attime", &NOW.to_string(), "-purpose", "sslserver", "-CAfile"]);
    openssl.arg(folder.join("trust"));
    if !rest.trim().is_empty() {
        openssl.arg("-untrusted").arg(folder.join("rest"));
    }
    openssl.arg(folder.join("leaf")).output().unwrap().status.success()
}

#[test]
fn servers_are_accepted_in_neighbouring_legs_and_with_the_old_authority_alone_until_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let legs = passed(&all());
    for name in [LeafName::ApiServer, LeafName::KubeletServer] {
        let id = LeafId::of(name, &cluster().nodes[0].name);
        for (at, server) in legs.iter().enumerate() {
            let chain = serving_chain(server, &id).unwrap();
            for (there, client) in legs.iter().enumerate() {
                let trust = client.authorities[&AuthorityName::Kubernetes].trust_bundle();
                let wanted = match at {
                    // From the old authority, which the last leg alone does not accept.
                    0 | 1 => there < 3,
                    // From the new one, and the cross-signed certificate leads to the old one as well.
                    2 => true,
                    // From the new one alone.
                    _ => there > 0,
                };
                assert_eq!(openssl_accepts(folder.path(), &trust, &chain), wanted, "{name:?} {at} {there}");
            }
        }
    }
}

#[test]
fn old_and_new_authority_differ_in_name_and_key_and_what_is_trusted_stays_while_they_change_places() {
    let [before, accepted, issuing, dropped] = passed(&all());
    for name in AuthorityName::ALL {
        let sets = [&before, &accepted, &issuing, &dropped].map(|secrets| &secrets.authorities[&name]);
        assert_eq!(sets[1].trust_bundle(), sets[2].trust_bundle());
        assert_eq!(sets[1].trust_bundle().matches("BEGIN").count(), 2);
        assert_eq!(sets[3].trust_bundle(), format!("{}\n", sets[2].certificate.trim_end()));
        let (old, new) = (Seen::read(&sets[0].certificate).unwrap(), Seen::read(&sets[3].certificate).unwrap());
        assert_ne!(old.common_name, new.common_name);
        assert_ne!(old.public_key, new.public_key);
        assert_eq!((&sets[1].key, &sets[2].key), (&before.authorities[&name].key, &dropped.authorities[&name].key));
        // Only servers that people and pods trust are reached by way of the old authority.
        let crossed = sets[1].other.as_ref().unwrap().cross_signed.is_some();
        assert_eq!(crossed, name == AuthorityName::Kubernetes);
    }
    for (id, leaf) in &issuing.leaves {
        let name = issuer(id.name);
        assert!(issued_by(&issuing.authorities[&name], &leaf.certificate), "{}", id.describe());
        assert!(!issued_by(&before.authorities[&name], &leaf.certificate), "{}", id.describe());
    }
    assert_eq!(accepted.leaves, before.leaves);
    assert_eq!(dropped.leaves, issuing.leaves);
}

#[test]
fn one_authority_is_exchanged_without_the_others() {
    let [before, _, issuing, dropped] = passed(&[AuthorityName::Etcd].into());
    for (id, leaf) in &before.leaves {
        assert_eq!(*leaf == issuing.leaves[id], issuer(id.name) != AuthorityName::Etcd, "{}", id.describe());
    }
    for name in [AuthorityName::Kubernetes, AuthorityName::FrontProxy] {
        assert_eq!(before.authorities[&name], dropped.authorities[&name]);
    }
}

#[test]
fn an_up_in_the_middle_issues_nothing_and_forgets_nothing() {
    for secrets in passed(&all()) {
        let (again, issued) = complete(&cluster(), Some(&secrets), NOW, &mut SeededEntropy::new(8)).unwrap();
        assert_eq!((&again, issued.len()), (&secrets, 0));
        assert_eq!(unseal_form(&seal_form(&secrets)).unwrap(), secrets);
    }
}

#[test]
fn documents_from_before_there_were_rotations_are_read_and_written_as_ever() {
    let document = seal_form(&born(&cluster()));
    let text = document.expose_text().unwrap();
    assert!(!text.contains("\"other\"") && !text.contains("\"next\""));
}

#[test]
fn a_trial_certificate_comes_from_either_of_the_two() {
    let [_, accepted, ..] = passed(&all());
    let name = AuthorityName::Kubernetes;
    let set = &accepted.authorities[&name];
    let other = set.other.as_ref().unwrap();
    let entropy = &mut SeededEntropy::new(9);
    for (certificate, key) in [(&set.certificate, &set.key), (&other.certificate, &other.key)] {
        let leaf = trial_leaf(name, (certificate, key), ("bastide:trial", None), NOW, entropy).unwrap();
        assert_eq!(issued_by(set, &leaf.certificate), certificate == &set.certificate);
        assert_eq!(leaf.not_after, NOW + 60 * 60);
    }
}

#[test]
fn token_keys_change_places_in_three_legs() {
    let before = born(&cluster());
    let accepted = accept_new_token_key(&before, ALGORITHM, &mut SeededEntropy::new(7)).unwrap();
    let signing = sign_with_new_token_key(&accepted);
    let dropped = drop_old_token_keys(&signing);
    let keys = |secrets: &Secrets| secrets.service_account.clone();
    let (old, new) = (keys(&before).verifying[0].clone(), keys(&dropped).verifying[0].clone());
    assert_eq!(keys(&accepted).verifying, [old.clone(), new.clone()]);
    assert_eq!(keys(&accepted).signing, keys(&before).signing);
    assert_eq!(keys(&signing).verifying, [new.clone(), old.clone()]);
    assert_eq!(Some(keys(&signing).signing), keys(&accepted).next);
    assert_eq!((keys(&dropped).verifying.len(), keys(&dropped).signing), (1, keys(&signing).signing));
    assert_eq!([&signing, &dropped].map(|secrets| keys(secrets).next), [None, None]);
    assert_eq!(unseal_form(&seal_form(&accepted)).unwrap(), accepted);
    assert_ne!(token_key_id(&old), token_key_id(&new));
    assert!(token_key_id(&new).is_some_and(|id| id.len() == 43));
    assert_eq!(token_key_id("no key"), None);
}
