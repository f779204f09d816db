//! Arguments of the commands on the state itself.

use clap::Args;
use clap::Subcommand;

use crate::cli::args::Output;
use crate::cli::args::Reach;
use crate::cli::rke::Common;

/// `state`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum State {
    /// Rebuild the state folder from the sealed copy on a host, or from a file
    Recover {
        #[command(flatten)]
        reach: Reach,
        /// A control-plane or etcd host, by node name [default: whichever holds the newest copy]
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
        /// What `state export` wrote, or a snapshot, whose state is as old as it is; no host is asked
        #[arg(long, value_name = "FILE", conflicts_with = "host")]
        file: Option<std::path::PathBuf>,
        /// The identity is lost: bring it back with the private key of one of bastide.state.recipients
        ///
        /// An age identity, an OpenSSH key, or the line by which an age plugin knows its key (AGE-PLUGIN-…).
        #[arg(long, value_name = "FILE")]
        recipient_key: Option<std::path::PathBuf>,
        /// The signer that the first `up` printed; without it the host's word is taken
        #[arg(long, value_name = "SIGNER", requires = "recipient_key")]
        signer: Option<String>,
        #[command(flatten)]
        take_over: TakeOver,
    },
    /// Read all of the state folder: is everything there, whole, and readable by nobody else?
    ///
    /// Asks no host and changes nothing. Exits with 1 where something is wrong.
    Check(Output),
    /// Write all of the state folder into one sealed and signed file
    ///
    /// It opens with the identity or one of the recipients, as the folder does; `state recover --file` makes the folder from it.
    Export {
        /// Where; nothing may be there yet
        #[arg(value_name = "FILE")]
        file: std::path::PathBuf,
    },
    /// Seal everything anew, to the bastide.state.recipients that cluster.yml names now
    ///
    /// Every sealed file in the folder is written anew and the old ones are removed; then the copies on all control-plane and etcd
    /// hosts are replaced. The identity stays the same, and snapshots that were taken before stay as they are: docs/state.md says
    /// what a former recipient keeps.
    Rekey {
        #[command(flatten)]
        reach: Reach,
        /// Where cluster.yml names no recipients any more: keep the identity without a second one
        #[arg(long)]
        no_identity_backup: bool,
    },
}

/// `state recover --without-identity`
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct TakeOver {
    /// The identity is lost, and no recipient can bring it back: take the cluster over from its hosts
    ///
    /// The Kubernetes authority, the key for service-account tokens, the keys for encryption at rest and all certificates are read
    /// from the hosts as root, and sealed to a new identity. The keys of the etcd and front-proxy authorities are on no host: others
    /// take their place in three legs, while the cluster runs. Shows what is kept, replaced and lost, and asks for the cluster's
    /// name. Cut off at any point, the same command goes on. The history is lost, and snapshots that were sealed to the lost
    /// identity alone stay closed. Refused where the identity is there.
    #[arg(long, conflicts_with_all = ["host", "file", "recipient_key"])]
    pub without_identity: bool,
    /// Do not ask; needs --cluster
    #[arg(short, long, requires_all = ["cluster", "without_identity"])]
    pub yes: bool,
    /// The cluster's name, as a proof that this one is meant
    #[arg(long, value_name = "NAME", requires = "without_identity")]
    pub cluster: Option<String>,
    /// Keep the new identity without passphrase or second recipient
    #[arg(long, requires = "without_identity")]
    pub no_identity_backup: bool,
}

/// `cert`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Cert {
    /// `rotate-certs`
    Rotate(super::RotateCerts),
    /// `certs generate-csr`
    GenerateCsr(super::GenerateCsr),
}

/// `util`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Util {
    /// `kubeconfig`
    GetKubeconfig {
        #[command(flatten)]
        common: Common,
    },
    /// `state recover`
    GetStateFile {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        common: Common,
    },
}
