//! What opens doors and comes back with a restore: credentials and role bindings that were deleted since the snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ops::OpsError;
use crate::ops::restore_source::Source;
use crate::ops::snapshot::Site;
use crate::ops::snapshot::etcd_image;

/// What is looked at: as a person calls it, and where API servers keep it below their prefix.
const KINDS: [(&str, &str); 4] = [
    ("Secrets", "secrets"),
    ("service accounts", "serviceaccounts"),
    ("role bindings", "rolebindings"),
    ("cluster role bindings", "clusterrolebindings"),
];
/// How many of one kind are named.
const NAMED: usize = 20;

/// One sentence for each kind of which something comes back. The snapshot tells its names where it is restored beside the cluster's etcd,
/// as for a proof; where that cannot be done, one sentence says so. `prefix` is the API servers'.
pub(super) async fn coming_back(site: &Site, source: &Source, prefix: &str, run: &str) -> Vec<String> {
    match compared(site, source, prefix, run).await {
        Ok(sentences) => sentences,
        Err(error) => vec![format!("which credentials and role bindings come back could not be found out: {error}")],
    }
}

async fn compared(site: &Site, source: &Source, prefix: &str, run: &str) -> Result<Vec<String>, OpsError> {
    let folders: Vec<String> = KINDS.iter().map(|(_, folder)| format!("{prefix}/{folder}/")).collect();
    let silent = || OpsError::Impossible("no etcd host answers".to_owned());
    let mut live = None;
    for name in site.members() {
        let Some(etcd) = site.etcd(name) else { continue };
        let mut names = BTreeSet::new();
        let mut whole = true;
        for folder in &folders {
            match etcd.names(folder).await {
                Ok(found) => names.extend(found),
                Err(_) => whole = false,
            }
        }
        if whole {
            live = Some(names);
            break;
        }
    }
    let live = live.ok_or_else(silent)?;
    let (host, machine) = site.keepers().next().ok_or_else(silent)?;
    let image = etcd_image(site, host)?;
    let database = source.open().map_err(|error| OpsError::Impossible(error.to_string()))?;
    let proving = Arc::clone(machine);
    let restored = proving.prove_snapshot(&image, source.database.size, 0, run, &folders, database).await;
    let then = restored.map_err(|error| OpsError::Hosts(vec![error]))?.names;
    Ok(sentences(prefix, &then, &live))
}

fn sentences(prefix: &str, then: &BTreeSet<String>, live: &BTreeSet<String>) -> Vec<String> {
    let of = |(words, folder): &(&str, &str)| {
        let folder = format!("{prefix}/{folder}/");
        let back: Vec<_> = then.difference(live).filter_map(|name| name.strip_prefix(folder.as_str())).collect();
        let more = back.len().saturating_sub(NAMED);
        let named = back.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        match (back.len(), more) {
            (0, _) => None,
            (_, 0) => Some(format!("{words} that were deleted since then and come back: {named}")),
            _ => Some(format!("{words} that were deleted since then and come back: {named}, and {more} more")),
        }
    };
    KINDS.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::sentences;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| format!("/registry/{name}")).collect()
    }

    #[test]
    fn what_was_deleted_since_is_named_by_its_kind() {
        let then = names(&[
            "secrets/default/leaked",
            "secrets/default/kept",
            "clusterrolebindings/bob:admin",
            "rolebindings/a/b",
        ]);
        let live = names(&["secrets/default/kept", "secrets/default/new", "rolebindings/a/b"]);
        assert_eq!(
            sentences("/registry", &then, &live),
            [
                "Secrets that were deleted since then and come back: default/leaked",
                "cluster role bindings that were deleted since then and come back: bob:admin"
            ]
        );
        assert!(sentences("/registry", &live, &live).is_empty());
    }

    #[test]
    fn of_many_the_first_are_named() {
        let all: Vec<String> = (10..40).map(|at| format!("serviceaccounts/default/{at}")).collect();
        let then = names(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let said = sentences("/registry", &then, &BTreeSet::new());
        assert!(said[0].contains("default/29, and 10 more"), "{said:?}");
    }
}
