//! For every write of every host: it fails, and the next run converges.

use crate::apply::Outcome;
use crate::apply::tests::world::World;
use crate::model::Component;
use crate::plan::Context;
use crate::plan::plan;
use crate::plan::testing::Builder;
use crate::plan::testing::Sample;
use crate::plan::testing::after;
use crate::plan::testing::fresh;

const COMPONENTS: [Component; 8] = [
    Component::System,
    Component::Containerd,
    Component::Etcd,
    Component::ApiServer,
    Component::ControllerManager,
    Component::Scheduler,
    Component::Kubelet,
    Component::Proxy,
];

fn hosts() -> Builder {
    Builder::new(&[("h1", "cew"), ("h2", "cew"), ("h3", "cew"), ("w1", "w")])
}

/// Brings `world` to `old` where there is one, fails the `at`-th write of `host` on the way to `new`, and goes on.
/// False when there are fewer writes than that.
async fn survives(old: Option<&Sample>, new: &Sample, host: &str, at: usize) -> bool {
    let mut world = World::new(new);
    world.deadlines.health = std::time::Duration::from_millis(5);
    world.deadlines.ready = std::time::Duration::from_millis(5);
    if let Some(old) = old {
        assert_eq!(world.up(old, &fresh()).await.report.outcome, Outcome::Done);
        world.host(host).state().writes.clear();
    }
    let context = || Context { previous: old.map(|old| &old.desired), ..fresh() };
    world.host(host).state().fail_at = Some(at);
    let first = world.up(new, &context()).await;
    let failed = world.host(host).state().writes.len() < at && {
        first.report.outcome == Outcome::Failed || !first.report.left_out.is_empty()
    };
    if failed && host == "w1" {
        assert_eq!(first.report.outcome, Outcome::Done, "a worker does not stop the run: {:?}", first.report.errors);
        assert!(first.report.left_out.contains_key(&crate::plan::testing::name("w1")));
    }
    world.host(host).state().fail_at = None;
    let second = world.up(new, &context()).await;
    assert_eq!(second.report.outcome, Outcome::Done, "{host} write {at}: {:?}", second.report.errors);
    world.is_at(new);
    let third = plan(&new.desired, &world.look(new).await, &context()).unwrap();
    assert!(third.is_empty(), "{host} write {at}: {third:#?}");
    failed
}

async fn every_write(old: Option<&Sample>, new: &Sample) -> usize {
    let mut cases = 0;
    for host in ["h1", "h2", "h3", "w1"] {
        let mut at = 1;
        while survives(old, new, host, at).await {
            at += 1;
        }
        cases += at - 1;
    }
    cases
}

#[tokio::test]
async fn a_first_run_that_lost_any_write_is_completed_by_the_next() {
    let cases = every_write(None, &hosts().build()).await;
    assert!(cases > 90, "only {cases} writes were seen");
}

#[tokio::test]
async fn a_change_that_lost_any_write_is_completed_by_the_next() {
    let old = hosts().file("h1", "/etc/old").build();
    let new = COMPONENTS.into_iter().fold(hosts(), Builder::change_everywhere).build();
    let cases = every_write(Some(&old), &new).await;
    assert!(cases > 70, "only {cases} writes were seen");
}

#[tokio::test]
async fn a_change_that_lost_any_write_can_be_taken_back() {
    let old = hosts().build();
    let new = COMPONENTS.into_iter().fold(hosts(), Builder::change_everywhere).file("h2", "/etc/new").build();
    for at in 1..=24 {
        let world = World::new(&new);
        world.up(&old, &fresh()).await;
        world.host("h2").state().writes.clear();
        world.host("h2").state().fail_at = Some(at);
        world.up(&new, &after(&old.desired)).await;
        world.host("h2").state().fail_at = None;
        let back = world.up(&old, &after(&old.desired)).await;
        assert_eq!(back.report.outcome, Outcome::Done, "write {at}: {:?}", back.report.errors);
        world.is_at(&old);
    }
}
