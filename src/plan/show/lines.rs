//! One line for each action, and how many there are of each kind.

use std::collections::BTreeSet;

use crate::model::Action;
use crate::model::Effect;
use crate::model::EtcdRestore;
use crate::model::Step;
use crate::plan::diff::MANIFESTS;
use crate::plan::diff::stem;

/// An action in words.
pub(super) struct Line {
    pub(super) text: String,
    /// It stops something that runs.
    pub(super) interrupts: bool,
}

/// What a step does, line by line. `!` marks an interruption.
pub(super) fn of(step: &Step) -> Vec<Line> {
    let replaced = replaced_pods(step);
    step.batch.0.iter().map(|action| of_action(action, &replaced, step.gates.is_empty())).collect()
}

/// Pods whose manifest is exchanged: the kubelet stops them for it.
fn replaced_pods(step: &Step) -> BTreeSet<&str> {
    step.batch
        .0
        .iter()
        .filter_map(|action| match action {
            Action::PutFile { path, replaces: Some(_), .. } if path.parent() == MANIFESTS => stem(path),
            _ => None,
        })
        .collect()
}

/// In a step without gates (`harmless`) a unit that starts again is one that nobody waits for.
fn of_action(action: &Action, replaced: &BTreeSet<&str>, harmless: bool) -> Line {
    let quiet = |text| Line { text, interrupts: false };
    let loud = |text| Line { text, interrupts: true };
    match action {
        Action::EnsureUser(user) => quiet(format!("+ user {} ({}:{})", user.name, user.uid, user.gid)),
        Action::EnsureDirectory(directory) => {
            let access = directory.access;
            quiet(format!("+ folder {} ({:o} {}:{})", directory.path, access.mode, access.uid, access.gid))
        }
        Action::PutFile { path, replaces, foreign, .. } => quiet(match (replaces, foreign) {
            (None, _) => format!("+ file {path} (new)"),
            (Some(_), false) => format!("~ file {path} (changed)"),
            (Some(_), true) => format!("~ file {path} (changed; it is not bastide's, a copy is kept)"),
        }),
        Action::SetAccess { path, access } => {
            quiet(format!("~ file {path} (access {:o} {}:{})", access.mode, access.uid, access.gid))
        }
        Action::RemoveFile { path, .. } => match (path.parent(), stem(path)) {
            (MANIFESTS, Some(pod)) => loud(format!("! - file {path} (stops pod {pod})")),
            _ => quiet(format!("- file {path}")),
        },
        Action::ReloadUnits => quiet("  reload systemd".to_owned()),
        Action::StartUnit { name, effect, restart, .. } => match (effect, restart) {
            (Effect::Rerun, _) => quiet(format!("  run {name} again")),
            (Effect::Restart, true) if harmless => quiet(format!("  restart {name}")),
            (Effect::Restart, true) => loud(format!("! restart {name}")),
            (Effect::Restart, false) => quiet(format!("  start {name}")),
        },
        Action::StopUnit { name } => loud(format!("! stop {name}")),
        Action::ImportImage { image, .. } => quiet(format!("+ image {image}")),
        Action::YieldLeadership => quiet("  let another etcd member lead, where this one does".to_owned()),
        Action::AwaitPod { pod, .. } if replaced.contains(pod.as_str()) => loud(format!("! restart pod {pod}")),
        Action::AwaitPod { pod, .. } => quiet(format!("  start pod {pod}")),
        Action::AwaitGone { pod } => quiet(format!("  wait until pod {pod} has ended")),
        Action::RestoreEtcd(restore) => {
            let mark = EtcdRestore::mark(&restore.token);
            loud(format!("! replace etcd's data (what is there is kept as /var/lib/etcd.before-{mark})"))
        }
        Action::ClearEtcd { token, .. } => {
            let mark = EtcdRestore::mark(token);
            loud(format!("! take etcd's data away (what is there is kept as /var/lib/etcd.before-{mark})"))
        }
        Action::ReturnEtcd { token } => {
            loud(format!("! put etcd's data back from /var/lib/etcd.before-{}", EtcdRestore::mark(token)))
        }
    }
}

/// How many actions of each kind.
#[derive(Default)]
pub(super) struct Tally {
    users: usize,
    folders: usize,
    written: usize,
    access: usize,
    removed: usize,
    images: usize,
    started: usize,
    interruptions: usize,
}

impl Tally {
    pub(super) fn of<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Self {
        let mut tally = Self::default();
        for step in steps {
            let replaced = replaced_pods(step);
            for action in &step.batch.0 {
                let interrupts = of_action(action, &replaced, step.gates.is_empty()).interrupts;
                tally.interruptions += usize::from(interrupts);
                match action {
                    Action::EnsureUser(_) => tally.users += 1,
                    Action::EnsureDirectory(_) => tally.folders += 1,
                    Action::PutFile { .. } => tally.written += 1,
                    Action::SetAccess { .. } => tally.access += 1,
                    Action::RemoveFile { .. } => tally.removed += 1,
                    Action::ImportImage { .. } => tally.images += 1,
                    Action::StartUnit { .. } | Action::AwaitPod { .. } => tally.started += usize::from(!interrupts),
                    Action::ReloadUnits
                    | Action::YieldLeadership
                    | Action::StopUnit { .. }
                    | Action::AwaitGone { .. }
                    | Action::RestoreEtcd(_)
                    | Action::ClearEtcd { .. }
                    | Action::ReturnEtcd { .. } => {}
                }
            }
        }
        tally
    }

    /// `74 files, 9 images, 3 starts`.
    pub(super) fn words(&self) -> String {
        let parts = [
            (self.users, "user"),
            (self.folders, "folder"),
            (self.written, "file"),
            (self.access, "change of access"),
            (self.removed, "removal"),
            (self.images, "image"),
            (self.started, "start"),
            (self.interruptions, "interruption"),
        ];
        let words: Vec<_> = parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| count(n, what)).collect();
        words.join(", ")
    }
}

/// `1 file`, `2 files`.
pub(super) fn count(number: usize, what: &str) -> String {
    match (number, what) {
        (1, _) => format!("1 {what}"),
        (_, "change of access") => format!("{number} changes of access"),
        _ => format!("{number} {what}s"),
    }
}
