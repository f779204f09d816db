//! Whether two targets may run side by side.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;

use crate::model::Blobs;
use crate::model::Desired;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::KubeVersion;
use crate::render::ENCRYPTION;
use crate::route::key_rules::Rule;
use crate::route::key_rules::rules_fit;
use crate::route::key_walk;
use crate::route::key_walk::Reader;
use crate::secrets::AuthorityName;
use crate::secrets::Secrets;

/// What of a target decides whether another one may run beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Kubernetes of every host.
    pub kubernetes: KubeVersion,
    /// Hosts with an etcd member or an API server, and which of these they have.
    pub members: BTreeMap<HostName, (bool, bool)>,
    /// Over etcd's birth data: another one is another cluster.
    pub birth: Digest,
    /// By authority: the issuing one first, then all others that are accepted.
    pub authorities: BTreeMap<AuthorityName, Vec<Digest>>,
    /// Keys that verify service-account tokens, the signing one's first.
    pub tokens: Vec<Digest>,
    /// Keys for encryption at rest by what they encrypt, the writing one first.
    pub encryption: Vec<Rule<Digest>>,
}

/// What two targets would not understand of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clash {
    /// More than one minor lies between them.
    Minor(KubeVersion, KubeVersion),
    /// Other etcd members or control planes.
    Members(BTreeSet<HostName>),
    /// etcd was made anew in between.
    Birth,
    /// One does not accept what the other's authority signs.
    Authority(AuthorityName),
    /// One does not accept the other's tokens.
    Tokens,
    /// One cannot read what the other writes.
    Encryption,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(one, other) => write!(f, "more than one minor lies between {one} and {other}"),
            Self::Members(hosts) => {
                let names: Vec<_> = hosts.iter().map(HostName::as_str).collect();
                write!(f, "{} would join or leave the control plane or etcd", names.join(", "))
            }
            Self::Birth => f.write_str("etcd was made anew in between"),
            Self::Authority(name) => write!(f, "one does not accept what the other's {name} authority signs"),
            Self::Tokens => f.write_str("one does not accept the other's service-account tokens"),
            Self::Encryption => f.write_str("one lacks the key with which the other encrypts Secrets"),
        }
    }
}

impl Point {
    /// Of a target with its contents and keys.
    pub fn new(desired: &Desired, blobs: &Blobs, secrets: &Secrets) -> Self {
        let members = desired.hosts.iter().filter_map(|(name, host)| {
            let roles = (host.roles.etcd(), host.roles.control_plane());
            (roles != (false, false)).then(|| (name.clone(), roles))
        });
        let birth: String = secrets.etcd.members.iter().map(|(name, url)| format!("{name} {url}\n")).collect();
        let authorities = secrets
            .authorities
            .iter()
            .map(|(name, set)| (*name, set.accepted().map(|pem| Digest::of(pem.trim().as_bytes())).collect()));
        Self {
            kubernetes: desired.kubernetes,
            members: members.collect(),
            birth: Digest::of(format!("{}\n{birth}", secrets.etcd.token).as_bytes()),
            authorities: authorities.collect(),
            tokens: secrets.service_account.verifying.iter().map(|pem| Digest::of(pem.trim().as_bytes())).collect(),
            encryption: encryption(desired, blobs, secrets),
        }
    }
}

/// The keys as the API servers are given them; where a file is the user's own, what stands in it.
fn encryption(desired: &Desired, blobs: &Blobs, secrets: &Secrets) -> Vec<Rule<Digest>> {
    let file = desired.hosts.values().find_map(|host| {
        let (_, file) = host.files.iter().find(|(path, _)| path.as_str() == ENCRYPTION)?;
        key_walk::read(blobs.get(&file.digest)?.expose_text()?)
    });
    let digests =
        |rule: Rule<Reader>| Rule { resources: rule.resources, keys: rule.keys.iter().map(Reader::digest).collect() };
    match file {
        Some(rules) => rules.into_iter().map(digests).collect(),
        None => vec![Rule {
            resources: vec!["secrets".to_owned()],
            keys: secrets.encryption.iter().map(|key| Digest::of(key.key.expose())).collect(),
        }],
    }
}

/// Everything that keeps `a` and `b` from running side by side while hosts go from one to the other, one by one. The same
/// in both directions; empty: they may.
pub fn compatible(a: &Point, b: &Point) -> Vec<Clash> {
    let mut clashes = Vec::new();
    if a.kubernetes.minor.abs_diff(b.kubernetes.minor) > 1 {
        let (low, high) = (a.kubernetes.min(b.kubernetes), a.kubernetes.max(b.kubernetes));
        clashes.push(Clash::Minor(low, high));
    }
    let names: BTreeSet<_> = a.members.keys().chain(b.members.keys()).collect();
    let differ: BTreeSet<_> =
        names.into_iter().filter(|name| a.members.get(*name) != b.members.get(*name)).cloned().collect();
    if !differ.is_empty() {
        clashes.push(Clash::Members(differ));
    }
    if a.birth != b.birth {
        clashes.push(Clash::Birth);
    }
    let none = Vec::new();
    for name in AuthorityName::ALL {
        let of = |point: &Point| point.authorities.get(&name).unwrap_or(&none).clone();
        if !each_holds_the_others_first(&of(a), &of(b)) {
            clashes.push(Clash::Authority(name));
        }
    }
    if !each_holds_the_others_first(&a.tokens, &b.tokens) {
        clashes.push(Clash::Tokens);
    }
    if !rules_fit(&a.encryption, &b.encryption, &key_walk::clear_digest()) {
        clashes.push(Clash::Encryption);
    }
    clashes
}

fn each_holds_the_others_first(a: &[Digest], b: &[Digest]) -> bool {
    a.first().is_none_or(|first| b.contains(first)) && b.first().is_none_or(|first| a.contains(first))
}
