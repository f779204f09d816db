//! Whether a component believes an authority: it is asked with a certificate from it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::api;
use crate::api::Credentials;
use crate::api::Trial;
use crate::host::Host;
use crate::model::Content;
use crate::ops::OpsError;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;
use crate::secrets::SystemEntropy;

/// Whom the front proxy's certificate says that it is (`--requestheader-allowed-names`).
const FRONT_PROXY: &str = "front-proxy-client";
/// Something that everybody may see whom the server knows, and nobody else.
const FOR_KNOWN: &str = "/api";

/// An authority, and what it can be tried with.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    pub name: AuthorityName,
    pub certificate: String,
    key: Content,
    /// A certificate from it, where its key is elsewhere.
    proof: Option<Leaf>,
}

/// Both authorities of a set of `secrets`.
pub(super) fn signers(name: AuthorityName, secrets: &Secrets) -> Vec<Signer> {
    let Some(set) = secrets.authorities.get(&name) else { return Vec::new() };
    let proof = |leaves: &BTreeMap<LeafId, Leaf>| {
        let row = if name == AuthorityName::FrontProxy { LeafName::FrontProxyClient } else { LeafName::Operator };
        leaves.iter().find(|(id, _)| id.name == row).map(|(_, leaf)| leaf.clone())
    };
    let own = Signer {
        name,
        certificate: set.certificate.clone(),
        key: set.key.clone(),
        proof: proof(&secrets.leaves).filter(|_| set.external),
    };
    let other = set.other.as_ref().map(|other| Signer {
        name,
        certificate: other.certificate.clone(),
        key: other.key.clone(),
        proof: proof(&other.leaves),
    });
    std::iter::once(own).chain(other).collect()
}

/// Where a front proxy's certificate is shown, and what for.
pub(super) struct Place<'a> {
    pub address: IpAddr,
    pub port: u16,
    /// What the server's certificate says, where that is not the address.
    pub name: Option<&'a str>,
    pub path: &'a str,
}

/// Who asks.
pub(super) struct Asker<'a> {
    /// Whose authority for servers it believes.
    pub trust: &'a Secrets,
    /// Seconds since 1970: a certificate for the trial is issued now.
    pub now: i64,
    /// How long it waits for an answer.
    pub patience: Duration,
}

impl Signer {
    /// Whether anybody can be asked with a certificate from it: not where its key is lost.
    pub(super) fn can_be_tried(&self) -> bool {
        !self.key.is_empty() || self.proof.is_some()
    }

    /// Whether the API server at `address` knows whom this authority made a certificate for.
    pub(super) async fn is_accepted<H: Host>(
        &self,
        host: &H,
        address: IpAddr,
        asker: &Asker<'_>,
    ) -> Result<bool, OpsError> {
        let place = Place { address, port: 6443, name: None, path: FOR_KNOWN };
        self.is_accepted_at(host, &place, asker).await
    }

    /// The same of any server that believes clients or front proxies.
    pub(super) async fn is_accepted_at<H: Host>(
        &self,
        host: &H,
        place: &Place<'_>,
        asker: &Asker<'_>,
    ) -> Result<bool, OpsError> {
        let (user, group, behalf) = match self.name {
            AuthorityName::FrontProxy => (FRONT_PROXY, None, Some((secrets::SUPER_ADMIN_USER, "system:masters"))),
            _ => (secrets::SUPER_ADMIN_USER, Some("system:masters"), None),
        };
        let pair = (self.certificate.as_str(), &self.key);
        let leaf = match &self.proof {
            Some(leaf) => leaf.clone(),
            None => secrets::trial_leaf(self.name, pair, (user, group), asker.now, &mut SystemEntropy)?,
        };
        let authorities = asker.trust.authorities.get(&AuthorityName::Kubernetes).map(AuthoritySet::trust_bundle);
        let credentials =
            Credentials { authorities: authorities.unwrap_or_default(), certificate: leaf.certificate, key: leaf.key };
        let trial = Trial {
            address: place.address,
            port: place.port,
            name: place.name,
            path: place.path,
            on_behalf_of: behalf,
        };
        let answer = api::trial(host, &trial, &credentials, asker.patience).await;
        let answer = answer.map_err(|error| OpsError::Impossible(error.to_string()))?;
        Ok(answer.status == 200)
    }
}
