//! One operator at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::apply::LockError;
use crate::apply::Locks;
use crate::apply::Outcome;
use crate::apply::tests::world::World;
use crate::apply::tests::world::holder;
use crate::host::Host;
use crate::model::Component;
use crate::model::Gate;
use crate::plan::plan;
use crate::plan::testing::Builder;
use crate::plan::testing::after;
use crate::plan::testing::fresh;
use crate::plan::testing::name;

fn members() -> BTreeSet<crate::model::HostName> {
    ["h1", "h2", "h3"].map(name).into()
}

fn three() -> Builder {
    Builder::new(&[("h1", "cew"), ("h2", "cew"), ("h3", "cew"), ("w1", "w")])
}

#[tokio::test]
async fn the_second_run_says_who_is_at_work_and_lets_go_of_everything() {
    let world = World::new(&three().build());
    let theirs = world.host("h2").lock(&holder("theirs")).await.unwrap();
    match Locks::take(&world.fleet, &members(), &BTreeSet::new(), &holder("mine")).await {
        Err(LockError::Busy { host, holder }) => assert_eq!((host, holder.run), (name("h2"), "theirs".to_owned())),
        other => panic!("{other:?}"),
    }
    assert!(world.host("h1").state().lock.is_none());
    drop(theirs);
    let locks = Locks::take(&world.fleet, &members(), &[name("w1")].into(), &holder("mine")).await.unwrap();
    assert!(world.host("w1").state().lock.is_some());
    drop(locks);
    assert!(world.host("w1").state().lock.is_none());
}

#[tokio::test]
async fn a_majority_is_enough_and_less_is_not() {
    let world = World::new(&three().build());
    world.host("h1").state().unreachable = true;
    let locks = Locks::take(&world.fleet, &members(), &BTreeSet::new(), &holder("mine")).await.unwrap();
    assert_eq!(locks.missing().keys().collect::<Vec<_>>(), [&name("h1")]);
    drop(locks);
    world.host("h3").state().unreachable = true;
    match Locks::take(&world.fleet, &members(), &BTreeSet::new(), &holder("mine")).await {
        Err(LockError::NoMajority { taken: 1, members: 3, reasons }) => assert_eq!(reasons.len(), 2),
        other => panic!("{other:?}"),
    }
    assert!(world.host("h2").state().lock.is_none());
}

#[tokio::test]
async fn a_run_that_lost_the_majority_of_its_locks_stops() {
    let (old, new) = (three().build(), three().change_everywhere(Component::Etcd).build());
    let mut world = World::new(&old);
    world.up(&old, &fresh()).await;
    world.deadlines.health = std::time::Duration::from_mins(10);
    world.cluster.shut.lock().unwrap().insert(Gate::EtcdMember { host: name("h1") });
    let observed = world.look(&new).await;
    let plan = plan(&new.desired, &observed, &after(&old.desired)).unwrap();
    let (report, ()) = tokio::join!(world.run(&new, &observed, &plan), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        world.host("h1").state().lock = None;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        world.host("h3").state().lock = Some(holder("another"));
    });
    assert_eq!(report.outcome, Outcome::LockLost);
    assert!(report.steps_done.is_empty());
    assert_eq!(world.host("h3").state().lock, Some(holder("another")), "the other run's lock stays");
}

#[tokio::test]
async fn where_no_member_is_left_a_worker_is_locked_alone_and_nothing_counts_as_lost() {
    let world = World::new(&three().build());
    let mut locks = Locks::take(&world.fleet, &BTreeSet::new(), &[name("w1")].into(), &holder("mine")).await.unwrap();
    assert!(locks.missing().is_empty());
    assert!(tokio::time::timeout(Duration::from_millis(50), locks.lost()).await.is_err());
}
