//! What moves when.

use crate::model::Action;
use crate::model::Component;
use crate::model::Gate;
use crate::model::Observed;
use crate::model::Plan;
use crate::model::UnitName;
use crate::plan::Context;
use crate::plan::Unfinished;
use crate::plan::plan;
use crate::plan::testing::Builder;
use crate::plan::testing::Sample;
use crate::plan::testing::after;
use crate::plan::testing::fresh;
use crate::plan::testing::name;

/// `title [width]: host(gates)…` for every stage.
pub(super) fn shape(plan: &Plan) -> Vec<String> {
    plan.stages
        .iter()
        .map(|stage| {
            let steps: Vec<_> = stage.steps.iter().map(|step| format!("{}({})", step.host, step.gates.len())).collect();
            let objects = if stage.objects.is_empty() { String::new() } else { format!(" +{}", stage.objects.len()) };
            format!("{} [{}]: {}{objects} /{}", stage.title, stage.width, steps.join(" "), stage.gates.len())
        })
        .collect()
}

fn check(before: &Builder, after_change: &Builder, expected: &[&str]) {
    let (old, new) = (before.build(), after_change.build());
    let plan = plan(&new.desired, &old.reached(), &after(&old.desired)).unwrap();
    assert_eq!(shape(&plan), expected);
}

#[test]
fn a_new_cluster_comes_up_at_once() {
    let sample = Builder::five().build();
    let plan = plan(&sample.desired, &sample.bare(), &fresh()).unwrap();
    assert_eq!(
        shape(&plan),
        ["all hosts at once [5]: h1(5) h2(5) h3(5) w1(1) w2(1) /0", "cluster objects and nodes [1]:  +8 /13",]
    );
}

#[test]
fn what_runs_beside_a_cluster_waits_for_it_once_and_interrupts_nothing_later() {
    let sample = Builder::five().recurring().build();
    let made = plan(&sample.desired, &sample.bare(), &fresh()).unwrap();
    assert_eq!(
        shape(&made),
        [
            "all hosts at once [5]: h1(5) h2(5) h3(5) w1(1) w2(1) /0",
            "cluster objects and nodes [1]:  +8 /13",
            "what runs beside the cluster [3]: h1(0) h2(0) h3(0) /0",
        ]
    );
    let (early, late) = (&made.stages[0].steps[0].batch.0, &made.stages[2].steps[0].batch.0);
    let ours = |action: &&Action| {
        format!("{action:?}").contains("bastide-snapshots") || format!("{action:?}").contains("bin/bastide")
    };
    assert_eq!((early.iter().filter(ours).count(), late.iter().filter(ours).count()), (0, 3));
    assert!(late.contains(&Action::ReloadUnits));
    let changed = Builder::five().recurring().change_everywhere(Component::Recurring);
    check(&Builder::five().recurring(), &changed, &["what interrupts nothing [3]: h1(0) h2(0) h3(0) /0"]);
    check(&Builder::five(), &Builder::five().recurring(), &["what interrupts nothing [3]: h1(0) h2(0) h3(0) /0"]);
    check(&Builder::five().recurring(), &Builder::five(), &["what is no longer wanted [3]: h1(0) h2(0) h3(0) /0"]);
}

#[test]
fn on_a_new_host_everything_comes_after_what_it_needs() {
    let sample = Builder::new(&[("h1", "cew")]).build();
    let plan = plan(&sample.desired, &sample.bare(), &fresh()).unwrap();
    let words: Vec<_> = plan.stages[0].steps[0]
        .batch
        .0
        .iter()
        .map(|action| match action {
            Action::EnsureUser(user) => format!("user {}", user.name),
            Action::EnsureDirectory(directory) => directory.path.to_string(),
            Action::PutFile { path, .. } => path.as_str().rsplit('/').next().unwrap().to_owned(),
            Action::StartUnit { name, .. } => format!("start {name}"),
            Action::ImportImage { .. } => "image".to_owned(),
            Action::AwaitPod { pod, .. } => format!("await {pod}"),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        words,
        [
            "user etcd",
            "/etc/kubernetes",
            "/etc/kubernetes/manifests",
            "/var/lib/kubelet",
            "90-bastide.conf",
            "config.toml",
            "containerd.service",
            "containerd",
            "kubelet.service",
            "ReloadUnits",
            "start systemd-sysctl.service",
            "start containerd.service",
            "image",
            "server.key",
            "apiserver.key",
            "kubelet",
            "config.yaml",
            "kubelet-client-current.pem",
            "etcd.yaml",
            "kube-apiserver.yaml",
            "kube-controller-manager.yaml",
            "kube-scheduler.yaml",
            "kube-proxy.yaml",
            "start kubelet.service",
            "await etcd",
            "await kube-apiserver",
            "await kube-controller-manager",
            "await kube-proxy",
            "await kube-scheduler",
        ]
    );
}

#[test]
fn a_reached_cluster_needs_nothing() {
    check(&Builder::five(), &Builder::five(), &[]);
}

#[test]
fn a_living_cluster_moves_a_server_before_those_who_call_it_and_one_at_a_time() {
    let all = [
        Component::System,
        Component::Containerd,
        Component::Etcd,
        Component::ApiServer,
        Component::ControllerManager,
        Component::Scheduler,
        Component::Balancer,
        Component::Kubelet,
        Component::Proxy,
    ];
    let changed = all.into_iter().fold(Builder::five(), Builder::change_everywhere);
    check(
        &Builder::five(),
        &changed,
        &[
            "what interrupts nothing [5]: h1(0) h2(0) h3(0) w1(0) w2(0) /0",
            "etcd, one member at a time [1]: h1(1) h2(1) h3(1) /0",
            "API servers, one at a time [1]: h1(1) h2(1) h3(1) /0",
            "controller managers and schedulers, one host at a time [1]: h1(2) h2(2) h3(2) /0",
            "balancers and proxies [1]: h1(7) h2(7) h3(7) w1(4) w2(4) /0",
            "containerd and kubelet of control planes and etcd members, one host at a time [1]: h1(6) h2(6) h3(6) /0",
            "containerd and kubelet of workers [1]: w1(2) w2(2) /0",
        ],
    );
}

#[test]
fn workers_go_together_as_far_as_the_file_allows() {
    let hosts: Vec<_> = (1..=25).map(|at| format!("w{at}")).collect();
    let hosts: Vec<_> = std::iter::once(("h1", "ce")).chain(hosts.iter().map(|host| (host.as_str(), "w"))).collect();
    let (old, new) = (Builder::new(&hosts).build(), Builder::new(&hosts).change_everywhere(Component::Kubelet).build());
    let width = |context: &Context<'_>, observed: &Observed| {
        plan(&new.desired, observed, context).unwrap().stages.last().unwrap().width
    };
    let mut observed = old.reached();
    assert_eq!(width(&after(&old.desired), &observed), 2, "a tenth of 25");
    let three = Context { max_unavailable_worker: std::num::NonZero::new(3), ..after(&old.desired) };
    assert_eq!(width(&three, &observed), 3);
    observed.hosts.remove(&name("w9"));
    assert_eq!(width(&three, &observed), 2, "one is away already");
    observed.hosts.remove(&name("w8"));
    observed.hosts.remove(&name("w7"));
    assert_eq!(width(&three, &observed), 1, "there must be a way on");
}

#[test]
fn a_worker_that_is_not_ready_counts_as_away_until_its_own_turn() {
    let hosts = [("h1", "ce"), ("w1", "w"), ("w2", "w"), ("w3", "w"), ("w4", "w")];
    let old = Builder::new(&hosts).build();
    let mut observed = old.reached();
    observed.objects.as_mut().unwrap().nodes.get_mut(&name("w3")).unwrap().ready = false;
    let context = Context { max_unavailable_worker: std::num::NonZero::new(2), ..after(&old.desired) };
    let workers = |new: &Sample| shape(&plan(&new.desired, &observed, &context).unwrap());
    let some = Builder::new(&hosts).change("w1", Component::Kubelet).change("w2", Component::Kubelet).build();
    assert_eq!(workers(&some), ["containerd and kubelet of workers [1]: w1(2) w2(2) /0"]);
    let all = Builder::new(&hosts).change_everywhere(Component::Kubelet).build();
    assert_eq!(workers(&all)[1], "containerd and kubelet of workers [2]: w3(2) w1(2) w2(2) w4(2) /0");
}

#[test]
fn the_leader_goes_last_and_the_missing_member_first() {
    let (old, new) = (Builder::five().build(), Builder::five().change_everywhere(Component::Etcd).build());
    let mut observed = old.reached();
    observed.etcd_leader = Some(name("h1"));
    observed.hosts.get_mut(&name("h3")).unwrap().pods.remove("etcd");
    let plan = plan(&new.desired, &observed, &after(&old.desired)).unwrap();
    assert_eq!(shape(&plan), ["etcd, one member at a time [1]: h3(1) h2(1) h1(1) /0"]);
    let yields = |at: usize| plan.stages[0].steps[at].batch.0.first() == Some(&Action::YieldLeadership);
    assert_eq!([yields(0), yields(1), yields(2)], [false, true, true], "what does not run does not lead");
    let (old, new) = (Builder::new(&[("h1", "cew")]), Builder::new(&[("h1", "cew")]).change("h1", Component::Etcd));
    let (old, new) = (old.build(), new.build());
    let alone = super::super::plan(&new.desired, &old.reached(), &after(&old.desired)).unwrap();
    let yields =
        alone.stages.iter().flat_map(|stage| &stage.steps).any(|step| step.batch.0.contains(&Action::YieldLeadership));
    assert!(!yields, "there is nobody to lead");
}

/// A Node stays Ready for 40 s after its way to the API is gone, and for ever without rules for services.
#[test]
fn a_way_to_the_api_and_the_rules_for_services_are_judged_by_themselves() {
    let changed = |component| {
        let (old, new) = (Builder::five().build(), Builder::five().change("w1", component).build());
        plan(&new.desired, &old.reached(), &after(&old.desired)).unwrap()
    };
    let host = || name("w1");
    for (component, gate) in
        [(Component::Balancer, Gate::Balancer { host: host() }), (Component::Proxy, Gate::Proxy { host: host() })]
    {
        let step = &changed(component).stages[0].steps[0];
        assert_eq!(step.host, host());
        assert_eq!(step.gates, [Gate::Kubelet { host: host() }, gate, Gate::NodeReady { host: host() }]);
    }
    let sample = Builder::five().build();
    let made = plan(&sample.desired, &sample.bare(), &fresh()).unwrap();
    let waits = |stage: usize, gate: &Gate| made.stages[stage].gates.contains(gate);
    assert!(waits(1, &Gate::Balancer { host: host() }) && waits(1, &Gate::Proxy { host: host() }));
    assert!(!waits(1, &Gate::Balancer { host: name("h1") }), "it has an API server of its own");
}

/// What stands open of a run that changed `component` on `host` and then waited in vain.
fn open(host: &str, component: Component) -> Unfinished {
    Unfinished { parts: [(name(host), [component].into())].into(), objects: false }
}

#[test]
fn what_was_changed_and_never_seen_well_is_waited_for_before_the_next_host_is_touched() {
    const TITLE: &str = "what an earlier run changed and never saw well";
    let old = Builder::five().build();
    let shape_of = |new: &Sample, unfinished: Unfinished| {
        let context = Context { unfinished, ..after(&old.desired) };
        let plan = plan(&new.desired, &old.reached(), &context).unwrap();
        assert_eq!(plan.changes_nothing(), new.desired == old.desired);
        shape(&plan)
    };
    let same = || open("h1", Component::ApiServer);
    assert_eq!(shape_of(&old, same()), [format!("{TITLE} [1]: h1(1) /0")], "nothing differs and it is not well");
    assert_eq!(shape_of(&old, open("w1", Component::Kubelet)), [format!("{TITLE} [1]: w1(2) /0")]);
    let objects = Unfinished { objects: true, ..Unfinished::default() };
    assert_eq!(shape_of(&old, objects), [format!("{TITLE} [1]:  /1")]);
    let rest = Builder::five().change("h2", Component::ApiServer).build();
    assert_eq!(
        shape_of(&rest, same()),
        [format!("{TITLE} [1]: h1(1) /0"), "API servers, one at a time [1]: h2(1) /0".to_owned()]
    );
    // What this plan changes may be the cure.
    let cure = Builder::five().change("h1", Component::Etcd).build();
    assert_eq!(
        shape_of(&cure, same()),
        ["etcd, one member at a time [1]: h1(1) /0".to_owned(), format!("{TITLE} [1]: h1(1) /0")]
    );
    let again = Builder::five().change("h1", Component::ApiServer).build();
    assert_eq!(shape_of(&again, same()), ["API servers, one at a time [1]: h1(1) /0"], "its own gate is enough");
}

#[test]
fn where_quorum_is_lost_there_is_nothing_to_wait_for() {
    let (old, new) = (Builder::five().build(), Builder::five().change_everywhere(Component::Etcd).build());
    let mut observed = old.reached();
    for host in ["h1", "h2"] {
        observed.hosts.get_mut(&name(host)).unwrap().pods.remove("etcd");
    }
    let plan = plan(&new.desired, &observed, &after(&old.desired)).unwrap();
    assert_eq!(plan.stages[0].width, 3);
}

#[test]
fn a_pod_with_old_inputs_is_waited_for_although_its_manifest_is_right() {
    let old = Builder::five().build();
    let mut observed = old.reached();
    observed.hosts.get_mut(&name("h2")).unwrap().pods.insert("kube-apiserver".to_owned(), None);
    let plan = plan(&old.desired, &observed, &after(&old.desired)).unwrap();
    assert_eq!(shape(&plan), ["API servers, one at a time [1]: h2(1) /0"]);
    assert!(matches!(plan.stages[0].steps[0].batch.0.as_slice(), [Action::AwaitPod { .. }]));
}

#[test]
fn a_host_that_is_down_is_brought_back_whole_before_others_are_touched() {
    let (old, new) = (Builder::five().build(), Builder::five().change_everywhere(Component::Etcd).build());
    let mut observed = old.reached();
    let kubelet = UnitName::new("kubelet.service").unwrap();
    observed.hosts.get_mut(&name("h3")).unwrap().units.get_mut(&kubelet).unwrap().active = false;
    let plan = plan(&new.desired, &observed, &after(&old.desired)).unwrap();
    assert_eq!(
        shape(&plan),
        [
            "control planes and etcd members that are down, one at a time [1]: h3(7) /0",
            "etcd, one member at a time [1]: h1(1) h2(1) /0",
        ]
    );
}

#[test]
fn a_new_worker_is_installed_and_nobody_else_is_touched() {
    let hosts = [("h1", "ce"), ("w1", "w")];
    let (old, new) = (Builder::new(&hosts[..1]).build(), Builder::new(&hosts).build());
    let mut observed = old.reached();
    observed.hosts.extend(new.bare().hosts.split_off(&name("w1")));
    let plan = plan(&new.desired, &observed, &after(&old.desired)).unwrap();
    assert_eq!(shape(&plan), ["workers that are new or down [1]: w1(4) /0", "cluster objects [1]:  +1 /0"]);
    assert!(plan.stages[0].steps[0].gates.contains(&Gate::NodeReady { host: name("w1") }));
}

#[test]
fn without_a_pod_network_nobody_waits_for_ready_nodes() {
    let sample = Builder::new(&[("h1", "cew")]).without_objects().build();
    let plan = plan(&sample.desired, &sample.bare(), &fresh()).unwrap();
    assert_eq!(plan.stages.last().unwrap().gates, [Gate::Proxy { host: name("h1") }]);
    assert!(plan.notes.iter().any(|note| note.contains("no pod network")), "{:?}", plan.notes);
}

#[test]
fn a_first_run_that_died_while_it_waited_is_waited_for_by_the_next() {
    let sample = Builder::five().build();
    let mut observed = sample.reached();
    assert!(plan(&sample.desired, &observed, &fresh()).unwrap().is_empty());
    observed.objects.as_mut().unwrap().nodes.get_mut(&name("w1")).unwrap().ready = false;
    let waits = plan(&sample.desired, &observed, &fresh()).unwrap();
    assert!(waits.changes_nothing() && !waits.is_empty());
    assert!(waits.stages.last().unwrap().gates.contains(&Gate::NodeReady { host: name("w1") }));
}
