//! From a folder of certificates to secrets.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::config::Cluster;
use crate::model::Content;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::Entropy;
use crate::secrets::LeafId;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::carry;
use crate::secrets::complete;
use crate::secrets::custom::CustomFiles;
use crate::secrets::custom::Misfit;
use crate::secrets::custom::judge;
use crate::secrets::custom::judge::Sheet;
use crate::secrets::custom::names;
use crate::secrets::exchange;
use crate::secrets::inspect;
use crate::secrets::inspect::Seen;
use crate::secrets::key;
use crate::secrets::leaf;
use crate::secrets::leaf::Template;
use crate::secrets::leaf::Terms;
use crate::secrets::leaf::Usage;
use crate::secrets::leaf::rows;

/// What a folder of certificates came to.
#[derive(Debug, Clone)]
pub struct Brought {
    /// Keys and certificates with those of the folder among them; those of bastide's own authorities are as they were.
    pub secrets: Secrets,
    /// Leaves that are others than before.
    pub changed: BTreeSet<LeafId>,
    /// Files that are good for nothing here.
    pub unused: Vec<String>,
}

/// The secrets of `cluster` with what lies in `folder`: of `previous`, or of a cluster that is born by it.
///
/// An authority whose certificate is in the folder without its key is external from the birth of the cluster on: all that it is to sign
/// is in the folder. With its key it is the cluster's own. Of an authority that has no certificate there bastide makes one.
///
/// # Errors
/// [`SecretsError::Misfits`]: everything in the folder that is not as it has to be.
pub fn bring(
    cluster: &Cluster,
    previous: Option<&Secrets>,
    folder: &CustomFiles,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<Brought, SecretsError> {
    let mut taken = Taken::new(folder, now);
    let secrets = if let Some(kept) = previous {
        taken.same_authorities(kept);
        kept.clone()
    } else {
        let mut born = complete::birth(cluster, now, entropy)?;
        taken.authorities(&mut born);
        born
    };
    let rows = rows(cluster, &secrets.external());
    taken.leaves(secrets, &rows)
}

/// `today` with those certificates of `folder` that are others: each must say what the present one says.
///
/// # Errors
/// As [`bring`].
pub fn bring_again(today: &Secrets, folder: &CustomFiles, terms: Terms, now: i64) -> Result<Brought, SecretsError> {
    let mut taken = Taken::new(folder, now);
    taken.same_authorities(today);
    let external = today.external();
    let mut rows = BTreeMap::new();
    for name in external {
        rows.extend(said(today, name, terms)?);
    }
    taken.leaves(today.clone(), &rows)
}

/// `today` with the authorities that lie in `folder` and are others than its own accepted beside these, and which they are: those of
/// `wanted`, or all that are there. With its key an authority is to be the cluster's own; without it, everything that it is to sign must
/// be in the folder, and waits in the secrets for the leg that needs it.
///
/// # Errors
/// As [`bring`].
pub fn bring_authorities(
    today: &Secrets,
    wanted: &BTreeSet<AuthorityName>,
    folder: &CustomFiles,
    terms: Terms,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<(Secrets, BTreeSet<AuthorityName>, Vec<String>), SecretsError> {
    let mut taken = Taken::new(folder, now);
    let mut coming = taken.coming(today, wanted);
    // The leaves are judged as those of a cluster that has these authorities and no leaf of theirs yet.
    let mut with = today.clone();
    let mut rows = BTreeMap::new();
    for (name, set) in &coming {
        with.authorities.insert(*name, set.clone());
        with.leaves.retain(|id, _| carry::issuer(id.name) != *name);
        if set.external {
            rows.extend(said(today, *name, terms)?);
        }
    }
    let brought = taken.leaves(with, &rows)?;
    let mut secrets = today.clone();
    let names = coming.keys().copied().collect();
    for (name, set) in &mut secrets.authorities {
        let Some(new) = coming.remove(name) else { continue };
        let theirs = brought.secrets.leaves.iter().filter(|(id, _)| new.external && carry::issuer(id.name) == *name);
        let leaves = theirs.map(|(id, leaf)| (id.clone(), leaf.clone())).collect();
        exchange::accept(set, *name, new, leaves, now, entropy)?;
    }
    Ok((secrets, names, brought.unused))
}

/// What another authority's certificates have to say in the place of those that `name` issued.
fn said(today: &Secrets, name: AuthorityName, terms: Terms) -> Result<BTreeMap<LeafId, Template>, SecretsError> {
    let mut rows = BTreeMap::new();
    for (id, leaf) in today.leaves.iter().filter(|(id, _)| carry::issuer(id.name) == name) {
        let seen = Seen::read(&leaf.certificate)
            .ok_or(SecretsError::Unreadable("a certificate that is in use cannot be read"))?;
        // What the authority put into it beyond what was asked for is nothing to insist on.
        let mut template = carry::template(name, seen, terms);
        template.usage = Usage::of(id.name);
        rows.insert(id.clone(), template);
    }
    if name == AuthorityName::Kubernetes {
        let (id, template) = leaf::own_row();
        rows.insert(id, template);
    }
    Ok(rows)
}

/// Whether both are one certificate.
fn same(one: &str, other: &str) -> bool {
    let read = |pem: &str| x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok().map(|(_, block)| block.contents);
    read(one).is_some() && read(one) == read(other)
}

struct Taken<'a> {
    folder: &'a CustomFiles,
    now: i64,
    used: BTreeSet<String>,
    misfits: BTreeSet<Misfit>,
}

impl<'a> Taken<'a> {
    fn new(folder: &'a CustomFiles, now: i64) -> Self {
        Self { folder, now, used: BTreeSet::new(), misfits: BTreeSet::new() }
    }

    /// A file that is looked at.
    fn file(&mut self, name: &str) -> Option<&'a Content> {
        let content = self.folder.files.get(name)?;
        self.used.insert(name.to_owned());
        Some(content)
    }

    fn text(&mut self, name: &str) -> Option<&'a str> {
        self.file(name)?.expose_text()
    }

    /// Puts the folder's authorities in the place of those of a cluster that is being born.
    fn authorities(&mut self, born: &mut Secrets) {
        let mut owners: BTreeMap<Vec<u8>, String> = BTreeMap::new();
        for name in AuthorityName::ALL {
            if let Some(set) = self.authority(name, &mut owners) {
                born.authorities.insert(name, set);
            }
        }
        if owners.is_empty() && self.misfits.is_empty() {
            self.lacks_authority(AuthorityName::Kubernetes);
        }
    }

    /// The folder's authorities that are to take the place of those of `today`.
    fn coming(&mut self, today: &Secrets, wanted: &BTreeSet<AuthorityName>) -> BTreeMap<AuthorityName, AuthoritySet> {
        let of = |pem: &str| Seen::read(pem).map(|seen| seen.public_key);
        let present = today.authorities.iter().filter_map(|(name, set)| {
            let file = format!("this cluster's {name} authority");
            Some((of(&set.certificate)?, file))
        });
        let mut owners: BTreeMap<Vec<u8>, String> = present.collect();
        let mut coming = BTreeMap::new();
        for (name, set) in &today.authorities {
            let file = names::certificate(names::authority(*name));
            let there = self.folder.text(&file);
            match there.map(|text| same(text, &set.certificate)) {
                // It stays.
                Some(true) if !wanted.contains(name) => {
                    self.file(&file);
                    self.file(&names::key(names::authority(*name)));
                }
                Some(true) => {
                    self.misfits.insert(Misfit::new(&file, "", "is the one that this cluster has already"));
                }
                Some(false) if wanted.is_empty() || wanted.contains(name) => {
                    let Some(new) = self.authority(*name, &mut owners) else { continue };
                    if inspect::same_name(&new.certificate, &set.certificate) {
                        // Programs that use OpenSSL look an issuer up by its name, and try the first that they find.
                        let problem = "is that of the authority whose place it is to take; it needs another one";
                        self.misfits.insert(Misfit::new(&file, "subject", problem));
                    }
                    coming.insert(*name, new);
                }
                None if wanted.contains(name) => self.lacks_authority(*name),
                _ => {}
            }
        }
        if coming.is_empty() && self.misfits.is_empty() {
            self.lacks_authority(AuthorityName::Kubernetes);
        }
        coming
    }

    fn lacks_authority(&mut self, name: AuthorityName) {
        let file = names::certificate(names::authority(name));
        self.misfits.insert(Misfit::new(&file, "", "is missing: the certificate of the authority that signs"));
    }

    /// The folder's authority of that name, where there is one; `owners` are whose keys are known.
    fn authority(&mut self, name: AuthorityName, owners: &mut BTreeMap<Vec<u8>, String>) -> Option<AuthoritySet> {
        let stem = names::authority(name);
        let file = names::certificate(stem);
        let text = self.text(&file)?;
        let mut sheet = Sheet::of(&file);
        let certificate = judge::authority(&mut sheet, text, self.now);
        let seen = certificate.as_deref().and_then(Seen::read);
        if certificate.is_some() && seen.is_none() {
            sheet.wrong("CN", "there is none");
        }
        let set = certificate.zip(seen).map(|(certificate, seen)| {
            let key = self.file(&names::key(stem));
            let fits = key.and_then(key::read).is_some_and(|pair| judge::public(&pair) == seen.public_key);
            if key.is_some() && !fits {
                let problem =
                    format!("{} is not its key, or none that can be read without a passphrase", names::key(stem));
                sheet.wrong("key", problem);
            }
            if let Some(other) = owners.insert(seen.public_key, file.clone()) {
                // Whoever has any certificate of the one would be let in by the other: every component's opened etcd.
                sheet.wrong("", format!("is the authority of {other} too; each needs one of its own"));
            }
            let (external, key) = (key.is_none(), key.cloned().unwrap_or_default());
            AuthoritySet { certificate, key, external, also_accepted: Vec::new(), other: None }
        });
        self.misfits.extend(sheet.misfits);
        set
    }

    /// A running cluster keeps its authorities.
    fn same_authorities(&mut self, kept: &Secrets) {
        let mut known = false;
        for (name, set) in &kept.authorities {
            let stem = names::authority(*name);
            let file = names::certificate(stem);
            let Some(text) = self.text(&file) else { continue };
            self.file(&names::key(stem));
            known = true;
            if !same(text, &set.certificate) {
                let problem = format!(
                    "is another {name} authority than the one that this cluster has; `bastide rotate-certs --ca --custom-certs` puts it in \
                     that one's place"
                );
                self.misfits.insert(Misfit::new(&file, "", problem));
            }
        }
        if kept.external().is_empty() && !known {
            let file = names::certificate(names::authority(AuthorityName::Kubernetes));
            let problem = "this cluster has authorities of bastide's own, which sign by themselves: nothing is to be brought along \
                           (`bastide rotate-certs --ca --custom-certs` gives it to an external one)";
            self.misfits.insert(Misfit::new(&file, "", problem));
        }
    }

    /// Puts the folder's leaves into `secrets`, which have their authorities.
    fn leaves(mut self, mut secrets: Secrets, rows: &BTreeMap<LeafId, Template>) -> Result<Brought, SecretsError> {
        let before = secrets.leaves.clone();
        for (id, template) in rows {
            let Some(set) = secrets.authorities.get(&template.authority).filter(|set| set.external).cloned() else {
                continue;
            };
            let own = names::leaf(id);
            let stems = [own.clone(), names::row(id.name).to_owned()];
            let there = stems.iter().find(|stem| self.folder.files.contains_key(&names::certificate(stem)));
            let Some(stem) = there else {
                // Of what is there already it is judged elsewhere whether it still does.
                if !before.contains_key(id) {
                    let problem = format!("is missing; {} is the request", names::request(&own));
                    self.misfits.insert(Misfit::new(&names::certificate(&own), "", problem));
                }
                continue;
            };
            let file = names::certificate(stem);
            let text = self.text(&file).unwrap_or_default();
            let folder = self.folder;
            let keys = [self.file(&names::key(stem)), folder.keys.get(stem), before.get(id).map(|leaf| &leaf.key)];
            let keys: Vec<&Content> = keys.into_iter().flatten().collect();
            let mut sheet = Sheet::of(&file);
            if let Some(leaf) = judge::leaf(&mut sheet, text, template, &set, &keys, self.now) {
                secrets.leaves.insert(id.clone(), leaf);
            }
            self.misfits.extend(sheet.misfits);
        }
        self.torn(&before, &secrets);
        if !self.misfits.is_empty() {
            return Err(SecretsError::Misfits(self.misfits.into_iter().collect()));
        }
        let other = |(id, leaf): (&LeafId, &crate::secrets::Leaf)| (before.get(id) != Some(leaf)).then(|| id.clone());
        let changed = secrets.leaves.iter().filter_map(other).collect();
        let request = |name: &str| name.ends_with("-csr.pem");
        let unused = self.folder.files.keys().filter(|name| !self.used.contains(*name) && !request(name));
        Ok(Brought { secrets, changed, unused: unused.cloned().collect() })
    }

    /// Where hosts share a certificate, a stored target knows only one word for it: they go on sharing.
    fn torn(&mut self, before: &BTreeMap<LeafId, crate::secrets::Leaf>, after: &Secrets) {
        let mut heirs: BTreeMap<&str, &str> = BTreeMap::new();
        for (id, old) in before {
            let Some(new) = after.leaves.get(id) else { continue };
            let heir = heirs.entry(&old.certificate).or_insert(&new.certificate);
            if *heir != new.certificate {
                let file = names::certificate(&names::leaf(id));
                let problem = "other hosts have the same certificate today, and must go on sharing one";
                self.misfits.insert(Misfit::new(&file, "", problem));
            }
        }
    }
}
