//! Targets of clusters whose Kubernetes authority is somebody else's.

use std::collections::BTreeMap;

use super::TERMS;
use super::rendered;
use crate::model::Content;
use crate::model::Keep;
use crate::model::RemotePath;
use crate::render::Rendered;
use crate::render::tests::support;
use crate::route::Retargeted;
use crate::route::retarget;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;

const PAIR: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// These keys, but for that of the Kubernetes authority.
fn external(mut secrets: Secrets) -> Secrets {
    let set = secrets.authorities.get_mut(&AuthorityName::Kubernetes).unwrap();
    (set.external, set.key) = (true, Content::default());
    secrets
}

#[test]
fn nobody_in_the_cluster_signs_and_the_kubelets_pairs_are_bastide_s_to_bring() {
    let kept = support::secrets(&support::cluster(support::SPLIT));
    let own = rendered(support::SPLIT, &kept);
    let of = rendered(support::SPLIT, &external(kept.clone()));
    let key = kept.authorities[&AuthorityName::Kubernetes].key.expose_text().unwrap().trim().to_owned();
    let holds = |rendered: &Rendered| {
        rendered.blobs.0.values().any(|blob| blob.expose_text().is_some_and(|text| text.contains(&key)))
    };
    assert!(holds(&own) && !holds(&of));
    let paths = |rendered: &Rendered, host: &str| -> Vec<String> {
        rendered.host(host).files.keys().map(ToString::to_string).collect()
    };
    let gone: Vec<_> = paths(&own, "c1").into_iter().filter(|path| !paths(&of, "c1").contains(path)).collect();
    assert_eq!(gone, ["/etc/kubernetes/pki/ca.key", "/etc/kubernetes/pki/signer.crt"]);
    let flags = |rendered: &Rendered| -> BTreeMap<_, _> { rendered.flags("c1", "kube-controller-manager") };
    let gone: Vec<_> = flags(&own).into_keys().filter(|flag| !flags(&of).contains_key(flag)).collect();
    assert_eq!(gone, ["cluster-signing-cert-file", "cluster-signing-key-file"]);
    let pair = RemotePath::new(PAIR).unwrap();
    for host in of.desired.hosts.values() {
        assert_eq!(host.files[&pair].keep, Keep::Managed);
        // Read at the start alone: the kubelet is restarted for it.
        assert!(host.restarts["kubelet.service"].contains(&pair));
    }
}

#[test]
fn a_stored_target_with_other_certificates_is_the_one_that_would_be_rendered() {
    let kept = support::secrets(&support::cluster(support::SPLIT));
    let all = kept.leaves.keys().cloned().collect();
    let next = secrets::renew(&kept, &all, TERMS, support::NOW + 60, &mut SeededEntropy::new(3)).unwrap().0;
    let (was, now) = (external(kept), external(next));
    let (from, to) = (rendered(support::SPLIT, &was), rendered(support::SPLIT, &now));
    let Retargeted { desired, blobs } = retarget(&from.desired, &from.blobs, &was, &now);
    assert_eq!(desired, to.desired);
    assert!(to.blobs.0.iter().all(|(digest, content)| blobs.get(digest) == Some(content)));
    assert_ne!(desired, from.desired);
}

#[test]
fn a_target_that_changes_hands_is_the_one_that_would_be_rendered_there_and_back() {
    for file in [support::SPLIT, support::ONE_HOST] {
        let kept = support::secrets(&support::cluster(file));
        let all = kept.leaves.keys().cloned().collect();
        let next = secrets::renew(&kept, &all, TERMS, support::NOW + 60, &mut SeededEntropy::new(3)).unwrap().0;
        let (own, theirs) = (kept, external(next));
        for (was, now) in [(&own, &theirs), (&theirs, &own)] {
            let (from, to) = (rendered(file, was), rendered(file, now));
            let Retargeted { desired, blobs } = retarget(&from.desired, &from.blobs, was, now);
            for (name, host) in &to.desired.hosts {
                assert_eq!(desired.hosts[name], *host, "{name}");
            }
            assert_eq!(desired, to.desired);
            assert!(to.blobs.0.iter().all(|(digest, content)| blobs.get(digest) == Some(content)));
        }
    }
}

#[test]
fn the_key_of_an_authority_that_gave_its_place_away_stays_in_no_target() {
    let own = support::secrets(&support::cluster(support::SPLIT));
    let key = own.authorities[&AuthorityName::Kubernetes].key.expose_text().unwrap().trim().to_owned();
    let from = rendered(support::SPLIT, &own);
    let moved = retarget(&from.desired, &from.blobs, &own, &external(own.clone()));
    assert!(moved.blobs.0.values().all(|blob| blob.expose_text().is_none_or(|text| !text.contains(&key))));
}
