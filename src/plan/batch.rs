//! Differences of one host, or a part of them, as actions in an order that is right on that host.

use std::collections::BTreeSet;

use crate::model::Action;
use crate::model::Batch;
use crate::model::Component;
use crate::plan::diff::FileChange;
use crate::plan::diff::HostDiff;
use crate::plan::diff::Part;
use crate::plan::diff::Place;
use crate::plan::diff::is_unit_file;

/// Everything at once, for a host that carries nothing yet: what is stale goes first, so that no old process holds a port;
/// containerd runs before images come; a manifest lies there only after its inputs; the kubelet starts last.
pub(super) fn whole(diff: &HostDiff) -> Batch {
    let early = |file: &FileChange| {
        matches!(file.component, Component::System | Component::Containerd) && file.place != Place::Manifest
            || file.place == Place::UnitFile
    };
    let mut actions = base(diff);
    actions.extend(diff.removals.iter().cloned());
    actions.extend(written(diff, early));
    reload(&mut actions, diff.interrupted);
    actions.extend(owned(&diff.units, |component| component == Component::System));
    actions.extend(owned(&diff.units, |component| component == Component::Containerd));
    actions.extend(diff.images.iter().cloned());
    actions.extend(written(diff, |file| !early(file) && file.place != Place::Manifest));
    actions.extend(written(diff, |file| file.place == Place::Manifest));
    actions.extend(owned(&diff.units, |component| !matches!(component, Component::System | Component::Containerd)));
    actions.extend(diff.pods.iter().map(|part| part.action.clone()));
    Batch(actions)
}

/// What interrupts nothing: users, folders, images, new programs, access, files that their process reads by itself.
pub(super) fn harmless(diff: &HostDiff) -> Batch {
    let disruptive = diff.disruptive();
    let mut actions = base(diff);
    actions.extend(written(diff, |file| is_harmless(file, &disruptive)));
    reload(&mut actions, diff.interrupted);
    actions.extend(owned(&diff.units, |component| matches!(component, Component::System | Component::Recurring)));
    actions.extend(diff.images.iter().cloned());
    Batch(actions)
}

/// The parts of `components` that interrupt them.
pub(super) fn disruptive(diff: &HostDiff, components: &[Component]) -> Batch {
    let disruptive = diff.disruptive();
    let ours = |file: &FileChange| components.contains(&file.component) && !is_harmless(file, &disruptive);
    let mut actions: Vec<_> = written(diff, |file| ours(file) && file.place != Place::Manifest).collect();
    reload(&mut actions, false);
    actions.extend(owned(&diff.units, |component| components.contains(&component)));
    actions.extend(written(diff, |file| ours(file) && file.place == Place::Manifest));
    actions.extend(owned(&diff.pods, |component| components.contains(&component)));
    Batch(actions)
}

/// What is no longer wanted.
pub(super) fn removals(diff: &HostDiff) -> Batch {
    let mut actions = diff.removals.clone();
    reload(&mut actions, false);
    Batch(actions)
}

fn is_harmless(file: &FileChange, disruptive: &BTreeSet<Component>) -> bool {
    matches!(file.place, Place::NewProgram | Place::Access) || !disruptive.contains(&file.component)
}

fn base(diff: &HostDiff) -> Vec<Action> {
    let users = diff.users.iter().cloned().map(Action::EnsureUser);
    let directories = diff.directories.iter().cloned().map(Action::EnsureDirectory);
    users.chain(directories).collect()
}

fn written(diff: &HostDiff, which: impl Fn(&FileChange) -> bool) -> impl Iterator<Item = Action> {
    diff.files.iter().filter(move |file| which(file)).map(|file| file.action.clone())
}

fn owned(parts: &[Part], which: impl Fn(Component) -> bool) -> impl Iterator<Item = Action> {
    parts.iter().filter(move |part| which(part.component)).map(|part| part.action.clone())
}

fn reload(actions: &mut Vec<Action>, anyhow: bool) {
    let touched = actions.iter().any(|action| match action {
        Action::PutFile { path, .. } | Action::RemoveFile { path, .. } => is_unit_file(path),
        _ => false,
    });
    if touched || anyhow {
        actions.push(Action::ReloadUnits);
    }
}
