//! The keys of a target that is taken up again: secrets travel apart from it (design 11.2).

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::secrets::AuthorityName;
use crate::secrets::Entropy;
use crate::secrets::Issued;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::Why;
use crate::secrets::complete::Cannot;
use crate::secrets::complete::Verdict;
use crate::secrets::complete::due;
use crate::secrets::inspect::Seen;
use crate::secrets::issue;
use crate::secrets::issue::Authority;
use crate::secrets::leaf::DAY;
use crate::secrets::leaf::Template;
use crate::secrets::leaf::Terms;
use crate::secrets::leaf::Usage;

/// A leaf with less time left is not taken along (design 11.2).
pub(super) const LEFT_AT_LEAST: i64 = 30 * DAY;

/// Whose leaf is taken where both sides have one that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    /// The one that is in use.
    Todays,
    /// The one of then: what is being undone was nothing but its renewal.
    Stored,
}

/// The secrets with which the target of `stored` is taken up again at `now`, and what had to be issued for them.
///
/// Authorities, service-account keys, encryption keys and etcd's birth data are today's. A leaf says what the stored one
/// said (a rollback may bring back names that today's lacks); where both of today and of then do, `prefer` decides. One
/// that has ended, ends within 30 days (of a short life: within a third) or comes from an authority that is accepted no more is issued anew.
pub fn carry(
    stored: &Secrets,
    today: &Secrets,
    prefer: Prefer,
    terms: Terms,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<(Secrets, Vec<Issued>), SecretsError> {
    let mut signers = BTreeMap::new();
    for name in AuthorityName::ALL {
        let set = today.authorities.get(&name).ok_or(SecretsError::AuthorityMissing(name))?;
        signers.insert(name, (Authority::read(name, set, now)?, set));
    }
    let mut leaves = BTreeMap::new();
    let mut issued = Vec::new();
    let mut cannot = Cannot::default();
    // bastide's own certificate is kept where another authority signs it, and nowhere else.
    let theirs = today.external().contains(&AuthorityName::Kubernetes);
    for (id, old) in stored.leaves.iter().filter(|(id, _)| theirs || id.name != LeafName::Operator) {
        let authority = issuer(id.name);
        let (signer, set) = signers.get(&authority).ok_or(SecretsError::AuthorityMissing(authority))?;
        let seen = Seen::read(&old.certificate)
            .ok_or(SecretsError::Unreadable("a certificate of the stored revision cannot be read"))?;
        let template = template(authority, seen, terms);
        let judge = |leaf| due(leaf, &template, set, signer, (now, terms.margin(LEFT_AT_LEAST)));
        let (first, second) = match prefer {
            Prefer::Todays => (today.leaves.get(id), Some(old)),
            Prefer::Stored => (Some(old), today.leaves.get(id)),
        };
        let leaf = match (judge(first), judge(second)) {
            (Verdict::Keep(leaf), _) | (_, Verdict::Keep(leaf)) => leaf.clone(),
            // What it signed is all there is, however soon it ends.
            (Verdict::Issue(why), _) if set.external => {
                let good = |leaf: &&Leaf| matches!(due(Some(leaf), &template, set, signer, (now, 0)), Verdict::Keep(_));
                let Some(leaf) = [first, second].into_iter().flatten().find(good) else {
                    cannot.add(authority, id, &why);
                    continue;
                };
                leaf.clone()
            }
            (Verdict::Issue(why), _) => {
                issued.push(Issued { id: id.clone(), why });
                issue::leaf(&id.describe(), &template, signer, terms.algorithm, now, entropy)?
            }
        };
        leaves.insert(id.clone(), leaf);
    }
    drop(signers);
    cannot.or(())?;
    let own = LeafId { name: LeafName::Operator, host: None };
    if let Some(leaf) = today.leaves.get(&own).filter(|_| theirs) {
        leaves.entry(own).or_insert_with(|| leaf.clone());
    }
    Ok((Secrets { leaves, ..today.clone() }, issued))
}

/// `today` with the leaves in `wanted` issued anew: each says what the present one says. All others stay, whatever their
/// state.
pub fn renew(
    today: &Secrets,
    wanted: &BTreeSet<LeafId>,
    terms: Terms,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<(Secrets, Vec<Issued>), SecretsError> {
    let mut renewed = today.clone();
    let mut issued = Vec::new();
    let external = |id: &&LeafId| today.authorities.get(&issuer(id.name)).is_some_and(|set| set.external);
    let mut cannot = Cannot::default();
    for id in wanted.iter().filter(external) {
        cannot.add(issuer(id.name), id, &Why::Asked);
    }
    cannot.or(())?;
    for id in wanted {
        let old = today.leaves.get(id).ok_or_else(|| SecretsError::LeafMissing(id.clone()))?;
        let authority = issuer(id.name);
        let set = today.authorities.get(&authority).ok_or(SecretsError::AuthorityMissing(authority))?;
        let seen = Seen::read(&old.certificate)
            .ok_or(SecretsError::Unreadable("a certificate that is in use cannot be read"))?;
        let signer = Authority::read(authority, set, now)?;
        let leaf =
            issue::leaf(&id.describe(), &template(authority, seen, terms), &signer, terms.algorithm, now, entropy)?;
        renewed.leaves.insert(id.clone(), leaf);
        issued.push(Issued { id: id.clone(), why: Why::Asked });
    }
    Ok((renewed, issued))
}

/// From when on a certificate (PEM) is good, in seconds since 1970.
pub fn not_before(certificate: &str) -> Option<i64> {
    let (_, block) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    Some(block.parse_x509().ok()?.validity().not_before.timestamp())
}

/// Who signs a row of the table.
pub fn issuer(name: LeafName) -> AuthorityName {
    match name {
        LeafName::EtcdServer
        | LeafName::EtcdPeer
        | LeafName::EtcdHealthcheck
        | LeafName::EtcdSnapshot
        | LeafName::ApiServerEtcdClient => AuthorityName::Etcd,
        LeafName::FrontProxyClient => AuthorityName::FrontProxy,
        LeafName::ApiServer
        | LeafName::ApiServerKubeletClient
        | LeafName::ControllerManager
        | LeafName::Scheduler
        | LeafName::Admin
        | LeafName::KubeletClient
        | LeafName::KubeletServer
        | LeafName::Proxy
        | LeafName::HealthCheck
        | LeafName::MetricsServer
        | LeafName::Operator => AuthorityName::Kubernetes,
    }
}

/// What a certificate says, as a template for its successor.
pub(super) fn template(authority: AuthorityName, seen: Seen, terms: Terms) -> Template {
    Template {
        authority,
        common_name: seen.common_name,
        organization: seen.organizations.into_iter().next(),
        usage: match (seen.client, seen.server) {
            (true, true) => Usage::Both,
            (false, true) => Usage::Server,
            (_, false) => Usage::Client,
        },
        sans: seen.sans,
        lifetime: terms.lifetime,
    }
}
