//! What a changed file interrupts, and which files are left alone.

use super::order::shape;
use crate::model::Action;
use crate::model::Component;
use crate::model::ObservedFile;
use crate::plan::Context;
use crate::plan::plan;
use crate::plan::testing::Builder;
use crate::plan::testing::NOW;
use crate::plan::testing::Sample;
use crate::plan::testing::after;
use crate::plan::testing::fresh;
use crate::plan::testing::name;
use crate::plan::testing::path;

/// The plan after one file of `host` got another content.
fn after_a_new(host: &str, file: &str) -> Vec<String> {
    let old = Builder::five().build();
    let mut new = old.clone();
    let target = new.desired.hosts.get_mut(&name(host)).unwrap();
    target.files.get_mut(&path(file)).unwrap().digest = crate::model::Digest::of(b"new");
    shape(&plan(&new.desired, &old.reached(), &after(&old.desired)).unwrap())
}

#[test]
fn a_file_that_its_process_reads_by_itself_interrupts_nothing() {
    assert_eq!(after_a_new("h1", "/etc/sysctl.d/90-bastide.conf"), ["what interrupts nothing [1]: h1(0) /0"]);
}

#[test]
fn a_key_that_an_api_server_takes_up_while_it_runs_goes_host_by_host_with_a_look_at_each() {
    assert_eq!(after_a_new("h1", "/etc/kubernetes/pki/apiserver.key"), ["API servers, one at a time [1]: h1(1) /0"]);
}

#[test]
fn what_is_no_longer_wanted_goes_last_unless_it_is_kept() {
    let old = Builder::five().file("h1", "/etc/old").file("h1", "/opt/bastide/v1/kubelet");
    let new = Builder::five().change("h1", Component::Scheduler);
    let (old, new) = (old.build(), new.build());
    let context = Context { keep: [path("/opt/bastide/v1/kubelet")].into(), ..after(&old.desired) };
    let mut observed = old.reached();
    observed.hosts.get_mut(&name("h1")).unwrap().files.insert(
        path("/etc/of-somebody-else"),
        ObservedFile {
            digest: crate::model::Digest::of(b""),
            access: crate::model::Access::root(0o600),
            certificate: None,
        },
    );
    let plan = plan(&new.desired, &observed, &context).unwrap();
    assert_eq!(
        shape(&plan),
        [
            "controller managers and schedulers, one host at a time [1]: h1(1) /0",
            "what is no longer wanted [1]: h1(0) /0",
        ]
    );
    let removed = &plan.stages[1].steps[0].batch.0;
    assert!(matches!(removed.as_slice(), [Action::RemoveFile { path: gone, .. }] if *gone == path("/etc/old")));
}

#[test]
fn a_seeded_file_that_the_host_renewed_is_left_alone_and_a_bad_one_restarts_its_unit() {
    let seeded = path("/var/lib/kubelet/pki/kubelet-client-current.pem");
    let sample = Builder::new(&[("h1", "cew")]).build();
    let mut observed = sample.reached();
    let host = observed.hosts.get_mut(&name("h1")).unwrap();
    host.files.get_mut(&seeded).unwrap().digest = crate::model::Digest::of(b"renewed");
    let plan = plan(&sample.desired, &observed, &after(&sample.desired)).unwrap();
    let actions = &plan.stages[0].steps[0].batch.0;
    assert!(
        matches!(actions.as_slice(), [Action::PutFile { .. }, Action::StartUnit { restart: true, .. }]),
        "no certificate can be read: {actions:?}"
    );
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let pem = params.self_signed(&authority).unwrap().pem();
    let mut sample = sample;
    sample.desired.hosts.get_mut(&name("h1")).unwrap().files.get_mut(&seeded).unwrap().keep =
        crate::model::Keep::Seeded { authorities: vec![pem.clone()], since: None };
    observed.hosts.get_mut(&name("h1")).unwrap().files.get_mut(&seeded).unwrap().certificate = Some(pem);
    let context = Context { now: NOW, ..after(&sample.desired) };
    assert!(super::super::plan(&sample.desired, &observed, &context).unwrap().is_empty());
}

#[test]
fn a_foreign_file_is_named_as_one() {
    let sample: Sample = Builder::new(&[("h1", "cew")]).build();
    let mut observed = sample.bare();
    let config = path("/etc/containerd/config.toml");
    observed.hosts.get_mut(&name("h1")).unwrap().files.insert(
        config.clone(),
        ObservedFile {
            digest: crate::model::Digest::of(b"theirs"),
            access: crate::model::Access::root(0o644),
            certificate: None,
        },
    );
    let plan = plan(&sample.desired, &observed, &fresh()).unwrap();
    let put = plan.stages[0].steps[0]
        .batch
        .0
        .iter()
        .find(|action| matches!(action, Action::PutFile { path, .. } if *path == config));
    assert!(matches!(put, Some(Action::PutFile { foreign: true, replaces: Some(_), .. })));
}
