//! What comes back together once certificates have ended.

use super::order::shape;
use crate::model::Action;
use crate::model::Component;
use crate::model::Plan;
use crate::plan::left_ended;
use crate::plan::pairs_ending;
use crate::plan::plan;
use crate::plan::testing::Builder;
use crate::plan::testing::NOW;
use crate::plan::testing::after;
use crate::plan::testing::name;
use crate::plan::testing::path;

/// A certificate that ends at that time.
fn ending(not_after: i64) -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let after = std::time::Duration::from_secs(u64::try_from(not_after).unwrap());
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + after;
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

/// Five hosts with new etcd and API server files; what `hosts` show ends now, and what all others show a second later.
fn revival(hosts: &[&str], silent: bool) -> Plan {
    let old = Builder::five();
    let new = [Component::Etcd, Component::ApiServer, Component::Kubelet];
    let new = new.into_iter().fold(old.clone(), Builder::change_everywhere).build();
    let old = old.build();
    let mut observed = old.reached();
    for (name, seen) in &mut observed.hosts {
        let end = if hosts.contains(&name.as_str()) { NOW } else { NOW + 1 };
        let pair = seen.files.get_mut(&path("/var/lib/kubelet/pki/kubelet-client-current.pem"));
        pair.unwrap().certificate = Some(ending(end));
    }
    if silent {
        observed.objects = None;
    }
    plan(&new.desired, &observed, &after(&old.desired)).unwrap()
}

const ENDED: &str = "control planes and etcd members whose certificates have ended";

#[test]
fn where_certificates_have_ended_members_come_back_together() {
    let plan = revival(&["h1", "h2", "h3", "w1", "w2"], true);
    let shape = shape(&plan);
    assert_eq!(shape[0], format!("{ENDED} [3]: h1(7) h2(7) h3(7) /0"));
    assert_eq!(shape[1], "workers that are new or down [2]: w1(4) w2(4) /0");
    assert_eq!(shape.len(), 4, "then objects: {shape:?}");
    assert!(plan.notes.iter().any(|note| note.starts_with("h1, h2, h3, w1, w2: certificates have ended")));
    // Restarted although they may run, and waited for: what crashed is started at once.
    for step in &plan.stages[0].steps {
        let count = |which: fn(&Action) -> bool| step.batch.0.iter().filter(|action| which(action)).count();
        assert_eq!(count(|action| matches!(action, Action::StartUnit { restart: true, .. })), 1);
        assert_eq!(count(|action| matches!(action, Action::AwaitPod { .. })), 5);
    }
}

#[test]
fn a_part_of_what_has_ended_is_told_from_the_whole() {
    let old = Builder::five();
    let [part, whole] = [&[Component::Etcd][..], &[Component::Etcd, Component::ApiServer]]
        .map(|changed| changed.iter().copied().fold(old.clone(), Builder::change_everywhere).build().desired);
    let mut observed = old.build().reached();
    for (name, seen) in &mut observed.hosts {
        let renewed = &whole.hosts[name].files;
        for (_, file) in seen.files.iter_mut().filter(|(path, file)| renewed[*path].digest != file.digest) {
            file.certificate = Some(ending(NOW));
        }
    }
    assert!(left_ended(&part, &observed, NOW).is_empty(), "an API server answers");
    observed.objects = None;
    assert_eq!(left_ended(&part, &observed, NOW), ["h1", "h2", "h3"].map(name).into());
    assert!(left_ended(&part, &observed, NOW - 1).is_empty(), "nothing has ended yet");
    assert!(left_ended(&whole, &observed, NOW).is_empty());
}

#[test]
fn a_pair_that_its_host_renews_is_judged_by_what_lies_there() {
    let sample = Builder::five().build();
    let mut observed = sample.reached();
    for (host, end) in [("h2", NOW), ("w1", NOW + 10)] {
        let files = &mut observed.hosts.get_mut(&name(host)).unwrap().files;
        // What bastide writes is judged by the state.
        for file in files.values_mut() {
            file.certificate = Some(ending(NOW - 10));
        }
        files.get_mut(&path("/var/lib/kubelet/pki/kubelet-client-current.pem")).unwrap().certificate =
            Some(ending(end));
    }
    let due = |until| pairs_ending(&sample.desired, &observed, until);
    assert_eq!(due(NOW), [].into());
    assert_eq!(due(NOW + 1), ["h2"].map(name).into());
    assert_eq!(due(NOW + 11), ["h2", "w1"].map(name).into());
}

#[test]
fn a_revival_that_was_cut_off_goes_on_with_those_that_are_left() {
    let shape = shape(&revival(&["h2", "h3"], true));
    assert_eq!(shape[0], format!("{ENDED} [2]: h2(7) h3(7) /0"));
}

#[test]
fn where_an_api_server_answers_an_ended_certificate_is_no_reason_to_hurry() {
    let shape = shape(&revival(&["h1", "h2", "h3"], false));
    assert!(shape.iter().any(|stage| stage.starts_with("API servers, one at a time [1]: ")), "{shape:?}");
    assert!(shape.iter().all(|stage| !stage.starts_with(ENDED)), "{shape:?}");
}
