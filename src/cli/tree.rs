//! What a person sees while a run is on its way: the stage, a row a host, what each does or waits for and for how long.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use indicatif::MultiProgress;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::model::HostName;

/// Name of the row for what is done to the cluster as a whole.
const CLUSTER: &str = "cluster";
const TICK: Duration = Duration::from_millis(120);

/// Rows that are drawn anew all the time. Without a stage nothing is drawn, and every call is for nothing.
#[derive(Default)]
pub(super) struct Tree {
    bars: MultiProgress,
    stage: Mutex<Option<Stage>>,
}

struct Stage {
    /// Absent where something is done that is no stage.
    title: Option<String>,
    head: ProgressBar,
    began: Instant,
    width: usize,
    rows: BTreeMap<String, Row>,
}

struct Row {
    bar: ProgressBar,
    sent: u64,
    waits: Vec<String>,
}

impl Tree {
    /// A stage begins on these hosts.
    pub(super) fn begin(&self, title: &str, hosts: &[HostName]) {
        let mut stage = self.head(title);
        stage.title = Some(title.to_owned());
        stage.width = hosts.iter().map(|host| host.as_str().len()).max().unwrap_or(0);
        for host in hosts {
            let row = self.row(host.as_str(), stage.width);
            stage.rows.insert(host.as_str().to_owned(), row);
        }
        *self.lock() = Some(stage);
    }

    /// Something that takes a while before there is a stage.
    pub(super) fn busy(&self, what: &str) {
        self.idle();
        let mut stage = self.lock();
        if stage.is_none() {
            *stage = Some(self.head(what));
        }
    }

    /// Takes away what `busy` shows.
    pub(super) fn idle(&self) {
        let mut stage = self.lock();
        if let Some(busy) = stage.take_if(|stage| stage.title.is_none()) {
            busy.head.finish_and_clear();
        }
    }

    /// Takes everything away and gives the line that stays of the stage.
    pub(super) fn fold(&self, well: bool) -> Option<String> {
        let stage = self.lock().take()?;
        for row in stage.rows.values() {
            row.bar.finish_and_clear();
        }
        stage.head.finish_and_clear();
        let mark = if well { '✓' } else { '✗' };
        Some(format!("{mark} {} ({} s)", stage.title?, stage.began.elapsed().as_secs()))
    }

    /// `host` does `what`.
    pub(super) fn doing(&self, host: &str, what: &str) {
        self.with(host, |row| row.bar.set_message(what.to_owned()));
    }

    /// Something is done to the cluster.
    pub(super) fn cluster(&self, what: &str) {
        if let Some(stage) = &mut *self.lock()
            && stage.title.is_some()
        {
            let width = stage.width;
            let row = stage.rows.entry(CLUSTER.to_owned()).or_insert_with(|| self.row(CLUSTER, width));
            row.bar.set_message(what.to_owned());
        }
    }

    /// A host, or the cluster, waits for this too.
    pub(super) fn waiting(&self, host: Option<&str>, what: &str) {
        if host.is_none() {
            self.cluster("");
        }
        let name = host.unwrap_or(CLUSTER);
        // The row says already which host it is.
        let what = what.strip_prefix(&format!("{name}: ")).unwrap_or(what).to_owned();
        self.with(name, |row| {
            row.waits.push(what);
            row.bar.set_message(row.waiting());
        });
    }

    /// It waits for this no longer.
    pub(super) fn waited(&self, host: Option<&str>, what: &str) {
        let name = host.unwrap_or(CLUSTER);
        let what = what.strip_prefix(&format!("{name}: ")).unwrap_or(what);
        self.with(name, |row| {
            row.waits.retain(|waits| waits != what);
            if !row.waits.is_empty() {
                row.bar.set_message(row.waiting());
            }
        });
    }

    /// `host` has nothing more to do in this stage.
    pub(super) fn done(&self, host: &str) {
        self.with(host, |row| row.bar.finish_with_message("done"));
    }

    /// `host` was sent `bytes` more.
    pub(super) fn sent(&self, host: &str, bytes: u64) {
        self.with(host, |row| {
            row.sent += bytes;
            row.bar.set_message(format!("sending, {} MB so far", row.sent / 1_000_000));
        });
    }

    /// Draws nothing while `other` writes.
    pub(super) fn suspend<T>(&self, other: impl FnOnce() -> T) -> T {
        self.bars.suspend(other)
    }

    fn with(&self, name: &str, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.lock().as_mut().and_then(|stage| stage.rows.get_mut(name)) {
            change(row);
        }
    }

    fn head(&self, title: &str) -> Stage {
        let head = self.bar("{spinner} {msg} {elapsed}");
        head.set_message(title.to_owned());
        Stage { title: None, head, began: Instant::now(), width: 0, rows: BTreeMap::new() }
    }

    fn row(&self, name: &str, width: usize) -> Row {
        let bar = self.bar("  {prefix} {elapsed:>4} {wide_msg}");
        bar.set_prefix(format!("{name:width$}"));
        Row { bar, sent: 0, waits: Vec::new() }
    }

    fn bar(&self, template: &str) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        bar
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stage>> {
        // A panic elsewhere must not take the messages away: what the guard holds is only bars.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn waiting(&self) -> String {
        format!("waits for {}", self.waits.join(", "))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Tree;
    use crate::model::HostName;

    fn message(tree: &Tree, row: &str) -> String {
        tree.lock().as_ref().unwrap().rows[row].bar.message()
    }

    #[test]
    fn a_row_says_all_that_its_host_still_waits_for() {
        let tree = Tree::default();
        tree.begin("all hosts at once", &[HostName::new("h1").unwrap(), HostName::new("h2").unwrap()]);
        tree.doing("h1", "starts kubelet.service");
        assert_eq!(message(&tree, "h1"), "starts kubelet.service");
        tree.waiting(Some("h1"), "h1: etcd");
        tree.waiting(Some("h1"), "h1: kube-apiserver");
        tree.waiting(None, "workloads");
        assert_eq!(message(&tree, "h1"), "waits for etcd, kube-apiserver");
        assert_eq!(message(&tree, "cluster"), "waits for workloads");
        tree.waited(Some("h1"), "h1: etcd");
        assert_eq!(message(&tree, "h1"), "waits for kube-apiserver");
        assert_eq!(message(&tree, "h2"), "");
        tree.done("h2");
        assert_eq!(message(&tree, "h2"), "done");
    }

    #[test]
    fn what_stays_of_a_stage_says_how_it_ended_and_of_anything_else_nothing_stays() {
        let tree = Tree::default();
        tree.busy("looks at 3 hosts");
        assert_eq!(tree.fold(true), None);
        tree.begin("workers", &[]);
        tree.idle();
        assert_eq!(tree.fold(false).as_deref(), Some("✗ workers (0 s)"));
        assert_eq!(tree.fold(true), None);
    }
}
