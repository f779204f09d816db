//! The commands that change no host.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::host::ssh;
use crate::model::Content;
use crate::model::HostName;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::access;
use crate::ops::connect;
use crate::ops::encryption;
use crate::ops::kept::Kept;
use crate::ops::last_snapshot;
use crate::ops::local::holder;
use crate::ops::prepare;
use crate::ops::saved;
use crate::plan;
use crate::store::StoreError;

/// A plan, ready to be printed.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Whether `up` would change nothing.
    pub empty: bool,
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
}

/// Shows what `up` would do; with `out` also saves it, sealed.
pub async fn plan(
    invocation: &Invocation,
    out: Option<&Path>,
    no_identity_backup: bool,
    talk: &Arc<dyn Talk>,
) -> Result<Shown, OpsError> {
    let mut prepared = prepare::prepare(invocation, None, talk).await?;
    if !prepared.plan.is_empty() {
        let due = last_snapshot::due(&prepared, &Invocation { command: "up", ..invocation.clone() }).await?;
        prepared.plan.notes.extend(due.map(|due| due.note));
    }
    if let Some(out) = out {
        let holder = holder(invocation, prepared.now)?;
        let cluster = prepared.local.cluster.clone();
        let secrets = prepared.target.secrets.clone();
        let lock = prepared.kept.for_writing(&cluster, &secrets, no_identity_backup, &holder, &**talk)?;
        let store = prepared.kept.store.as_ref();
        let store = store.ok_or_else(|| OpsError::Impossible("the state is not open".to_owned()))?;
        access::write(out, &saved::seal(&prepared, store)?)?;
        drop(lock);
        talk.say(&format!("plan: {}", out.display()));
    }
    let text = plan::text(&prepared.plan, plan::Detail::Folded);
    let json = plan::json(&prepared.plan);
    match encryption::ahead(&prepared).filter(|_| prepared.plan.is_empty()) {
        Some(ahead) => Ok(Shown { empty: false, text: format!("{}\n", encryption::note(&ahead)), json }),
        None => Ok(Shown { empty: prepared.plan.is_empty(), text, json }),
    }
}

/// Where a kubeconfig goes.
#[derive(Debug, Clone)]
pub enum Destination {
    /// Beside cluster.yml, as `up` does.
    Beside,
    /// This file.
    File(PathBuf),
    /// Into this kubeconfig.
    Merge(PathBuf),
    /// To the caller.
    Caller,
}

/// Issues a kubeconfig. It is returned where the destination is the caller.
pub fn write_kubeconfig(
    invocation: &Invocation,
    destination: &Destination,
    user: &str,
    days: u16,
    talk: &dyn Talk,
) -> Result<Option<Content>, OpsError> {
    let local = Local::read(invocation)?;
    let kept = Kept::open(&local.path, &local.cluster, talk)?;
    let Some(secrets) = &kept.secrets else {
        return Err(StoreError::NoState { folder: kept.folder }.into());
    };
    let content = access::issue(&local, secrets, user, u64::from(days), prepare::now())?;
    let path = match destination {
        Destination::Caller => return Ok(Some(content)),
        Destination::Beside => access::operator_file(&local.path),
        Destination::File(path) => path.clone(),
        Destination::Merge(path) => {
            access::merge_into(path, &content)?;
            talk.say(&format!("merged into {}", path.display()));
            return Ok(None);
        }
    };
    access::write(&path, &content)?;
    talk.say(&format!("kubeconfig: {} (for {days} days)", path.display()));
    Ok(None)
}

/// A host's SSH key as it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenKey {
    /// Whose.
    pub host: HostName,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// Algorithm.
    pub algorithm: String,
}

/// Fetches the hosts' SSH keys, shows them, and records them after a yes.
pub async fn trust(
    invocation: &Invocation,
    only: &[String],
    yes: bool,
    talk: &Arc<dyn Talk>,
) -> Result<Vec<SeenKey>, OpsError> {
    let local = Local::read(invocation)?;
    let resources = prepare::resources(invocation, talk);
    let mut keys = Vec::new();
    let mut errors = Vec::new();
    let wanted = |node: &&crate::config::Node| only.is_empty() || only.iter().any(|name| *name == node.name.as_str());
    for node in local.cluster.nodes.iter().filter(wanted) {
        match ssh::scan(&connect::target(&local.cluster, node, None), &resources).await {
            Ok(key) => keys.push((node.name.clone(), key)),
            Err(error) => errors.push(error),
        }
    }
    for (name, key) in &keys {
        talk.show(&format!("{name}: {} {}", key.algorithm, key.fingerprint));
    }
    if !errors.is_empty() {
        return Err(OpsError::Hosts(errors));
    }
    let question = "Record these keys? Compare them with what the hosts' consoles show first.";
    if !yes {
        match talk.confirm(question) {
            Some(true) => {}
            Some(false) => return Err(OpsError::Declined),
            None => return Err(OpsError::Unasked { what: "whether these keys are the hosts' own (pass --yes)" }),
        }
    }
    let files = connect::known_hosts(&local.cluster);
    let file = files.first().ok_or_else(|| OpsError::Impossible("there is no known_hosts file".to_owned()))?;
    for (_, key) in &keys {
        ssh::record(key, file).map_err(|source| OpsError::local(file, source))?;
    }
    let seen =
        keys.into_iter().map(|(host, key)| SeenKey { host, fingerprint: key.fingerprint, algorithm: key.algorithm });
    Ok(seen.collect())
}
