//! Targets that are given other keys, and which certificates a renewal is about, on whole targets.
#![allow(clippy::unwrap_used, clippy::panic)]

mod exchange;
mod external;
mod takeover;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::config::KeyAlgorithm;
use crate::model::Action;
use crate::model::Blobs;
use crate::model::Desired;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::Keep;
use crate::model::Plan;
use crate::plan;
use crate::plan::testing::Sample;
use crate::plan::testing::after;
use crate::render;
use crate::render::Rendered;
use crate::render::tests::support;
use crate::route::Clash;
use crate::route::Point;
use crate::route::Renewal;
use crate::route::Retargeted;
use crate::route::Service;
use crate::route::compatible;
use crate::route::key_legs;
use crate::route::keys_after;
use crate::route::renewed_leaves;
use crate::route::replace_kubelet_pairs;
use crate::route::retarget;
use crate::secrets;
use crate::secrets::EncryptionProvider;
use crate::secrets::LeafName;
use crate::secrets::Prefer;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;

const TERMS: secrets::Terms = secrets::Terms { algorithm: KeyAlgorithm::P256, lifetime: secrets::LEAF_LIFETIME };
const WITHOUT_METRICS: &str = "monitoring: {provider: none}\n";

fn rendered(text: &str, secrets: &Secrets) -> Rendered {
    let cluster = support::cluster(text);
    render::desired(&cluster, secrets, &support::release(), &[], &BTreeMap::new(), Some(&support::signers(&cluster)))
        .unwrap()
}

fn renewed(kept: &Secrets) -> Secrets {
    let all = kept.leaves.keys().cloned().collect();
    secrets::renew(kept, &all, TERMS, support::NOW + 60, &mut SeededEntropy::new(3)).unwrap().0
}

/// The same cluster with nothing of its keys left.
fn others(text: &str, kept: &Secrets) -> Secrets {
    let other = support::other_secrets(&support::cluster(text));
    Secrets { cluster: kept.cluster.clone(), etcd: kept.etcd.clone(), ..other }
}

#[test]
fn a_target_with_other_keys_is_what_would_have_been_rendered_from_them() {
    for text in [support::ONE_HOST, support::THREE_HOSTS, support::SPLIT] {
        for text in [text.to_owned(), format!("{text}{WITHOUT_METRICS}")] {
            let was = support::secrets(&support::cluster(&text));
            let before = rendered(&text, &was);
            for now in [was.clone(), renewed(&was), others(&text, &was)] {
                let after = rendered(&text, &now);
                let Retargeted { desired, blobs } = retarget(&before.desired, &before.blobs, &was, &now);
                for (name, host) in &after.desired.hosts {
                    for (path, file) in &host.files {
                        assert_eq!(desired.hosts[name].files[path], *file, "{name}: {path}");
                    }
                }
                assert_eq!(desired, after.desired);
                for (digest, content) in &after.blobs.0 {
                    assert!(blobs.get(digest) == Some(content));
                }
            }
        }
    }
}

#[test]
fn without_lists_of_what_restarts_a_part_more_is_restarted_and_never_less() {
    let was = support::secrets(&support::cluster(support::THREE_HOSTS));
    let before = rendered(support::THREE_HOSTS, &was);
    let mut old = before.desired.clone();
    for host in old.hosts.values_mut() {
        host.restarts.clear();
    }
    let same = retarget(&old, &before.blobs, &was, &was);
    assert_eq!(same.desired, old);
    let now = renewed(&was);
    let after = rendered(support::THREE_HOSTS, &now);
    let taken_up = retarget(&old, &before.blobs, &was, &now);
    for (name, host) in &after.desired.hosts {
        for (pod, inputs) in &host.pods {
            let changed = before.desired.hosts[name].pods[pod] != *inputs;
            let restarts = taken_up.desired.hosts[name].pods[pod] != before.desired.hosts[name].pods[pod];
            assert!(restarts || !changed, "{name}: {pod}");
        }
    }
}

#[test]
fn a_renewal_leaves_both_targets_compatible_and_another_public_key_infrastructure_does_not() {
    let was = support::secrets(&support::cluster(support::ONE_HOST));
    let point = |secrets: &Secrets| {
        let target = rendered(support::ONE_HOST, secrets);
        Point::new(&target.desired, &target.blobs, secrets)
    };
    assert_eq!(compatible(&point(&was), &point(&renewed(&was))), []);
    assert_eq!(compatible(&point(&was), &point(&others(support::ONE_HOST, &was))).len(), 5);
}

/// The secrets along a rotation of the encryption key, the cluster's own first.
fn key_rotation(was: &Secrets) -> Vec<Secrets> {
    let entropy = &mut SeededEntropy::new(11);
    let fresh = secrets::next_encryption_key(EncryptionProvider::Aescbc, support::NOW, entropy).unwrap();
    let mut passed = vec![was.clone()];
    for leg in key_legs(&was.encryption) {
        let last = passed.last().unwrap();
        let encryption = keys_after(&last.encryption, *leg, Some(fresh.clone()));
        passed.push(Secrets { encryption, ..last.clone() });
    }
    passed
}

#[test]
fn each_leg_of_a_key_rotation_runs_beside_its_neighbours_and_no_leg_is_left_out() {
    let was = support::secrets(&support::cluster(support::THREE_HOSTS));
    let passed = key_rotation(&was);
    let before = rendered(support::THREE_HOSTS, &was);
    let points: Vec<_> = passed
        .iter()
        .map(|secrets| {
            let leg = retarget(&before.desired, &before.blobs, &was, secrets);
            assert_eq!(leg.desired, rendered(support::THREE_HOSTS, secrets).desired);
            // Nothing restarts, and nothing but this one file differs.
            for (name, host) in &leg.desired.hosts {
                let old = &before.desired.hosts[name];
                assert_eq!((&host.pods, &host.units), (&old.pods, &old.units));
                let differ = host.files.iter().filter(|(path, file)| old.files[*path] != **file);
                assert!(differ.into_iter().all(|(path, _)| path.as_str() == render::ENCRYPTION));
            }
            Point::new(&leg.desired, &leg.blobs, secrets)
        })
        .collect();
    for pair in points.windows(2) {
        assert_eq!(compatible(&pair[0], &pair[1]), []);
    }
    assert_eq!(points.len(), 4);
    for (one, other) in [(0, 2), (1, 3), (0, 3)] {
        assert_eq!(compatible(&points[one], &points[other]), [Clash::Encryption], "{one} {other}");
    }
}

#[test]
fn a_configuration_of_the_users_own_keeps_its_keys() {
    let own = format!(
        "{}services: {{kube-api: {{secrets_encryption_config: {{enabled: true, custom_config: {{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{{resources: [secrets], providers: [{{secretbox: {{keys: [{{name: mine, secret: QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=}}]}}}}]}}]}}}}}}}}\n",
        support::ONE_HOST
    );
    let was = support::secrets(&support::cluster(&own));
    let before = rendered(&own, &was);
    let other = key_rotation(&was).remove(3);
    assert_eq!(retarget(&before.desired, &before.blobs, &was, &other).desired, before.desired);
}

#[test]
fn services_hosts_and_time_choose_the_certificates() {
    let secrets = support::secrets(&support::cluster(support::SPLIT));
    let names = |renewal: Renewal, now| -> Vec<String> {
        renewed_leaves(&secrets, &renewal, None, now).iter().map(secrets::LeafId::describe).collect()
    };
    assert_eq!(names(Renewal::default(), support::NOW).len(), secrets.leaves.len());
    let etcd = Renewal { services: [Service::Etcd].into(), ..Renewal::default() };
    let own = ["etcd-server of e1", "etcd-peer of e1", "etcd-healthcheck-client of e1", "etcd-snapshot-client of e1"];
    assert_eq!(names(etcd, support::NOW), own);
    let kubelet = Renewal {
        services: [Service::Kubelet].into(),
        hosts: [HostName::new("w1").unwrap()].into(),
        ..Renewal::default()
    };
    assert_eq!(names(kubelet, support::NOW), ["kubelet-client of w1", "kubelet-server of w1"]);
    let due = || Renewal { due_days: Some(30), ..Renewal::default() };
    assert!(names(due(), support::NOW).is_empty());
    assert_eq!(names(due(), support::NOW + 340 * 86_400).len(), secrets.leaves.len());
    for service in Service::ALL {
        assert_eq!(service.as_str().parse(), Ok(service));
        assert!(LeafName::ALL.iter().any(|name| Service::of(*name) == service));
    }
}

#[test]
fn a_kubelets_own_pair_is_due_by_what_lies_on_its_host() {
    let secrets = support::secrets(&support::cluster(support::THREE_HOSTS));
    let pairs = |seen: Option<&[&str]>, now| -> Vec<String> {
        let due = Renewal { due_days: Some(30), ..Renewal::default() };
        let seen = seen.map(|names| names.iter().map(|name| HostName::new(*name).unwrap()).collect());
        let leaves = renewed_leaves(&secrets, &due, seen.as_ref(), now);
        let own = leaves.iter().filter(|id| id.name == LeafName::KubeletClient);
        own.map(|id| id.host.as_ref().unwrap().to_string()).collect()
    };
    let late = support::NOW + 340 * 86_400;
    assert_eq!(pairs(None, late), ["h1", "h2", "h3"]);
    assert_eq!(pairs(Some(&["h2"]), late), ["h2"], "the others have renewed theirs");
    assert_eq!(
        pairs(Some(&["h2"]), support::NOW),
        ["h2"],
        "its own ends, whatever the one ends with that it was given"
    );
    assert!(pairs(Some(&[]), late).is_empty());
}

#[test]
fn a_kubelets_own_pair_is_replaced_only_where_it_was_asked_for() {
    let was = support::secrets(&support::cluster(support::THREE_HOSTS));
    let mut target = rendered(support::THREE_HOSTS, &was).desired;
    let renewal =
        Renewal { services: [Service::Kubelet].into(), hosts: [HostName::new("h2").unwrap()].into(), due_days: None };
    let chosen = renewed_leaves(&was, &renewal, None, support::NOW);
    replace_kubelet_pairs(&mut target, &was, &chosen);
    let replaced: BTreeSet<_> = target
        .hosts
        .iter()
        .filter(|(_, host)| host.files.values().any(|file| matches!(file.keep, Keep::Seeded { since: Some(_), .. })))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(replaced, ["h2"].into());
}

/// Titles of the stages that do something on hosts.
fn titles(plan: &Plan) -> Vec<&str> {
    plan.stages.iter().filter(|stage| !stage.steps.is_empty()).map(|stage| stage.title.as_str()).collect()
}

/// Paths that are written, by their last word.
fn written(plan: &Plan) -> BTreeSet<String> {
    let steps = plan.stages.iter().flat_map(|stage| &stage.steps);
    let actions = steps.flat_map(|step| &step.batch.0);
    let paths = actions.filter_map(|action| match action {
        Action::PutFile { path, .. } => path.as_str().rsplit('/').next().map(str::to_owned),
        _ => None,
    });
    paths.collect()
}

fn sample(desired: Desired, blobs: Blobs) -> Sample {
    Sample { desired, blobs }
}

#[test]
fn a_change_is_undone_by_the_planner_with_the_keys_that_were_renewed_since() {
    let changed = format!("{}services: {{kube-api: {{extra_args: {{v: '3'}}}}}}\n", support::THREE_HOSTS);
    let was = support::secrets(&support::cluster(support::THREE_HOSTS));
    let before = rendered(support::THREE_HOSTS, &was);
    let today = renewed(&was);
    let now = rendered(&changed, &today);
    let (secrets, issued) =
        secrets::carry(&was, &today, Prefer::Todays, TERMS, support::NOW + 60, &mut SeededEntropy::new(4)).unwrap();
    assert!(issued.is_empty());
    let back = retarget(&before.desired, &before.blobs, &was, &secrets);
    assert_eq!(back.desired, rendered(support::THREE_HOSTS, &today).desired);

    let present = sample(now.desired, now.blobs);
    let observed = present.reached();
    let context = after(&present.desired);
    let plan = plan::plan(&back.desired, &observed, &context).unwrap();
    assert_eq!(titles(&plan), ["API servers, one at a time"]);
    assert_eq!(written(&plan), ["kube-apiserver.yaml".to_owned()].into());
    let later = plan::predict(&observed, &plan);
    assert!(plan::plan(&back.desired, &later, &context).unwrap().is_empty());
}

#[test]
fn renewed_certificates_reach_every_part_and_etcd_and_api_servers_one_by_one() {
    let was = support::secrets(&support::cluster(support::THREE_HOSTS));
    let before = rendered(support::THREE_HOSTS, &was);
    let today = renewed(&was);
    let mut target = retarget(&before.desired, &before.blobs, &was, &today).desired;
    replace_kubelet_pairs(&mut target, &today, &today.leaves.keys().cloned().collect());

    let present = sample(before.desired, before.blobs);
    let mut observed = present.reached();
    for (name, host) in &mut observed.hosts {
        let pair = &was.leaves[&secrets::LeafId::of(LeafName::KubeletClient, name)];
        for (path, file) in &present.desired.hosts[name].files {
            if let (Keep::Seeded { .. }, Some(seen)) = (&file.keep, host.files.get_mut(path)) {
                // Its owner renewed it: other bytes, from before the renewal that is asked for.
                seen.digest = crate::model::Digest::of(b"renewed by the kubelet");
                seen.certificate = Some(pair.certificate.clone());
            }
        }
    }
    // Left alone, it is nobody's business.
    assert!(plan::plan(&present.desired, &observed, &after(&present.desired)).unwrap().is_empty());

    let plan = plan::plan(&target, &observed, &after(&present.desired)).unwrap();
    assert_eq!(
        titles(&plan),
        [
            "what interrupts nothing",
            "etcd, one member at a time",
            "API servers, one at a time",
            "controller managers and schedulers, one host at a time",
            "containerd and kubelet of control planes and etcd members, one host at a time",
        ]
    );
    for stage in &plan.stages {
        for step in &stage.steps {
            let gate = match stage.title.as_str() {
                "etcd, one member at a time" => Gate::EtcdMember { host: step.host.clone() },
                "API servers, one at a time" => Gate::ApiServer { host: step.host.clone() },
                "controller managers and schedulers, one host at a time" => Gate::Scheduler { host: step.host.clone() },
                _ => continue,
            };
            assert!(stage.width == 1 && step.gates.contains(&gate), "{}", stage.title);
            let restarts = step.batch.0.iter().any(|action| matches!(action, Action::AwaitPod { .. }));
            assert!(!restarts, "{}: restarted for a pair that it takes up by itself", stage.title);
        }
    }
    for name in ["server.crt", "peer.key", "apiserver.crt", "front-proxy-client.key", "admin.conf", "client.pem"] {
        assert!(written(&plan).contains(name), "{name}");
    }
    assert!(written(&plan).contains("kubelet-client-current.pem"));
    let later = plan::predict(&observed, &plan);
    assert!(plan::plan(&target, &later, &after(&present.desired)).unwrap().is_empty());
}
