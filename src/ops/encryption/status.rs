//! `encrypt status`: which keys each API server has, and with which everything is encrypted.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use serde::Serialize;

use crate::model::Digest;
use crate::model::HostName;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::doors::Doors;
use crate::ops::encryption::census::Stored;
use crate::ops::encryption::census::Under;
use crate::ops::encryption::census::census;
use crate::ops::encryption::census::countable;
use crate::ops::encryption::census::prefix;
use crate::ops::encryption::loaded::on_hosts;
use crate::ops::encryption::loaded::rules_by_digest;
use crate::ops::encryption::loaded::wanted;
use crate::ops::kept::Kept;
use crate::ops::prepare;
use crate::ops::prepare::Target;
use crate::route::KeyRule;
use crate::secrets;
use crate::secrets::KeyLabel;

/// The whole picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EncryptionStatus {
    /// Layout of this document.
    pub schema: u32,
    /// Whether every API server works with the same keys, those of the state, and everything is encrypted with the one that writes.
    pub settled: bool,
    /// By host.
    pub api_servers: BTreeMap<HostName, ServerKeys>,
    /// By resource, as etcd has it.
    pub objects: BTreeMap<String, StoredObjects>,
    /// What should be looked at, one sentence each.
    pub notes: Vec<String>,
}

/// One API server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServerKeys {
    /// `provider:name`, the one that writes first; empty where the file is none that bastide knows.
    pub keys: Vec<String>,
    /// Digest of the configuration on the host's disk.
    pub file: Option<Digest>,
    /// Digest of the one that the server works with.
    pub loaded: Option<Digest>,
    /// What is wrong.
    pub ailments: Vec<String>,
}

/// The objects of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoredObjects {
    /// How many by `provider:name`.
    pub by_key: BTreeMap<String, usize>,
    /// How many are encrypted with a key that no API server has.
    pub unknown: usize,
    /// How many lie there in clear.
    pub clear: usize,
}

/// Asks every API server, and etcd.
pub async fn encryption_status(invocation: &Invocation, talk: &Arc<dyn Talk>) -> Result<EncryptionStatus, OpsError> {
    let local = Local::read(invocation)?;
    let kept = Kept::open(&local.path, &local.cluster, &**talk)?;
    let store = kept.store()?;
    let newest = store.newest().ok_or(OpsError::NothingReached)?.id.clone();
    let reached = store.reached().ok_or(OpsError::NothingReached)?.id.clone();
    let (_, desired, blobs, sealed) = store.load(&reached)?;
    let secrets = secrets::unseal_form(&sealed)?;
    let mut known = rules_by_digest(&desired, &blobs);
    if newest != reached {
        let (_, desired, blobs, _) = store.load(&newest)?;
        known.extend(rules_by_digest(&desired, &blobs));
    }
    let target = Target { desired, blobs: Arc::new(blobs), secrets, issued: Vec::new() };
    let fleet = prepare::fleet(&local, invocation, talk).await?;
    let observed = prepare::look(&fleet, &prepare::scopes(&target.desired, None)).await?;
    let doors = prepare::doors(&local, &fleet, &target, &observed, prepare::now())?;

    let wanted = wanted(&target.desired);
    let asked = on_hosts(&target.desired, &observed).into_iter().map(|(name, file)| {
        let (doors, known, wanted) = (&doors, &known, wanted.get(&name).copied());
        async move {
            let server = server(doors, &name, file, wanted, known).await;
            (name, server)
        }
    });
    let api_servers: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
    let mut notes = Vec::new();
    let present: Vec<&KeyRule> = api_servers.values().filter_map(|server| known.get(&server.file?)).flatten().collect();
    let mut objects = BTreeMap::new();
    let prefix = prefix(&target.desired, &target.blobs);
    for resource in resources(&present) {
        if !countable(&resource) {
            notes.push(format!("{resource}: not counted; only resources of the core group are"));
            continue;
        }
        let all = census(&doors, &prefix, &resource, &keys(&present, &resource)).await?;
        objects.insert(resource, counted(&all));
    }
    let one_key = objects.values().all(|all| all.by_key.len() <= 1 && all.unknown == 0 && all.clear == 0);
    let settled = one_key
        && notes.is_empty()
        && api_servers.values().all(|server| server.ailments.is_empty() && server.keys.len() == 1);
    Ok(EncryptionStatus { schema: 1, settled, api_servers, objects, notes })
}

async fn server(
    doors: &Doors<RealHost>,
    name: &HostName,
    file: Option<Digest>,
    wanted: Option<Digest>,
    known: &BTreeMap<Digest, Vec<KeyRule>>,
) -> ServerKeys {
    let mut server = ServerKeys { file, ..ServerKeys::default() };
    match doors.loaded_encryption(name).await {
        Ok(loaded) => server.loaded = loaded,
        Err(trouble) => server.ailments.push(trouble.to_string()),
    }
    match file {
        None => server.ailments.push("no configuration was seen on its host".to_owned()),
        Some(digest) => match known.get(&digest) {
            Some(rules) => {
                let mut keys: Vec<String> = Vec::new();
                for key in rules.iter().flat_map(|rule| &rule.keys).map(ToString::to_string) {
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
                server.keys = keys;
            }
            None => server.ailments.push("the configuration on its host is none that bastide wrote".to_owned()),
        },
    }
    if file.is_some() && file != wanted {
        server.ailments.push("its host has another configuration than the revision that was reached last".to_owned());
    }
    if server.loaded.is_some() && server.loaded != file {
        server
            .ailments
            .push("it works with another configuration than its host has; it looks once a minute".to_owned());
    }
    server
}

fn resources(rules: &[&KeyRule]) -> Vec<String> {
    let mut all: Vec<_> = rules.iter().flat_map(|rule| &rule.resources).cloned().collect();
    all.sort();
    all.dedup();
    all
}

fn keys(rules: &[&KeyRule], resource: &str) -> Vec<KeyLabel> {
    let mut keys: Vec<KeyLabel> = Vec::new();
    for rule in rules.iter().filter(|rule| rule.resources.iter().any(|name| name == resource)) {
        for key in &rule.keys {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
    }
    keys
}

fn counted(all: &[Stored]) -> StoredObjects {
    let mut counts = StoredObjects::default();
    for stored in all {
        match &stored.under {
            Under::Key(key) => *counts.by_key.entry(key.to_string()).or_default() += 1,
            Under::Another => counts.unknown += 1,
            Under::Clear => counts.clear += 1,
        }
    }
    counts
}
