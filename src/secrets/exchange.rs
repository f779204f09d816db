//! The legs on which another authority, or another key for service-account tokens, takes a cluster's own one's place.

use std::collections::BTreeSet;

use crate::config::KeyAlgorithm;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::Entropy;
use crate::secrets::Issued;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::OtherAuthority;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
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
        let set = set_of(&mut secrets, *name)?;
        if set.external {
            let wanted = vec!["another authority, which bastide cannot make in its place".to_owned()];
            return Err(SecretsError::AuthorityExternal { name: *name, wanted });
        }
        let old = Authority::read(*name, set, now)?;
        let new = issue::authority(*name, algorithm, now, entropy)?;
        let cross_signed = issue::cross_signed(&new, (&old, set), now, entropy)?;
        set.also_accepted.push(new.certificate.clone());
        set.other = Some(OtherAuthority { comes: true, certificate: new.certificate, key: new.key, cross_signed });
    }
    Ok(secrets)
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
    for name in names {
        let set = set_of(&mut secrets, *name)?;
        let Some(new) = set.other.take_if(|other| other.comes) else { continue };
        set.also_accepted.retain(|pem| *pem != new.certificate);
        let old = std::mem::replace(&mut set.certificate, new.certificate);
        let key = std::mem::replace(&mut set.key, new.key);
        set.also_accepted.push(old.clone());
        let cross_signed = new.cross_signed;
        set.other = Some(OtherAuthority { comes: false, certificate: old, key, cross_signed });
    }
    let wanted: BTreeSet<LeafId> =
        secrets.leaves.keys().filter(|id| names.contains(&issuer(id.name))).cloned().collect();
    renew(&secrets, &wanted, terms, now, entropy)
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
