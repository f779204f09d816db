//! `rotate-certs`: the target is the one that was reached last, with renewed certificates.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio_util::sync::CancellationToken;

use crate::model::Blobs;
use crate::model::Desired;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::RevisionId;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::kept::Kept;
use crate::ops::prepare;
use crate::ops::prepare::Target;
use crate::ops::reach;
use crate::ops::reach::Errand;
use crate::ops::reach::Reached;
use crate::ops::rollback::ROTATE;
use crate::plan;
use crate::route;
use crate::route::Renewal;
use crate::route::Service;
use crate::secrets;
use crate::secrets::LeafId;
use crate::secrets::Secrets;
use crate::secrets::SystemEntropy;

/// What `rotate-certs` was told.
#[derive(Debug, Clone, Default)]
pub struct RotateOptions {
    /// `--service`
    pub services: Vec<Service>,
    /// `--host`
    pub hosts: Vec<String>,
    /// `--due`
    pub due_days: Option<u32>,
    /// `--yes`
    pub yes: bool,
    /// `--timings`
    pub timings: bool,
}

/// Renews certificates.
pub async fn rotate(
    invocation: &Invocation,
    options: &RotateOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let local = Local::read(invocation)?;
    let host = |text: &String| {
        let name = HostName::new(text.clone()).ok();
        let known = name.filter(|name| local.cluster.nodes.iter().any(|node| node.name == *name));
        known.ok_or_else(|| OpsError::Impossible(format!("--host: {text} is not in cluster.yml")))
    };
    let renewal = Renewal {
        services: options.services.iter().copied().collect(),
        hosts: options.hosts.iter().map(host).collect::<Result<_, _>>()?,
        due_days: options.due_days,
    };
    let terms = secrets::Terms::of(&local.cluster);
    let now = prepare::now();
    let config: Mutex<Option<Digest>> = Mutex::new(None);
    let renewed = |kept: &Kept| -> Result<Target, OpsError> {
        let (target, from) = target(kept, &renewal, terms, now)?;
        *config.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
        Ok(target)
    };
    let mut prepared = prepare::prepare(invocation, Some(&renewed), talk).await?;
    if !renewal.is_whole() {
        let hosts = plan::left_ended(&prepared.target.desired, &prepared.observed, now);
        if !hosts.is_empty() {
            return Err(OpsError::AllEnded { hosts: hosts.into_iter().collect() });
        }
    }
    let config = config.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !prepared.plan.is_empty() {
        prepared.plan.notes.push(
            "certificates are renewed; exec, attach, port-forward and followed logs through a restarted kubelet end once"
                .to_owned(),
        );
    }
    let errand =
        Errand { why: renewal.to_string(), config, yes: options.yes, timings: options.timings, ..Errand::default() };
    Box::pin(reach::reach(prepared, invocation, &errand, talk, cancel)).await
}

/// The last reached target with renewed leaves, and the cluster.yml that it came from.
fn target(kept: &Kept, renewal: &Renewal, terms: secrets::Terms, now: i64) -> Result<(Target, Digest), OpsError> {
    let store = kept.store()?;
    let load = |id: &RevisionId| -> Result<_, OpsError> {
        let (revision, desired, blobs, sealed) = store.load(id)?;
        Ok((revision.config, desired, blobs, secrets::unseal_form(&sealed)?))
    };
    let newest = store.newest().ok_or(OpsError::NothingReached)?;
    if !newest.was_reached() {
        // The same command goes on with the certificates that it has begun to hand out.
        if newest.command == ROTATE && newest.why == renewal.to_string() {
            let (config, desired, blobs, secrets) = load(&newest.id)?;
            // But for those that have ended since: nobody would come back with them.
            let mut wanted = route::renewed_leaves(&secrets, renewal, now);
            wanted.retain(|id| secrets.leaves.get(id).is_some_and(|leaf| leaf.not_after <= now));
            return Ok((renewed(&desired, &blobs, &secrets, &wanted, terms, now)?, config));
        }
        return Err(OpsError::Unfinished { revision: newest.id.clone(), command: newest.command.clone() });
    }
    let (config, desired, blobs, today) = load(&newest.id)?;
    let wanted = route::renewed_leaves(&today, renewal, now);
    Ok((renewed(&desired, &blobs, &today, &wanted, terms, now)?, config))
}

/// A target with other certificates in the place of those that are `wanted` anew.
fn renewed(
    desired: &Desired,
    blobs: &Blobs,
    today: &Secrets,
    wanted: &BTreeSet<LeafId>,
    terms: secrets::Terms,
    now: i64,
) -> Result<Target, OpsError> {
    let (secrets, issued) = secrets::renew(today, wanted, terms, now, &mut SystemEntropy)?;
    let renewed = route::retarget(desired, blobs, today, &secrets);
    let mut desired = renewed.desired;
    route::replace_kubelet_pairs(&mut desired, &secrets, wanted);
    Ok(Target { desired, blobs: Arc::new(renewed.blobs), secrets, issued })
}
