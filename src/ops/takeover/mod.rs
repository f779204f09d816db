//! `state recover --without-identity`: the state is rebuilt from the keys that the hosts hold, for a new identity, and other
//! authorities take the place of those whose keys are on no host.

mod find;
mod look;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::model::HostName;
use crate::model::Scope;
use crate::ops::ExchangeOptions;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::exchange;
use crate::ops::kept::Kept;
use crate::ops::prepare;
use crate::ops::prepare::Target;
use crate::ops::reach;
use crate::ops::reach::Errand;
use crate::ops::reach::Reached;
use crate::ops::remove::agree;
use crate::ops::takeover::find::Finding;
use crate::ops::takeover::find::find;
use crate::ops::takeover::find::keep;
use crate::ops::takeover::look::Here;
use crate::ops::takeover::look::here;
use crate::ops::takeover::look::records;
use crate::plan;
use crate::route::Exchange;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::Secrets;
use crate::store;

/// What `state recover --without-identity` was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakeOverOptions {
    /// `--yes`
    pub yes: bool,
    /// `--cluster NAME`
    pub cluster: Option<String>,
    /// `--no-identity-backup`
    pub no_identity_backup: bool,
}

/// Takes a cluster over whose state nobody can open any more, or goes on with that.
pub async fn take_over(
    invocation: &Invocation,
    options: &TakeOverOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let local = Local::read(invocation)?;
    let fleet = prepare::fleet(&local, invocation, talk).await?;
    let scopes: BTreeMap<_, _> = local.cluster.nodes.iter().map(|node| (node.name.clone(), Scope::default())).collect();
    let seen = prepare::look(&fleet, &scopes).await?;
    let records = records(&local, &seen)?;
    match here(&local, &records.cluster, &fleet, &**talk).await? {
        Here::State(kept) => match left(&kept)? {
            Some(_) => {
                talk.show("goes on with taking the cluster over");
                confirm(&local, options, &**talk)?;
            }
            None if was_taken_over(&kept) => return Ok(Reached::Already),
            None => {
                return Err(OpsError::Impossible(format!(
                    "the state in {} opens with its identity, and nothing is lost: there is nothing to take over",
                    kept.folder.display()
                )));
            }
        },
        Here::Nothing { kept, made } => {
            let found = find(&local, *kept, &fleet, &seen, &records, talk).await?;
            let place = store::identity_path(&store::identities_folder()?, &records.cluster);
            talk.show(&words(&local, &found, &place));
            confirm(&local, options, &**talk)?;
            keep(&local, found, made, invocation, options, &fleet, &records, &**talk).await?;
        }
    }
    drop(fleet);
    let reached = Box::pin(walk(&local, invocation, talk, cancel)).await?;
    talk.warn(
        "snapshots that were taken before open with the lost identity alone: take one now (`bastide etcd snapshot save`), and remove \
         those that nobody can open",
    );
    Ok(reached)
}

fn confirm(local: &Local, options: &TakeOverOptions, talk: &dyn Talk) -> Result<(), OpsError> {
    let question = "This makes new authorities for etcd and the front proxy. Type the cluster's name to go on";
    agree(&local.cluster.name, options.yes, options.cluster.as_deref(), question, talk)
}

/// The authorities of these keys of which one has no key.
fn lost(secrets: &Secrets) -> BTreeSet<AuthorityName> {
    secrets.authorities.iter().filter(|(_, set)| set.is_lost()).map(|(name, _)| *name).collect()
}

/// What is going to happen, before anybody agrees.
fn words(local: &Local, found: &Finding, identity: &Path) -> String {
    let lost: Vec<_> = found.lost.iter().map(|name| name.as_str()).collect();
    let mut text = format!(
        "Cluster {} is taken over from its hosts, and a new identity is made for its state:\n  \
         kept      the Kubernetes authority, the key for service-account tokens, the keys for encryption at rest,\n            \
         every certificate that the hosts hold, etcd's data\n  \
         replaced  the authorities whose keys are on no host ({}), in three legs, while the cluster runs: others are accepted\n            \
         beside them, then these issue and their certificates are issued anew, then the old ones are accepted no more;\n            \
         the sealed copies of the state on the control planes and etcd hosts\n  \
         lost      the history and its targets (no rollback leads to before this), and every snapshot that is sealed to\n            \
         the lost identity alone\n",
        local.cluster.name,
        lost.join(", ")
    );
    let _ = writeln!(
        text,
        "Whoever still has the identity elsewhere should stop here, and put it at {}: afterwards it opens nothing of this cluster any \
         more, and theirs is the state that is lost.",
        identity.display()
    );
    if !local.cluster.options.recipients.is_empty() {
        text.push_str(
            "Whoever has the private key of one of bastide.state.recipients should stop here: `bastide state recover --host HOST \
             --recipient-key FILE` brings the identity back, and nothing is lost.\n",
        );
    }
    if !found.plan.is_empty() {
        let changes = plan::text(&found.plan, plan::Detail::Folded);
        let _ = write!(text, "Before the legs the hosts are brought to what cluster.yml says:\n{changes}");
    }
    text
}

/// Which authorities are still to be replaced; none where all are.
fn left(kept: &Kept) -> Result<Option<BTreeSet<AuthorityName>>, OpsError> {
    let today = lost(kept.secrets()?);
    if !today.is_empty() {
        return Ok(Some(today));
    }
    // In a last leg that was begun and not reached nothing of the old ones is left, but on the hosts.
    let store = kept.store()?;
    let open = store.newest().is_some_and(|newest| !newest.was_reached());
    let Some(reached) = store.reached().filter(|_| open) else { return Ok(None) };
    let before = lost(&secrets::unseal_form(&store.load(&reached.id)?.3)?);
    Ok((!before.is_empty()).then_some(before))
}

fn was_taken_over(kept: &Kept) -> bool {
    kept.store.as_ref().is_some_and(|store| store.history().iter().any(|revision| revision.command == COMMAND))
}

/// The verb in the history.
const COMMAND: &str = "state recover";

/// What differs from cluster.yml, and then the legs that are left.
async fn walk(
    local: &Local,
    invocation: &Invocation,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    let Some(names) = left(&kept)? else { return Ok(Reached::Already) };
    let begun = Exchange::of_authorities(kept.secrets()?).is_some();
    if !begun && lost(kept.secrets()?) == names {
        let newest = |kept: &Kept| -> Result<Target, OpsError> {
            let store = kept.store()?;
            let newest = store.newest().ok_or(OpsError::NothingReached)?;
            let (_, desired, blobs, form) = store.load(&newest.id)?;
            Ok(Target { desired, blobs: Arc::new(blobs), secrets: secrets::unseal_form(&form)?, issued: Vec::new() })
        };
        let prepared = prepare::prepare(invocation, Some(&newest), talk).await?;
        let config = prepared.kept.store()?.newest().map(|newest| newest.config);
        let why = "what the hosts lacked of cluster.yml".to_owned();
        let errand = Errand { why, config, yes: true, ..Errand::default() };
        if let Reached::Except(hosts) = Box::pin(reach::reach(prepared, invocation, &errand, talk, cancel)).await? {
            talk.warn(&format!(
                "the last leg waits for {}",
                hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ")
            ));
        }
    }
    drop(kept);
    let options = ExchangeOptions {
        authorities: true,
        names: if begun { BTreeSet::new() } else { names },
        yes: true,
        ..ExchangeOptions::default()
    };
    // One that is sealed to the new identity is worth most when all keys are the new ones, and must not keep anybody from getting there.
    let invocation = Invocation { no_last_snapshot: true, ..invocation.clone() };
    Box::pin(exchange::exchange(&invocation, &options, talk, cancel)).await
}
