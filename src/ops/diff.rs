//! `diff`: two revisions, or a revision and the live hosts.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use serde::Serialize;

use crate::host::Host as _;
use crate::model::Action;
use crate::model::Component;
use crate::model::DesiredHost;
use crate::model::HostName;
use crate::model::RemotePath;
use crate::model::Revision;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::differences;
use crate::ops::differences::Change;
use crate::ops::differences::Difference;
use crate::ops::differences::Side;
use crate::ops::kept::Kept;
use crate::ops::live;
use crate::ops::live::Live;

/// Larger files are no configuration.
const READABLE: u64 = 1 << 20;

/// What is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// The first revision.
    pub from: Option<u32>,
    /// The second one.
    pub to: Option<u32>,
    /// The second one is what hosts and cluster are like now.
    pub live: bool,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Layout of this document.
    pub schema: u32,
    /// `revision 3`.
    pub from: String,
    /// `revision 4` or `live`.
    pub to: String,
    /// By host, then objects.
    pub differences: Vec<Difference>,
    /// What could not be compared.
    pub notes: Vec<String>,
}

/// Compares. Without numbers: the revision before the one that was reached last, and that one; with --live the one that was
/// reached last, and the hosts.
pub async fn diff(invocation: &Invocation, options: &DiffOptions, talk: &Arc<dyn Talk>) -> Result<Diff, OpsError> {
    let local = Local::read(invocation)?;
    let kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    let store = kept.store()?;
    let history = store.history();
    let reached = || history.iter().rev().find(|revision| revision.was_reached()).ok_or(OpsError::NothingReached);
    let find = |number: u32| -> Result<&Revision, OpsError> {
        let found = history.iter().find(|revision| revision.id.number == number);
        found
            .ok_or_else(|| OpsError::Impossible(format!("there is no revision {number}; `bastide history` lists them")))
    };
    if options.live {
        let from = options.from.map_or_else(reached, find)?;
        return live(invocation, &local, &kept, from, talk).await;
    }
    let to = options.to.map_or_else(reached, find)?;
    let before = || {
        let parent = to.parent.as_ref().and_then(|parent| history.iter().find(|revision| revision.id == *parent));
        parent.ok_or(OpsError::NothingBefore { revision: to.id.clone() })
    };
    let from = options.from.map_or_else(before, find)?;
    let (_, was, was_blobs, _) = store.load(&from.id)?;
    let (_, is, is_blobs, _) = store.load(&to.id)?;
    let (was, is) = (Side { desired: &was, blobs: &was_blobs }, Side { desired: &is, blobs: &is_blobs });
    Ok(Diff {
        schema: 1,
        from: format!("revision {}", from.id),
        to: format!("revision {}", to.id),
        differences: differences::differences(was, is),
        notes: Vec::new(),
    })
}

/// What a plan back to `revision` would touch, with the files' lines where these may be shown.
async fn live(
    invocation: &Invocation,
    local: &Local,
    kept: &Kept,
    revision: &Revision,
    talk: &Arc<dyn Talk>,
) -> Result<Diff, OpsError> {
    let Live { target, fleet, observed, trouble, plan, .. } =
        Live::look(local, kept, &revision.id, invocation, talk).await?;
    let mut notes: Vec<String> =
        observed.unreachable.iter().map(|(host, reason)| format!("{host} does not answer: {reason}")).collect();
    notes.extend(trouble);
    let silent_api = observed.objects.is_none();
    if silent_api {
        notes.push("no API server is ready: objects were not compared".to_owned());
    }
    let plan = plan.map_err(OpsError::Refused)?;
    let mut found: BTreeMap<(HostName, String), (Change, Vec<String>)> = BTreeMap::new();
    let mut wanted: BTreeMap<HostName, BTreeSet<RemotePath>> = BTreeMap::new();
    for step in plan.stages.iter().flat_map(|stage| &stage.steps) {
        for action in &step.batch.0 {
            let Some(what) = live::words(action) else { continue };
            let change = match action {
                Action::PutFile { replaces: None, .. } => Change::Removed,
                Action::RemoveFile { .. } | Action::StopUnit { .. } => Change::Added,
                _ => Change::Changed,
            };
            if let Action::PutFile { path, replaces: Some(_), secret: false, size, .. } = action
                && *size <= READABLE
                && target.desired.hosts.get(&step.host).is_some_and(|host| may_be_read(host, path))
            {
                wanted.entry(step.host.clone()).or_default().insert(path.clone());
            }
            found.entry((step.host.clone(), what)).or_insert((change, Vec::new()));
        }
    }
    let reads = wanted.iter().filter_map(|(name, paths)| {
        let host = fleet.get(name)?;
        Some(async move { (name, host.read(paths).await) })
    });
    for (name, contents) in join_all(reads).await {
        let contents = contents.map_err(|error| OpsError::Hosts(vec![error]))?;
        for (path, is) in &contents {
            let file = target.desired.hosts.get(name).and_then(|host| host.files.get(path));
            let was = file.and_then(|file| target.blobs.get(&file.digest));
            if let Some((_, lines)) = found.get_mut(&(name.clone(), path.to_string())) {
                *lines = differences::content(path.as_str(), (was, Some(is)), false);
            }
        }
    }
    let mut differences: Vec<Difference> = found
        .into_iter()
        .map(|((host, what), (change, lines))| Difference { host: Some(host), what, change, lines })
        .collect();
    if !silent_api {
        differences.extend(live::object_drift(&plan).into_iter().map(|(what, change, lines)| Difference {
            host: None,
            what,
            change,
            lines,
        }));
    }
    Ok(Diff { schema: 1, from: format!("revision {}", revision.id), to: "live".to_owned(), differences, notes })
}

/// Whether a file is configuration of bastide's own that holds no key, and no program.
fn may_be_read(host: &DesiredHost, path: &RemotePath) -> bool {
    let file = host.files.get(path);
    file.is_some_and(|file| !file.secret && file.access.mode & 0o111 == 0 && file.component != Component::Operator)
}
