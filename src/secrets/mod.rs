//! Keys and certificates, from a `Cluster`, a clock and entropy.
//!
//! Enters: the cluster, what was kept, the time, randomness. Leaves: [`Secrets`], one-off certificates, kubeconfigs. Never
//! does I/O, never reads a clock, never makes a second PKI for a cluster that has one.

mod bundle;
mod carry;
mod complete;
mod encryption;
mod entropy;
mod error;
mod exchange;
mod form;
mod found;
mod host;
mod inspect;
mod issue;
mod key;
mod kubeconfig;
mod leaf;
mod operator;
#[cfg(test)]
mod tests;

pub use bundle::*;
pub use carry::Prefer;
pub use carry::carry;
pub use carry::not_before;
pub use carry::renew;
pub use complete::Issued;
pub use complete::Why;
pub use complete::complete;
pub use encryption::EncryptionProvider;
pub use encryption::KeyLabel;
pub use encryption::newest_encryption_key;
pub use encryption::next_encryption_key;
pub use entropy::Entropy;
pub use entropy::SeededEntropy;
pub use entropy::SystemEntropy;
pub use entropy::random_hex;
pub use error::SecretsError;
pub use exchange::accept_new_authorities;
pub use exchange::accept_new_token_key;
pub use exchange::drop_old_authorities;
pub use exchange::drop_old_token_keys;
pub use exchange::issue_from_new_authorities;
pub use exchange::issued_by;
pub use exchange::serving_chain;
pub use exchange::sign_with_new_token_key;
pub use exchange::token_key_id;
pub use exchange::trial_leaf;
pub use form::seal_form;
pub use form::unseal_form;
pub use found::Found;
pub use found::encryption_keys;
pub use found::spare_encryption_key;
pub use host::HostSigners;
pub use host::HostSnapshots;
pub use kubeconfig::Credential;
pub use kubeconfig::Kubeconfig;
pub use kubeconfig::Server;
pub use kubeconfig::Trust;
pub use kubeconfig::kubeconfig;
pub use kubeconfig::servers;
pub use leaf::ADMIN_GROUP;
pub use leaf::ADMIN_USER;
pub use leaf::AUTHORITY_LIFETIME;
pub use leaf::BACKDATED;
pub use leaf::HEALTHCHECK_USER;
pub use leaf::KUBELET_CLIENT_GROUP;
pub use leaf::KUBELET_CLIENT_USER;
pub use leaf::LEAF_LIFETIME;
pub use leaf::RENEW_BEFORE;
pub use leaf::Terms;
pub use operator::OPERATOR_DAYS;
pub use operator::Operator;
pub use operator::SUPER_ADMIN_USER;
pub use operator::operator_leaf;
