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
use crate::route;
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
    /// By resource: `provider:name` of what reads it, the one that writes first, in the revision that was reached last.
    pub resources: BTreeMap<String, Vec<String>>,
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
    /// What the server says of the plugins that it asks; absent where it asks none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugins: Option<String>,
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

impl StoredObjects {
    /// Whether this key encrypted every one, or where it is none, all lie in clear.
    fn lies_under(&self, key: &KeyLabel) -> bool {
        let only = self.by_key.keys().all(|label| *label == key.to_string());
        self.unknown == 0 && only && if key.mark().is_none() { self.by_key.is_empty() } else { self.clear == 0 }
    }
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
    let said = wanted.values().find_map(|digest| known.get(digest)).map_or(&[][..], Vec::as_slice);
    let by_resource: BTreeMap<String, Vec<KeyLabel>> = route::resources_of(said)
        .into_iter()
        .map(|resource| {
            let keys = route::keys_for(said, &resource, &KeyLabel::clear());
            (resource, keys)
        })
        .collect();
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
    // Whoever writes the configuration may want further keys to stay; bastide's own leave with what they encrypted.
    let custom = local.cluster.services.api.custom_encryption.is_some();
    let one_key = objects.iter().all(|(resource, all)| {
        let keys = by_resource.get(resource).map_or(&[][..], Vec::as_slice);
        (custom || keys.len() == 1) && keys.first().is_some_and(|first| all.lies_under(first))
    });
    let settled = one_key && notes.is_empty() && api_servers.values().all(|server| server.ailments.is_empty());
    let words = |keys: Vec<KeyLabel>| keys.iter().map(ToString::to_string).collect();
    let resources = by_resource.into_iter().map(|(resource, keys)| (resource, words(keys))).collect();
    Ok(EncryptionStatus { schema: 1, settled, api_servers, resources, objects, notes })
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
    let asks = file.and_then(|digest| known.get(&digest)).into_iter().flatten().flat_map(|rule| &rule.keys);
    if asks.into_iter().any(|key| key.provider == "kms") {
        match doors.plugins(name).await {
            Ok(()) => server.plugins = Some("ok".to_owned()),
            Err(trouble) => {
                server.plugins = Some(trouble.to_string());
                server.ailments.push(format!("plugins: {trouble}"));
            }
        }
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
