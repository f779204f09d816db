//! Certificates from an external authority: the requests that are written for it, and the folder that comes back.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use crate::config;
use crate::model::ClusterId;
use crate::model::Content;
use crate::model::utc;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::kept::Kept;
use crate::ops::local;
use crate::ops::prepare;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::Brought;
use crate::secrets::CustomFiles;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::RENEW_BEFORE;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::SystemEntropy;
use crate::secrets::Terms;
use crate::secrets::random_hex;
use crate::store;
use crate::store::Store;

/// Word in the signature: sealed keys are never taken for anything else.
const KIND: &str = "requests";
/// The keys of all requests in a folder, sealed like the state.
const KEYS: &str = "keys.sealed";
const DAY: i64 = 24 * 60 * 60;

/// What `certs generate-csr` was told.
#[derive(Debug, Clone, Default)]
pub struct GenerateOptions {
    /// `--cert-dir`
    pub folder: Option<PathBuf>,
    /// `--authority`; none: those that are external already, else the Kubernetes authority.
    pub authorities: BTreeSet<AuthorityName>,
    /// `--no-identity-backup`
    pub no_identity_backup: bool,
}

/// Where certificates lie unless it is said: RKE's `<cluster file>_certs` beside the cluster's file.
pub fn certificates_folder(cluster_file: &Path) -> PathBuf {
    let stem = cluster_file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    cluster_file.with_file_name(format!("{stem}_certs"))
}

/// Writes a request for everything that an external authority is to sign. No host is asked. The answer is for people.
pub fn generate_requests(
    invocation: &Invocation,
    options: &GenerateOptions,
    talk: &dyn Talk,
) -> Result<String, OpsError> {
    let local = Local::read(invocation)?;
    let mut kept = Kept::open(&local.path, &local.cluster, talk)?;
    let folder = options.folder.clone().unwrap_or_else(|| certificates_folder(&local.path));
    let names = external(&kept, options);
    let holder = local::holder(invocation, prepare::now())?;
    // The keys are sealed to whom the state is sealed to; where there is none yet, it begins with them.
    let lock = if let Some(store) = &mut kept.store {
        store.lock(&holder)?
    } else {
        let id = ClusterId(random_hex(&mut SystemEntropy, 16)?);
        kept.make(&local.cluster, &id, false, options.no_identity_backup, &holder, talk)?
    };
    let store = kept.store()?;
    let files = read(&folder, store)?;
    let requests = secrets::requests(&local.cluster, kept.secrets.as_ref(), &names, &files, &mut SystemEntropy)?;
    // The keys first: a request without one is worth nothing. Those of requests that are no more stay: their certificates may come.
    let mut keys = files.keys;
    for request in &requests {
        if let Some(key) = &request.key {
            keys.insert(request.stem.clone(), key.clone());
        }
    }
    store::private_folder(&folder)?;
    store::write_private(&folder.join(KEYS), &seal(&keys, store)?)?;
    for request in requests.iter().filter(|request| !request.kept) {
        store::write_private(&folder.join(&request.file), &Content::new(request.text.as_bytes()))?;
    }
    drop(lock);
    let fresh = requests.iter().filter(|request| !request.kept).count();
    Ok(format!(
        "{}: {} requests ({fresh} new); {KEYS} holds the keys, sealed like the state\nsign each NAME-csr.pem as it is, put NAME.pem and \
         the authority's certificate (kube-ca.pem) beside it, then run `bastide {} --custom-certs`\n",
        folder.display(),
        requests.len(),
        next(&kept, &names)
    ))
}

/// Which authorities sign elsewhere.
fn external(kept: &Kept, options: &GenerateOptions) -> BTreeSet<AuthorityName> {
    let external = kept.secrets.as_ref().map(Secrets::external).unwrap_or_default();
    match (options.authorities.clone(), external) {
        (asked, _) if !asked.is_empty() => asked,
        (_, external) if external.is_empty() => [AuthorityName::Kubernetes].into(),
        (_, external) => external,
    }
}

/// What is run once everything is signed.
fn next(kept: &Kept, names: &BTreeSet<AuthorityName>) -> &'static str {
    let changes_hands = kept.secrets.as_ref().is_some_and(|secrets| !names.is_subset(&secrets.external()));
    match (&kept.reached, changes_hands) {
        (None, _) => "up",
        (Some(_), true) => "rotate-certs --ca",
        (Some(_), false) => "rotate-certs",
    }
}

fn seal(keys: &BTreeMap<String, Content>, store: &Store) -> Result<Content, OpsError> {
    let plain: BTreeMap<_, _> = keys.iter().filter_map(|(stem, key)| Some((stem, key.expose_text()?))).collect();
    // Reserved at once: growing leaves copies in freed memory.
    let mut text = Vec::with_capacity(plain.values().map(|key| key.len() * 2 + 256).sum());
    serde_json::to_writer(&mut text, &plain).map_err(|error| OpsError::Impossible(error.to_string()))?;
    Ok(store.seal(KIND, &Content::new(text))?)
}

/// The certificates, keys and requests in a folder, and the keys that bastide sealed there.
fn read(folder: &Path, store: &Store) -> Result<CustomFiles, OpsError> {
    let mut files = pem_files(folder)?;
    let sealed = folder.join(KEYS);
    match config::read_bytes(&sealed) {
        Ok(bytes) => {
            let plain = store.unseal(KIND, &Content::new(bytes))?;
            let keys: BTreeMap<String, String> = serde_json::from_slice(plain.expose())
                .map_err(|_| OpsError::Impossible(format!("{}: written by another bastide", sealed.display())))?;
            files.keys = keys.into_iter().map(|(stem, key)| (stem, Content::new(key))).collect();
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(OpsError::local(&sealed, source)),
    }
    Ok(files)
}

fn pem_files(folder: &Path) -> Result<CustomFiles, OpsError> {
    let mut files = CustomFiles::default();
    for path in store::files_in(folder)?.iter().filter(|path| path.extension().is_some_and(|end| end == "pem")) {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            files.files.insert(name.to_owned(), store::read_private(path)?);
        }
    }
    Ok(files)
}

/// What lies in `folder`; where there is no state yet, its keys can only be files.
fn found(folder: &Path, kept: &Kept) -> Result<CustomFiles, OpsError> {
    let files = match &kept.store {
        Some(store) => read(folder, store)?,
        None => pem_files(folder)?,
    };
    if files.files.is_empty() {
        return Err(OpsError::Misfits {
            folder: folder.to_owned(),
            misfits: vec!["there is no certificate (*.pem)".to_owned()],
        });
    }
    Ok(files)
}

/// The keys of what was kept, or of a cluster that begins, with what lies in `folder`.
pub(super) fn bring(local: &Local, kept: &Kept, folder: &Path, now: i64, talk: &dyn Talk) -> Result<Secrets, OpsError> {
    let files = found(folder, kept)?;
    let brought = secrets::bring(&local.cluster, kept.secrets.as_ref(), &files, now, &mut SystemEntropy);
    Ok(taken(brought, folder, talk)?.secrets)
}

/// The keys of today with those in `folder` that are others.
pub(super) fn bring_again(
    kept: &Kept,
    today: &Secrets,
    folder: &Path,
    terms: Terms,
    now: i64,
    talk: &dyn Talk,
) -> Result<Brought, OpsError> {
    taken(secrets::bring_again(today, &found(folder, kept)?, terms, now), folder, talk)
}

/// The keys of today with the authorities in `folder` accepted beside their own, and which these are: of `names`, or all that are others.
pub(super) fn bring_authorities(
    kept: &Kept,
    today: &Secrets,
    names: &BTreeSet<AuthorityName>,
    folder: &Path,
    (terms, now): (Terms, i64),
    talk: &dyn Talk,
) -> Result<(Secrets, BTreeSet<AuthorityName>), OpsError> {
    let files = found(folder, kept)?;
    let brought = secrets::bring_authorities(today, names, &files, terms, now, &mut SystemEntropy);
    let (secrets, names, unused) = brought.map_err(|error| misfits(error, folder))?;
    tell_unused(&unused, folder, talk);
    Ok((secrets, names))
}

fn taken(brought: Result<Brought, SecretsError>, folder: &Path, talk: &dyn Talk) -> Result<Brought, OpsError> {
    let brought = brought.map_err(|error| misfits(error, folder))?;
    tell_unused(&brought.unused, folder, talk);
    Ok(brought)
}

fn misfits(error: SecretsError, folder: &Path) -> OpsError {
    match error {
        SecretsError::Misfits(misfits) => {
            OpsError::Misfits { folder: folder.to_owned(), misfits: misfits.iter().map(ToString::to_string).collect() }
        }
        error => error.into(),
    }
}

fn tell_unused(unused: &[String], folder: &Path, talk: &dyn Talk) {
    if !unused.is_empty() {
        talk.warn(&format!("{}: nothing here uses {}", folder.display(), unused.join(", ")));
    }
}

/// A cluster is about to begin with authorities of bastide's own, for its life, although requests were written for another one.
pub(super) fn warn_of_unused(local: &Local, kept: &Kept, talk: &dyn Talk) -> Result<(), OpsError> {
    let folder = certificates_folder(&local.path);
    let asked = store::files_in(&folder)?.iter().any(|path| path.file_name().is_some_and(|name| name == KEYS));
    if kept.newest.is_none() && asked {
        talk.warn(&format!(
            "nothing in {} is used without --custom-certs: the cluster begins with authorities of bastide's own",
            folder.display()
        ));
    }
    Ok(())
}

/// Tells of what nobody here can renew, before it ends.
pub(super) fn warn_of_ends(secrets: &Secrets, now: i64, talk: &dyn Talk) {
    for line in ends(secrets, now) {
        talk.warn(&line);
    }
}

fn ends(secrets: &Secrets, now: i64) -> Vec<String> {
    let external = secrets.external();
    // Of a short life a third, as of bastide's own: else it would be told of from the first day on.
    let margin = |leaf: &Leaf| {
        let life = leaf.not_after - secrets::not_before(&leaf.certificate).unwrap_or(leaf.not_after);
        RENEW_BEFORE.min(life / 3)
    };
    let theirs = |id: &LeafId| external.contains(&secrets::issuer(id.name));
    let ours = secrets.leaves.iter().filter(|(id, leaf)| theirs(id) && leaf.not_after - now < margin(leaf));
    let mut lines: Vec<_> = ours
        .map(|(id, leaf)| match (leaf.not_after - now) / DAY {
            _ if leaf.not_after <= now => format!("certificate {} has ended at {}", id.describe(), utc(leaf.not_after)),
            days => format!("certificate {} ends in {days} days, at {}", id.describe(), utc(leaf.not_after)),
        })
        .collect();
    if !lines.is_empty() {
        lines.push(
            "these are an external authority's, and bastide cannot renew them: `bastide certs generate-csr`, then \
             `bastide rotate-certs --custom-certs`"
                .to_owned(),
        );
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::certificates_folder;
    use super::ends;
    use crate::model::Content;
    use crate::render::tests::support;
    use crate::secrets::AuthorityName;

    const DAY: i64 = 86_400;

    #[test]
    fn what_nobody_here_can_renew_is_told_of_from_ninety_days_before_its_end_on() {
        let mut secrets = support::secrets(&support::cluster(support::ONE_HOST));
        let end = support::NOW + 365 * DAY;
        assert_eq!(ends(&secrets, end - DAY), Vec::<String>::new(), "bastide's own are renewed");
        let set = secrets.authorities.get_mut(&AuthorityName::FrontProxy).unwrap();
        (set.external, set.key) = (true, Content::default());
        assert_eq!(ends(&secrets, end - 90 * DAY), Vec::<String>::new());
        let told = ends(&secrets, end - 89 * DAY);
        assert_eq!(told[0], "certificate front-proxy-client of h1 ends in 89 days, at 2027-11-22T00:00:00Z");
        assert!(told.len() == 2 && told[1].contains("generate-csr"), "{told:?}");
        assert!(ends(&secrets, end)[0].contains("has ended"));
    }

    #[test]
    fn certificates_lie_where_rke_looks_for_them() {
        let of = |file: &str| certificates_folder(file.as_ref()).display().to_string();
        assert_eq!(of("/a/cluster.yml"), "/a/cluster_certs");
        assert_eq!(of("prod.yaml"), "prod_certs");
    }
}
