//! One match: subcommand to use case.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cli::args::Arguments;
use crate::cli::args::Cert;
use crate::cli::args::Command;
use crate::cli::args::Custom;
use crate::cli::args::HostVerb;
use crate::cli::args::Hosts;
use crate::cli::args::Kubeconfig;
use crate::cli::args::OutputFormat;
use crate::cli::args::Reach;
use crate::cli::args::State;
use crate::cli::args::TakeOver;
use crate::cli::args::Util;
use crate::cli::console;
use crate::cli::console::Console;
use crate::cli::error;
use crate::cli::past;
use crate::cli::show;
use crate::ops;
use crate::ops::Destination;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::Overall;
use crate::ops::Reached;
use crate::ops::RemoveOptions;
use crate::ops::TakeOverOptions;
use crate::ops::Talk;
use crate::ops::Turn;
use crate::ops::UpOptions;

/// Runs the command and says how it ended.
pub(super) fn run(arguments: Arguments) -> ExitCode {
    let console = Arc::new(Console::new(arguments.log_format, arguments.verbose));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            console.warn(&format!("cannot start: {error}"));
            return ExitCode::from(error::FAILED);
        }
    };
    let cancel = CancellationToken::new();
    let only_looks = arguments.command.only_looks();
    runtime.spawn(interrupts(cancel.clone(), Arc::clone(&console), only_looks));
    let ended = runtime.block_on(async {
        let work = Box::pin(dispatch(arguments, &console, &cancel));
        if only_looks { ops::unless_interrupted(&cancel, work).await } else { work.await }
    });
    // Connections to hosts that no longer answer are not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(code) => {
            console.settle();
            ExitCode::from(code)
        }
        Err(error) => ExitCode::from(error::report(&error, cancel.is_cancelled(), &console)),
    }
}

/// Once: finish the running steps, or end where none runs. Twice: stop now.
async fn interrupts(cancel: CancellationToken, console: Arc<Console>, only_looks: bool) {
    for count in 1.. {
        if tokio::signal::ctrl_c().await.is_err() {
            return;
        }
        if count > 1 {
            console.break_off();
            console.warn("stopped in the middle; the same command goes on from here");
            #[allow(clippy::exit, reason = "the second Ctrl-C asks for an end without waiting for anything")]
            std::process::exit(i32::from(error::INTERRUPTED));
        }
        if !only_looks {
            console.warn("stops when the running steps are finished; once more stops now");
        }
        cancel.cancel();
    }
}

async fn dispatch(arguments: Arguments, console: &Arc<Console>, cancel: &CancellationToken) -> Result<u8, OpsError> {
    let talk: Arc<dyn Talk> = Arc::clone(console) as Arc<dyn Talk>;
    let config = arguments.config;
    let alone = |command| invocation(&config, &Reach::default(), command);
    match arguments.command {
        Command::Up(up) => {
            let options = UpOptions {
                yes: up.yes,
                no_identity_backup: up.no_identity_backup,
                plan: up.plan,
                timings: up.timings,
                auto_rollback: up.auto_rollback.into(),
            };
            let mut invocation = up.caution.with(with(invocation(&config, &up.reach, "up"), &up.custom));
            invocation.prune_data = up.prune.prune_data;
            let reached = Box::pin(ops::up(&invocation, &options, &talk, cancel)).await?;
            console.settle();
            Ok(ended(&reached, AGAIN, console))
        }
        Command::Rollback(rollback) => past::rollback(&config, rollback, console, &talk, cancel).await,
        Command::RotateCerts(rotate) | Command::Cert(Cert::Rotate(rotate)) => {
            past::rotate(&config, rotate, console, &talk, cancel).await
        }
        Command::Diff(diff) => past::diff(&config, diff, &talk).await,
        Command::History(history) => past::history(&config, &history, &talk),
        Command::Certs(certs) => past::certs(&config, certs, &talk).await,
        Command::Cert(Cert::GenerateCsr(generate)) => past::generate(&config, generate, &*talk),
        Command::Plan(plan) => {
            let mut invocation = with(invocation(&config, &plan.reach, "plan"), &plan.custom);
            invocation.prune_data = plan.prune.prune_data;
            let shown = ops::plan(&invocation, plan.out.as_deref(), plan.no_identity_backup, &talk).await?;
            match plan.output {
                OutputFormat::Text => print(&shown.text)?,
                OutputFormat::Json => print(&format!("{:#}\n", shown.json))?,
            }
            Ok(if shown.empty { 0 } else { error::CHANGES })
        }
        Command::Validate(validate) => {
            let mut invocation = alone("validate");
            invocation.kubernetes_version = validate.kubernetes_version;
            print(&ops::validate(&invocation, &*talk)?)?;
            Ok(0)
        }
        Command::Kubeconfig(arguments) => kubeconfig(&config, arguments, &*talk),
        Command::Status(status) => {
            let seen = ops::status(&invocation(&config, &status.reach, "status"), &talk).await?;
            print(&show::status(&seen, status.output))?;
            Ok(match seen.health {
                Overall::Healthy => 0,
                Overall::Degraded => error::DEGRADED,
                Overall::Unreachable => error::UNREACHABLE,
            })
        }
        Command::Remove(remove) => {
            let options =
                RemoveOptions { yes: remove.consent.yes, cluster: remove.consent.cluster, purge: remove.purge };
            let silent = ops::remove(&invocation(&config, &remove.reach, "remove"), &options, &talk, cancel).await?;
            console.settle();
            Ok(ended(&if silent.is_empty() { Reached::Wholly } else { Reached::Except(silent) }, AGAIN, console))
        }
        Command::State(command) => state(command, &config, console, &talk, cancel).await,
        Command::Util(Util::GetStateFile { reach, common }) => {
            let invocation = common.with(invocation(&config, &reach, "state recover"));
            print(&ops::recover(&invocation, &ops::RecoverOptions::default(), &talk).await?)?;
            Ok(0)
        }
        Command::Util(Util::GetKubeconfig { .. }) => {
            ops::write_kubeconfig(&alone("kubeconfig"), &Destination::Beside, "admin", 30, &*talk)?;
            Ok(0)
        }
        Command::Etcd(command) => crate::cli::etcd::run(command, &config, console, &talk, cancel).await,
        Command::Drill(drill) => crate::cli::drill::run(drill, &config, console, &talk).await,
        Command::Runbook => print(&ops::runbook(&alone("runbook"))?).map(|()| 0),
        Command::Encrypt(command) => crate::cli::encrypt::run(command, &config, console, &talk, cancel).await,
        Command::Hosts(Hosts::Trust { yes, hosts }) => {
            ops::trust(&alone("hosts trust"), &hosts, yes, &talk).await?;
            Ok(0)
        }
        Command::Host(verb) => host(verb, console, &talk, cancel).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut crate::cli::command(), "bastide", &mut script);
            print(&String::from_utf8_lossy(&script))?;
            Ok(0)
        }
        Command::Man { folder } => {
            clap_mangen::generate_to(crate::cli::command(), &folder)
                .map_err(|source| OpsError::local(&folder, source))?;
            Ok(0)
        }
    }
}

fn kubeconfig(config: &Path, arguments: Kubeconfig, talk: &dyn Talk) -> Result<u8, OpsError> {
    let destination = match (arguments.merge, arguments.out) {
        (Some(path), _) => Destination::Merge(path),
        (None, Some(path)) if path.as_os_str() == "-" => Destination::Caller,
        (None, Some(path)) => Destination::File(path),
        (None, None) => Destination::Beside,
    };
    let invocation = invocation(config, &Reach::default(), "kubeconfig");
    let content = ops::write_kubeconfig(&invocation, &destination, &arguments.user, arguments.days, talk)?;
    if let Some(content) = content {
        print(content.expose_text().unwrap_or_default())?;
    }
    Ok(0)
}

async fn state(
    command: State,
    config: &Path,
    console: &Arc<Console>,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<u8, OpsError> {
    match command {
        State::Recover { reach, take_over, .. } if take_over.without_identity => {
            let TakeOver { yes, cluster, no_identity_backup, .. } = take_over;
            let options = TakeOverOptions { yes, cluster, no_identity_backup };
            let invocation = invocation(config, &reach, "state recover");
            let reached = Box::pin(ops::take_over(&invocation, &options, talk, cancel)).await?;
            console.settle();
            Ok(ended(&reached, UP, console))
        }
        State::Recover { reach, host, file, recipient_key, signer, .. } => {
            let lost = recipient_key.map(|key| ops::LostIdentity { key, signer });
            let invocation = invocation(config, &reach, "state recover");
            print(&ops::recover(&invocation, &ops::RecoverOptions { host, file, lost }, talk).await?)?;
            Ok(0)
        }
        State::Export { file } => {
            print(&ops::export_state(&invocation(config, &Reach::default(), "state export"), &file, &**talk)?)?;
            Ok(0)
        }
        State::Rekey { reach, no_identity_backup } => {
            let reached = ops::rekey(&invocation(config, &reach, "state rekey"), no_identity_backup, talk).await?;
            console.settle();
            Ok(ended(&reached, AGAIN, console))
        }
        State::Check(output) => {
            let examined = ops::check_state(&invocation(config, &Reach::default(), "state check"), &**talk)?;
            print(&show::examined(&examined, output.output))?;
            Ok(if examined.is_well() { 0 } else { error::FAILED })
        }
    }
}

/// What a host's timers start.
async fn host(
    verb: HostVerb,
    console: &Arc<Console>,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<u8, OpsError> {
    match verb {
        HostVerb::Snapshot { settings, now } => Ok(told(&ops::take_turn(&settings, now, talk, cancel).await?, console)),
        HostVerb::Certificates { settings } => {
            let watched = ops::watch_certificates(&settings).await?;
            // systemd takes the first characters for the priority: 4 is a warning, 6 says what was said before.
            let priority = if watched.known { 6 } else { 4 };
            let lines = watched.lines.iter().map(|line| format!("<{priority}>{line}\n"));
            print(&lines.collect::<String>())?;
            if let Some(reason) = &watched.untold {
                print(&format!("<4>the node's events were not told: {reason}\n"))?;
            }
            Ok(0)
        }
    }
}

/// How a host's turn ended, for its journal.
fn told(turn: &Turn, console: &Console) -> u8 {
    let troubles = match turn {
        Turn::Taken(taken) => {
            console.say(&format!("took {}: {} bytes in {:.1} s", taken.name, taken.size, taken.seconds));
            &taken.troubles
        }
        Turn::NotDue { last, troubles } => {
            console.say(&format!("none is due; the newest is {last}"));
            troubles
        }
        Turn::Elsewhere { host } => {
            console.say(&format!("{host} is taking one"));
            return 0;
        }
    };
    for trouble in troubles {
        console.warn(trouble);
    }
    if troubles.is_empty() { 0 } else { error::EXCEPT }
}

/// What completes a run that left hosts out, where the same command does.
pub(super) const AGAIN: &str = "run it again when they answer";
/// Where the same command would begin anew for all hosts.
pub(super) const UP: &str = "`bastide up` brings them there when they answer";

/// Says how a run ended. `completion`: what a person does once the hosts answer that were left out.
pub(super) fn ended(reached: &Reached, completion: &str, console: &Console) -> u8 {
    match reached {
        Reached::Already => 0,
        Reached::Wholly => {
            console.say("done");
            0
        }
        Reached::Except(hosts) => {
            let names: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            console.warn(&format!("done, but for {}; {completion}", names.join(", ")));
            error::EXCEPT
        }
    }
}

pub(super) fn print(text: &str) -> Result<(), OpsError> {
    console::print(text).map_err(|source| OpsError::local(Path::new("standard output"), source))
}

pub(super) fn invocation(config: &Path, reach: &Reach, command: &'static str) -> Invocation {
    Invocation {
        custom_certs: None,
        prune_data: Vec::new(),
        config: config.to_owned(),
        kubernetes_version: reach.kubernetes_version.clone(),
        accept_new_host_keys: reach.accept_new_host_keys,
        without: reach.without.clone(),
        ssh_agent: false,
        bucket: None,
        no_last_snapshot: false,
        command,
        who: who(),
    }
}

/// With the certificates of an external authority, where it was asked for.
pub(super) fn with(invocation: Invocation, custom: &Custom) -> Invocation {
    let folder = custom.cert_dir.clone().unwrap_or_else(|| ops::certificates_folder(&invocation.config));
    Invocation { custom_certs: custom.custom_certs.then_some(folder), ..invocation }
}

/// `user@machine`, for locks and history.
fn who() -> String {
    let user = std::env::var("USER")
        .or_else(|_| std::env::var("LOGNAME"))
        .unwrap_or_else(|_| format!("uid {}", rustix::process::getuid().as_raw()));
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{machine}")
}
