//! How a run goes, stops, and what it says.

use crate::apply::ApplyError;
use crate::apply::Outcome;
use crate::apply::tests::world::World;
use crate::host::HostError;
use crate::model::Access;
use crate::model::Component;
use crate::model::Content;
use crate::model::Gate;
use crate::plan::plan;
use crate::plan::testing::Builder;
use crate::plan::testing::after;
use crate::plan::testing::fresh;
use crate::plan::testing::name;
use crate::plan::testing::path;

fn three() -> Builder {
    Builder::new(&[("h1", "cew"), ("h2", "cew"), ("h3", "cew"), ("w1", "w")])
}

fn etcd(host: &str) -> Gate {
    Gate::EtcdMember { host: name(host) }
}

#[tokio::test]
async fn a_first_run_reaches_the_target_and_the_second_plans_nothing() {
    let sample = three().build();
    let world = World::new(&sample);
    let up = world.up(&sample, &fresh()).await;
    assert_eq!(up.report.outcome, Outcome::Done, "{:?}", up.report.errors);
    world.is_at(&sample);
    assert_eq!(up.report.steps_done.len(), 4);
    assert_eq!((up.report.stages_done, up.report.stages), (2, 2));
    let writes = world.host("h1").state().writes.len();
    let again = world.up(&sample, &after(&sample.desired)).await;
    assert!(again.plan.is_empty());
    assert_eq!(world.host("h1").state().writes.len(), writes);
}

#[tokio::test]
async fn members_move_one_at_a_time_and_each_is_well_before_the_next() {
    let (old, new) = (three().build(), three().change_everywhere(Component::Etcd).build());
    let world = World::new(&old);
    world.up(&old, &fresh()).await;
    world.journal.lines.lock().unwrap().clear();
    world.cluster.asked.lock().unwrap().clear();
    let up = world.up(&new, &after(&old.desired)).await;
    assert_eq!(up.report.outcome, Outcome::Done);
    assert_eq!(
        *world.journal.lines.lock().unwrap(),
        [
            "1 stage started",
            "1 h1 started",
            "1 h1 finished",
            "1 h2 started",
            "1 h2 finished",
            "1 h3 started",
            "1 h3 finished",
            "1 stage finished",
        ]
    );
    assert_eq!(*world.cluster.asked.lock().unwrap(), [etcd("h1"), etcd("h2"), etcd("h3")]);
}

#[tokio::test]
async fn a_gate_that_stays_shut_stops_the_run_with_the_components_last_words() {
    let (old, new) = (three().build(), three().change_everywhere(Component::Etcd).build());
    let world = World::new(&old);
    world.up(&old, &fresh()).await;
    world.cluster.shut.lock().unwrap().insert(etcd("h2"));
    let up = world.up(&new, &after(&old.desired)).await;
    assert_eq!(up.report.outcome, Outcome::Failed);
    assert_eq!(up.report.steps_done, [(1, name("h1"))]);
    assert_eq!(up.report.stopped_in.as_deref(), Some("etcd, one member at a time"));
    match up.report.errors.as_slice() {
        [ApplyError::Gate { gate, reason, answered: true, last_words, .. }] => {
            assert_eq!(
                (gate.as_str(), reason.as_str(), last_words.as_str()),
                ("h2: etcd", "etcd: no leader", "last words of etcd")
            );
        }
        other => panic!("{other:?}"),
    }
    let h3 = world.host("h3").state();
    assert_eq!(h3.pods["etcd"], Some(old.desired.hosts[&name("h3")].pods["etcd"]), "h3 was not touched");
    drop(h3);
    assert!(world.host("h1").state().lock.is_none(), "the locks were let go");
}

#[tokio::test]
async fn a_host_that_moved_since_planning_is_drift() {
    let (old, new) = (three().build(), three().change("h1", Component::Scheduler).build());
    let world = World::new(&old);
    world.up(&old, &fresh()).await;
    let observed = world.look(&new).await;
    let plan = plan(&new.desired, &observed, &after(&old.desired)).unwrap();
    let manifest = path("/etc/kubernetes/manifests/kube-scheduler.yaml");
    world.host("h1").state().files.insert(manifest.clone(), (Content::new("mine"), Access::root(0o600)));
    let report = world.run(&new, &observed, &plan).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(
        matches!(report.errors.as_slice(), [ApplyError::Host(HostError::Drift { path, .. })] if *path == manifest),
        "{:?}",
        report.errors
    );
}

#[tokio::test]
async fn errors_of_several_hosts_are_collected_and_nobody_waits_for_gates_that_cannot_open() {
    let sample = three().build();
    let mut world = World::new(&sample);
    world.deadlines.health = std::time::Duration::from_mins(10);
    for host in ["h1", "h2"] {
        world.host(host).state().fail_at = Some(5);
    }
    world.cluster.shut.lock().unwrap().insert(etcd("h3"));
    let up = world.up(&sample, &fresh()).await;
    assert_eq!(up.report.outcome, Outcome::Failed);
    let hosts: Vec<_> = up.report.errors.iter().map(|error| error.to_string()[..2].to_owned()).collect();
    assert_eq!(hosts, ["h1", "h2"]);
}

#[tokio::test]
async fn a_worker_that_falls_silent_is_left_out_and_the_rest_is_done() {
    let sample = three().build();
    let world = World::new(&sample);
    world.host("w1").state().fail_at = Some(4);
    let up = world.up(&sample, &fresh()).await;
    assert_eq!(up.report.outcome, Outcome::Done, "{:?}", up.report.errors);
    assert_eq!(up.report.left_out.keys().collect::<Vec<_>>(), [&name("w1")]);
    assert_eq!(up.report.remarks().len(), 1);
    assert!(up.report.remarks()[0].starts_with("w1: connection lost while"), "{:?}", up.report.remarks());
    assert!(!world.cluster.asked.lock().unwrap().contains(&Gate::NodeReady { host: name("w1") }));
    assert!(!world.cluster.objects.lock().unwrap().nodes.contains_key(&name("w1")));
}

#[tokio::test]
async fn an_addon_that_is_refused_is_named_and_does_not_fail_the_run() {
    let sample = three().build();
    let world = World::new(&sample);
    world.cluster.refused.lock().unwrap().insert("extra".to_owned(), "conflict with kubectl".to_owned());
    let up = world.up(&sample, &fresh()).await;
    assert_eq!(up.report.outcome, Outcome::Done);
    assert_eq!(up.report.remarks(), ["addon addons: ConfigMap kube-system/extra: conflict with kubectl"]);
    world.cluster.refused.lock().unwrap().insert("coredns".to_owned(), "invalid".to_owned());
    world.cluster.objects.lock().unwrap().objects.clear();
    let up = world.up(&sample, &fresh()).await;
    assert_eq!(up.report.outcome, Outcome::Failed, "an object of bastide's own does");
}

#[tokio::test]
async fn cancelled_it_finishes_the_running_step_and_begins_no_other() {
    let (old, new) = (three().build(), three().change_everywhere(Component::Etcd).build());
    let world = World::new(&old);
    world.up(&old, &fresh()).await;
    *world.cluster.pull_at.lock().unwrap() = Some((etcd("h1"), world.cancel.clone()));
    let up = world.up(&new, &after(&old.desired)).await;
    assert_eq!(up.report.outcome, Outcome::Cancelled);
    assert_eq!(up.report.steps_done, [(1, name("h1"))]);
}

#[tokio::test]
async fn without_a_journal_nothing_is_begun() {
    let sample = three().build();
    let world = World::new(&sample);
    *world.journal.fail_at.lock().unwrap() = Some(3);
    let up = world.up(&sample, &fresh()).await;
    assert_eq!(up.report.outcome, Outcome::Failed);
    assert!(matches!(up.report.errors[0], ApplyError::Journal(_)));
    assert!(world.host("h3").state().writes.is_empty());
}

#[tokio::test]
async fn a_node_that_is_not_registered_yet_is_tried_again_beside_the_objects() {
    let sample = three().build();
    let mut world = World::new(&sample);
    world.deadlines.ready = std::time::Duration::from_secs(20);
    world.cluster.late.store(3, std::sync::atomic::Ordering::Relaxed);
    let up = world.up(&sample, &fresh()).await;
    assert_eq!(up.report.outcome, Outcome::Done, "{:?}", up.report.errors);
    assert_eq!(world.cluster.objects.lock().unwrap().nodes.len(), 4);
}
