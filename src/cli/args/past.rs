//! Arguments of the commands that look back, go back, and renew.

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;

use crate::cli::args::Caution;
use crate::cli::args::Custom;
use crate::cli::args::OutputFormat;
use crate::cli::args::Reach;
use crate::route::Service;
use crate::secrets::AuthorityName;

/// `rollback`
#[derive(Debug, Args)]
pub(in crate::cli) struct Rollback {
    #[command(flatten)]
    pub reach: Reach,
    #[command(flatten)]
    pub caution: Caution,
    /// The revision, as `bastide history` numbers it [default: the one before; after a run that died, the last reached]
    #[arg(long, value_name = "N")]
    pub to: Option<u32>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Print where the time went and how many channels were opened
    #[arg(long)]
    pub timings: bool,
}

/// `rotate-certs`
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(in crate::cli) struct RotateCerts {
    #[command(flatten)]
    pub reach: Reach,
    #[command(flatten)]
    pub caution: Caution,
    #[command(flatten)]
    pub custom: Custom,
    /// Only this service's (repeatable): etcd, kubelet, kube-apiserver, kube-proxy, kube-scheduler,
    /// kube-controller-manager, admin, front-proxy, balancer, metrics-server
    #[arg(long = "service", value_name = "SERVICE", value_parser = service, conflicts_with = "custom_certs")]
    pub services: Vec<Service>,
    /// Only this host's (repeatable)
    #[arg(long = "host", value_name = "HOST", conflicts_with = "custom_certs")]
    pub hosts: Vec<String>,
    /// Only what ends within this many days, such as 30d
    #[arg(long, value_name = "DAYS", value_parser = days, conflicts_with = "custom_certs")]
    pub due: Option<u32>,
    /// Put new certificate authorities in the place of the cluster's own: kubernetes, etcd and front-proxy
    ///
    /// In three legs, each a revision of its own: both are accepted, the new ones issue, the old ones are accepted no more. A run
    /// that was cut off goes on with the same command; `bastide rollback` goes back leg by leg. With --custom-certs the new ones are
    /// those of the folder; an external authority gives its place to one of bastide's own where --authority names it.
    #[arg(long, alias = "rotate-ca", group = "exchange", conflicts_with_all = ["services", "hosts", "due"])]
    pub ca: bool,
    /// Only this authority (repeatable): kubernetes, etcd, front-proxy
    #[arg(long = "authority", value_name = "AUTHORITY", value_parser = authority, requires = "ca")]
    pub authorities: Vec<AuthorityName>,
    /// Put a new key in the place of the one that signs service-account tokens
    ///
    /// In three legs, each a revision of its own: both verify, the new one signs, the old one verifies no more. The last leg waits
    /// for the longest life of a token (24 h unless cluster.yml says otherwise): run the command again then.
    #[arg(long, group = "exchange", conflicts_with_all = ["services", "hosts", "due", "custom_certs"])]
    pub service_account_key: bool,
    /// The old one is not to be believed any more: no waiting for tokens to end, and no rollback over the last leg
    #[arg(long, requires = "exchange")]
    pub distrust_old: bool,
    /// Restart the Deployments, DaemonSets and StatefulSets whose pods would be cut off by the last leg, before it
    #[arg(long, requires = "exchange")]
    pub restart_pods: bool,
    /// Accept that pods that were not restarted may be cut off by the last leg
    #[arg(long, requires = "exchange")]
    pub leave_pods: bool,
    /// Have tokens in Secrets that the old key signed issued anew before the last leg
    #[arg(long, requires = "service_account_key")]
    pub reissue_tokens: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Print where the time went and how many channels were opened
    #[arg(long)]
    pub timings: bool,
}

fn authority(text: &str) -> Result<AuthorityName, String> {
    AuthorityName::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| {
        let names = AuthorityName::ALL.map(AuthorityName::as_str);
        format!("there is no such authority; known are {}", names.join(", "))
    })
}

fn service(text: &str) -> Result<Service, String> {
    text.parse()
}

/// `30d` or `30`.
fn days(text: &str) -> Result<u32, String> {
    text.strip_suffix('d').unwrap_or(text).parse().map_err(|_| "write a number of days, such as 30d".to_owned())
}

/// `diff`
#[derive(Debug, Args)]
pub(in crate::cli) struct Diff {
    #[command(flatten)]
    pub reach: Reach,
    /// Revision to begin with [default: the one before TO; with --live the one that was reached last]
    pub from: Option<u32>,
    /// Revision to end with [default: the one that was reached last]
    pub to: Option<u32>,
    /// Compare with what hosts and cluster are like now: every managed path, unit and object that differs
    #[arg(long, conflicts_with = "to")]
    pub live: bool,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// `history`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct History {
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
    #[command(subcommand)]
    pub verb: Option<HistoryVerb>,
}

/// `history …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum HistoryVerb {
    /// Drop the contents of old revisions from the state folder
    ///
    /// The newest reached revisions, and all that are newer than these, keep their files, objects and keys; of the others
    /// only the line in the history stays, and no rollback leads to them any more.
    Prune {
        /// How many reached revisions keep their contents
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        keep: u16,
    },
}

/// `certs`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Certs {
    /// Look at every certificate on the hosts' disks and on the wire
    ///
    /// Says when each ends, whether it is the one that bastide wrote, and whether the server that should show it does.
    Check {
        #[command(flatten)]
        reach: Reach,
        /// Warn (exit code 8) when fewer days are left
        #[arg(long, value_name = "DAYS", default_value = "30", value_parser = days)]
        warn: u32,
        /// Alarm (exit code 9) when fewer days are left
        #[arg(long, value_name = "DAYS", default_value = "7", value_parser = days)]
        critical: u32,
        /// How it is printed
        #[arg(short, long, value_enum, default_value_t)]
        output: CertsFormat,
    },
    /// Write requests for everything that an external authority is to sign
    ///
    /// Asks no host. Each NAME-csr.pem says what NAME.pem has to say; the keys are drawn here and lie beside them in keys.sealed, sealed
    /// like the state, so that none is ever on the disk in clear. What was written before and not signed yet stays as it is. Sign them,
    /// put NAME.pem and the authority's own certificate (kube-ca.pem) into the folder, then run `bastide up --custom-certs`, or
    /// `bastide rotate-certs --custom-certs` on a cluster that runs.
    GenerateCsr(GenerateCsr),
}

/// `certs generate-csr`
#[derive(Debug, Args)]
pub(in crate::cli) struct GenerateCsr {
    /// Where they go [default: <FILE>_certs beside the cluster's file]
    #[arg(long, value_name = "FOLDER")]
    pub cert_dir: Option<PathBuf>,
    /// Whose certificates an external authority signs (repeatable): kubernetes, etcd, front-proxy [default: kubernetes; of a cluster that
    /// exists, those that are external]
    #[arg(long = "authority", value_name = "AUTHORITY", value_parser = authority)]
    pub authorities: Vec<AuthorityName>,
    /// Keep the state's identity without passphrase or second recipient (on a new cluster)
    #[arg(long)]
    pub no_identity_backup: bool,
}

/// Certificates on stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum CertsFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// Prometheus' text format, for the node exporter's textfile collector
    Prometheus,
}
