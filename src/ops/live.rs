//! A revision held against what the hosts are like now.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::apply::Fleet;
use crate::model::Action;
use crate::model::ObjectAction;
use crate::model::Observed;
use crate::model::Plan;
use crate::model::RevisionId;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::differences::Change;
use crate::ops::doors::Doors;
use crate::ops::kept::Kept;
use crate::ops::prepare;
use crate::ops::prepare::Target;
use crate::plan;
use crate::plan::Refusal;
use crate::secrets;

/// A revision, the hosts, and what it would take to bring them back to it. Nothing is changed.
pub(super) struct Live {
    /// The revision's target, with the keys of its time.
    pub(super) target: Target,
    /// The hosts that answered.
    pub(super) fleet: Fleet<RealHost>,
    /// What they and the API showed; without objects where no API server is ready.
    pub(super) observed: Observed,
    /// The ways to the components.
    pub(super) doors: Doors<RealHost>,
    /// Why the API could not be asked.
    pub(super) trouble: Option<String>,
    /// The way back to the revision, or every reason against it.
    pub(super) plan: Result<Plan, Vec<Refusal>>,
}

impl Live {
    /// Looks at every host and object of a stored revision.
    pub(super) async fn look(
        local: &Local,
        kept: &Kept,
        revision: &RevisionId,
        invocation: &Invocation,
        talk: &Arc<dyn Talk>,
    ) -> Result<Self, OpsError> {
        let now = prepare::now();
        let store = kept.store()?;
        let (_, desired, blobs, sealed) = store.load(revision)?;
        let secrets = secrets::unseal_form(&sealed)?;
        let target = Target { desired, blobs: Arc::new(blobs), secrets, issued: Vec::new() };
        let fleet = prepare::fleet(local, invocation, talk).await?;
        let scopes = prepare::scopes(&target.desired, None);
        let mut observed = prepare::look(&fleet, &scopes).await?;
        let doors = prepare::doors(local, &fleet, &target, &observed, now)?;
        let mut trouble = None;
        match doors.observe(&target.desired).await {
            Ok(objects) => observed.objects = objects,
            Err(error) => trouble = Some(error.to_string()),
        }
        let context = plan::Context {
            now,
            architecture: observed.hosts.values().next().map_or("", |host| host.architecture.as_str()),
            without: observed.unreachable.keys().cloned().collect(),
            max_unavailable_worker: None,
            previous: Some(&target.desired),
            // Nobody waits here: every component is asked anyway, or nobody is.
            unfinished: plan::Unfinished::default(),
            keep: kept.keep.clone(),
            prune_data: BTreeSet::new(),
        };
        let plan = plan::plan(&target.desired, &observed, &context);
        Ok(Self { target, fleet, observed, doors, trouble, plan })
    }
}

/// What an action is about; none for what is about nothing in particular.
pub(super) fn words(action: &Action) -> Option<String> {
    Some(match action {
        Action::PutFile { path, .. } | Action::SetAccess { path, .. } | Action::RemoveFile { path, .. } => {
            path.to_string()
        }
        Action::EnsureDirectory(directory) => directory.path.to_string(),
        Action::EnsureUser(user) => format!("user {}", user.name),
        Action::StartUnit { name, .. } | Action::StopUnit { name } => name.to_string(),
        Action::ImportImage { image, .. } => format!("image {image}"),
        Action::AwaitPod { pod, .. } => format!("pod {pod}"),
        Action::ReloadUnits
        | Action::YieldLeadership
        | Action::AwaitGone { .. }
        | Action::RestoreEtcd(_)
        | Action::ClearEtcd { .. }
        | Action::ReturnEtcd { .. } => {
            return None;
        }
    })
}

/// Objects that a plan back to the reached revision would touch: which, how they differ, in which fields.
pub(super) fn object_drift(plan: &Plan) -> Vec<(String, Change, Vec<String>)> {
    let actions = plan.stages.iter().flat_map(|stage| &stage.objects);
    let drift = actions.map(|action| match action {
        ObjectAction::Apply { id, fields, .. } if fields.is_empty() => (id.to_string(), Change::Removed, Vec::new()),
        ObjectAction::Apply { id, fields, .. } => (id.to_string(), Change::Changed, fields.clone()),
        ObjectAction::Delete { id, .. } => (id.to_string(), Change::Added, Vec::new()),
        ObjectAction::Forget { node } => (format!("Node {node}"), Change::Added, Vec::new()),
        ObjectAction::Node { node, .. } => {
            (format!("Node {node}"), Change::Changed, vec!["labels or taints".to_owned()])
        }
    });
    drift.collect()
}
