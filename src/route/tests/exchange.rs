//! Authorities and token keys that are exchanged, on whole targets.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::TERMS;
use super::rendered;
use super::sample;
use super::titles;
use crate::model::Action;
use crate::model::Keep;
use crate::plan;
use crate::plan::testing::after;
use crate::render::tests::support;
use crate::route::Clash;
use crate::route::Exchange;
use crate::route::ExchangeLeg;
use crate::route::Point;
use crate::route::compatible;
use crate::route::retarget;
use crate::secrets::AuthorityName;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;

fn authorities(names: &[AuthorityName]) -> Exchange {
    Exchange::Authorities(names.iter().copied().collect())
}

/// The keys along an exchange, the cluster's own first. Where each stands is read from the keys themselves.
fn passed(exchange: &Exchange, was: &Secrets) -> Vec<Secrets> {
    let entropy = &mut SeededEntropy::new(11);
    let mut passed = vec![was.clone()];
    for left in (1..=3).rev() {
        let today = passed.last().unwrap();
        let legs = exchange.legs_left(today);
        assert_eq!(legs.len(), left);
        passed.push(exchange.after(legs[0], today, TERMS, support::NOW, entropy).unwrap().0);
    }
    assert_eq!(exchange.legs_left(&passed[3]).len(), 3);
    passed
}

fn subsets() -> Vec<Exchange> {
    let all = AuthorityName::ALL;
    let chosen = (1..8u8).map(|bits| {
        let names: BTreeSet<_> = (0..3).filter(|at| bits & (1 << at) != 0).map(|at| all[at]).collect();
        Exchange::Authorities(names)
    });
    chosen.chain([Exchange::TokenKey]).collect()
}

#[test]
fn every_leg_is_what_would_be_rendered_and_runs_beside_its_neighbours_alone() {
    let was = support::secrets(&support::cluster(support::THREE_HOSTS));
    let before = rendered(support::THREE_HOSTS, &was);
    for exchange in subsets() {
        let legs: Vec<_> = passed(&exchange, &was)
            .into_iter()
            .map(|secrets| {
                let fresh = rendered(support::THREE_HOSTS, &secrets);
                let leg = retarget(&before.desired, &before.blobs, &was, &secrets);
                assert_eq!(leg.desired, fresh.desired, "{exchange}");
                (Point::new(&leg.desired, &leg.blobs, &secrets), secrets)
            })
            .collect();
        let clashes: Vec<_> = match &exchange {
            Exchange::Authorities(names) => names.iter().map(|name| Clash::Authority(*name)).collect(),
            Exchange::TokenKey => vec![Clash::Tokens],
        };
        for (at, (one, _)) in legs.iter().enumerate() {
            for (there, (other, _)) in legs.iter().enumerate() {
                let wanted = if at.abs_diff(there) <= 1 { Vec::new() } else { clashes.clone() };
                assert_eq!(compatible(one, other), wanted, "{exchange}: {at} {there}");
            }
        }
    }
}

#[test]
fn from_any_leg_to_any_other_a_target_is_what_would_be_rendered() {
    for text in [support::ONE_HOST, support::SPLIT] {
        let was = support::secrets(&support::cluster(text));
        for exchange in [authorities(&AuthorityName::ALL), Exchange::TokenKey] {
            let legs: Vec<_> = passed(&exchange, &was).into_iter().map(|keys| (rendered(text, &keys), keys)).collect();
            for (from, old) in &legs {
                for (to, new) in &legs {
                    let moved = retarget(&from.desired, &from.blobs, old, new);
                    for (name, host) in &to.desired.hosts {
                        for (path, file) in &host.files {
                            assert_eq!(moved.desired.hosts[name].files[path], *file, "{name}: {path}");
                        }
                    }
                    assert_eq!(moved.desired, to.desired);
                    for (digest, content) in &to.blobs.0 {
                        assert!(moved.blobs.get(digest) == Some(content));
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_under_way_is_read_from_the_keys() {
    let was = support::secrets(&support::cluster(support::ONE_HOST));
    let two = authorities(&[AuthorityName::Etcd, AuthorityName::Kubernetes]);
    let legs = passed(&two, &was);
    let found: Vec<_> = legs.iter().map(Exchange::of_authorities).collect();
    assert_eq!(found, [None, Some(two.clone()), Some(two), None]);
    assert!(legs.iter().all(|keys| Exchange::of_token_key(keys).is_none()));
    let found: Vec<_> = passed(&Exchange::TokenKey, &was).iter().map(Exchange::of_token_key).collect();
    assert_eq!(found, [None, Some(Exchange::TokenKey), Some(Exchange::TokenKey), None]);
    let words: BTreeSet<_> = [ExchangeLeg::Accept, ExchangeLeg::Issue, ExchangeLeg::Drop]
        .into_iter()
        .flat_map(|leg| subsets().into_iter().map(move |exchange| exchange.words(leg)))
        .collect();
    assert_eq!(words.len(), 24);
}

/// Which components are restarted on the way from one leg to the next, on a host with all roles.
fn restarted(exchange: &Exchange) -> Vec<BTreeMap<String, bool>> {
    let was = support::secrets(&support::cluster(support::ONE_HOST));
    let legs: Vec<_> = passed(exchange, &was).iter().map(|keys| rendered(support::ONE_HOST, keys).desired).collect();
    let changed = |pair: &[crate::model::Desired]| {
        let [one, other] = pair else { panic!("two legs") };
        let (one, other) = (one.hosts.values().next().unwrap(), other.hosts.values().next().unwrap());
        let pods = one.pods.iter().map(|(name, inputs)| (name.clone(), other.pods[name] != *inputs));
        let units = one.units.iter().zip(&other.units).map(|(a, b)| (a.name.to_string(), a.inputs != b.inputs));
        pods.chain(units).filter(|(_, restarted)| *restarted).collect()
    };
    legs.windows(2).map(changed).collect()
}

#[test]
fn only_what_reads_a_file_once_is_restarted() {
    let names = |exchange: Exchange| -> Vec<Vec<String>> {
        restarted(&exchange).into_iter().map(|all| all.into_keys().collect()).collect()
    };
    let etcd = ["etcd", "kube-apiserver"].map(str::to_owned).to_vec();
    assert_eq!(names(authorities(&[AuthorityName::Etcd])), [etcd.clone(), Vec::new(), etcd]);
    assert_eq!(names(authorities(&[AuthorityName::FrontProxy])), vec![Vec::<String>::new(); 3]);
    let clients = ["kube-controller-manager", "kube-proxy", "kube-scheduler"].map(str::to_owned).to_vec();
    let with_kubelet = [clients.clone(), vec!["kubelet.service".to_owned()]].concat();
    let kubernetes = [with_kubelet.clone(), clients, with_kubelet];
    assert_eq!(names(authorities(&[AuthorityName::Kubernetes])), kubernetes);
    let (server, manager) = ("kube-apiserver".to_owned(), "kube-controller-manager".to_owned());
    let keys = [vec![server.clone()], vec![server.clone(), manager], vec![server]];
    assert_eq!(names(Exchange::TokenKey), keys);
}

#[test]
fn kubelets_pairs_are_replaced_where_another_authority_begins_to_issue_and_on_the_way_back() {
    let was = support::secrets(&support::cluster(support::THREE_HOSTS));
    let legs = passed(&authorities(&[AuthorityName::Kubernetes]), &was);
    let [before, accepted, issuing, dropped] = [0, 1, 2, 3].map(|at| rendered(support::THREE_HOSTS, &legs[at]));
    let replaced = |from: &crate::render::Rendered, to: &crate::render::Rendered| {
        let present = sample(from.desired.clone(), from.blobs.clone());
        let mut observed = present.reached();
        for (name, host) in &mut observed.hosts {
            for (path, file) in &present.desired.hosts[name].files {
                if let (Keep::Seeded { .. }, Some(seen)) = (&file.keep, host.files.get_mut(path)) {
                    let pair = from.blobs.get(&file.digest).unwrap().expose_text().unwrap();
                    seen.certificate = Some(pair[..pair.find("-----BEGIN PRIVATE").unwrap()].to_owned());
                }
            }
        }
        let plan = plan::plan(&to.desired, &observed, &after(&present.desired)).unwrap();
        let steps = plan.stages.iter().flat_map(|stage| &stage.steps);
        let pairs = steps.flat_map(|step| &step.batch.0).filter(|action| match action {
            Action::PutFile { path, .. } => path.as_str().ends_with("kubelet-client-current.pem"),
            _ => false,
        });
        assert_eq!(titles(&plan).is_empty(), from.desired == to.desired);
        pairs.count()
    };
    assert_eq!(replaced(&before, &accepted), 0);
    assert_eq!(replaced(&accepted, &issuing), 3);
    assert_eq!(replaced(&issuing, &issuing), 0);
    assert_eq!(replaced(&issuing, &dropped), 0);
    assert_eq!(replaced(&issuing, &accepted), 3);
    assert_eq!(replaced(&accepted, &before), 0);
}
