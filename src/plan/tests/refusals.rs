//! Why a plan is not made.

use crate::model::ClusterId;
use crate::model::Component;
use crate::model::Gate;
use crate::model::KubeVersion;
use crate::model::Observed;
use crate::model::ObservedHost;
use crate::model::Squatter;
use crate::plan::Context;
use crate::plan::Refusal;
use crate::plan::lint;
use crate::plan::plan;
use crate::plan::testing::Builder;
use crate::plan::testing::Sample;
use crate::plan::testing::after;
use crate::plan::testing::fresh;
use crate::plan::testing::name;
use crate::plan::testing::path;

fn refused(sample: &Sample, observed: &Observed, context: &Context<'_>) -> Vec<String> {
    match plan(&sample.desired, observed, context) {
        Ok(plan) => vec![format!("a plan was made: {plan:?}")],
        Err(refusals) => refusals.iter().map(ToString::to_string).collect(),
    }
}

fn bare(spoil: impl Fn(&mut ObservedHost)) -> (Sample, Observed) {
    let sample = Builder::new(&[("h1", "cew"), ("h2", "cew"), ("h3", "cew")]).build();
    let mut observed = sample.bare();
    spoil(observed.hosts.get_mut(&name("h2")).unwrap());
    (sample, observed)
}

fn check(spoil: impl Fn(&mut ObservedHost), expected: &[&str]) {
    let (sample, observed) = bare(spoil);
    assert_eq!(refused(&sample, &observed, &fresh()), expected);
}

#[test]
fn foreign_ground_is_refused_with_every_reason() {
    check(
        |host| {
            host.squatters = vec![
                Squatter::Process("kubelet".to_owned()),
                Squatter::Folder(path("/var/lib/etcd")),
                Squatter::Port(6443),
            ];
        },
        &[
            "h2: a process that bastide did not start runs here: kubelet",
            "h2: /var/lib/etcd is not empty and bastide did not fill it",
            "h2: port 6443 is taken",
        ],
    );
}

#[test]
fn a_live_rke_host_has_its_own_text() {
    check(
        |host| host.squatters = vec![Squatter::RkeContainer("etcd".to_owned()), Squatter::Port(2379)],
        &["h2: RKE v1 runs here (container etcd); bastide does not take over a live RKE cluster: remove it with `rke \
           remove` first, or use another host"],
    );
}

#[test]
fn every_foreign_host_is_named() {
    let (sample, mut observed) = bare(|_| {});
    observed.hosts.values_mut().for_each(|host| host.squatters = vec![Squatter::Port(10250)]);
    assert_eq!(
        refused(&sample, &observed, &fresh()),
        ["h1: port 10250 is taken", "h2: port 10250 is taken", "h3: port 10250 is taken"]
    );
}

#[test]
fn another_clusters_host_is_refused() {
    let (sample, _) = bare(|_| {});
    let mut observed = sample.reached();
    let record = observed.hosts.get_mut(&name("h1")).unwrap().record.as_mut().unwrap();
    record.cluster = ClusterId("c2".to_owned());
    record.cluster_name = "prod".to_owned();
    assert_eq!(refused(&sample, &observed, &fresh()), ["h1: belongs to cluster prod (c2), not to this one"]);
}

#[test]
fn a_record_of_a_newer_program_is_refused() {
    let (sample, _) = bare(|_| {});
    let mut observed = sample.reached();
    observed.hosts.get_mut(&name("h1")).unwrap().record.as_mut().unwrap().schema = 2;
    assert_eq!(
        refused(&sample, &observed, &fresh()),
        ["h1: its record has layout 2, which this version of bastide does not know"]
    );
}

#[test]
fn unfit_hosts_are_refused() {
    check(|host| host.kernel = "5.10.0-28-amd64".to_owned(), &["h2: kernel 5.10.0-28-amd64 is older than 5.13"]);
    check(|host| host.systemd = 0, &["h2: systemd does not run here"]);
    check(|host| host.systemd = 241, &["h2: systemd 241 is older than 245"]);
    check(|host| host.architecture = "aarch64".to_owned(), &["h2: is aarch64, and the release is for x86_64"]);
    check(
        |host| host.clock += 31,
        &["the clocks of h1 and h2 are 31 s apart; at most 30 s are allowed: set up time synchronization"],
    );
    let (sample, observed) = bare(|host| host.clock -= 30);
    assert!(plan(&sample.desired, &observed, &fresh()).is_ok());
}

#[test]
fn a_full_disk_is_refused() {
    let (sample, observed) = bare(|host| host.free_bytes = 5000);
    let refusals = plan(&sample.desired, &observed, &fresh()).unwrap_err();
    assert!(
        matches!(refusals.as_slice(), [Refusal::DiskSpace { host, free: 5000, .. }] if *host == name("h2")),
        "{refusals:?}"
    );
}

#[test]
fn a_taken_user_number_is_refused() {
    check(
        |host| host.taken_uids = [(52034, "postgres".to_owned())].into(),
        &["h2: user number 52034 of etcd is taken by postgres; choose another one under services.etcd"],
    );
    check(
        |host| host.users = [("etcd".to_owned(), (998, 998))].into(),
        &["h2: user etcd exists with numbers 998:998 and not 52034:52034; set them under services.etcd"],
    );
}

fn silent(observed: &mut Observed, host: &str) {
    observed.hosts.remove(&name(host));
    observed.unreachable.insert(name(host), "no answer".to_owned());
}

#[test]
fn a_silent_worker_is_left_out() {
    let (old, new) = (Builder::five().build(), Builder::five().change_everywhere(Component::Kubelet).build());
    let mut observed = old.reached();
    silent(&mut observed, "w2");
    let plan = plan(&new.desired, &observed, &after(&old.desired)).unwrap();
    assert_eq!(plan.left_out, [name("w2")].into());
    assert!(plan.stages.iter().flat_map(|stage| &stage.steps).all(|step| step.host != name("w2")));
}

#[test]
fn a_silent_member_stops_before_the_first_change_unless_it_is_left_out_and_quorum_holds() {
    let (old, new) = (Builder::five().build(), Builder::five().change_everywhere(Component::Scheduler).build());
    let mut observed = old.reached();
    silent(&mut observed, "h2");
    let context = after(&old.desired);
    assert_eq!(
        refused(&new, &observed, &context),
        [
            "h2: does not answer (no answer) and is a control-plane host; bring it back, or leave it out with --without h2"
        ]
    );
    let without = Context { without: [name("h2")].into(), ..after(&old.desired) };
    let made = plan(&new.desired, &observed, &without).unwrap();
    assert_eq!(made.left_out, [name("h2")].into());
    silent(&mut observed, "h3");
    let without = Context { without: [name("h2"), name("h3")].into(), ..after(&old.desired) };
    assert_eq!(refused(&new, &observed, &without), ["etcd would have 1 of 3 members, and needs 2 to go on"]);
}

#[test]
fn etcd_is_not_restarted_while_a_member_is_missing() {
    let (old, new) = (Builder::five().build(), Builder::five().change("h1", Component::Etcd).build());
    let mut observed = old.reached();
    silent(&mut observed, "h2");
    let without = Context { without: [name("h2")].into(), ..after(&old.desired) };
    assert_eq!(
        refused(&new, &observed, &without),
        ["h1: etcd can't be restarted here now: 1 of 3 members would be left, 2 are needed"]
    );
}

#[test]
fn nobody_is_left_out_of_a_cluster_that_is_being_made() {
    let (sample, mut observed) = bare(|_| {});
    silent(&mut observed, "h2");
    let without = Context { without: [name("h2")].into(), ..fresh() };
    assert_eq!(
        refused(&sample, &observed, &without),
        ["h2: can't be left out while the cluster is being made; take it out of cluster.yml instead"]
    );
    let unknown = Context { without: [name("h9")].into(), ..fresh() };
    assert!(refused(&sample, &observed, &unknown)[0].contains("--without h9: there is no such host"));
}

fn changed(old: &[(&str, &str)], new: &[(&str, &str)], spoil: impl Fn(&mut Sample), expected: &[&str]) {
    let (old, mut new) = (Builder::new(old).build(), Builder::new(new).build());
    spoil(&mut new);
    let mut observed = new.bare();
    observed.hosts.extend(old.reached().hosts);
    assert_eq!(refused(&new, &observed, &after(&old.desired)), expected);
}

#[test]
fn changes_of_membership_are_refused_before_any_write() {
    let three = [("h1", "ce"), ("h2", "ce"), ("h3", "w")];
    let unsupported = "changing the hosts of etcd and the control plane is not supported yet";
    let text = |change: &str| format!("{change}; {unsupported}");
    changed(&three, &[("h1", "ce"), ("h2", "ce"), ("h3", "cw")], |_| {}, &[&text("h3: would become a control plane")]);
    changed(
        &three,
        &[("h1", "ce"), ("h2", "c"), ("h3", "w")],
        |_| {},
        &[&text("h2: would no longer be an etcd member")],
    );
    changed(&three, &[("h1", "ce"), ("h2", "ce"), ("h3", "w"), ("h4", "e")], |_| {}, &[&text("h4: would be new")]);
    changed(
        &three,
        &three[..2],
        |_| {},
        &["h3: is no longer in cluster.yml; taking a worker out of the cluster is not supported yet"],
    );
    changed(
        &three,
        &[("h1", "ce"), ("h2", "ce"), ("x3", "w")],
        |_| {},
        &["x3: was called h3; renaming a node is not supported yet"],
    );
    changed(
        &three,
        &three,
        |new| new.desired.kubernetes = KubeVersion { minor: 38, patch: 0 },
        &["the cluster runs v1.37.1; going to v1.38.0 changes the minor version, which is not supported yet"],
    );
    changed(
        &three,
        &three,
        |new| {
            new.desired.hosts.get_mut(&name("h1")).unwrap().internal_address = [10, 9, 9, 9].into();
        },
        &["h1: has the address 10.9.9.9 and had 10.0.0.1; moving a node is not supported yet"],
    );
}

#[test]
fn a_member_that_was_installed_anew_is_refused_while_the_others_live() {
    let sample = Builder::five().build();
    let mut observed = sample.reached();
    observed.hosts.insert(name("h2"), sample.bare().hosts[&name("h2")].clone());
    assert_eq!(
        refused(&sample, &observed, &after(&sample.desired)),
        [
            "h2: is an etcd member of this cluster and holds nothing of it: it was installed anew; where a file system is only not mounted, mount it; else, while the other members go on, `bastide etcd rejoin h2` replaces this \
          one without an outage, and until then --without h2 leaves it out"
        ]
    );
    let without = Context { without: [name("h2")].into(), ..after(&sample.desired) };
    let plan = plan(&sample.desired, &observed, &without).unwrap();
    assert!(plan.changes_nothing() && plan.left_out == [name("h2")].into(), "{plan:?}");
}

#[test]
fn a_member_whose_data_are_gone_is_refused_while_others_have_theirs() {
    let sample = Builder::five().build();
    let mut observed = sample.reached();
    observed.hosts.get_mut(&name("h2")).unwrap().etcd_gone = true;
    assert_eq!(
        refused(&sample, &observed, &after(&sample.desired)),
        [
            "h2: is an etcd member of this cluster and its data are gone: /var/lib/etcd holds no log; where a file system is only not mounted, mount it; else, while the other members go on, `bastide etcd rejoin h2` replaces this \
          one without an outage, and until then --without h2 leaves it out"
        ]
    );
    let without = Context { without: [name("h2")].into(), ..after(&sample.desired) };
    assert!(plan(&sample.desired, &observed, &without).unwrap().changes_nothing());
    assert!(plan(&sample.desired, &observed, &fresh()).unwrap().changes_nothing(), "a first `up` that was cut off");
    observed.hosts.values_mut().for_each(|seen| seen.etcd_gone = true);
    assert!(plan(&sample.desired, &observed, &after(&sample.desired)).unwrap().changes_nothing(), "nobody to join");
}

#[test]
fn where_every_host_was_installed_anew_the_cluster_is_made_again() {
    let sample = Builder::five().build();
    let plan = plan(&sample.desired, &sample.bare(), &after(&sample.desired)).unwrap();
    assert_eq!(plan.stages[0].width, 5);
    assert!(plan.notes.iter().any(|note| note.contains("made anew")), "{:?}", plan.notes);
}

#[test]
fn the_linter_sees_two_members_at_once_and_a_missing_gate() {
    let (old, new) = (Builder::five().build(), Builder::five().change_everywhere(Component::Etcd).build());
    let mut plan = plan(&new.desired, &old.reached(), &after(&old.desired)).unwrap();
    assert!(lint(&plan, &new.desired, &[]).is_empty());
    plan.stages[0].width = 2;
    plan.stages[0].steps[1].gates.clear();
    assert_eq!(
        lint(&plan, &new.desired, &[]),
        [
            "etcd, one member at a time: more than one etcd at a time",
            "etcd, one member at a time: etcd on h2 has no gate",
        ]
    );
    assert_eq!(lint(&plan, &new.desired, &[Component::Etcd]).len(), 1);

    // A new cluster's proxies are waited for with its nodes, or it is an error.
    let mut made = super::super::plan(&new.desired, &new.bare(), &fresh()).unwrap();
    assert!(lint(&made, &new.desired, &[Component::Etcd, Component::ApiServer]).is_empty());
    made.stages[1].gates.retain(|gate| *gate != Gate::Proxy { host: name("w1") });
    assert_eq!(
        lint(&made, &new.desired, &[Component::Etcd, Component::ApiServer]),
        ["all hosts at once: kube-proxy on w1 has no gate"]
    );
}
