//! Which key each object in etcd is encrypted with, as etcd itself tells.

use crate::api::etcd::Etcd;
use crate::api::probe::ProbeError;
use crate::host::Host;
use crate::model::Blobs;
use crate::model::Desired;
use crate::ops::OpsError;
use crate::ops::doors::Doors;
use crate::ops::flags;
use crate::secrets::KeyLabel;

/// Where the API server keeps everything, unless `--etcd-prefix` says otherwise.
const PREFIX: &str = "/registry";
/// What every encrypted value begins with.
const ENCRYPTED: &str = "k8s:enc:";

/// How an object lies in etcd.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Under {
    /// Encrypted with this key.
    Key(KeyLabel),
    /// Encrypted with one that is not among those that were asked for.
    Another,
    /// Not encrypted.
    Clear,
}

/// An object in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// `secrets`.
    pub resource: String,
    /// Where it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// How it lies there.
    pub under: Under,
}

impl std::fmt::Display for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let namespace = self.namespace.as_ref().map(|text| format!("{text}/")).unwrap_or_default();
        write!(f, "{} {namespace}{}", self.resource, self.name)
    }
}

/// Whether objects of this resource can be found: those of the core group, by their plain name.
pub(super) fn countable(resource: &str) -> bool {
    !resource.contains(['*', '.'])
}

/// Where objects of a core resource lie in etcd (k8s.io/kubernetes, `pkg/kubeapiserver/default_storage_factory_builder.go`
/// and the registries of services).
pub(super) fn folder(prefix: &str, resource: &str) -> String {
    let below = match resource {
        "nodes" => "minions",
        "replicationcontrollers" => "controllers",
        "services" => "services/specs",
        "endpoints" => "services/endpoints",
        other => other,
    };
    format!("{prefix}/{below}/")
}

/// Every object of `resource`, from the first etcd member that answers. `keys` are those that it may be encrypted with, the
/// likeliest first.
pub(super) async fn census<H: Host>(
    doors: &Doors<H>,
    prefix: &str,
    resource: &str,
    keys: &[KeyLabel],
) -> Result<Vec<Stored>, OpsError> {
    let mut last =
        OpsError::Impossible("no etcd member's host answers, so nobody can say what is encrypted how".to_owned());
    for (host, etcd) in doors.etcd_members() {
        match counted_by(&etcd, prefix, resource, keys).await {
            Ok(found) => return Ok(found),
            Err(error) => last = OpsError::etcd(host)(error),
        }
    }
    Err(last)
}

async fn counted_by<H: Host>(
    etcd: &Etcd<'_, H>,
    prefix: &str,
    resource: &str,
    keys: &[KeyLabel],
) -> Result<Vec<Stored>, ProbeError> {
    let folder = folder(prefix, resource);
    let names = etcd.names(&folder).await?;
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let known: Vec<_> = keys.iter().filter_map(|key| Some((Under::Key(key.clone()), key.mark()?))).collect();
    let (unders, mut marks): (Vec<_>, Vec<_>) = known.into_iter().unzip();
    marks.push(ENCRYPTED.to_owned());
    let answers = etcd.begin_with(&all, &marks).await?;
    let mut found = Vec::with_capacity(all.len());
    let mut clear = Vec::new();
    for (name, answer) in all.into_iter().zip(answers) {
        match answer {
            Some(at) => found.push((name, unders.get(at).cloned().unwrap_or(Under::Another))),
            None => clear.push(name),
        }
    }
    // What was deleted since the names were listed begins with nothing: it is no object any more.
    if !clear.is_empty() {
        let there = etcd.names(&folder).await?;
        clear.retain(|name| there.iter().any(|there| there == name));
    }
    found.extend(clear.into_iter().map(|name| (name, Under::Clear)));
    found.sort();
    Ok(found
        .into_iter()
        .map(|(name, under)| stored(resource, name.strip_prefix(&folder).unwrap_or(name), under))
        .collect())
}

/// Everything under `prefix` that one of `keys` encrypted, but for what lies in the folders of `counted`.
pub(super) async fn scan<H: Host>(
    doors: &Doors<H>,
    prefix: &str,
    counted: &[String],
    keys: &[KeyLabel],
) -> Result<Vec<Stored>, OpsError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut last =
        OpsError::Impossible("no etcd member's host answers, so nobody can say what is encrypted how".to_owned());
    for (host, etcd) in doors.etcd_members() {
        match scanned_by(&etcd, prefix, counted, keys).await {
            Ok(found) => return Ok(found),
            Err(error) => last = OpsError::etcd(host)(error),
        }
    }
    Err(last)
}

async fn scanned_by<H: Host>(
    etcd: &Etcd<'_, H>,
    prefix: &str,
    counted: &[String],
    keys: &[KeyLabel],
) -> Result<Vec<Stored>, ProbeError> {
    let mut names = etcd.names(&format!("{prefix}/")).await?;
    names.retain(|name| !counted.iter().any(|folder| name.starts_with(folder.as_str())));
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let marks: Vec<_> = keys.iter().filter_map(|key| Some((key.clone(), key.mark()?))).collect();
    let (keys, marks): (Vec<_>, Vec<_>) = marks.into_iter().unzip();
    let answers = etcd.begin_with(&all, &marks).await?;
    let found = all.into_iter().zip(answers).filter_map(|(name, at)| {
        let under = Under::Key(keys.get(at?)?.clone());
        Some(Stored { resource: "etcd's key".to_owned(), namespace: None, name: name.to_owned(), under })
    });
    Ok(found.collect())
}

/// `default/token` or `token`.
fn stored(resource: &str, path: &str, under: Under) -> Stored {
    let (namespace, name) = match path.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, path),
    };
    Stored { resource: resource.to_owned(), namespace, name: name.to_owned(), under }
}

/// Under what the API servers of this target keep everything in etcd.
pub(in crate::ops) fn prefix(desired: &Desired, blobs: &Blobs) -> String {
    let told = flags::of_api_servers(desired, blobs, "etcd-prefix");
    let said = told.iter().find_map(|values| values.first()).map(|text| format!("/{}", text.trim_matches('/')));
    said.unwrap_or_else(|| PREFIX.to_owned())
}
