//! Client certificates that are made for one occasion and never kept.

use crate::config::KeyAlgorithm;
use crate::secrets::AuthorityName;
use crate::secrets::Entropy;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::issue;
use crate::secrets::issue::Authority;
use crate::secrets::leaf::ADMIN_GROUP;
use crate::secrets::leaf::DAY;
use crate::secrets::leaf::Template;

/// The longest life of a person's certificate. Certificates cannot be revoked, so they end soon.
pub const OPERATOR_DAYS: u64 = 30;

/// CN of bastide's own certificate while it works on a cluster.
pub const SUPER_ADMIN_USER: &str = "bastide:up";

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator<'a> {
    /// bastide itself: system:masters, one hour. Reaches a new API server before any RBAC object exists. Stays in
    /// memory; never written anywhere. An external authority's is kept, sealed, and lasts as long as that one said.
    SuperAdmin,
    /// A person's kubeconfig: group [`ADMIN_GROUP`].
    Person {
        /// CN, shown in the audit log.
        name: &'a str,
        /// At most [`OPERATOR_DAYS`].
        days: u64,
    },
}

/// Issues a client certificate of the Kubernetes authority at `now` (seconds since 1970).
///
/// The key's algorithm is the cluster's, or P-256 where speed is all that matters.
pub fn operator_leaf(
    secrets: &Secrets,
    whom: Operator<'_>,
    algorithm: KeyAlgorithm,
    now: i64,
    entropy: &mut dyn Entropy,
) -> Result<Leaf, SecretsError> {
    let name = AuthorityName::Kubernetes;
    let set = secrets.authorities.get(&name).ok_or(SecretsError::AuthorityMissing(name))?;
    let template = template(whom)?;
    let own = LeafId { name: LeafName::Operator, host: None };
    if set.external && whom == Operator::SuperAdmin {
        return secrets.leaves.get(&own).cloned().ok_or(SecretsError::LeafMissing(own));
    }
    let what = match &template.organization {
        Some(group) => format!("a client certificate with CN={} and O={group}", template.common_name),
        None => template.common_name.clone(),
    };
    issue::leaf(&what, &template, &Authority::read(name, set, now)?, algorithm, now, entropy)
}

fn template(whom: Operator<'_>) -> Result<Template, SecretsError> {
    match whom {
        Operator::SuperAdmin => {
            let mut template = Template::client(AuthorityName::Kubernetes, SUPER_ADMIN_USER, Some("system:masters"));
            template.lifetime = 60 * 60;
            Ok(template)
        }
        Operator::Person { name, days } => {
            let wrong = |reason| SecretsError::OperatorName { name: name.to_owned(), reason };
            if name.is_empty() || name.len() > 64 {
                return Err(wrong("a name has 1 to 64 characters"));
            }
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@:+".contains(&byte)) {
                return Err(wrong("only letters, digits and . _ - @ : + may stand in it"));
            }
            // Kubernetes gives names of this form rights of their own: system:kube-controller-manager, system:node:x.
            if name.starts_with("system:") || name.starts_with("bastide:") {
                return Err(wrong("names of components are not for people"));
            }
            if days == 0 || days > OPERATOR_DAYS {
                return Err(SecretsError::OperatorLifetime { asked_days: days, most_days: OPERATOR_DAYS });
            }
            let mut template = Template::client(AuthorityName::Kubernetes, name, Some(ADMIN_GROUP));
            template.lifetime = i64::try_from(days).unwrap_or(1) * DAY;
            Ok(template)
        }
    }
}
