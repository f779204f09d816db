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
use crate::secrets::inspect::Seen;
use crate::secrets::key;
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
    for (id, leaf) in today.leaves.iter().filter(|(id, _)| external.contains(&carry::issuer(id.name))) {
        let seen = Seen::read(&leaf.certificate)
            .ok_or(SecretsError::Unreadable("a certificate that is in use cannot be read"))?;
        // What the authority put into it beyond what was asked for is nothing to insist on.
        let mut template = carry::template(carry::issuer(id.name), seen, terms);
        template.usage = Usage::of(id.name);
        rows.insert(id.clone(), template);
    }
    taken.leaves(today.clone(), &rows)
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
            let stem = names::authority(name);
            let file = names::certificate(stem);
            let Some(text) = self.text(&file) else { continue };
            let mut sheet = Sheet::of(&file);
            let certificate = judge::authority(&mut sheet, text, self.now);
            let seen = certificate.as_deref().and_then(Seen::read);
            if certificate.is_some() && seen.is_none() {
                sheet.wrong("CN", "there is none");
            }
            if let (Some(certificate), Some(seen)) = (certificate, seen) {
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
                let key = key.cloned();
                let external = key.is_none();
                let set = AuthoritySet {
                    certificate,
                    key: key.unwrap_or_default(),
                    external,
                    also_accepted: Vec::new(),
                    other: None,
                };
                born.authorities.insert(name, set);
            }
            self.misfits.extend(sheet.misfits);
        }
        if owners.is_empty() && self.misfits.is_empty() {
            let file = names::certificate(names::authority(AuthorityName::Kubernetes));
            self.misfits.insert(Misfit::new(&file, "", "is missing: the certificate of the authority that signs"));
        }
    }

    /// A running cluster keeps its authorities.
    fn same_authorities(&mut self, kept: &Secrets) {
        let mut known = false;
        for (name, set) in &kept.authorities {
            let stem = names::authority(*name);
            let file = names::certificate(stem);
            let Some(text) = self.text(&file) else { continue };
            self.file(&names::key(stem));
            let read =
                |pem: &str| x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok().map(|(_, block)| block.contents);
            known = true;
            if read(text).is_none() || read(text) != read(&set.certificate) {
                let problem = format!(
                    "is another {name} authority than the one that this cluster was made with; a running cluster cannot be given to \
                     an external one"
                );
                self.misfits.insert(Misfit::new(&file, "", problem));
            }
        }
        if kept.external().is_empty() && !known {
            let file = names::certificate(names::authority(AuthorityName::Kubernetes));
            let problem = "this cluster has authorities of bastide's own, which sign by themselves: nothing is to be brought along";
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
