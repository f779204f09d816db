//! `etcd recover`: quorum is lost, and the database comes from a member that survived.
//!
//! etcd's documentation names two ways. `etcdutl snapshot restore` from the file `member/snap/db` "might lose data that has not been
//! written yet, but is included in the wal": etcd writes its database every 100 ms. `--force-new-cluster` reads the log, and throws
//! away what the member did not know to be committed. So both, in this order, on a copy: everything in the log is declared
//! committed ([`crate::snapshot::read_log`]), an etcd runs on it alone, and what it holds is saved as a snapshot, from which every
//! member is restored as by any other one.

use std::sync::Arc;

use futures::future::join_all;
use tokio::runtime::Handle;

use crate::host::LogChange;
use crate::host::Survivor;
use crate::model::Digest;
use crate::model::EtcdRestore;
use crate::model::HostName;
use crate::model::ImageRef;
use crate::model::KubeVersion;
use crate::model::RemotePath;
use crate::model::SnapshotName;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::restore_source::Source;
use crate::ops::snapshot::Site;
use crate::ops::snapshot::pipe::Door;
use crate::ops::snapshot::pipe::Remote;
use crate::route::restore::Database;
use crate::snapshot;
use crate::snapshot::LogEnd;

/// Where the database lies until the restore has come to its end.
const FOLDER: &str = "/var/lib/bastide/recovered";

/// What the token says a recovery was made from, before the database is there.
pub(super) fn seed(host: &HostName) -> Digest {
    Digest::of(format!("survivor {host}").as_bytes())
}

/// Refuses where nothing is lost, or this is no survivor. Gives what a person should know of the members that still answer.
pub(super) async fn judge(
    site: &Site,
    host: &HostName,
    wanted: KubeVersion,
    goes_on: bool,
) -> Result<Vec<String>, OpsError> {
    let impossible = |words: String| Err(OpsError::Impossible(words));
    if !site.members().any(|member| member == host) {
        return impossible(format!("--from {host}: is no etcd host of this cluster"));
    }
    if site.fleet.get(host).is_none() {
        return impossible(format!("--from {host}: does not answer"));
    }
    if site.desired.kubernetes.minor != wanted.minor {
        return impossible(format!(
            "{host} holds data of Kubernetes {}, and cluster.yml asks for {wanted}: write `kubernetes_version: {}` and name its \
             bundle, recover, and upgrade afterwards",
            site.desired.kubernetes, site.desired.kubernetes
        ));
    }
    if goes_on {
        return Ok(Vec::new());
    }
    let asked = site.members().filter_map(|name| Some((name, site.etcd(name)?)));
    let asked = asked.map(|(name, etcd)| async move { (name, etcd.count().await.is_ok(), etcd.status().await.ok()) });
    let answers = join_all(asked).await;
    if let Some((name, ..)) = answers.iter().find(|(_, commits, _)| *commits) {
        return impossible(format!(
            "{name}: etcd has a quorum and serves: nothing is to be recovered. To go back to an earlier time, restore a snapshot"
        ));
    }
    let seen: Vec<_> =
        answers.iter().filter_map(|(name, _, status)| Some((*name, status.as_ref()?.raft_index))).collect();
    Ok(ahead(host, &seen).into_iter().collect())
}

/// Whether another member that answers is known to have more.
fn ahead(host: &HostName, seen: &[(&HostName, u64)]) -> Option<String> {
    let own = seen.iter().find(|(name, _)| *name == host).map(|(_, index)| *index)?;
    let (name, index) = seen.iter().max_by_key(|(_, index)| *index)?;
    (*index > own).then(|| {
        format!("{name} holds more than {host}: entries of the log up to {index}, not to {own}; --from {name} would lose less")
    })
}

/// What a person should know before saying yes.
pub(super) fn notes(host: &HostName, goes_on: bool) -> Vec<String> {
    let mut notes = vec![
        format!(
            "the database is made from what {host}'s etcd holds, its log included, once etcd is stopped everywhere"
        ),
        format!(
            "what {host} had not received from the others is lost; where they may come back, wait for them instead"
        ),
    ];
    if goes_on {
        notes.insert(0, "goes on with the recovery that was cut off".to_owned());
    }
    notes
}

/// Makes the database on the survivor, or finds the one that an earlier try made.
pub(super) async fn gather(
    machine: &Arc<RealHost>,
    host: &HostName,
    survivor: Survivor<'_>,
    image: &ImageRef,
    talk: &dyn Talk,
) -> Result<Source, OpsError> {
    let failed = |error| OpsError::Hosts(vec![error]);
    let earlier = machine.recovered_etcd(survivor).await.map_err(failed)?;
    let made = if let Some(made) = earlier {
        made
    } else {
        talk.doing(host, "reads the end of etcd's log");
        let change = log_change(machine, host, survivor).await?;
        talk.doing(host, "makes a database of what its etcd holds");
        machine.recover_etcd(survivor, image, change.as_ref()).await.map_err(failed)?
    };
    talk.say(&format!("{host}: etcd holds everything up to revision {}, {} keys", made.revision, made.keys));
    let impossible = |error: &dyn std::fmt::Display| OpsError::Impossible(error.to_string());
    let folder = RemotePath::new(FOLDER).map_err(|error| impossible(&error))?;
    let file =
        SnapshotName::new(format!("{}.db", EtcdRestore::mark(survivor.token))).map_err(|error| impossible(&error))?;
    let remote = Remote::new(Door::Host(Arc::clone(machine), folder, file), made.size, Handle::current());
    let database = Database { digest: made.digest, size: made.size, revision: Some(made.revision) };
    Ok(Source::survivor(host, remote, database))
}

/// What must be put at the end of the log so that nothing in it is thrown away.
async fn log_change(
    machine: &RealHost,
    host: &HostName,
    survivor: Survivor<'_>,
) -> Result<Option<LogChange>, OpsError> {
    let failed = |error| OpsError::Hosts(vec![error]);
    let wrong = |source| OpsError::Snapshot { what: format!("{host}: etcd's log"), source: Box::new(source) };
    let mut files = Vec::new();
    // The last one may have just begun.
    while let Some(file) = machine.etcd_log(survivor, files.len() + 1).await.map_err(failed)? {
        files.insert(0, file);
        let end: LogEnd = snapshot::read_log(files.iter().map(|file| file.bytes.expose())).map_err(wrong)?;
        if end.last.is_none() {
            continue;
        }
        let last = files.last().map(|file| (file.name.clone(), file.digest));
        return Ok(last.zip(end.commit_all()).map(|((file, digest), record)| LogChange {
            file,
            digest,
            offset: end.offset,
            record,
        }));
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::ahead;
    use super::seed;
    use crate::model::HostName;

    #[test]
    fn a_member_that_holds_more_is_named() {
        let [one, two] = ["h1", "h2"].map(|name| HostName::new(name).unwrap());
        assert!(ahead(&one, &[(&one, 7), (&two, 9)]).unwrap().contains("--from h2 would lose less"));
        assert_eq!(ahead(&two, &[(&one, 7), (&two, 9)]), None);
        assert_eq!(ahead(&two, &[(&one, 7)]), None, "whoever does not answer cannot be compared");
        assert_ne!(seed(&one), seed(&two));
    }
}
