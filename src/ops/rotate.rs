//! `rotate-certs`: the target is the one that was reached last, with renewed certificates.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio_util::sync::CancellationToken;

use crate::model::Action;
use crate::model::Blobs;
use crate::model::Desired;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::Plan;
use crate::model::RevisionId;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::custom;
use crate::ops::kept::Kept;
use crate::ops::prepare;
use crate::ops::prepare::Prepared;
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
use crate::secrets::Issued;
use crate::secrets::LeafId;
use crate::secrets::Secrets;
use crate::secrets::SystemEntropy;
use crate::secrets::Why;

/// The unit whose restart ends what goes through it.
const KUBELET: &str = "kubelet.service";
/// In the history, of certificates that an external authority signed.
const BROUGHT: &str = "certificates of an external authority";

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
        known.ok_or_else(|| {
            let nodes: Vec<_> = local.cluster.nodes.iter().map(|node| node.name.as_str()).collect();
            OpsError::Impossible(format!("--host: {text} is not in cluster.yml, whose nodes are {}", nodes.join(", ")))
        })
    };
    let renewal = Renewal {
        services: options.services.iter().copied().collect(),
        hosts: options.hosts.iter().map(host).collect::<Result<_, _>>()?,
        due_days: options.due_days,
    };
    let terms = secrets::Terms::of(&local.cluster);
    let now = prepare::now();
    let config: Mutex<Option<Digest>> = Mutex::new(None);
    let mut errand = Wanted {
        why: if invocation.custom_certs.is_some() { BROUGHT.to_owned() } else { renewal.to_string() },
        renewal,
        pairs: None,
        folder: invocation.custom_certs.as_deref(),
        terms,
    };
    let mut prepared = loop {
        let renewed = |kept: &Kept| -> Result<Target, OpsError> {
            let (target, from) = target(kept, &errand, now, &**talk)?;
            *config.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
            Ok(target)
        };
        let prepared = prepare::prepare(invocation, Some(&renewed), talk).await?;
        match errand.with_pairs(&prepared, now)? {
            Some(with_pairs) => errand = with_pairs,
            None => break prepared,
        }
    };
    if errand.folder.is_some() || !errand.renewal.is_whole() {
        let hosts = plan::left_ended(&prepared.target.desired, &prepared.observed, now);
        if !hosts.is_empty() {
            return Err(OpsError::AllEnded { hosts: hosts.into_iter().collect() });
        }
    }
    let config = config.into_inner().unwrap_or_else(PoisonError::into_inner);
    if restarts_a_kubelet(&prepared.plan) {
        prepared.plan.notes.push(
            "certificates are renewed; exec, attach, port-forward and followed logs through a restarted kubelet end once"
                .to_owned(),
        );
    }
    let errand = Errand { why: errand.why, config, yes: options.yes, timings: options.timings, ..Errand::default() };
    Box::pin(reach::reach(prepared, invocation, &errand, talk, cancel)).await
}

fn restarts_a_kubelet(plan: &Plan) -> bool {
    let kubelet =
        |action: &Action| matches!(action, Action::StartUnit { name, restart: true, .. } if name.as_str() == KUBELET);
    plan.stages.iter().flat_map(|stage| &stage.steps).any(|step| step.batch.0.iter().any(kubelet))
}

/// What was asked for.
#[derive(Clone)]
struct Wanted<'a> {
    /// In the history; a run that died is known by it.
    why: String,
    renewal: Renewal,
    /// Hosts whose kubelet's own pair is due; none where nobody has looked yet.
    pairs: Option<BTreeSet<HostName>>,
    /// Where an external authority's certificates lie. What bastide issues itself is then renewed only where it has ended.
    folder: Option<&'a Path>,
    terms: secrets::Terms,
}

impl Wanted<'_> {
    /// The same by what lies on the hosts of pairs that kubelets renew by themselves; none where that makes no difference.
    fn with_pairs(&self, prepared: &Prepared, now: i64) -> Result<Option<Self>, OpsError> {
        let until = self.renewal.due_until(now).filter(|_| self.pairs.is_none());
        let Some(until) = until else { return Ok(None) };
        let pairs = plan::pairs_ending(&prepared.target.desired, &prepared.observed, until);
        let seen = Self { pairs: Some(pairs), ..self.clone() };
        let today = prepared.kept.secrets()?;
        Ok((seen.leaves(today, now) != self.leaves(today, now)).then_some(seen))
    }

    /// What is to be issued.
    fn leaves(&self, secrets: &Secrets, now: i64) -> BTreeSet<LeafId> {
        if self.folder.is_none() {
            return route::renewed_leaves(secrets, &self.renewal, self.pairs.as_ref(), now);
        }
        let external = secrets.external();
        let own = secrets
            .leaves
            .iter()
            .filter(|(id, leaf)| !external.contains(&secrets::issuer(id.name)) && leaf.not_after <= now);
        own.map(|(id, _)| id.clone()).collect()
    }
}

/// The last reached target with renewed leaves, and the cluster.yml that it came from.
fn target(kept: &Kept, wanted: &Wanted<'_>, now: i64, talk: &dyn Talk) -> Result<(Target, Digest), OpsError> {
    let store = kept.store()?;
    let load = |id: &RevisionId| -> Result<_, OpsError> {
        let (revision, desired, blobs, sealed) = store.load(id)?;
        Ok((revision.config, desired, blobs, secrets::unseal_form(&sealed)?))
    };
    let newest = store.newest().ok_or(OpsError::NothingReached)?;
    if !newest.was_reached() {
        // The same command goes on with the certificates that it has begun to hand out.
        if newest.command == ROTATE && newest.why == wanted.why {
            let (config, desired, blobs, secrets) = load(&newest.id)?;
            // But for those that have ended since: nobody would come back with them.
            let mut leaves = wanted.leaves(&secrets, now);
            leaves.retain(|id| secrets.leaves.get(id).is_some_and(|leaf| leaf.not_after <= now));
            return Ok((renewed(&desired, &blobs, &secrets, &secrets, &leaves, wanted.terms, now)?, config));
        }
        return Err(OpsError::Unfinished { revision: newest.id.clone(), command: newest.command.clone() });
    }
    let (config, desired, blobs, today) = load(&newest.id)?;
    let Some(folder) = wanted.folder else {
        let leaves = wanted.leaves(&today, now);
        if leaves.is_empty() && wanted.renewal.due_days.is_none() {
            let whose = wanted.renewal.whose();
            return Err(OpsError::Impossible(format!(
                "this cluster has no such certificate ({whose}); nothing was changed"
            )));
        }
        return Ok((renewed(&desired, &blobs, &today, &today, &leaves, wanted.terms, now)?, config));
    };
    let brought = custom::bring_again(kept, &today, folder, wanted.terms, now, talk)?;
    let leaves = wanted.leaves(&brought.secrets, now);
    let mut target = renewed(&desired, &blobs, &today, &brought.secrets, &leaves, wanted.terms, now)?;
    target.issued.extend(brought.changed.into_iter().map(|id| Issued { id, why: Why::Brought }));
    Ok((target, config))
}

/// A target with the certificates of `with` in the place of today's, those that are `wanted` issued anew.
fn renewed(
    desired: &Desired,
    blobs: &Blobs,
    today: &Secrets,
    with: &Secrets,
    wanted: &BTreeSet<LeafId>,
    terms: secrets::Terms,
    now: i64,
) -> Result<Target, OpsError> {
    let (secrets, issued) = secrets::renew(with, wanted, terms, now, &mut SystemEntropy)?;
    let renewed = route::retarget(desired, blobs, today, &secrets);
    let mut desired = renewed.desired;
    route::replace_kubelet_pairs(&mut desired, &secrets, wanted);
    Ok(Target { desired, blobs: Arc::new(renewed.blobs), secrets, issued })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Wanted;
    use crate::model::Content;
    use crate::render::tests::support;
    use crate::route::Renewal;
    use crate::secrets;
    use crate::secrets::AuthorityName;

    #[test]
    fn with_certificates_that_are_brought_along_only_what_has_ended_is_issued() {
        let cluster = support::cluster(support::ONE_HOST);
        let mut secrets = support::secrets(&cluster);
        let set = secrets.authorities.get_mut(&AuthorityName::Kubernetes).unwrap();
        (set.external, set.key) = (true, Content::default());
        let wanted = Wanted {
            why: String::new(),
            renewal: Renewal::default(),
            pairs: None,
            folder: Some("folder".as_ref()),
            terms: secrets::Terms::of(&cluster),
        };
        let end = secrets.leaves.values().map(|leaf| leaf.not_after).max().unwrap();
        assert!(wanted.leaves(&secrets, end - 1).is_empty());
        let ended = wanted.leaves(&secrets, end);
        assert!(!ended.is_empty() && ended.iter().all(|id| secrets::issuer(id.name) != AuthorityName::Kubernetes));
        assert!(secrets::renew(&secrets, &ended, wanted.terms, end, &mut secrets::SeededEntropy::new(1)).is_ok());
    }
}
