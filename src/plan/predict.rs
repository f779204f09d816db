//! What will be seen after a plan has run.

use std::collections::BTreeSet;

use crate::model::Action;
use crate::model::Effect;
use crate::model::Gate;
use crate::model::ObjectAction;
use crate::model::ObjectState;
use crate::model::Observed;
use crate::model::ObservedFile;
use crate::model::ObservedHost;
use crate::model::ObservedObjects;
use crate::model::Plan;
use crate::plan::diff::MANIFESTS;
use crate::plan::diff::stem;

/// `observed` after every step, object and gate of `plan` went well.
pub fn predict(observed: &Observed, plan: &Plan) -> Observed {
    let mut after = observed.clone();
    for stage in &plan.stages {
        for step in &stage.steps {
            if let Some(host) = after.hosts.get_mut(&step.host) {
                step.batch.0.iter().for_each(|action| act(host, action));
                if let (Some(record), false) = (&mut host.record, step.batch.0.is_empty()) {
                    record.complete = true;
                }
            }
        }
        if !stage.objects.is_empty() {
            let objects = after.objects.get_or_insert_default();
            stage.objects.iter().for_each(|action| act_on_cluster(objects, action));
        }
        for gate in stage.steps.iter().flat_map(|step| &step.gates).chain(&stage.gates) {
            match gate {
                Gate::ApiServer { .. } => {
                    after.objects.get_or_insert_default();
                }
                Gate::NodeReady { host } => {
                    let objects = after.objects.get_or_insert_default();
                    objects.nodes.entry(host.clone()).or_default().ready = true;
                }
                _ => {}
            }
        }
    }
    after
}

fn act(host: &mut ObservedHost, action: &Action) {
    match action {
        Action::EnsureUser(user) => {
            host.users.insert(user.name.clone(), (user.uid, user.gid));
        }
        Action::EnsureDirectory(directory) => {
            host.directories.insert(directory.path.clone(), directory.access);
        }
        Action::PutFile { path, digest, access, .. } => {
            host.files.insert(path.clone(), ObservedFile { digest: *digest, access: *access, certificate: None });
            if let Some(record) = &mut host.record {
                record.files.insert(path.clone(), *digest);
            }
        }
        Action::SetAccess { path, access } => {
            if let Some(file) = host.files.get_mut(path) {
                file.access = *access;
            }
        }
        Action::RemoveFile { path, .. } => {
            host.files.remove(path);
            if let Some(record) = &mut host.record {
                record.files.remove(path);
            }
            if let (MANIFESTS, Some(pod)) = (path.parent(), stem(path)) {
                host.pods.remove(pod);
            }
        }
        Action::ReloadUnits
        | Action::YieldLeadership
        | Action::RestoreEtcd(_)
        | Action::ClearEtcd { .. }
        | Action::ReturnEtcd { .. } => {}
        Action::AwaitGone { pod } => {
            host.pods.remove(pod);
        }
        Action::StartUnit { name, inputs, effect, .. } => {
            let unit = host.units.entry(name.clone()).or_default();
            unit.active = true;
            unit.enabled |= *effect == Effect::Restart;
            unit.inputs = Some(*inputs);
        }
        Action::StopUnit { name } => {
            let unit = host.units.entry(name.clone()).or_default();
            unit.active = false;
            unit.enabled = false;
        }
        Action::ImportImage { image, manifest, .. } => {
            host.images.insert(image.clone(), *manifest);
        }
        Action::AwaitPod { pod, inputs } => {
            host.pods.insert(pod.clone(), Some(*inputs));
        }
    }
}

fn act_on_cluster(objects: &mut ObservedObjects, action: &ObjectAction) {
    match action {
        ObjectAction::Apply { id, .. } => {
            objects.objects.insert(id.clone(), ObjectState::Equal);
            objects.owned.insert(id.clone());
        }
        ObjectAction::Delete { id, .. } => {
            objects.objects.remove(id);
            objects.owned.remove(id);
        }
        ObjectAction::Forget { node } => {
            objects.nodes.remove(node);
        }
        ObjectAction::Node { node, labels, taints } => {
            let node = objects.nodes.entry(node.clone()).or_default();
            let left: BTreeSet<_> =
                node.owned_labels.iter().filter(|key| !labels.contains_key(*key)).cloned().collect();
            node.labels.retain(|key, _| !left.contains(key));
            node.labels.extend(labels.clone());
            node.owned_labels = labels.keys().cloned().collect();
            let owned = std::mem::take(&mut node.owned_taints);
            node.taints.retain(|taint| !owned.contains(&(taint.key.clone(), taint.effect.clone())));
            node.taints.extend(taints.iter().cloned());
            node.owned_taints = taints.iter().map(|taint| (taint.key.clone(), taint.effect.clone())).collect();
        }
    }
}
