//! What pods read from their hosts, and which of it restarts them.

use std::collections::BTreeMap;

use crate::config::KeyAlgorithm;
use crate::model::Access;
use crate::render::tests::benchmark::access;
use crate::render::tests::support;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::SeededEntropy;

#[test]
fn only_what_needs_a_restart_is_in_the_annotation() {
    let cluster = support::cluster(support::ONE_HOST);
    let before = support::secrets(&cluster);
    let mut after = before.clone();
    let other = support::other_secrets(&cluster);
    // New leaves for everything: nothing restarts.
    after.leaves.clone_from(&other.leaves);
    after.encryption.clone_from(&other.encryption);
    let pods = |secrets: &crate::secrets::Secrets| {
        let names = BTreeMap::new();
        let rendered = crate::render::desired(
            &cluster,
            secrets,
            &support::release(),
            &[],
            &names,
            Some(&support::signers(&cluster)),
        )
        .unwrap();
        rendered.host("h1").pods.clone()
    };
    assert_eq!(pods(&before), pods(&after));

    let moved = |before: &crate::secrets::Secrets, after: &crate::secrets::Secrets| -> Vec<String> {
        let (old, new) = (pods(before), pods(after));
        old.into_iter().filter(|(pod, digest)| new[pod] != *digest).map(|(pod, _)| pod).collect()
    };
    after.service_account.clone_from(&other.service_account);
    assert_eq!(moved(&before, &after), ["kube-apiserver", "kube-controller-manager"]);

    // An exchange of the authority: whoever has a certificate from it, or believes it, is seen to have taken up each leg.
    let clients = ["kube-controller-manager", "kube-proxy", "kube-scheduler"];
    let names = [AuthorityName::Kubernetes].into();
    let mut entropy = SeededEntropy::new(5);
    let accept =
        secrets::accept_new_authorities(&before, &names, KeyAlgorithm::P256, support::NOW, &mut entropy).unwrap();
    assert_eq!(moved(&before, &accept), clients);
    let terms = secrets::Terms { algorithm: KeyAlgorithm::P256, lifetime: secrets::LEAF_LIFETIME };
    let (issue, _) = secrets::issue_from_new_authorities(&accept, &names, terms, support::NOW, &mut entropy).unwrap();
    assert_eq!(moved(&accept, &issue), clients);
    assert_eq!(moved(&issue, &secrets::drop_old_authorities(&issue, &names).unwrap()), clients);
}

#[test]
fn kubeconfigs_of_components_name_files_that_their_pods_see_and_hold_no_key() {
    let rendered = support::rendered(support::SPLIT);
    for (name, target) in &rendered.desired.hosts {
        for (pod, path) in [
            ("kube-controller-manager", "/etc/kubernetes/controller-manager.conf"),
            ("kube-scheduler", "/etc/kubernetes/scheduler.conf"),
            ("kube-proxy", "/etc/kubernetes/proxy.conf"),
        ] {
            if !target.pods.contains_key(pod) {
                continue;
            }
            let config = rendered.yaml(name.as_str(), path);
            let user = &config["users"][0]["user"];
            let named = [
                &config["clusters"][0]["cluster"]["certificate-authority"],
                &user["client-certificate"],
                &user["client-key"],
            ];
            let spec = rendered.pod(name.as_str(), pod).spec.unwrap();
            let folders: Vec<_> = spec.volumes.unwrap().into_iter().filter_map(|volume| volume.host_path).collect();
            for file in named {
                let file = file.as_str().unwrap_or_else(|| panic!("{name} {path}: {config}"));
                assert_eq!(access(&rendered, name.as_str(), file), Access::root(0o600));
                let seen = folders.iter().any(|folder| {
                    folder.type_.as_deref() == Some("Directory") && file.starts_with(&format!("{}/", folder.path))
                });
                assert!(seen, "{name}: {pod} does not see {file}");
            }
            assert!(rendered.text(name.as_str(), named[1].as_str().unwrap()).contains("PRIVATE KEY"));
            // The authority's own key is for the one that signs with it.
            let all = folders.iter().any(|folder| folder.path == "/etc/kubernetes/pki");
            assert_eq!(all, pod == "kube-controller-manager", "{pod}");
        }
        let kubelet = rendered.yaml(name.as_str(), "/etc/kubernetes/kubelet.conf");
        assert_eq!(kubelet["clusters"][0]["cluster"]["certificate-authority"], "/etc/kubernetes/pki/ca.crt");
    }
}
