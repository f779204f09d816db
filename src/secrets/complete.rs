//! From what was kept to what is needed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;

use crate::config::Cluster;
use crate::config::KeyAlgorithm;
use crate::model::ClusterId;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::Entropy;
use crate::secrets::EtcdBirth;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::ServiceAccountKeys;
use crate::secrets::encryption;
use crate::secrets::entropy::random_hex;
use crate::secrets::inspect;
use crate::secrets::inspect::Seen;
use crate::secrets::issue;
use crate::secrets::issue::Authority;
use crate::secrets::key;
use crate::secrets::leaf::DAY;
use crate::secrets::leaf::RENEW_BEFORE;
use crate::secrets::leaf::Template;
use crate::secrets::leaf::Terms;
use crate::secrets::leaf::rows;

/// A leaf that was made by [`complete`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Which.
    pub id: LeafId,
    /// What made it necessary.
    pub why: Why,
}

impl fmt::Display for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {}: {}", self.id.describe(), self.why)
    }
}

/// Why a leaf was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// There was none.
    Missing,
    /// Its time was over.
    Expired,
    /// It had this many whole days left: fewer than ninety, and than a third of its life.
    Expiring {
        /// Whole days.
        days: i64,
    },
    /// No accepted authority signed it.
    Distrusted,
    /// Subject or usages are not the table's.
    Subject,
    /// The cluster's names and addresses changed.
    Names {
        /// New ones.
        added: Vec<String>,
        /// Those that are gone.
        removed: Vec<String>,
    },
    /// The kept one cannot be read.
    Unreadable,
    /// It was asked for.
    Asked,
    /// An external authority signed another one.
    Brought,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("new"),
            Self::Expired => f.write_str("expired"),
            Self::Expiring { days: 1 } => f.write_str("ends in 1 day"),
            Self::Expiring { days } => write!(f, "ends in {days} days"),
            Self::Distrusted => f.write_str("was issued by an authority that is no longer accepted"),
            Self::Subject => f.write_str("carries another subject or other usages"),
            Self::Names { added, removed } => {
                let signed =
                    |sign: char, names: &[String]| names.iter().map(|name| format!("{sign}{name}")).collect::<Vec<_>>();
                write!(f, "names changed ({})", [signed('+', added), signed('-', removed)].concat().join(" "))
            }
            Self::Unreadable => f.write_str("the kept one is unreadable"),
            Self::Asked => f.write_str("renewed as asked"),
            Self::Brought => f.write_str("brought along"),
        }
    }
}

/// The secrets that `cluster` needs at `now` (seconds since 1970), and what had to be issued for them.
///
/// Everything of `previous` that is still good is kept bit by bit; keys of hosts that left are dropped. Without
/// `previous` a new cluster is born: identity, authorities, keys, etcd's token and members. With it none of these is ever
/// made anew: a missing authority is an error, because another PKI would cut off every running component.
///
/// A changed `bastide.pki.algorithm` holds for what is issued from then on.
pub fn complete(
    cluster: &Cluster,
    previous: Option<&Secrets>,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<(Secrets, Vec<Issued>), SecretsError> {
    let terms = Terms::of(cluster);
    let (algorithm, margin) = (terms.algorithm, terms.margin(RENEW_BEFORE));
    let mut secrets = match previous {
        Some(kept) => kept.clone(),
        None => birth(cluster, now, entropy)?,
    };
    let kept = std::mem::take(&mut secrets.leaves);
    let mut issued = Vec::new();
    let mut signers = BTreeMap::new();
    let mut cannot = Cannot::default();
    for name in AuthorityName::ALL {
        let set = secrets.authorities.get(&name).ok_or(SecretsError::AuthorityMissing(name))?;
        signers.insert(name, (Authority::read(name, set, now)?, set));
    }
    let external = secrets.external();
    for (id, template) in rows(cluster, &external) {
        let (authority, set) =
            signers.get(&template.authority).ok_or(SecretsError::AuthorityMissing(template.authority))?;
        let leaf = match due(kept.get(&id), &template, set, authority, (now, margin)) {
            Verdict::Keep(leaf) => leaf.clone(),
            // Its end is told of long before; until then and after it there is nothing better.
            Verdict::Issue(why) if set.external => {
                let ends = matches!(why, Why::Expired | Why::Expiring { .. });
                let Some(leaf) = kept.get(&id).filter(|_| ends) else {
                    cannot.add(template.authority, &id, &why);
                    continue;
                };
                leaf.clone()
            }
            Verdict::Issue(why) => {
                let leaf = issue::leaf(&id.describe(), &template, authority, algorithm, now, entropy)?;
                issued.push(Issued { id: id.clone(), why });
                leaf
            }
        };
        secrets.leaves.insert(id, leaf);
    }
    drop(signers);
    cannot.or((secrets, issued))
}

/// What only an external authority could sign.
#[derive(Default)]
pub(crate) struct Cannot(BTreeMap<AuthorityName, Vec<String>>);

impl Cannot {
    pub(crate) fn add(&mut self, authority: AuthorityName, id: &LeafId, why: &Why) {
        self.0.entry(authority).or_default().push(format!("certificate {}: {why}", id.describe()));
    }

    /// `good`, where nothing is wanted of one.
    pub(crate) fn or<T>(self, good: T) -> Result<T, SecretsError> {
        match self.0.into_iter().next() {
            None => Ok(good),
            Some((name, wanted)) => Err(SecretsError::AuthorityExternal { name, wanted }),
        }
    }
}

pub(crate) enum Verdict<'a> {
    Keep(&'a Leaf),
    Issue(Why),
}

/// Whether a kept leaf still does what `template` asks for, at `now` and for `margin` seconds more. One whose authority is lost
/// does until another authority issues: there is nothing else.
pub(crate) fn due<'a>(
    kept: Option<&'a Leaf>,
    template: &Template,
    set: &AuthoritySet,
    authority: &Authority,
    (now, margin): (i64, i64),
) -> Verdict<'a> {
    let Some(leaf) = kept else { return Verdict::Issue(Why::Missing) };
    let Some(seen) = Seen::read(&leaf.certificate) else { return Verdict::Issue(Why::Unreadable) };
    if authority.is_lost() && inspect::signed_by_any(&leaf.certificate, set.accepted()) {
        return Verdict::Keep(leaf);
    }
    if seen.not_after <= now {
        return Verdict::Issue(Why::Expired);
    }
    if !inspect::signed_by_any(&leaf.certificate, set.accepted()) {
        return Verdict::Issue(Why::Distrusted);
    }
    // Others may put more names and usages into a certificate than they were asked for.
    let (same, named) = if set.external {
        (seen.covers_subject(template), seen.sans.is_superset(&template.sans))
    } else {
        (seen.same_subject(template), seen.sans == template.sans)
    };
    if !same {
        return Verdict::Issue(Why::Subject);
    }
    if !named {
        let shown = |from: &std::collections::BTreeSet<_>, without: &std::collections::BTreeSet<_>| {
            from.difference(without).map(ToString::to_string).collect()
        };
        return Verdict::Issue(Why::Names {
            added: shown(&template.sans, &seen.sans),
            removed: shown(&seen.sans, &template.sans),
        });
    }
    // An authority in its last ninety days can't give more than it has: without this every run would issue anew.
    if seen.not_after - now < margin && authority.end(template.lifetime, now) > seen.not_after {
        return Verdict::Issue(Why::Expiring { days: (seen.not_after - now) / DAY });
    }
    Verdict::Keep(leaf)
}

/// All that is made once in a cluster's life.
pub(super) fn birth(cluster: &Cluster, now: i64, entropy: &mut dyn Entropy) -> Result<Secrets, SecretsError> {
    let algorithm = cluster.options.key_algorithm;
    let id = ClusterId(random_hex(entropy, 16)?);
    let mut authorities = BTreeMap::new();
    for name in AuthorityName::ALL {
        authorities.insert(name, issue::authority(name, algorithm, now, entropy)?);
    }
    Ok(Secrets {
        cluster: id,
        authorities,
        service_account: service_account(algorithm, entropy)?,
        encryption: vec![encryption::first(cluster.options.at_rest.provider, entropy)?],
        leaves: BTreeMap::new(),
        etcd: EtcdBirth {
            token: format!("bastide-{}", random_hex(entropy, 16)?),
            members: cluster
                .etcd_members()
                .map(|node| {
                    let peer = std::net::SocketAddr::new(node.internal_address, 2380);
                    (node.name.clone(), format!("https://{peer}"))
                })
                .collect(),
            away: BTreeSet::new(),
            joining: None,
        },
    })
}

fn service_account(algorithm: KeyAlgorithm, entropy: &mut dyn Entropy) -> Result<ServiceAccountKeys, SecretsError> {
    let signing = key::generate(algorithm, entropy)?;
    Ok(ServiceAccountKeys { signing: key::pem(&signing), verifying: vec![signing.public_key_pem()], next: None })
}
