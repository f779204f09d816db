//! The legs on which other authorities, or another key for service-account tokens, take the place of a cluster's own.

use std::collections::BTreeSet;
use std::fmt;

use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::Entropy;
use crate::secrets::Issued;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::Terms;

/// What is exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// These authorities, never none.
    Authorities(BTreeSet<AuthorityName>),
    /// The key that signs service-account tokens.
    TokenKey,
}

/// One step of it. Neighbours may run side by side: each accepts what the other one issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExchangeLeg {
    /// The new one is accepted beside the old one, which goes on issuing.
    Accept,
    /// The new one issues; everything that the old one issued is issued anew. The old one is still accepted.
    Issue,
    /// The old one is accepted no more.
    Drop,
}

/// All of them, in their order.
const LEGS: [ExchangeLeg; 3] = [ExchangeLeg::Accept, ExchangeLeg::Issue, ExchangeLeg::Drop];

impl Exchange {
    /// The exchange of authorities that these keys are in the middle of.
    pub fn of_authorities(secrets: &Secrets) -> Option<Self> {
        let open = secrets.authorities.iter().filter(|(_, set)| set.other.is_some()).map(|(name, _)| *name);
        let open: BTreeSet<_> = open.collect();
        (!open.is_empty()).then_some(Self::Authorities(open))
    }

    /// The exchange of the key for tokens, where these keys are in the middle of one.
    pub fn of_token_key(secrets: &Secrets) -> Option<Self> {
        (secrets.service_account.verifying.len() > 1).then_some(Self::TokenKey)
    }

    /// What is left of it: all legs where it was not begun, else the rest.
    pub fn legs_left(&self, secrets: &Secrets) -> &'static [ExchangeLeg] {
        &LEGS[self.legs_done(secrets)..]
    }

    fn legs_done(&self, secrets: &Secrets) -> usize {
        match self {
            Self::Authorities(names) => {
                let sets = names.iter().filter_map(|name| secrets.authorities.get(name));
                let done = sets.map(|set| match &set.other {
                    None => 0,
                    Some(other) if other.comes => 1,
                    Some(_) => 2,
                });
                done.min().unwrap_or_default()
            }
            Self::TokenKey => match (secrets.service_account.verifying.len(), &secrets.service_account.next) {
                (0 | 1, _) => 0,
                (_, Some(_)) => 1,
                (_, None) => 2,
            },
        }
    }

    /// The keys after `leg`, and what had to be issued for them.
    pub fn after(
        &self,
        leg: ExchangeLeg,
        today: &Secrets,
        terms: Terms,
        now: i64,
        entropy: &mut dyn Entropy,
    ) -> Result<(Secrets, Vec<Issued>), SecretsError> {
        let secrets = match (self, leg) {
            (Self::Authorities(names), ExchangeLeg::Accept) => {
                secrets::accept_new_authorities(today, names, terms.algorithm, now, entropy)?
            }
            (Self::Authorities(names), ExchangeLeg::Issue) => {
                return secrets::issue_from_new_authorities(today, names, terms, now, entropy);
            }
            (Self::Authorities(names), ExchangeLeg::Drop) => secrets::drop_old_authorities(today, names)?,
            (Self::TokenKey, ExchangeLeg::Accept) => secrets::accept_new_token_key(today, terms.algorithm, entropy)?,
            (Self::TokenKey, ExchangeLeg::Issue) => secrets::sign_with_new_token_key(today),
            (Self::TokenKey, ExchangeLeg::Drop) => secrets::drop_old_token_keys(today),
        };
        Ok((secrets, Vec::new()))
    }

    /// What `leg` does, in words; no two legs share them.
    pub fn words(&self, leg: ExchangeLeg) -> String {
        let what = match leg {
            ExchangeLeg::Accept => "the new one is accepted beside the old one",
            ExchangeLeg::Issue => match self {
                Self::Authorities(_) => "the new one issues; every certificate is issued anew",
                Self::TokenKey => "the new one signs",
            },
            ExchangeLeg::Drop => "the old one is accepted no more",
        };
        format!("{self}: {what}")
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorities(names) => {
                let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
                let plural = if names.len() == 1 { "authority" } else { "authorities, of each" };
                write!(f, "{} {plural}", names.join(", "))
            }
            Self::TokenKey => f.write_str("service-account key"),
        }
    }
}
