//! What holds for every target and every state.
#![allow(clippy::trivially_copy_pass_by_ref)]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::Just;
use proptest::prelude::ProptestConfig;
use proptest::prelude::Strategy;
use proptest::prelude::any;
use proptest::prelude::prop_assert;
use proptest::prelude::prop_assert_eq;
use proptest::prelude::prop_oneof;
use proptest::proptest;
use proptest::sample::Index;

use crate::model::Access;
use crate::model::Component;
use crate::model::Digest;
use crate::model::ObjectState;
use crate::model::Observed;
use crate::model::ObservedHost;
use crate::plan::plan;
use crate::plan::predict;
use crate::plan::testing::Builder;
use crate::plan::testing::after;
use crate::plan::testing::fresh;
use crate::plan::testing::object;

const COMPONENTS: [Component; 11] = [
    Component::System,
    Component::Containerd,
    Component::Etcd,
    Component::ApiServer,
    Component::ControllerManager,
    Component::Scheduler,
    Component::Balancer,
    Component::Kubelet,
    Component::Proxy,
    Component::Operator,
    Component::Recurring,
];

/// Something that happened to a cluster behind bastide's back, or a run that died.
#[derive(Debug, Clone)]
enum Accident {
    LoseFile(Index, Index),
    EditFile(Index, Index),
    OpenFile(Index, Index),
    LoseDirectory(Index),
    StopUnit(Index, Index),
    ForgetUnit(Index, Index),
    LosePod(Index, Index),
    OldPod(Index, Index),
    LoseImage(Index),
    LoseUser(Index),
    LoseObject(Index),
    EditObject(Index),
    StrangeObject,
    LoseLabels(Index),
    NoApi,
    NodeNotReady(Index),
    DiedHere(Index),
    SilentWorker(Index),
}

fn accident() -> impl Strategy<Value = Accident> {
    let one = any::<Index>;
    let two = || (any::<Index>(), any::<Index>());
    prop_oneof![
        two().prop_map(|(a, b)| Accident::LoseFile(a, b)),
        two().prop_map(|(a, b)| Accident::EditFile(a, b)),
        two().prop_map(|(a, b)| Accident::OpenFile(a, b)),
        one().prop_map(Accident::LoseDirectory),
        two().prop_map(|(a, b)| Accident::StopUnit(a, b)),
        two().prop_map(|(a, b)| Accident::ForgetUnit(a, b)),
        two().prop_map(|(a, b)| Accident::LosePod(a, b)),
        two().prop_map(|(a, b)| Accident::OldPod(a, b)),
        one().prop_map(Accident::LoseImage),
        one().prop_map(Accident::LoseUser),
        one().prop_map(Accident::LoseObject),
        one().prop_map(Accident::EditObject),
        Just(Accident::StrangeObject),
        one().prop_map(Accident::LoseLabels),
        Just(Accident::NoApi),
        one().prop_map(Accident::NodeNotReady),
        one().prop_map(Accident::DiedHere),
        one().prop_map(Accident::SilentWorker),
    ]
}

fn host<'a>(observed: &'a mut Observed, at: &Index) -> Option<&'a mut ObservedHost> {
    let index = at.index(observed.hosts.len());
    observed.hosts.values_mut().nth(index)
}

fn nth<K: Clone, V>(map: &BTreeMap<K, V>, at: &Index) -> Option<K> {
    (!map.is_empty()).then(|| map.keys().nth(at.index(map.len())).cloned()).flatten()
}

#[allow(clippy::too_many_lines)]
fn befall(observed: &mut Observed, accident: &Accident) {
    let hosts: Vec<_> = observed.hosts.keys().cloned().collect();
    match accident {
        Accident::LoseFile(at, file) => {
            if let Some(host) = host(observed, at)
                && let Some(path) = nth(&host.files, file)
            {
                host.files.remove(&path);
            }
        }
        Accident::EditFile(at, file) => {
            if let Some(host) = host(observed, at)
                && let Some(path) = nth(&host.files, file)
            {
                host.files.get_mut(&path).unwrap().digest = Digest::of(b"edited");
            }
        }
        Accident::OpenFile(at, file) => {
            if let Some(host) = host(observed, at)
                && let Some(path) = nth(&host.files, file)
            {
                host.files.get_mut(&path).unwrap().access = Access::root(0o777);
            }
        }
        Accident::LoseDirectory(at) => host(observed, at).into_iter().for_each(|host| host.directories.clear()),
        Accident::StopUnit(at, unit) => {
            if let Some(host) = host(observed, at)
                && let Some(name) = nth(&host.units, unit)
            {
                host.units.get_mut(&name).unwrap().active = false;
            }
        }
        Accident::ForgetUnit(at, unit) => {
            if let Some(host) = host(observed, at)
                && let Some(name) = nth(&host.units, unit)
            {
                host.units.get_mut(&name).unwrap().inputs = None;
            }
        }
        Accident::LosePod(at, pod) => {
            if let Some(host) = host(observed, at)
                && let Some(name) = nth(&host.pods, pod)
            {
                host.pods.remove(&name);
            }
        }
        Accident::OldPod(at, pod) => {
            if let Some(host) = host(observed, at)
                && let Some(name) = nth(&host.pods, pod)
            {
                host.pods.insert(name, Some(Digest::of(b"old")));
            }
        }
        Accident::LoseImage(at) => host(observed, at).into_iter().for_each(|host| host.images.clear()),
        Accident::LoseUser(at) => host(observed, at).into_iter().for_each(|host| host.users.clear()),
        Accident::LoseObject(at) => {
            if let Some(objects) = &mut observed.objects
                && let Some(id) = nth(&objects.objects, at)
            {
                objects.objects.remove(&id);
            }
        }
        Accident::EditObject(at) => {
            if let Some(objects) = &mut observed.objects
                && let Some(id) = nth(&objects.objects, at)
            {
                let differs = ObjectState::Differs { fields: vec!["spec.replicas".to_owned()], owners: Vec::new() };
                objects.objects.insert(id, differs);
            }
        }
        Accident::StrangeObject => {
            if let Some(objects) = &mut observed.objects {
                objects.owned.insert(object("v1", "ConfigMap", "left-over"));
            }
        }
        Accident::LoseLabels(at) => {
            let name = at.get(&hosts);
            if let Some(node) = observed.objects.as_mut().and_then(|objects| objects.nodes.get_mut(name)) {
                node.labels.clear();
            }
        }
        Accident::NodeNotReady(at) => {
            let name = at.get(&hosts);
            if let Some(node) = observed.objects.as_mut().and_then(|objects| objects.nodes.get_mut(name)) {
                node.ready = false;
            }
        }
        Accident::NoApi => observed.objects = None,
        Accident::DiedHere(at) => {
            let record = host(observed, at).and_then(|host| host.record.as_mut());
            if let Some(record) = record {
                record.complete = false;
            }
        }
        Accident::SilentWorker(at) => {
            let name = at.get(&hosts);
            if name.as_str().starts_with('w') {
                observed.hosts.remove(name);
                observed.unreachable.insert(name.clone(), "no answer".to_owned());
            }
        }
    }
}

fn changed(changes: &[(Index, Index)]) -> Builder {
    let hosts = ["h1", "h2", "h3", "w1", "w2"];
    changes.iter().fold(Builder::five(), |builder, (host, component)| {
        builder.change(hosts[host.index(hosts.len())], *component.get(&COMPONENTS))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// From any state, one plan leads to a state in which nothing is left to do; and the planner's own linter agrees with
    /// every plan (a plan that it does not agree with is a refusal).
    #[test]
    fn one_plan_is_enough(
        changes in vec((any::<Index>(), any::<Index>()), 0..6),
        accidents in vec(accident(), 0..8),
        made in any::<bool>(),
    ) {
        let (old, new) = (Builder::five().build(), changed(&changes).build());
        let mut observed = old.reached();
        for accident in &accidents {
            befall(&mut observed, accident);
        }
        let context = if made { after(&old.desired) } else { fresh() };
        let first = plan(&new.desired, &observed, &context);
        prop_assert!(first.is_ok(), "{first:?}");
        let seen = predict(&observed, &first.unwrap());
        let second = plan(&new.desired, &seen, &context).unwrap();
        prop_assert!(second.is_empty(), "{second:#?}");
    }

    /// The same input gives the same plan, and the plan survives being stored.
    #[test]
    fn a_plan_is_a_value(changes in vec((any::<Index>(), any::<Index>()), 1..6)) {
        let (old, new) = (Builder::five().build(), changed(&changes).build());
        let make = || plan(&new.desired, &old.reached(), &after(&old.desired)).unwrap();
        let text = serde_json::to_string(&make()).unwrap();
        prop_assert_eq!(serde_json::from_str::<crate::model::Plan>(&text).unwrap(), make());
    }
}
