//! `plan --out` and `up --plan`: a plan with everything that it is made of, sealed and signed like the state.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Serialize;

use crate::config;
use crate::model::Blobs;
use crate::model::Content;
use crate::model::Desired;
use crate::model::Digest;
use crate::model::ObjectId;
use crate::model::Plan;
use crate::model::RevisionId;
use crate::ops::OpsError;
use crate::ops::kept::Kept;
use crate::ops::prepare::Prepared;
use crate::ops::prepare::Target;
use crate::ops::reach;
use crate::secrets;
use crate::store::Store;

/// Word in the signature: a saved plan is never taken for a copy of the state.
const KIND: &str = "plan";

/// A plan that was saved.
pub(super) struct Saved {
    /// What was shown.
    pub plan: Plan,
    /// What it leads to.
    pub target: Target,
    config: Digest,
    newest: Option<RevisionId>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    plan: Plan,
    desired: Desired,
    blobs: Vec<String>,
    secrets: String,
    config: Digest,
    newest: Option<RevisionId>,
}

/// The sealed document of what `prepared` would do.
pub(super) fn seal(prepared: &Prepared, store: &Store) -> Result<Content, OpsError> {
    let target = &prepared.target;
    let document = Document {
        plan: prepared.plan.clone(),
        desired: target.desired.clone(),
        blobs: target.blobs.0.values().map(|content| STANDARD.encode(content.expose())).collect(),
        secrets: STANDARD.encode(secrets::seal_form(&target.secrets).expose()),
        config: prepared.local.digest,
        newest: store.newest().map(|revision| revision.id.clone()),
    };
    let plain = serde_json::to_vec(&document).map_err(|error| OpsError::Impossible(error.to_string()))?;
    Ok(store.seal(KIND, &Content::new(plain))?)
}

/// Opens a saved plan.
pub(super) fn read(path: &Path, kept: &Kept) -> Result<Saved, OpsError> {
    let wrong = |reason: &str| OpsError::SavedPlan { path: path.to_owned(), reason: reason.to_owned() };
    let store = kept.store.as_ref().ok_or_else(|| wrong("the state that it was made from is not here"))?;
    let bytes = config::read_bytes(path).map_err(|source| OpsError::local(path, source))?;
    let plain = store.unseal(KIND, &Content::new(bytes))?;
    let unreadable = || wrong("it was written by another version of bastide");
    let document: Document = serde_json::from_slice(plain.expose()).map_err(|_| unreadable())?;
    let mut blobs = Blobs::default();
    for blob in &document.blobs {
        blobs.insert(Content::new(STANDARD.decode(blob).map_err(|_| unreadable())?));
    }
    let sealed = Content::new(STANDARD.decode(&document.secrets).map_err(|_| unreadable())?);
    let target = Target {
        desired: document.desired,
        blobs: std::sync::Arc::new(blobs),
        secrets: secrets::unseal_form(&sealed)?,
        issued: Vec::new(),
    };
    Ok(Saved { plan: document.plan, target, config: document.config, newest: document.newest })
}

impl Saved {
    /// Refuses where the file or the state changed since the plan was saved, or where a host moved so that more would be done
    /// than was shown.
    pub(super) fn fits(&self, path: &Path, prepared: &Prepared) -> Result<(), OpsError> {
        let wrong = |reason: &str| OpsError::SavedPlan { path: path.to_owned(), reason: reason.to_owned() };
        if self.config != prepared.local.digest {
            return Err(wrong("cluster.yml changed since the plan was made"));
        }
        let newest = prepared.kept.store.as_ref().and_then(|store| store.newest()).map(|revision| &revision.id);
        if self.newest.as_ref() != newest {
            return Err(wrong("another revision was made since"));
        }
        let seen = prepared.observed.objects.as_ref();
        let told: Vec<_> = prepared.plan.pruned_data().collect();
        let untold = |id: &&ObjectId| !told.contains(id) && seen.is_none_or(|seen| seen.owned.contains(*id));
        if let Some(id) = self.plan.pruned_data().find(untold) {
            return Err(wrong(&format!(
                "it deletes {id} with its data: say so again with --prune-data {}",
                id.reference()
            )));
        }
        if !reach::within(&prepared.plan, &self.plan) {
            return Err(wrong("a host moved since the plan was made; nothing was changed"));
        }
        Ok(())
    }
}
