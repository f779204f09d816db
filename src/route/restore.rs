//! THE ROUTE OF A RESTORE, in order:
//!
//! 1. [`stop`]: API servers, controller managers and schedulers everywhere, then etcd everywhere.
//! 2. [`bare`]: every host is all that it should be but for these pods. Hosts that hold nothing yet get everything here.
//! 3. [`exchange`]: every member's data, from one database, as a new etcd cluster.
//! 4. the target itself, which starts them all at once, because nothing runs that could be lost.
//!
//! Taken back ([`put_back`] in place of 3), it ends at the target from before. Each part may be run again: what has been done
//! is not done twice.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::model::Action;
use crate::model::Batch;
use crate::model::Component;
use crate::model::Desired;
use crate::model::DesiredHost;
use crate::model::Digest;
use crate::model::EtcdRestore;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::ImageRef;
use crate::model::ObjectAction;
use crate::model::Observed;
use crate::model::Plan;
use crate::model::RemotePath;
use crate::model::Role;
use crate::model::Stage;
use crate::model::Step;

const MANIFESTS: &str = "/etc/kubernetes/manifests/";
/// Whatever writes to etcd ends before etcd does.
const WRITERS: [(&str, Component); 3] = [
    ("kube-apiserver", Component::ApiServer),
    ("kube-controller-manager", Component::ControllerManager),
    ("kube-scheduler", Component::Scheduler),
];
const ETCD: [(&str, Component); 1] = [("etcd", Component::Etcd)];

/// What the data are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Its newest revision, where it is known.
    pub revision: Option<u64>,
}

/// The new etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth<'a> {
    /// Its token, which no other cluster has had.
    pub token: &'a str,
    /// Its members' peer URLs.
    pub members: &'a BTreeMap<HostName, String>,
    /// etcd's image.
    pub image: &'a ImageRef,
    /// etcd's user and group.
    pub owner: (u32, u32),
}

/// `target` without the hosts that are left out: the others need not wait for them.
pub fn taking_part(target: &Desired, left_out: &BTreeSet<HostName>) -> Desired {
    let mut part = target.clone();
    part.hosts.retain(|name, _| !left_out.contains(name));
    part
}

/// Stops the control plane on every host that holds something of this cluster.
pub fn stop(target: &Desired, observed: &Observed) -> Plan {
    let halt = |title: &str, pods: &[(&str, Component)]| {
        let steps: Vec<_> = target
            .hosts
            .keys()
            .filter_map(|host| {
                let seen = observed.hosts.get(host).filter(|seen| seen.record.is_some())?;
                let manifests = pods.iter().filter_map(|(pod, _)| {
                    let path = RemotePath::new(format!("{MANIFESTS}{pod}.yaml")).ok()?;
                    let replaces = seen.files.get(&path)?.digest;
                    Some(Action::RemoveFile { path, replaces })
                });
                // Also where no manifest is left: an earlier try may have been cut off before the pod had ended.
                let ends = pods.iter().map(|(pod, _)| Action::AwaitGone { pod: (*pod).to_owned() });
                Some(step(host, pods.iter().map(|(_, component)| *component).collect(), manifests.chain(ends)))
            })
            .collect();
        stage(title, steps)
    };
    plan(vec![halt("API servers, controller managers and schedulers stop", &WRITERS), halt("etcd stops", &ETCD)])
}

/// `target` without everything that [`stop`] stops. To the planner its hosts are workers, which are all brought there at
/// once.
pub fn bare(target: &Desired) -> Desired {
    let mut bare = target.clone();
    bare.objects.clear();
    for host in bare.hosts.values_mut() {
        host.roles = [Role::Worker].into_iter().collect();
        host.labels.clear();
        host.taints.clear();
        for (pod, _) in WRITERS.iter().chain(&ETCD) {
            host.pods.remove(*pod);
            host.files.retain(|path, _| path.as_str() != format!("{MANIFESTS}{pod}.yaml"));
        }
    }
    bare
}

/// [`bare`] with etcd on `host` as `rendered` has it.
pub fn joining(target: &Desired, host: &HostName, rendered: &Desired) -> Desired {
    let mut joining = bare(target);
    let (Some(to), Some(from)) = (joining.hosts.get_mut(host), rendered.hosts.get(host)) else { return joining };
    to.roles = [Role::Worker, Role::Etcd].into_iter().collect();
    etcd_as(to, from);
    joining
}

fn etcd_as(to: &mut DesiredHost, from: &DesiredHost) {
    for (pod, _) in &ETCD {
        to.pods.extend(from.pods.get(*pod).map(|inputs| ((*pod).to_owned(), *inputs)));
        let manifest = from.files.iter().find(|(path, _)| path.as_str() == format!("{MANIFESTS}{pod}.yaml"));
        to.files.extend(manifest.map(|(path, file)| (path.clone(), file.clone())));
    }
}

/// `target` with etcd on `host` as it runs there after [`joining`]; none where it does not. A kubelet that has not seen an API server since
/// it started ends no static pod, not even to begin another one in its place, and on a control-plane host the server that it asks is its
/// own: that must run before etcd is restarted.
pub fn settling(target: &Desired, host: &HostName, joining: &Desired, observed: &Observed) -> Option<Desired> {
    let (from, seen) = (joining.hosts.get(host)?, observed.hosts.get(host)?);
    let as_it_joined = ETCD.iter().all(|(pod, _)| {
        let manifest = from.files.iter().find(|(path, _)| path.as_str() == format!("{MANIFESTS}{pod}.yaml"));
        manifest.is_some_and(|(path, file)| seen.files.get(path).is_some_and(|seen| seen.digest == file.digest))
    });
    let mut settling = target.clone();
    etcd_as(settling.hosts.get_mut(host).filter(|_| as_it_joined)?, from);
    Some(settling)
}

/// A plan towards [`joining`] without what a member cannot be before it has its vote, which whoever runs it must wait for.
pub fn without_vote(plan: Plan) -> Plan {
    let mut plan = without_cluster(plan);
    for step in plan.stages.iter_mut().flat_map(|stage| &mut stage.steps) {
        step.gates.retain(|gate| !matches!(gate, Gate::EtcdMember { .. }));
    }
    plan
}

/// Makes room on `host` for a member that joins the cluster of `birth`.
pub fn clear(host: &HostName, token: &str, owner: (u32, u32)) -> Plan {
    let clear = Action::ClearEtcd { token: token.to_owned(), uid: owner.0, gid: owner.1 };
    plan(vec![stage("etcd's old data are taken away", vec![step(host, [Component::Etcd].into(), [clear])])])
}

/// A plan towards [`bare`] without what would ask an API server that is not there.
pub fn without_cluster(mut plan: Plan) -> Plan {
    for stage in &mut plan.stages {
        stage.objects.clear();
        stage.gates.clear();
    }
    plan.stages.retain(|stage| !stage.steps.is_empty());
    plan.notes.clear();
    plan
}

/// Exchanges the data of every member in `target`.
pub fn exchange(target: &Desired, birth: &Birth<'_>, database: &Database) -> Plan {
    let members = target.hosts.iter().filter(|(_, host)| host.roles.etcd());
    let steps = members
        .filter_map(|(name, _)| {
            let restore = Action::RestoreEtcd(EtcdRestore {
                token: birth.token.to_owned(),
                peer: birth.members.get(name)?.clone(),
                members: birth.members.clone(),
                database: database.digest,
                size: database.size,
                leap: leap(birth.token, database.revision),
                image: birth.image.clone(),
                uid: birth.owner.0,
                gid: birth.owner.1,
            });
            Some(step(name, [Component::Etcd].into(), [restore]))
        })
        .collect();
    plan(vec![stage("etcd's data are exchanged", steps)])
}

/// Puts back what the restore with `token` kept aside.
pub fn put_back(target: &Desired, token: &str) -> Plan {
    let members = target.hosts.iter().filter(|(_, host)| host.roles.etcd());
    let back = || Action::ReturnEtcd { token: token.to_owned() };
    let steps = members.map(|(name, _)| step(name, [Component::Etcd].into(), [back()])).collect();
    plan(vec![stage("etcd's data from before the restore are put back", steps)])
}

/// Nodes that the restored data know and cluster.yml does not.
pub fn departed(target: &Desired, observed: &Observed) -> Plan {
    let nodes = observed.objects.iter().flat_map(|objects| objects.nodes.keys());
    let objects = nodes
        .filter(|name| !target.hosts.contains_key(*name))
        .map(|name| ObjectAction::Forget { node: name.clone() })
        .collect();
    plan(vec![Stage { objects, ..stage("nodes that are no more", Vec::new()) }])
}

/// A token for a new etcd cluster made from `database` at `now`: a run that was cut off knows by it what it was restoring, and
/// all members know by it where their revisions begin.
pub fn token(database: &Digest, now: i64, random: [u8; 4]) -> String {
    let seconds = u32::try_from(now).unwrap_or(u32::MAX);
    format!("bastide-{}{seconds:08x}{:08x}", &database.to_string()[..16], u32::from_be_bytes(random))
}

/// How far above `revision`, the database's newest, those of the cluster of `token` begin. They begin at a million for each
/// second from 2026 to the token's time, so that a second restore, of whichever snapshot, gives out no revision that was seen
/// after the first; in any case at least the 10^9 of etcd's documentation above the database's.
fn leap(token: &str, revision: Option<u64>) -> u64 {
    const START_OF_2026: u64 = 1_767_225_600;
    let time = token.len().checked_sub(16).and_then(|at| token.get(at..at + 8));
    let seconds = time.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let begin = seconds.saturating_sub(START_OF_2026) * 1_000_000;
    begin.saturating_sub(revision.unwrap_or(0)).max(1_000_000_000)
}

/// Whether the cluster of `token` was made from `database`.
pub fn made_from(token: &str, database: &Digest) -> bool {
    token.strip_prefix("bastide-").is_some_and(|rest| rest.len() == 32 && rest.starts_with(&database.to_string()[..16]))
}

fn step(host: &HostName, components: BTreeSet<Component>, actions: impl IntoIterator<Item = Action>) -> Step {
    Step { host: host.clone(), components, batch: Batch(actions.into_iter().collect()), gates: Vec::new() }
}

fn stage(title: &str, steps: Vec<Step>) -> Stage {
    Stage { title: title.to_owned(), width: steps.len().max(1), steps, objects: Vec::new(), gates: Vec::new() }
}

fn plan(mut stages: Vec<Stage>) -> Plan {
    stages.retain(|stage| !stage.steps.is_empty() || !stage.objects.is_empty());
    Plan { stages, ..Plan::default() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::BTreeSet;

    use super::Birth;
    use super::Database;
    use super::bare;
    use super::departed;
    use super::exchange;
    use super::joining;
    use super::leap;
    use super::made_from;
    use super::stop;
    use super::taking_part;
    use super::token;
    use super::without_cluster;
    use crate::model::Action;
    use crate::model::Desired;
    use crate::model::Digest;
    use crate::model::HostName;
    use crate::model::ImageRef;
    use crate::model::ObjectAction;
    use crate::model::Observed;
    use crate::model::Plan;
    use crate::plan;
    use crate::plan::testing::Builder;
    use crate::plan::testing::Sample;
    use crate::plan::testing::fresh;
    use crate::plan::testing::name;

    const TOKEN: &str = "bastide-00000000000000001111111111111111";
    const PODS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

    /// The four plans in order, each from what the one before leaves, and what is there at the end.
    fn route(target: &Desired, seen: &Observed) -> (Vec<Plan>, Observed) {
        let members: BTreeMap<HostName, String> =
            target.hosts.keys().map(|host| (host.clone(), format!("https://{host}:2380"))).collect();
        let image = ImageRef::new("registry.k8s.io/etcd:3.7.0-0").unwrap();
        let birth = Birth { token: TOKEN, members: &members, image: &image, owner: (52034, 52034) };
        let database = Database { digest: Digest::of(b"database"), size: 8, revision: Some(7) };
        let mut observed = seen.clone();
        observed.objects = None;
        let mut plans = Vec::new();
        for leg in 0..4 {
            let plan = match leg {
                0 => stop(target, &observed),
                1 => without_cluster(plan::plan(&bare(target), &observed, &fresh()).unwrap()),
                2 => exchange(target, &birth, &database),
                _ => plan::plan(target, &observed, &fresh()).unwrap(),
            };
            observed = plan::predict(&observed, &plan);
            plans.push(plan);
        }
        (plans, observed)
    }

    fn actions(plan: &Plan) -> Vec<(&HostName, &Action)> {
        let steps = plan.stages.iter().flat_map(|stage| &stage.steps);
        steps.flat_map(|step| step.batch.0.iter().map(|action| (&step.host, action))).collect()
    }

    /// Data are exchanged only where nothing of the control plane is left, on any host.
    fn stopped_before_the_exchange(sample: &Sample, seen: &Observed) {
        let mut observed = seen.clone();
        observed.objects = None;
        observed = plan::predict(&observed, &stop(&sample.desired, &observed));
        let planned = plan::plan(&bare(&sample.desired), &observed, &fresh()).unwrap();
        observed = plan::predict(&observed, &without_cluster(planned));
        for (host, seen) in &observed.hosts {
            for pod in PODS {
                assert!(!seen.pods.contains_key(pod), "{pod} still runs on {host}");
                let manifest = format!("/etc/kubernetes/manifests/{pod}.yaml");
                assert!(!seen.files.keys().any(|path| path.as_str() == manifest), "{host} still has {manifest}");
            }
        }
    }

    #[test]
    fn a_living_cluster_stops_everywhere_before_any_data_are_touched_and_ends_at_its_target() {
        let sample = Builder::five().build();
        let seen = sample.reached();
        stopped_before_the_exchange(&sample, &seen);
        let (plans, after) = route(&sample.desired, &seen);
        let titles: Vec<_> = plans[0].stages.iter().map(|stage| stage.title.as_str()).collect();
        assert_eq!(titles, ["API servers, controller managers and schedulers stop", "etcd stops"]);
        assert!(plans[1].stages.is_empty(), "hosts that differ in nothing are left alone: {:?}", plans[1]);
        let exchanged: Vec<_> = actions(&plans[2]).into_iter().map(|(host, _)| host.as_str()).collect();
        assert_eq!(exchanged, ["h1", "h2", "h3"]);
        let left = plan::plan(&sample.desired, &after, &fresh()).unwrap();
        assert!(left.changes_nothing(), "{left:?}");
    }

    #[test]
    fn empty_hosts_are_made_anew_on_the_way() {
        let sample = Builder::five().build();
        let mut seen = sample.reached();
        let blank = sample.bare();
        for host in ["h2", "h3"] {
            seen.hosts.insert(name(host), blank.hosts[&name(host)].clone());
        }
        stopped_before_the_exchange(&sample, &seen);
        let (plans, _) = route(&sample.desired, &seen);
        assert!(actions(&plans[0]).iter().all(|(host, _)| !["h2", "h3"].contains(&host.as_str())));
        let started = actions(&plans[1]).into_iter().filter(|(host, action)| {
            host.as_str() == "h2"
                && matches!(action, Action::StartUnit { name, .. } if name.as_str() == "kubelet.service")
        });
        assert_eq!(started.count(), 1, "an empty host gets its kubelet before etcd's data");
        assert_eq!(actions(&plans[2]).len(), 3);
    }

    #[test]
    fn hosts_that_are_left_out_are_neither_waited_for_nor_written_to() {
        let sample = Builder::five().build();
        let mut seen = sample.reached();
        seen.hosts.remove(&name("h3"));
        let part = taking_part(&sample.desired, &BTreeSet::from([name("h3")]));
        let (plans, _) = route(&part, &seen);
        for plan in &plans {
            assert!(actions(plan).iter().all(|(host, _)| host.as_str() != "h3"));
        }
    }

    #[test]
    fn a_restore_that_was_cut_off_waits_for_the_pods_whose_manifests_are_gone() {
        let sample = Builder::five().build();
        let seen = sample.reached();
        let mut after = plan::predict(&seen, &stop(&sample.desired, &seen));
        after.hosts.get_mut(&name("h1")).unwrap().pods.insert("etcd".to_owned(), None);
        let again = stop(&sample.desired, &after);
        let waits = |(host, action): &(&HostName, &Action)| {
            host.as_str() == "h1" && matches!(action, Action::AwaitGone { pod } if pod == "etcd")
        };
        assert!(actions(&again).iter().any(waits));
        assert!(actions(&again).iter().all(|(_, action)| matches!(action, Action::AwaitGone { .. })));
    }

    #[test]
    fn a_member_that_joins_has_etcd_as_it_was_rendered_for_that_and_nothing_that_would_ask_it() {
        let sample = Builder::five().build();
        let other = Builder::five().change("h3", crate::model::Component::Etcd).build();
        let others = sample.desired.hosts.keys().filter(|name| name.as_str() != "h3").cloned().collect();
        let part = taking_part(&sample.desired, &others);
        let joining = joining(&part, &name("h3"), &other.desired);
        assert_eq!(joining.hosts.keys().collect::<Vec<_>>(), [&name("h3")]);
        let (host, rendered) = (&joining.hosts[&name("h3")], &other.desired.hosts[&name("h3")]);
        let manifest = crate::plan::testing::path("/etc/kubernetes/manifests/etcd.yaml");
        assert_eq!(host.files.get(&manifest), rendered.files.get(&manifest));
        assert_eq!(host.pods.get("etcd"), rendered.pods.get("etcd"));
        for pod in &PODS[1..] {
            assert!(!host.pods.contains_key(*pod), "{pod} would start beside a learner");
        }
        let mut seen = sample.reached();
        seen.objects = None;
        seen.hosts.retain(|name, _| joining.hosts.contains_key(name));
        seen = plan::predict(&seen, &stop(&joining, &seen));
        let plan = super::without_vote(plan::plan(&joining, &seen, &fresh()).unwrap());
        let step = &plan.stages[0].steps[0];
        assert!(step.batch.0.iter().any(|action| matches!(action, Action::AwaitPod { pod, .. } if pod == "etcd")));
        assert_eq!(step.gates, [crate::model::Gate::Kubelet { host: name("h3") }]);

        // Everything else starts there before etcd is restarted.
        assert_eq!(
            super::settling(&sample.desired, &name("h3"), &joining, &seen),
            None,
            "it does not run as it joined"
        );
        seen = plan::predict(&seen, &plan);
        let mut others = sample.reached();
        others.hosts.extend(seen.hosts);
        let settling = super::settling(&sample.desired, &name("h3"), &joining, &others).unwrap();
        let restarts = |plan: &Plan| {
            let etcd = |(host, action): &(&HostName, &Action)| {
                host.as_str() == "h3" && matches!(action, Action::AwaitPod { pod, .. } if pod == "etcd")
            };
            actions(plan).iter().any(etcd)
        };
        let first = plan::plan(&settling, &others, &fresh()).unwrap();
        assert!(!restarts(&first) && !first.changes_nothing(), "{first:?}");
        let rest = plan::plan(&sample.desired, &plan::predict(&others, &first), &fresh()).unwrap();
        assert!(restarts(&rest), "{rest:?}");
    }

    #[test]
    fn nodes_that_the_file_does_not_know_go() {
        let sample = Builder::five().build();
        let mut seen = sample.reached();
        seen.objects.as_mut().unwrap().nodes.insert(name("gone"), crate::model::ObservedNode::default());
        let plan = departed(&sample.desired, &seen);
        let deleted: Vec<_> = plan.stages.iter().flat_map(|stage| &stage.objects).collect();
        assert!(matches!(deleted.as_slice(), [ObjectAction::Forget { node }] if node.as_str() == "gone"));
    }

    #[test]
    fn a_token_says_what_it_was_made_from_and_is_never_the_same_twice() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        assert!(made_from(&token(&one, 10, [1; 4]), &one));
        assert!(!made_from(&token(&one, 10, [1; 4]), &other));
        assert_ne!(token(&one, 10, [1; 4]), token(&one, 10, [2; 4]));
        assert!(!made_from("bastide-0123456789abcdef0123456789abcdef", &one));
    }

    #[test]
    fn a_later_restore_begins_above_all_that_was_seen_after_an_earlier_one() {
        let token = |now| token(&Digest::of(b"one"), now, [0xff; 4]);
        let begins = |now, revision| revision + leap(&token(now), Some(revision));
        let (first, second) = (1_790_000_000, 1_790_000_060);
        assert_eq!(begins(first, 900_000), begins(first, 7), "wherever the snapshot stood");
        assert_eq!(begins(second, 7) - begins(first, 900_000), 60_000_000);
        let of_the_first = begins(first, 7) + 1_000;
        assert_eq!(begins(first + 5_000, of_the_first) - begins(first, 7), 5_000_000_000, "a chain does not add up");
        assert_eq!(begins(second, of_the_first) - of_the_first, 1_000_000_000, "so soon, as far as etcd asks for");
        assert_eq!(leap(&token(second), None), begins(second, 0), "a database that does not tell its revision");
        for strange in ["demo", "bastide-0123456789abcdef00000000ffffffff"] {
            assert_eq!(leap(strange, Some(7)), 1_000_000_000, "a clock that was never set");
        }
    }
}
