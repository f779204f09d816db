//! What differs on one host.

use std::collections::BTreeSet;

use crate::model::Action;
use crate::model::Component;
use crate::model::DesiredHost;
use crate::model::Directory;
use crate::model::Effect;
use crate::model::File;
use crate::model::Keep;
use crate::model::ObservedHost;
use crate::model::RemotePath;
use crate::model::Role;
use crate::model::Roles;
use crate::model::SystemUser;
use crate::model::Unit;
use crate::plan::Context;
use crate::plan::seeded;

/// Where the kubelet looks for static pods.
pub(super) const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// Where units and their drop-ins lie.
const UNIT_FILES: &str = "/etc/systemd/system/";

/// Everything that has to change on one host, not yet ordered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct HostDiff {
    pub(super) roles: Roles,
    /// containerd or the kubelet does not run: nothing there can be interrupted.
    pub(super) down: bool,
    /// No API server answers, and something that etcd, the API server or the kubelet of this host shows has ended: what
    /// runs here serves nobody, and nobody else can be waited for before it is given anew.
    pub(super) ended: bool,
    pub(super) users: Vec<SystemUser>,
    pub(super) directories: Vec<Directory>,
    /// Writes and changes of access, by component and path.
    pub(super) files: Vec<FileChange>,
    pub(super) images: Vec<Action>,
    /// In the order in which units start.
    pub(super) units: Vec<Part>,
    pub(super) pods: Vec<Part>,
    /// Stops of units and removals of files that are no longer desired.
    pub(super) removals: Vec<Action>,
    /// A run died here between the first and the last write: whether systemd knows the unit files is not known.
    pub(super) interrupted: bool,
    /// Pods that run now, whatever their inputs.
    pub(super) running: BTreeSet<String>,
}

/// A change of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FileChange {
    pub(super) component: Component,
    pub(super) place: Place,
    pub(super) action: Action,
}

/// What a file's path says about the moment at which it may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Read by its component.
    Plain,
    /// A program at a path where none was: nobody runs it before something else says so.
    NewProgram,
    /// A unit or a drop-in.
    UnitFile,
    /// A static pod: the kubelet acts on it at once.
    Manifest,
    /// Only mode or owner change.
    Access,
}

/// An action with its owner.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub(super) component: Component,
    pub(super) action: Action,
}

impl HostDiff {
    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
            && self.directories.is_empty()
            && self.files.is_empty()
            && self.images.is_empty()
            && self.units.is_empty()
            && self.pods.is_empty()
            && self.removals.is_empty()
            && !self.interrupted
    }
    /// Components that are interrupted when their part is done, or that must be looked at host by host: etcd, the API server,
    /// controller manager and scheduler take up a changed key or policy while they run, and a bad one would make all of them
    /// ill at once.
    pub(super) fn disruptive(&self) -> BTreeSet<Component> {
        let careful = |file: &&FileChange| {
            let taken_up = matches!(
                file.component,
                Component::Etcd | Component::ApiServer | Component::ControllerManager | Component::Scheduler
            );
            file.place == Place::Plain && taken_up
        };
        let files = self.files.iter().filter(|file| file.place == Place::Manifest || careful(file));
        let parts = self.units.iter().chain(&self.pods).map(|part| part.component);
        let components = files.map(|file| file.component).chain(parts);
        components.filter(|component| !matches!(component, Component::System | Component::Recurring)).collect()
    }
    /// This without what runs beside the cluster, and that alone. Its folders stay with the rest.
    pub(super) fn split(&self) -> (Self, Self) {
        let beside = |component: Component| component == Component::Recurring;
        let mut rest = self.clone();
        rest.files.retain(|file| !beside(file.component));
        rest.units.retain(|part| !beside(part.component));
        let later = Self {
            roles: self.roles.clone(),
            files: self.files.iter().filter(|file| beside(file.component)).cloned().collect(),
            units: self.units.iter().filter(|part| beside(part.component)).cloned().collect(),
            ..Self::default()
        };
        (rest, later)
    }
    /// Whether the kubelet and containerd are all that it takes to lose this host's workloads only.
    pub(super) fn only_worker(&self) -> bool {
        only_worker(&self.roles)
    }
}

/// Whether a host carries workloads only, so that the cluster lives without it.
pub(super) fn only_worker(roles: &Roles) -> bool {
    !roles.has(Role::ControlPlane) && !roles.has(Role::Etcd)
}

/// Compares one host with its target; `silent`: no API server answers.
pub(super) fn host(desired: &DesiredHost, seen: &ObservedHost, context: &Context<'_>, silent: bool) -> HostDiff {
    let files = files(desired, seen, context);
    let ended = silent && !files.is_empty() && seen.files.values().any(|file| seeded::has_ended(file, context.now));
    HostDiff {
        roles: desired.roles.clone(),
        ended,
        down: ended
            || desired.units.iter().any(|unit| {
                matches!(unit.component, Component::Containerd | Component::Kubelet)
                    && unit.effect == Effect::Restart
                    && !seen.units.get(&unit.name).is_some_and(|seen| seen.active)
            }),
        users: desired
            .users
            .iter()
            .filter(|user| seen.users.get(&user.name) != Some(&(user.uid, user.gid)))
            .cloned()
            .collect(),
        directories: desired
            .directories
            .iter()
            .filter(|directory| seen.directories.get(&directory.path) != Some(&directory.access))
            .cloned()
            .collect(),
        images: images(desired, seen),
        units: units(desired, seen, &files, ended),
        pods: pods(desired, seen, &files, ended),
        removals: removals(desired, seen, context),
        interrupted: seen.record.as_ref().is_some_and(|record| !record.complete),
        running: seen.pods.keys().cloned().collect(),
        files,
    }
}

fn files(desired: &DesiredHost, seen: &ObservedHost, context: &Context<'_>) -> Vec<FileChange> {
    let mut changes: Vec<_> =
        desired.files.iter().filter_map(|(path, file)| file_change(path, file, seen, context)).collect();
    changes.sort_by_key(|change| change.component);
    changes
}

fn file_change(path: &RemotePath, file: &File, seen: &ObservedHost, context: &Context<'_>) -> Option<FileChange> {
    let found = seen.files.get(path);
    if let Some(found) = found {
        if found.digest == file.digest {
            return (found.access != file.access && file.keep == Keep::Managed).then(|| FileChange {
                component: file.component,
                place: Place::Access,
                action: Action::SetAccess { path: path.clone(), access: file.access },
            });
        }
        if let Keep::Seeded { authorities, since } = &file.keep {
            seeded::due(found, authorities, *since, context.now)?;
        }
    }
    let known = seen.record.as_ref().is_some_and(|record| record.files.contains_key(path));
    let place = if path.parent() == MANIFESTS {
        Place::Manifest
    } else if is_unit_file(path) {
        Place::UnitFile
    } else if found.is_none() && file.access.mode & 0o111 != 0 {
        Place::NewProgram
    } else {
        Place::Plain
    };
    Some(FileChange {
        component: file.component,
        place,
        action: Action::PutFile {
            path: path.clone(),
            digest: file.digest,
            size: file.size,
            access: file.access,
            replaces: found.map(|found| found.digest),
            foreign: found.is_some() && !known,
            secret: file.secret,
        },
    })
}

pub(super) fn is_unit_file(path: &RemotePath) -> bool {
    path.as_str().starts_with(UNIT_FILES)
}

fn images(desired: &DesiredHost, seen: &ObservedHost) -> Vec<Action> {
    desired
        .images
        .iter()
        .filter(|(name, image)| seen.images.get(*name) != Some(&image.manifest))
        .map(|(name, image)| Action::ImportImage {
            image: name.clone(),
            manifest: image.manifest,
            archive: image.archive,
            size: image.size,
        })
        .collect()
}

/// Where everything has `ended`, the kubelet is restarted in any case: what crashed over and over is then started at once,
/// which would otherwise be tried again after up to five minutes. Whether it or a pod happens to run while somebody looks
/// says nothing.
fn units(desired: &DesiredHost, seen: &ObservedHost, files: &[FileChange], ended: bool) -> Vec<Part> {
    desired
        .units
        .iter()
        .filter_map(|unit| {
            let found = seen.units.get(&unit.name).cloned().unwrap_or_default();
            let revived = ended && unit.component == Component::Kubelet;
            let stale = found.inputs != Some(unit.inputs) || reseeded(desired, unit, files);
            let (due, restart) = match unit.effect {
                Effect::Restart if revived => (true, true),
                Effect::Restart => (stale || !found.active || !found.enabled, stale && found.active),
                // Neither active nor enabled means anything for the system's own oneshot units.
                Effect::Rerun => (stale, stale),
            };
            due.then(|| Part {
                component: unit.component,
                action: Action::StartUnit {
                    name: unit.name.clone(),
                    inputs: unit.inputs,
                    effect: unit.effect,
                    restart,
                },
            })
        })
        .collect()
}

/// A seeded file is read at start only, and is no input of its unit because the host renews it.
fn reseeded(desired: &DesiredHost, unit: &Unit, files: &[FileChange]) -> bool {
    files.iter().any(|change| match &change.action {
        Action::PutFile { path, .. } => {
            change.component == unit.component && desired.files.get(path).is_some_and(|file| file.keep != Keep::Managed)
        }
        _ => false,
    })
}

fn pods(desired: &DesiredHost, seen: &ObservedHost, files: &[FileChange], ended: bool) -> Vec<Part> {
    let rewritten = |pod: &str| {
        files.iter().any(|change| match &change.action {
            Action::PutFile { path, .. } => change.place == Place::Manifest && stem(path) == Some(pod),
            _ => false,
        })
    };
    desired
        .pods
        .iter()
        .filter(|(pod, inputs)| ended || seen.pods.get(*pod) != Some(&Some(**inputs)) || rewritten(pod))
        .map(|(pod, inputs)| Part {
            component: pod_component(desired, pod),
            action: Action::AwaitPod { pod: pod.clone(), inputs: *inputs },
        })
        .collect()
}

/// Whose pod it is: that of the manifest that makes it.
pub(super) fn pod_component(desired: &DesiredHost, pod: &str) -> Component {
    desired
        .files
        .iter()
        .find(|(path, _)| path.parent() == MANIFESTS && stem(path) == Some(pod))
        .map_or(Component::Kubelet, |(_, file)| file.component)
}

/// The pod that a manifest at `path` makes: `/etc/kubernetes/manifests/etcd.yaml` makes `etcd`.
pub(super) fn stem(path: &RemotePath) -> Option<&str> {
    path.as_str().rsplit('/').next()?.strip_suffix(".yaml")
}

fn removals(desired: &DesiredHost, seen: &ObservedHost, context: &Context<'_>) -> Vec<Action> {
    let Some(record) = &seen.record else {
        return Vec::new();
    };
    let units = record
        .units
        .iter()
        .filter(|name| desired.units.iter().all(|unit| unit.name != **name))
        .filter(|name| seen.units.get(*name).is_some_and(|unit| unit.active || unit.enabled))
        .map(|name| Action::StopUnit { name: name.clone() });
    let files = record
        .files
        .keys()
        .filter(|path| !desired.files.contains_key(*path) && !context.keep.contains(*path))
        .filter_map(|path| {
            let found = seen.files.get(path)?;
            Some(Action::RemoveFile { path: path.clone(), replaces: found.digest })
        });
    units.chain(files).collect()
}
