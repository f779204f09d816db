//! The command line. The doc comments are the help texts.

mod past;
mod shared;
mod state;

use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

use crate::cli::drill::Drill;
use crate::cli::encrypt::Encrypt;
use crate::cli::etcd::Etcd;
pub(super) use past::Certs;
pub(super) use past::CertsFormat;
pub(super) use past::Diff;
pub(super) use past::GenerateCsr;
pub(super) use past::History;
pub(super) use past::HistoryVerb;
pub(super) use past::Rollback;
pub(super) use past::RotateCerts;
pub(super) use shared::Caution;
pub(super) use shared::Consent;
pub(super) use shared::Custom;
pub(super) use shared::Prune;
pub(super) use shared::Reach;
pub(super) use state::Cert;
pub(super) use state::State;
pub(super) use state::TakeOver;
pub(super) use state::Util;

/// Provisions hardened, highly available Kubernetes clusters over SSH, from an RKE cluster.yml
///
/// bastide reads one file, shows what it would change as a plan, and after a yes makes the hosts equal to it. Run it
/// again at any time: it changes only what differs, and goes on where an earlier run was cut off.
#[derive(Debug, Parser)]
#[command(name = "bastide", version, propagate_version = true, after_long_help = EXIT_CODES)]
pub(super) struct Arguments {
    /// The cluster's file
    #[arg(short, long, global = true, default_value = "cluster.yml", env = "BASTIDE_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Say more: every file, unit, image and object that is worked on
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How messages on stderr look when stderr is not a terminal
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done, or nothing to do
  1    refused or failed; what, where and why is on stderr
  2    `plan`, `diff`: there are changes
  3    done, but for hosts that do not answer, and stderr says what completes them; `diff --live`: nothing differs of what answered
  4    `status`, `etcd status`: something is degraded; `encrypt status`: more than one key is in use, or an API server differs;
       `drill`: a limit is exceeded
  5    `status`: no control plane answers
  6    somebody else is at work on this cluster
  7    `up`: a change made a component ill; the cluster was taken back to where it was, and is well
  8    `certs check`: a certificate ends within --warn days, or another one is shown than lies on disk
  9    `certs check`: a certificate ends within --critical days, has ended, or cannot be seen
  64   the command line is wrong
  130  interrupted";

/// Messages on stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people, with the time
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    /// It is
    On,
    /// It is not
    Off,
}

/// Data on stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// The verbs, in the order in which a cluster needs them, which is that of the help.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the file without touching any host
    Validate(Validate),
    /// Show what `up` would change, and change nothing
    Plan(PlanArguments),
    /// Make the cluster equal to the file
    ///
    /// Observes every host, shows the plan, asks, and runs exactly that plan. On a new cluster everything comes up at
    /// once; on a running one the change moves host by host with a health check after each disruptive step.
    Up(Up),
    /// Show revision, versions, health, certificates and drift
    ///
    /// Every component is asked on its own host, not through a balancer. Exits with 0 when all is well, 4 when something
    /// is not, 5 when no control plane answers.
    Status(Status),
    /// Write a kubeconfig, or merge it into one
    Kubeconfig(Kubeconfig),
    /// List the cluster's revisions
    ///
    /// Each is a target that was reached for: when, by whom, why, and what became of it. `bastide diff` compares two of
    /// them.
    History(History),
    /// Show what differs between two revisions, or between one and the live hosts
    ///
    /// Files line by line, manifests and objects field by field, flags by name; of secrets only that they differ. Without
    /// numbers: the revision that was reached last against the one before it. Exits with 2 where something differs, and with 3 where
    /// nothing does but --live could not look everywhere.
    Diff(Diff),
    /// Take the cluster back to a revision that was reached before
    ///
    /// Also after a run that died halfway: `up` goes forward from there, `rollback` back. Shows the way and the plan, asks,
    /// and appends a new revision to the history. Keys and certificates stay today's, unless their renewal is all that is
    /// undone. cluster.yml is not touched: the next `up` would go forward again.
    Rollback(Rollback),
    /// Renew certificates, host by host
    ///
    /// Issues new keys and certificates from the cluster's authorities and brings them to where they are used, one host at a time.
    /// Kubelets are restarted; all else takes them up while it runs. Pods go on running. cluster.yml plays no part: nothing
    /// else changes.
    ///
    /// `up` renews by itself what has fewer than 90 days left. With --ca or --service-account-key what signs is exchanged instead,
    /// while the cluster runs.
    RotateCerts(RotateCerts),
    /// The cluster's certificates
    #[command(subcommand)]
    Certs(Certs),
    /// Encryption at rest: its keys, and what is encrypted with which
    #[command(subcommand)]
    Encrypt(Encrypt),
    /// etcd: its members, and snapshots of it
    #[command(subcommand)]
    Etcd(Etcd),
    /// Rehearse a recovery: restore the newest snapshot for proof, on the clock
    ///
    /// Reads the snapshot as whoever lost everything else would, restores its database beside the cluster's etcd, and says how long
    /// each step took and how much would be lost: age, and revisions against what etcd holds now. Changes nothing. Exits with 4 where
    /// a limit is exceeded, 3 where some place of snapshots did not answer, 1 where nothing could be restored.
    Drill(Drill),
    /// Print the runbook of this cluster, for the night: Markdown with its own names, addresses, numbers and commands
    ///
    /// Made from cluster.yml alone, without asking a host and without a secret; the same file gives the same text. Print it, and keep it
    /// where it can be read when this machine is gone.
    Runbook,
    /// The sealed state beside cluster.yml
    #[command(subcommand)]
    State(State),
    /// SSH host keys
    #[command(subcommand)]
    Hosts(Hosts),
    /// Take the cluster off its hosts
    ///
    /// Leaves nothing of bastide's behind but what docs/remove.md names. etcd snapshots stay unless --purge is given.
    Remove(Remove),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder
    Man {
        /// Where
        folder: PathBuf,
    },
    /// RKE's names for `rotate-certs` and `certs generate-csr`
    #[command(subcommand, hide = true)]
    Cert(Cert),
    /// RKE's names for `kubeconfig` and `state recover`
    #[command(subcommand, hide = true)]
    Util(Util),
    /// What a host's own timers start
    #[command(subcommand, hide = true)]
    Host(HostVerb),
}

impl Command {
    /// Whether there is nothing to be finished where it is interrupted.
    pub(super) fn only_looks(&self) -> bool {
        matches!(
            self,
            Self::Validate(_)
                | Self::Plan(_)
                | Self::Status(_)
                | Self::Kubeconfig(_)
                | Self::Diff(_)
                | Self::Runbook
                | Self::Hosts(_)
                | Self::Completions { .. }
                | Self::Man { .. }
        )
    }
}

/// `up`
#[derive(Debug, Args)]
pub(super) struct Up {
    #[command(flatten)]
    pub reach: Reach,
    #[command(flatten)]
    pub caution: Caution,
    #[command(flatten)]
    pub custom: Custom,
    #[command(flatten)]
    pub prune: Prune,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Keep the state's identity without passphrase or second recipient
    ///
    /// Whoever reads that file can open the state. Recorded in the state.
    #[arg(long)]
    pub no_identity_backup: bool,
    /// Run exactly the plan that `plan --out` wrote, or refuse because a host moved
    #[arg(long, value_name = "FILE", conflicts_with = "custom_certs")]
    pub plan: Option<PathBuf>,
    /// Print where the time went and how many channels were opened
    #[arg(long)]
    pub timings: bool,
    /// Take the cluster back by itself when the change makes a component ill
    ///
    /// Only where that component's host answers, etcd has its quorum and no barrier lies between; otherwise the run stops
    /// where it is. A new cluster has nothing to go back to.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_value = "on", default_missing_value = "on")]
    pub auto_rollback: Switch,
}

/// `plan`
#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    pub reach: Reach,
    #[command(flatten)]
    pub custom: Custom,
    #[command(flatten)]
    pub prune: Prune,
    /// How the plan is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// Write the plan, sealed, for `up --plan`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Keep the state's identity without passphrase or second recipient (with --out on a new cluster)
    #[arg(long)]
    pub no_identity_backup: bool,
}

/// `validate`
#[derive(Debug, Args)]
pub(super) struct Validate {
    /// Use this Kubernetes version instead of the file's
    #[arg(long, value_name = "VERSION")]
    pub kubernetes_version: Option<String>,
}

/// `status`
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    pub reach: Reach,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// `remove`
#[derive(Debug, Args)]
pub(super) struct Remove {
    #[command(flatten)]
    pub reach: Reach,
    #[command(flatten)]
    pub consent: Consent,
    /// Remove etcd snapshots too
    #[arg(long)]
    pub purge: bool,
}

/// `kubeconfig`
#[derive(Debug, Args)]
pub(super) struct Kubeconfig {
    /// Where to write it; `-` is stdout [default: kube_config_<FILE> beside the cluster's file]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Merge into this kubeconfig instead, and make the cluster its current context
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    pub merge: Option<PathBuf>,
    /// The user name in the certificate
    #[arg(long, default_value = "admin", value_name = "NAME")]
    pub user: String,
    /// Days until it ends, 30 at most
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=30))]
    pub days: u16,
}

/// Commands whose only choice is the output.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// `host`
#[derive(Debug, Subcommand)]
pub(super) enum HostVerb {
    /// Take a snapshot of etcd where one is due
    Snapshot {
        /// The settings that `up` left on this host
        settings: PathBuf,
        /// Although none is due
        #[arg(long)]
        now: bool,
    },
    /// Warn of certificates on this host that end soon
    Certificates {
        /// The settings that `up` left on this host
        settings: PathBuf,
    },
}

/// `hosts`
#[derive(Debug, Subcommand)]
pub(super) enum Hosts {
    /// Show the hosts' SSH keys and record them after a yes
    ///
    /// Compare the fingerprints with what the host's console or your provider shows before you say yes.
    Trust {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Only these hosts, by node name
        hosts: Vec<String>,
    },
}
