//! Who may join and leave a living etcd cluster, and when.
//!
//! A member that comes back to a cluster that was restored without it joins as a learner: it has no vote, so that nothing depends
//! on it, until it holds what the others hold. What it was before is out of the cluster first, for good: etcd never lets a number
//! that was taken out come back.

use crate::model::HostName;

/// A member as the cluster lists it, and as it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number, decimal.
    pub id: String,
    /// Whose peer address it has; none where no host of cluster.yml has it.
    pub host: Option<HostName>,
    /// Whether it has ever started.
    pub started: bool,
    /// Whether it has no vote yet.
    pub learner: bool,
    /// Whether it answers under this very number, and knows a leader.
    pub well: bool,
}

impl Member {
    fn words(&self) -> String {
        match &self.host {
            Some(host) => host.to_string(),
            None => format!("member {}", self.id),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// This one leaves.
    Remove(&'a Member),
    /// A learner joins.
    AddLearner,
    /// This learner gets its vote.
    Promote(&'a Member),
}

/// THE ONE GUARD of every change of who belongs to etcd: everything that speaks against it, in words.
///
/// Whoever stays is started and well; there is one learner at a time; after the change, as before it, those that are well are a
/// quorum. Members on `leaving` hosts, which the cluster goes without, need not be well, but they count.
pub fn guard(members: &[Member], change: Change<'_>, leaving: &[HostName]) -> Result<(), Vec<String>> {
    let gone = match change {
        Change::Remove(member) => Some(&member.id),
        Change::AddLearner | Change::Promote(_) => None,
    };
    let stays: Vec<_> = members.iter().filter(|member| Some(&member.id) != gone).collect();
    let mut reasons = Vec::new();
    for member in &stays {
        let excused = member.host.as_ref().is_some_and(|host| leaving.contains(host));
        match (member.started, member.well) {
            (true, true) => {}
            _ if excused => {}
            (false, _) => reasons.push(format!("{} has not started yet", member.words())),
            (true, false) => reasons.push(format!("{} does not answer as a member of this cluster", member.words())),
        }
    }
    if let (Change::AddLearner, Some(learner)) = (change, members.iter().find(|member| member.learner)) {
        reasons.push(format!("{} is a learner already, and there may be one at a time", learner.words()));
    }
    if let Change::Promote(member) = change
        && !member.learner
    {
        reasons.push(format!("{} has its vote already", member.words()));
    }
    let promoted = match change {
        Change::Promote(member) => Some(&member.id),
        Change::Remove(_) | Change::AddLearner => None,
    };
    let now = members.iter().filter(|member| !member.learner);
    let then = stays.iter().copied().filter(|member| !member.learner || Some(&member.id) == promoted);
    reasons.extend(
        short(now).map(|(well, needed)| format!("{well} of the members with a vote are well, and {needed} must be")),
    );
    reasons.extend(short(then).map(|(well, needed)| {
        format!("after it {well} of the members with a vote would be well, and {needed} must be")
    }));
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// How many of the voters are well and how many must be, where that is too few.
fn short<'a>(voters: impl Iterator<Item = &'a Member>) -> Option<(usize, usize)> {
    let (mut all, mut well) = (0, 0);
    for member in voters {
        all += 1;
        well += usize::from(member.well);
    }
    let needed = all / 2 + 1;
    (well < needed).then_some((well, needed))
}

/// What is listed and is not what it was: a member on an `away` host that does not answer under its number. What lies on that host
/// is the old cluster's, or was lost.
pub fn stale<'a>(members: &'a [Member], away: &[HostName]) -> Vec<&'a Member> {
    let of_away = |member: &&Member| member.host.as_ref().is_some_and(|host| away.contains(host));
    members.iter().filter(of_away).filter(|member| !member.well).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::Change;
    use super::Member;
    use super::guard;
    use super::stale;
    use crate::model::HostName;

    fn host(at: usize) -> HostName {
        HostName::new(format!("h{at}")).unwrap()
    }

    fn member(at: usize, words: &str) -> Member {
        Member {
            id: at.to_string(),
            host: Some(host(at)),
            started: !words.contains("new"),
            learner: words.contains("learner"),
            well: !words.contains("dead") && !words.contains("new"),
        }
    }

    fn members(words: &[&str]) -> Vec<Member> {
        words.iter().enumerate().map(|(at, words)| member(at + 1, words)).collect()
    }

    #[test]
    fn a_member_comes_back_step_by_step_and_each_is_allowed_only_in_its_turn() {
        let away = [host(3)];
        let before = members(&["", "", "dead"]);
        assert_eq!(stale(&before, &away), [&before[2]]);
        assert!(guard(&before, Change::AddLearner, &away).is_ok(), "etcd has room for one");
        assert_eq!(
            guard(&before, Change::AddLearner, &[]).unwrap_err(),
            ["h3 does not answer as a member of this cluster"]
        );
        guard(&before, Change::Remove(&before[2]), &away).unwrap();
        guard(&before[..2], Change::AddLearner, &away).unwrap();
        let added = members(&["", "", "learner new"]);
        assert_eq!(stale(&added, &away), [&added[2]]);
        let refused = guard(&added, Change::Promote(&added[2]), &[]).unwrap_err();
        assert_eq!(refused, ["h3 has not started yet"]);
        let started = members(&["", "", "learner"]);
        assert!(stale(&started, &away).is_empty(), "it goes on where it stood");
        guard(&started, Change::Promote(&started[2]), &[]).unwrap();
        guard(&started, Change::Remove(&started[2]), &[]).unwrap();
    }

    #[test]
    fn quorum_holds_before_and_after() {
        let two = members(&["", "dead"]);
        let refused = guard(&two, Change::Remove(&two[1]), &[]).unwrap_err();
        assert_eq!(refused, ["1 of the members with a vote are well, and 2 must be"]);
        let three = members(&["", "", "dead"]);
        let refused = guard(&three, Change::Remove(&three[1]), &[host(3)]).unwrap_err();
        assert_eq!(refused, ["after it 1 of the members with a vote would be well, and 2 must be"]);
        let learner = members(&["", "learner", "dead learner"]);
        let refused = guard(&learner, Change::Promote(&learner[2]), &[host(3)]).unwrap_err();
        assert_eq!(refused, ["after it 1 of the members with a vote would be well, and 2 must be"]);
        let refused = guard(&learner, Change::AddLearner, &[host(3)]).unwrap_err();
        assert!(refused[0].contains("h2 is a learner already"), "{refused:?}");
    }

    fn any_member(at: usize) -> impl Strategy<Value = Member> {
        let words = prop_oneof![Just(""), Just("dead"), Just("new"), Just("learner"), Just("dead learner")];
        words.prop_map(move |words| member(at + 1, words))
    }

    proptest! {
        /// Whatever the guard lets through, those that are well can decide afterwards, and could before.
        #[test]
        fn what_is_allowed_leaves_a_quorum(
            members in (1_usize..6).prop_flat_map(|count| (0..count).map(any_member).collect::<Vec<_>>()),
            which in 0_usize..5,
            kind in 0_usize..3,
            excused in any::<bool>(),
        ) {
            let subject = &members[which % members.len()];
            let change = [Change::Remove(subject), Change::AddLearner, Change::Promote(subject)][kind];
            let leaving: Vec<_> = if excused { (1..6).map(host).collect() } else { Vec::new() };
            if guard(&members, change, &leaving).is_ok() {
                let mut after = members.clone();
                match kind {
                    0 => drop(after.remove(which % members.len())),
                    1 => {}
                    _ => after[which % members.len()].learner = false,
                }
                for list in [&members, &after] {
                    let voters: Vec<_> = list.iter().filter(|member| !member.learner).collect();
                    let well = voters.iter().filter(|member| member.well).count();
                    prop_assert!(2 * well > voters.len(), "{list:?}");
                }
            }
        }
    }
}
