//! The legs on which another authority, or another key for service-account tokens, takes a cluster's own one's place.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::config::KeyAlgorithm;
use crate::model::utc;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::Entropy;
use crate::secrets::Issued;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Misfit;
use crate::secrets::OtherAuthority;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::Why;
use crate::secrets::carry::issuer;
use crate::secrets::inspect;
use crate::secrets::issue;
use crate::secrets::issue::Authority;
use crate::secrets::key;
use crate::secrets::leaf::Template;
use crate::secrets::leaf::Terms;
use crate::secrets::renew;

/// How long a certificate lasts that proves whether its authority is accepted.
const TRIAL_LIFETIME: i64 = 60 * 60;

/// `today` with a new authority for each of `names`, which is accepted beside the one that goes on issuing.
pub fn accept_new_authorities(
    today: &Secrets,
    names: &BTreeSet<AuthorityName>,
    algorithm: KeyAlgorithm,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<Secrets, SecretsError> {
    let mut secrets = today.clone();
    for name in names {
        let new = issue::authority(*name, algorithm, now, entropy)?;
        accept(set_of(&mut secrets, *name)?, *name, new, BTreeMap::new(), now, entropy)?;
    }
    Ok(secrets)
}

/// Takes `new` into `set` beside the one that goes on issuing; `leaves` are what it signed already, where its key is elsewhere.
pub(super) fn accept(
    set: &mut AuthoritySet,
    name: AuthorityName,
    new: AuthoritySet,
    leaves: BTreeMap<LeafId, Leaf>,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<(), SecretsError> {
    let old = Authority::read(name, set, now)?;
    let cross_signed = issue::cross_signed(&new, (&old, set), now, entropy)?;
    set.also_accepted.push(new.certificate.clone());
    let AuthoritySet { certificate, key, external, .. } = new;
    set.other = Some(OtherAuthority { comes: true, certificate, key, external, leaves, cross_signed });
    Ok(())
}

/// `today` with the new authorities of `names` issuing and every leaf of theirs from them. The old ones stay accepted.
pub fn issue_from_new_authorities(
    today: &Secrets,
    names: &BTreeSet<AuthorityName>,
    terms: Terms,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<(Secrets, Vec<Issued>), SecretsError> {
    let mut secrets = today.clone();
    let mut brought = BTreeMap::new();
    for name in names {
        let set = set_of(&mut secrets, *name)?;
        let Some(new) = set.other.take_if(|other| other.comes) else { continue };
        set.also_accepted.retain(|pem| *pem != new.certificate);
        let old = std::mem::replace(&mut set.certificate, new.certificate);
        let key = std::mem::replace(&mut set.key, new.key);
        let external = std::mem::replace(&mut set.external, new.external);
        set.also_accepted.push(old.clone());
        let cross_signed = new.cross_signed;
        let proofs = today.leaves.iter().filter(|(id, _)| external && issuer(id.name) == *name && proves(id.name));
        let leaves = proofs.map(|(id, leaf)| (id.clone(), leaf.clone())).collect();
        set.other = Some(OtherAuthority { comes: false, certificate: old, key, external, leaves, cross_signed });
        brought.extend(new.leaves);
    }
    still_good(&brought, &secrets, names, now)?;
    // bastide's own certificate is kept where it cannot make one whenever it needs it, and nowhere else.
    if !secrets.external().contains(&AuthorityName::Kubernetes) {
        secrets.leaves.retain(|id, _| id.name != LeafName::Operator);
    }
    let theirs = secrets.external();
    let wanted = secrets.leaves.keys().filter(|id| {
        let issuer = issuer(id.name);
        names.contains(&issuer) && !theirs.contains(&issuer)
    });
    let wanted: BTreeSet<LeafId> = wanted.cloned().collect();
    let (mut secrets, mut issued) = renew(&secrets, &wanted, terms, now, entropy)?;
    issued.extend(brought.keys().map(|id| Issued { id: id.clone(), why: Why::Brought }));
    secrets.leaves.extend(brought);
    Ok((secrets, issued))
}

/// Days may pass between the leg in which these were verified and the one that needs them, with a host or a name more.
fn still_good(
    brought: &BTreeMap<LeafId, Leaf>,
    secrets: &Secrets,
    names: &BTreeSet<AuthorityName>,
    now: i64,
) -> Result<(), SecretsError> {
    let sans = |leaf: &Leaf| inspect::Seen::read(&leaf.certificate).map(|seen| seen.sans).unwrap_or_default();
    let external = secrets.external();
    let theirs = |id: &LeafId| names.contains(&issuer(id.name)) && external.contains(&issuer(id.name));
    let ended = brought.iter().filter(|(_, leaf)| leaf.not_after <= now);
    let ended = ended.map(|(id, leaf)| Misfit::outlived(id, &format!("has ended at {}", utc(leaf.not_after))));
    let lacks = secrets.leaves.iter().filter(|(id, _)| theirs(id)).filter_map(|(id, old)| match brought.get(id) {
        Some(leaf) if sans(leaf).is_superset(&sans(old)) => None,
        Some(_) => Some(Misfit::outlived(id, "lacks a name that was added")),
        None => Some(Misfit::outlived(id, "is missing, of a certificate that was added")),
    });
    let misfits: Vec<_> = ended.chain(lacks).collect();
    if misfits.is_empty() { Ok(()) } else { Err(SecretsError::Misfits(misfits)) }
}

/// Whether a certificate of this row is one with which API servers let in somebody whom they would not otherwise.
pub(super) fn proves(name: LeafName) -> bool {
    matches!(name, LeafName::Operator | LeafName::FrontProxyClient)
}

/// `today` with the authorities of `names` accepting nothing but what they issue themselves.
pub fn drop_old_authorities(today: &Secrets, names: &BTreeSet<AuthorityName>) -> Result<Secrets, SecretsError> {
    let mut secrets = today.clone();
    for name in names {
        let set = set_of(&mut secrets, *name)?;
        set.also_accepted.clear();
        set.other = None;
    }
    Ok(secrets)
}

/// `today` with a new key that verifies service-account tokens beside the one that goes on signing.
pub fn accept_new_token_key(
    today: &Secrets,
    algorithm: KeyAlgorithm,
    entropy: &mut dyn Entropy,
) -> Result<Secrets, SecretsError> {
    let new = key::generate(algorithm, entropy)?;
    let mut secrets = today.clone();
    secrets.service_account.verifying.push(new.public_key_pem());
    secrets.service_account.next = Some(key::pem(&new));
    Ok(secrets)
}

/// `today` with the new key signing. The old one still verifies.
pub fn sign_with_new_token_key(today: &Secrets) -> Secrets {
    let mut secrets = today.clone();
    let keys = &mut secrets.service_account;
    if let (Some(next), Some(public)) = (keys.next.take(), keys.verifying.pop()) {
        keys.signing = next;
        keys.verifying.insert(0, public);
    }
    secrets
}

/// `today` with no key that verifies but the one that signs.
pub fn drop_old_token_keys(today: &Secrets) -> Secrets {
    let mut secrets = today.clone();
    secrets.service_account.verifying.truncate(1);
    secrets.service_account.next = None;
    secrets
}

/// The certificate that the server with leaf `id` shows, with what leads to the old authority from it during a rotation.
pub fn serving_chain(secrets: &Secrets, id: &LeafId) -> Option<String> {
    let leaf = secrets.leaves.get(id)?;
    let set = secrets.authorities.get(&issuer(id.name))?;
    Some(set.serving_chain(&leaf.certificate))
}

/// Whether the authority that issues signed the certificate in `pem`.
pub fn issued_by(set: &AuthoritySet, pem: &str) -> bool {
    inspect::signed_by_any(pem, std::iter::once(&set.certificate))
}

/// A short-lived client certificate from the authority whose certificate and key these are: it tells whether that one is
/// accepted. Stays in memory.
pub fn trial_leaf(
    name: AuthorityName,
    (certificate, key): (&str, &crate::model::Content),
    (user, group): (&str, Option<&str>),
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<Leaf, SecretsError> {
    let set = AuthoritySet {
        certificate: certificate.to_owned(),
        key: key.clone(),
        also_accepted: Vec::new(),
        other: None,
        external: false,
    };
    let mut template = Template::client(name, user, group);
    template.lifetime = TRIAL_LIFETIME;
    issue::leaf(user, &template, &Authority::read(name, &set, now)?, KeyAlgorithm::P256, now, entropy)
}

/// What a token's header calls the key that signed it (`kid`): Kubernetes takes the base64url of the SHA-256 of the public key
/// (DER), without padding (`pkg/serviceaccount/jwt.go`). None where this is no public key.
pub fn token_key_id(public: &str) -> Option<String> {
    use base64::Engine as _;
    let (_, block) = x509_parser::pem::parse_x509_pem(public.as_bytes()).ok()?;
    let digest = crate::model::Digest::of(&block.contents);
    Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest.0))
}

fn set_of(secrets: &mut Secrets, name: AuthorityName) -> Result<&mut AuthoritySet, SecretsError> {
    secrets.authorities.get_mut(&name).ok_or(SecretsError::AuthorityMissing(name))
}
