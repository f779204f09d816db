//! Which keys a target of then is given today.

use super::support::NOW;
use super::support::born;
use super::support::cluster;
use super::support::shown;
use crate::config::KeyAlgorithm;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Prefer;
use crate::secrets::Secrets;
use crate::secrets::SeededEntropy;
use crate::secrets::carry;
use crate::secrets::carry::LEFT_AT_LEAST;
use crate::secrets::carry::issuer;
use crate::secrets::complete;
use crate::secrets::inspect::Seen;
use crate::secrets::leaf::LEAF_LIFETIME;
use crate::secrets::leaf::Terms;
use crate::secrets::leaf::table;
use crate::secrets::renew;

const TERMS: Terms = Terms { algorithm: KeyAlgorithm::P256, lifetime: LEAF_LIFETIME };

fn carried(stored: &Secrets, today: &Secrets, prefer: Prefer, now: i64) -> (Secrets, Vec<String>) {
    let entropy = &mut SeededEntropy::new(9);
    let (secrets, issued) = carry(stored, today, prefer, TERMS, now, entropy).unwrap();
    (secrets, shown(&issued))
}

fn renewed(kept: &Secrets) -> Secrets {
    let all = kept.leaves.keys().cloned().collect();
    renew(kept, &all, TERMS, NOW, &mut SeededEntropy::new(5)).unwrap().0
}

#[test]
fn every_row_has_the_tables_issuer() {
    for (id, template) in table(&cluster()) {
        assert_eq!(issuer(id.name), template.authority, "{}", id.describe());
    }
}

#[test]
fn todays_leaves_stay_and_those_of_then_come_back_where_their_renewal_is_undone() {
    let stored = born(&cluster());
    let today = renewed(&stored);
    assert!(stored.leaves.iter().all(|(id, leaf)| today.leaves[id] != *leaf));
    assert_eq!(carried(&stored, &today, Prefer::Todays, NOW), (today.clone(), Vec::new()));
    assert_eq!(carried(&stored, &today, Prefer::Stored, NOW), (stored, Vec::new()));
}

#[test]
fn names_of_then_come_back_with_the_leaf_of_then() {
    let stored = born(&cluster());
    let mut fewer = cluster();
    fewer.sans.clear();
    let today = complete(&fewer, Some(&stored), NOW, &mut SeededEntropy::new(6)).unwrap().0;
    let id = LeafId::of(LeafName::ApiServer, &fewer.nodes[0].name);
    assert_ne!(stored.leaves[&id], today.leaves[&id]);
    let (secrets, issued) = carried(&stored, &today, Prefer::Todays, NOW);
    assert_eq!(secrets.leaves[&id], stored.leaves[&id]);
    assert!(issued.is_empty());
}

#[test]
fn what_has_ended_or_ends_soon_is_issued_anew_with_the_same_words() {
    let stored = born(&cluster());
    for (now, why) in
        [(NOW + LEAF_LIFETIME + 1, "expired"), (NOW + LEAF_LIFETIME - LEFT_AT_LEAST + 60, "ends in 29 days")]
    {
        let (secrets, issued) = carried(&stored, &stored, Prefer::Todays, now);
        assert_eq!(issued.len(), stored.leaves.len());
        assert!(issued.iter().all(|line| line.ends_with(why)), "{issued:?}");
        for (id, leaf) in &secrets.leaves {
            let (new, old) =
                (Seen::read(&leaf.certificate).unwrap(), Seen::read(&stored.leaves[id].certificate).unwrap());
            let same = |seen: Seen| (seen.common_name, seen.organizations, seen.sans, seen.client, seen.server);
            assert_eq!(same(new), same(old));
            assert_eq!(leaf.not_after, now + LEAF_LIFETIME);
        }
    }
    let (_, issued) = carried(&stored, &stored, Prefer::Todays, NOW + LEAF_LIFETIME - LEFT_AT_LEAST - 60);
    assert!(issued.is_empty());
}

#[test]
fn a_short_life_is_the_files_and_is_issued_anew_in_its_last_third_alone() {
    const LIFE: i64 = 20 * 60;
    let mut short = cluster();
    short.options.leaf_lifetime = std::time::Duration::from_secs(LIFE.unsigned_abs());
    let stored = born(&short);
    assert!(stored.leaves.values().all(|leaf| leaf.not_after == NOW + LIFE));
    let terms = Terms::of(&short);
    let all = stored.leaves.keys().cloned().collect();
    let entropy = &mut SeededEntropy::new(8);
    let (anew, _) = renew(&stored, &all, terms, NOW + 60, entropy).unwrap();
    assert!(anew.leaves.values().all(|leaf| leaf.not_after == NOW + 60 + LIFE));
    for (now, count) in [(NOW + 2 * LIFE / 3, 0), (NOW + 2 * LIFE / 3 + 1, stored.leaves.len())] {
        assert_eq!(complete(&short, Some(&stored), now, entropy).unwrap().1.len(), count);
        assert_eq!(carry(&stored, &stored, Prefer::Todays, terms, now, entropy).unwrap().1.len(), count);
    }
}

#[test]
fn a_leaf_of_an_authority_that_is_accepted_no_more_is_issued_anew() {
    let stored = born(&cluster());
    let mut today = complete(&cluster(), None, NOW, &mut SeededEntropy::new(7)).unwrap().0;
    today.cluster = stored.cluster.clone();
    today.leaves.clear();
    let (secrets, issued) = carried(&stored, &today, Prefer::Stored, NOW);
    assert_eq!(issued.len(), stored.leaves.len());
    assert_eq!(secrets.authorities, today.authorities);
    assert!(issued.iter().any(|line| line.contains("no longer accepted")), "{issued:?}");
}
