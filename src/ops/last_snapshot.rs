//! The last snapshot before a change of versions or keys: what etcd holds afterwards may be such that only it leads back.

use crate::model::Desired;
use crate::model::HostName;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::encryption;
use crate::ops::prepare::Prepared;
use crate::ops::restore_before as before;
use crate::ops::restore_before::Life;
use crate::ops::snapshot::Site;
use crate::secrets::Secrets;

/// What is to be said in the plan, and where the snapshot is taken once somebody agreed.
pub(super) struct Due {
    /// For the plan.
    pub note: String,
    site: Option<Site>,
    name: String,
}

/// Whether one is due before what is `prepared`; none where no version and no key changes. A run that goes on with what it began has one.
pub(super) async fn due(prepared: &Prepared, invocation: &Invocation) -> Result<Option<Due>, OpsError> {
    let (kept, target) = (&prepared.kept, &prepared.target);
    let (Some(newest), Some(today)) = (&kept.newest, &kept.secrets) else { return Ok(None) };
    let touched = touched((newest, today), (&target.desired, &target.secrets));
    if touched.is_empty() {
        return Ok(None);
    }
    let (changes, name) = (touched.join(" and "), name(invocation.command));
    if invocation.no_last_snapshot {
        let note = format!("{changes}: no snapshot is taken before (--no-last-snapshot)");
        return Ok(Some(Due { note, site: None, name }));
    }
    let site = Site::beside(&prepared.local, kept, prepared.fleet.clone())?;
    let prefix = encryption::prefix(&target.desired, &target.blobs);
    let life = before::look(&site, None, &prefix).await;
    let note = announced(&changes, &name, life);
    let site = matches!(life, Life::Serves(_)).then_some(site);
    Ok(Some(Due { note, site, name }))
}

impl Due {
    /// Takes it. An error where it cannot be taken: then nothing is to be changed.
    pub(super) async fn take(self, prepared: &Prepared, run: &str, talk: &dyn Talk) -> Result<(), OpsError> {
        let Some(site) = &self.site else { return Ok(()) };
        before::last_snapshot(site, &self.name, prepared.now, run, talk).await
    }
}

/// An etcd that is down must not keep anybody from mending it.
fn announced(changes: &str, name: &str, life: Life) -> String {
    match life {
        Life::Serves(_) => format!(
            "{changes}: a snapshot is taken before anything changes ({name}_ and the time; --no-last-snapshot goes without)"
        ),
        Life::Silent => format!("{changes}: no snapshot can be taken before, since etcd does not answer"),
        Life::Empty { revision } => format!(
            "{changes}: no snapshot is taken before: the etcd that answers is at revision {revision}, and the cluster was further"
        ),
    }
}

/// `before-rotate-certs-ca` for `rotate-certs --ca`.
fn name(command: &str) -> String {
    let words = command.split(|char: char| !char.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    format!("before-{}", words.collect::<Vec<_>>().join("-"))
}

/// What changes of which a rollback alone may not be the way back, in words. Certificates that are only renewed are nothing of the kind.
fn touched((then, keys): (&Desired, &Secrets), (now, new): (&Desired, &Secrets)) -> Vec<&'static str> {
    let etcd = |desired: &Desired| desired.versions().remove("etcd");
    // A host that left the file, or is new in it, exchanges no key.
    let configuration = |desired: &Desired, name: &HostName| encryption::wanted(desired).remove(name);
    let encryption = now.hosts.keys().filter(|name| then.hosts.contains_key(*name)).any(|name| {
        let (before, after) = (configuration(then, name), configuration(now, name));
        before != after
    });
    let all = [
        (then.kubernetes != now.kubernetes, "the version of Kubernetes changes"),
        (etcd(then) != etcd(now), "the version of etcd changes"),
        (encryption || keys.encryption != new.encryption, "keys for encryption at rest change"),
        (keys.authorities != new.authorities, "certificate authorities change"),
        (keys.service_account != new.service_account, "the key for service-account tokens changes"),
    ];
    all.into_iter().filter(|(changes, _)| *changes).map(|(_, words)| words).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::announced;
    use super::name;
    use super::touched;
    use crate::model::Desired;
    use crate::ops::restore_before::Life;
    use crate::render::tests::support;
    use crate::secrets;
    use crate::secrets::Secrets;
    use crate::secrets::SeededEntropy;

    fn made() -> (Desired, Secrets) {
        let secrets = support::secrets(&support::cluster(support::THREE_HOSTS));
        (support::rendered(support::THREE_HOSTS).desired, secrets)
    }

    #[test]
    fn versions_and_keys_are_told_from_all_else() {
        let (desired, keys) = made();
        let check = |now: &Desired, new: &Secrets, expected: &[&str]| {
            assert_eq!(touched((&desired, &keys), (now, new)), expected);
        };
        check(&desired, &keys, &[]);
        let mut flags = desired.clone();
        flags.hosts.values_mut().for_each(|host| host.files.retain(|path, _| !path.as_str().contains("audit")));
        check(&flags, &keys, &[]);

        let cluster = support::cluster(support::THREE_HOSTS);
        let all = keys.leaves.keys().cloned().collect();
        let terms = secrets::Terms::of(&cluster);
        let (renewed, _) = secrets::renew(&keys, &all, terms, support::NOW, &mut SeededEntropy::new(3)).unwrap();
        assert_ne!(renewed.leaves, keys.leaves);
        check(&desired, &renewed, &[]);

        let newer = Desired { kubernetes: "v1.37.2".parse().unwrap(), ..desired.clone() };
        check(&newer, &keys, &["the version of Kubernetes changes"]);
        let mut etcd = desired.clone();
        for host in etcd.hosts.values_mut() {
            host.images.retain(|image, _| !image.as_str().contains("/etcd:"));
        }
        check(&etcd, &keys, &["the version of etcd changes"]);
        let mut at_rest = desired.clone();
        for host in at_rest.hosts.values_mut() {
            host.files.retain(|path, _| path.as_str() != crate::render::ENCRYPTION);
        }
        check(&at_rest, &keys, &["keys for encryption at rest change"]);

        let other = support::other_secrets(&cluster);
        let with = |change: &dyn Fn(&mut Secrets)| {
            let mut new = keys.clone();
            change(&mut new);
            new
        };
        check(
            &desired,
            &with(&|new| new.encryption.clone_from(&other.encryption)),
            &["keys for encryption at rest change"],
        );
        check(
            &desired,
            &with(&|new| new.authorities.clone_from(&other.authorities)),
            &["certificate authorities change"],
        );
        check(
            &desired,
            &with(&|new| new.service_account.clone_from(&other.service_account)),
            &["the key for service-account tokens changes"],
        );
    }

    #[test]
    fn an_etcd_that_is_down_is_no_reason_to_leave_it_down() {
        let said = |life| announced("the version of etcd changes", "before-up", life);
        assert!(said(Life::Serves(7)).contains("a snapshot is taken before anything changes (before-up_ and the time"));
        assert!(said(Life::Silent).contains("no snapshot can be taken"));
        assert!(said(Life::Empty { revision: 7 }).contains("no snapshot is taken"));
    }

    #[test]
    fn a_snapshot_is_called_after_the_command() {
        let names = ["up", "up: encryption", "rotate-certs --ca", "encrypt rotate-key"].map(name);
        assert_eq!(names, ["before-up", "before-up-encryption", "before-rotate-certs-ca", "before-encrypt-rotate-key"]);
        assert!(crate::model::SnapshotName::new(format!("{}_20261122T140300Z", names[2])).is_ok());
    }
}
