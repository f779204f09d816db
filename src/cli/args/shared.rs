//! What several commands take.

use std::path::PathBuf;

use clap::Args;

use crate::ops::Invocation;

/// What every command that reaches hosts takes.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Reach {
    /// Use this Kubernetes version instead of the file's
    #[arg(long, value_name = "VERSION")]
    pub kubernetes_version: Option<String>,
    /// Record the keys of hosts of which no key is known yet
    ///
    /// An explicit choice: whoever answers first is believed. A key that differs from a recorded one is never accepted.
    #[arg(long)]
    pub accept_new_host_keys: bool,
    /// Leave this control-plane or etcd host out, although it does not answer (repeatable)
    #[arg(long, value_name = "HOST")]
    pub without: Vec<String>,
}

/// What a command takes before which a last snapshot of etcd is taken.
#[derive(Debug, Clone, Copy, Default, Args)]
#[group(skip)]
pub(in crate::cli) struct Caution {
    /// Go without the snapshot of etcd that is taken before versions, members, keys or etcd's data change
    #[arg(long)]
    pub no_last_snapshot: bool,
}

impl Caution {
    /// The invocation, with that choice.
    pub(in crate::cli) fn with(self, invocation: Invocation) -> Invocation {
        Invocation { no_last_snapshot: self.no_last_snapshot, ..invocation }
    }
}

/// Certificates that an external authority signed.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Custom {
    /// Use certificates that an external authority signed, from --cert-dir
    ///
    /// Everything in the folder is verified first: chain, keys, purposes, names, subjects, time. A new cluster begins with that
    /// authority; docs/certificates.md says what it means. `bastide certs generate-csr` writes the requests.
    #[arg(long)]
    pub custom_certs: bool,
    /// Where they lie [default: <FILE>_certs beside the cluster's file]
    #[arg(long, value_name = "FOLDER", requires = "custom_certs")]
    pub cert_dir: Option<PathBuf>,
}

/// What goes with data.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Prune {
    /// Delete this object that left cluster.yml with everything in it: a namespace, definition or volume (repeatable)
    #[arg(long, value_name = "KIND/NAME")]
    pub prune_data: Vec<String>,
}

/// What a command takes that asks for the cluster's name.
#[derive(Debug, Args)]
#[group(skip)]
pub(in crate::cli) struct Consent {
    /// Do not ask; needs --cluster
    #[arg(short, long, requires = "cluster")]
    pub yes: bool,
    /// The cluster's name, as a proof that this one is meant
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
}
