//! The shortest way over stored targets whose neighbours may run side by side.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use crate::model::Barrier;
use crate::model::RevisionId;
use crate::route::Clash;
use crate::route::Point;
use crate::route::compatible;

/// A revision that can be stood on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub id: RevisionId,
    /// What decides who may stand beside it.
    pub point: Point,
    /// What keeps everybody from walking back over it.
    pub barrier: Option<Barrier>,
}

/// Why there is no way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// The goal is not among the stops.
    NotKept,
    /// A barrier lies between.
    Barrier {
        /// The revision that it came with.
        at: RevisionId,
        /// Which.
        barrier: Barrier,
    },
    /// No chain of stops leads there; what start and goal would not understand of each other.
    Clash(Vec<Clash>),
}

/// The stops to pass through from `from`, not itself, to `to`, itself last; empty where they are the same.
pub fn walk(stops: &[Stop], from: &RevisionId, to: &RevisionId) -> Result<Vec<RevisionId>, Blocked> {
    let by_id: BTreeMap<_, _> = stops.iter().map(|stop| (&stop.id, stop)).collect();
    let (Some(start), Some(goal)) = (by_id.get(from), by_id.get(to)) else { return Err(Blocked::NotKept) };
    if let Some((at, barrier)) = between(stops, from, to) {
        return Err(Blocked::Barrier { at: at.clone(), barrier: barrier.clone() });
    }
    let mut came_from: BTreeMap<&RevisionId, &RevisionId> = BTreeMap::new();
    let mut reached = VecDeque::from([*start]);
    while let Some(here) = reached.pop_front() {
        if here.id == *to {
            let mut way = Vec::new();
            let mut at = &here.id;
            while at != from {
                way.push(at.clone());
                let Some(before) = came_from.get(at) else { break };
                at = before;
            }
            way.reverse();
            return Ok(way);
        }
        // Newer ones first: of several ways of one length the one that stays closest to today.
        for next in stops.iter().rev() {
            let known = next.id == *from || came_from.contains_key(&next.id);
            if !known && between(stops, &here.id, &next.id).is_none() && compatible(&here.point, &next.point).is_empty()
            {
                came_from.insert(&next.id, &here.id);
                reached.push_back(next);
            }
        }
    }
    Err(Blocked::Clash(compatible(&start.point, &goal.point)))
}

/// The newest barrier that would be crossed between two revisions, in either direction.
fn between<'a>(stops: &'a [Stop], one: &RevisionId, other: &RevisionId) -> Option<(&'a RevisionId, &'a Barrier)> {
    let (low, high) = (one.min(other), one.max(other));
    let mut crossed = stops.iter().rev().filter(|stop| stop.id > *low && stop.id <= *high);
    crossed.find_map(|stop| Some((&stop.id, stop.barrier.as_ref()?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::Blocked;
    use super::Stop;
    use super::walk;
    use crate::model::Barrier;
    use crate::model::Digest;
    use crate::model::HostName;
    use crate::model::KubeVersion;
    use crate::model::RevisionId;
    use crate::route::Clash;
    use crate::route::Point;
    use crate::route::Rule;
    use crate::route::compatible;
    use crate::secrets::AuthorityName;

    fn id(number: u32) -> RevisionId {
        RevisionId { number, nonce: format!("{number}") }
    }

    fn digests(letters: &str) -> Vec<Digest> {
        letters.chars().map(|letter| Digest::of(letter.to_string().as_bytes())).collect()
    }

    /// Authorities and encryption keys as letters, the first in use.
    fn point(minor: u16, authorities: &str, encryption: &str) -> Point {
        Point {
            kubernetes: KubeVersion { minor, patch: 0 },
            members: [(HostName::new("h1").unwrap(), (true, true))].into(),
            birth: Digest::of(b"born"),
            authorities: AuthorityName::ALL.map(|name| (name, digests(authorities))).into(),
            tokens: digests("t"),
            encryption: vec![Rule { resources: vec!["secrets".to_owned()], keys: digests(encryption) }],
        }
    }

    fn stop(number: u32, point: Point) -> Stop {
        Stop { id: id(number), point, barrier: None }
    }

    fn ways(stops: &[Stop], from: u32, to: u32) -> Result<Vec<u32>, Blocked> {
        walk(stops, &id(from), &id(to)).map(|way| way.into_iter().map(|id| id.number).collect())
    }

    #[test]
    fn an_ordinary_change_is_one_leg_back() {
        let stops = [1, 2, 3].map(|number| stop(number, point(37, "a", "k")));
        assert_eq!(ways(&stops, 3, 1), Ok(vec![1]));
        assert_eq!(ways(&stops, 3, 3), Ok(vec![]));
    }

    #[test]
    fn a_rotation_is_walked_back_leg_by_leg() {
        // Old alone, both accepted, the new one issues, new alone.
        let rotation = ["a", "ab", "ba", "b"];
        let stops: Vec<_> =
            (1..).zip(rotation).map(|(number, letters)| stop(number, point(37, letters, "k"))).collect();
        assert_eq!(ways(&stops, 4, 1), Ok(vec![3, 2, 1]));
        assert_eq!(ways(&stops, 1, 4), Ok(vec![2, 3, 4]));
        let keys: Vec<_> = (1..).zip(rotation).map(|(number, letters)| stop(number, point(37, "a", letters))).collect();
        assert_eq!(ways(&keys, 4, 1), Ok(vec![3, 2, 1]));
    }

    #[test]
    fn without_the_legs_in_between_there_is_no_way_and_the_reason_is_told() {
        let stops = [stop(1, point(37, "a", "k")), stop(2, point(37, "b", "k"))];
        let all = AuthorityName::ALL.map(Clash::Authority).to_vec();
        assert_eq!(ways(&stops, 2, 1), Err(Blocked::Clash(all)));
        assert_eq!(ways(&stops, 2, 7), Err(Blocked::NotKept));
    }

    #[test]
    fn a_barrier_is_crossed_in_no_direction_and_named() {
        let barrier = Barrier { name: "etcd-restore".to_owned(), why: "the data of before is gone".to_owned() };
        let mut stops = [1, 2, 3, 4].map(|number| stop(number, point(37, "a", "k")));
        stops[2].barrier = Some(barrier.clone());
        assert_eq!(ways(&stops, 4, 2), Err(Blocked::Barrier { at: id(3), barrier: barrier.clone() }));
        assert_eq!(ways(&stops, 2, 4), Err(Blocked::Barrier { at: id(3), barrier }));
        assert_eq!(ways(&stops, 4, 3), Ok(vec![3]));
        assert_eq!(ways(&stops, 2, 1), Ok(vec![1]));
    }

    #[test]
    fn minors_are_passed_one_by_one() {
        let stops: Vec<_> = (1..).zip(35..=37).map(|(number, minor)| stop(number, point(minor, "a", "k"))).collect();
        assert_eq!(ways(&stops, 3, 1), Ok(vec![2, 1]));
    }

    prop_compose! {
        fn points()(minor in 36u16..39, authorities in "[ab]{1,2}|ba", encryption in "[kl]{1,2}", members in 1usize..3, barrier in 0u8..12)
            -> (Point, bool) {
            let mut point = point(minor, &authorities, &encryption);
            point.members = ["h1", "h2", "h3"][..members].iter().map(|name| (HostName::new(*name).unwrap(), (true, true))).collect();
            (point, barrier == 0)
        }
    }

    proptest! {
        #[test]
        fn compatibility_is_symmetric_and_everything_fits_itself((a, _) in points(), (b, _) in points()) {
            prop_assert_eq!(compatible(&a, &b), compatible(&b, &a));
            prop_assert!(compatible(&a, &a).is_empty());
        }

        #[test]
        fn every_leg_of_a_way_is_compatible_and_no_shorter_way_exists(
            points in proptest::collection::vec(points(), 2..8), from in 0usize..8, to in 0usize..8,
        ) {
            let (from, to) = (from % points.len(), to % points.len());
            let stops: Vec<Stop> = (1..).zip(points).map(|(number, (point, barred))| Stop {
                barrier: barred.then(|| Barrier { name: "b".to_owned(), why: String::new() }),
                ..stop(number, point)
            }).collect();
            let fits = |a: usize, b: usize| {
                let (low, high) = (a.min(b), a.max(b));
                compatible(&stops[a].point, &stops[b].point).is_empty()
                    && stops[low + 1..=high].iter().all(|stop| stop.barrier.is_none())
            };
            // Distances by plain relaxation, as an independent judge.
            let mut distance: BTreeMap<usize, usize> = [(from, 0)].into();
            for _ in 0..stops.len() {
                for a in 0..stops.len() {
                    for b in 0..stops.len() {
                        if let Some(&known) = distance.get(&a) && fits(a, b) {
                            let best = distance.entry(b).or_insert(known + 1);
                            *best = (*best).min(known + 1);
                        }
                    }
                }
            }
            match walk(&stops, &stops[from].id, &stops[to].id) {
                Ok(way) => {
                    prop_assert_eq!(Some(&way.len()), distance.get(&to));
                    let mut here = from;
                    for next in way {
                        let at = stops.iter().position(|stop| stop.id == next).unwrap();
                        prop_assert!(fits(here, at));
                        here = at;
                    }
                    prop_assert_eq!(here, to);
                }
                Err(_) => prop_assert!(!distance.contains_key(&to)),
            }
            // And the way back is as long.
            let there = walk(&stops, &stops[from].id, &stops[to].id).map(|way| way.len()).ok();
            let back = walk(&stops, &stops[to].id, &stops[from].id).map(|way| way.len()).ok();
            prop_assert_eq!(there, back);
        }
    }
}
