//! `encrypt`: its arguments, what they lead to, and how it is shown.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use crate::cli::args::Caution;
use crate::cli::args::Output;
use crate::cli::args::OutputFormat;
use crate::cli::args::Reach;
use crate::cli::console::Console;
use crate::cli::error;
use crate::cli::run::UP;
use crate::cli::run::ended;
use crate::cli::run::invocation;
use crate::cli::run::print;
use crate::cli::table::drawn;
use crate::cli::table::table;
use crate::ops;
use crate::ops::EncryptionStatus;
use crate::ops::OpsError;
use crate::ops::RotateKeyOptions;
use crate::ops::Talk;
use crate::secrets::EncryptionProvider;

/// `encrypt`
#[derive(Debug, Subcommand)]
pub(super) enum Encrypt {
    /// Show what encrypts each resource, what each API server works with, and how many objects etcd holds under which key
    ///
    /// Each API server is asked which configuration it works with; etcd is asked which key each object begins with. No key
    /// and no object is read. An API server that asks a plugin (KMS v2) is asked whether it gets answers. Exits with 0 when every
    /// object lies under the key that writes its resource, no other key of bastide's making is left, and every API server works
    /// with them; else with 4.
    Status {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        output: Output,
    },
    /// Put a new encryption key in the old one's place, while everything runs
    ///
    /// The change of what encrypts (secretbox, aescbc, a key service) is cluster.yml's business and `bastide up`'s work.
    ///
    /// In three legs, each of them a revision that `bastide rollback` can take back: every API server is given the new key as
    /// its second; the new key comes first and encrypts what is written; everything that the old key encrypted is written
    /// anew, and the old key is dropped once etcd shows that nothing needs it any more. API servers take keys up without a
    /// restart; they look once a minute. Run it again after it was cut off: it goes on where it stood.
    ///
    /// Snapshots from before hold the old key themselves, in their sealed part.
    RotateKey {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        caution: Caution,
        /// What the new key encrypts with: secretbox or aescbc
        ///
        /// Without it what `bastide.encryption.provider` of cluster.yml says, else secretbox.
        #[arg(long, value_name = "PROVIDER", value_parser = provider)]
        provider: Option<EncryptionProvider>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Print where the time went and how many channels were opened
        #[arg(long)]
        timings: bool,
    },
}

fn provider(text: &str) -> Result<EncryptionProvider, String> {
    text.parse()
}

pub(super) async fn run(
    command: Encrypt,
    config: &Path,
    console: &Console,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<u8, OpsError> {
    match command {
        Encrypt::Status { reach, output } => {
            let seen = Box::pin(ops::encryption_status(&invocation(config, &reach, "encrypt status"), talk)).await?;
            print(&shown(&seen, output.output))?;
            Ok(if seen.settled { 0 } else { error::DEGRADED })
        }
        Encrypt::RotateKey { reach, caution, provider, yes, timings } => {
            let options = RotateKeyOptions { provider, yes, timings };
            let invocation = caution.with(invocation(config, &reach, "encrypt rotate-key"));
            let reached = Box::pin(ops::rotate_key(&invocation, &options, talk, cancel)).await?;
            console.settle();
            Ok(ended(&reached, UP, console))
        }
    }
}

fn shown(seen: &EncryptionStatus, format: OutputFormat) -> String {
    match format {
        OutputFormat::Json => serde_json::to_string_pretty(seen).map(|text| text + "\n").unwrap_or_default(),
        OutputFormat::Text => text(seen),
    }
}

fn text(seen: &EncryptionStatus) -> String {
    let mut resources = table(&["RESOURCE", "KEYS, THE FIRST WRITES"]);
    for (resource, keys) in &seen.resources {
        resources.add_row([resource.as_str(), &keys.join("\n")]);
    }
    let mut servers = table(&["HOST", "KEYS", "ON DISK", "IN USE", "STATE"]);
    for (host, server) in &seen.api_servers {
        let digest = |digest: Option<crate::model::Digest>| digest.map(|digest| digest.short()).unwrap_or_default();
        let state = if server.ailments.is_empty() { "ok".to_owned() } else { server.ailments.join("\n") };
        servers.add_row([host.to_string(), server.keys.join("\n"), digest(server.file), digest(server.loaded), state]);
    }
    let mut objects = table(&["RESOURCE", "ENCRYPTED WITH", "OBJECTS"]);
    for (resource, all) in &seen.objects {
        let extra = [("a key that no API server has", all.unknown), ("nothing, in clear", all.clear)];
        let extra = extra.into_iter().filter(|(_, count)| *count > 0);
        let rows = all.by_key.iter().map(|(key, count)| (key.as_str(), *count)).chain(extra);
        for (key, count) in rows {
            objects.add_row([resource.as_str(), key, &count.to_string()]);
        }
    }
    let mut out = format!("{}\n{}\n{}", drawn(resources), drawn(servers), drawn(objects));
    for note in &seen.notes {
        let _ = writeln!(out, "{note}");
    }
    out
}
