//! Looking back, going back, renewing.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cli::args;
use crate::cli::args::Certs;
use crate::cli::args::GenerateCsr;
use crate::cli::args::History;
use crate::cli::args::HistoryVerb;
use crate::cli::args::Reach;
use crate::cli::args::Rollback;
use crate::cli::args::RotateCerts;
use crate::cli::args::Switch;
use crate::cli::certs as shown_certificates;
use crate::cli::console::Console;
use crate::cli::error;
use crate::cli::run::UP;
use crate::cli::run::ended;
use crate::cli::run::invocation;
use crate::cli::run::print;
use crate::cli::run::with;
use crate::cli::show;
use crate::ops;
use crate::ops::AutoRollback;
use crate::ops::Diff;
use crate::ops::DiffOptions;
use crate::ops::ExchangeOptions;
use crate::ops::GenerateOptions;
use crate::ops::Limits;
use crate::ops::OpsError;
use crate::ops::RollbackOptions;
use crate::ops::RotateOptions;
use crate::ops::Talk;

pub(super) async fn rollback(
    config: &Path,
    rollback: Rollback,
    console: &Console,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<u8, OpsError> {
    let options = RollbackOptions { to: rollback.to, yes: rollback.yes, timings: rollback.timings };
    let invocation = rollback.caution.with(invocation(config, &rollback.reach, "rollback"));
    let (reached, to) = Box::pin(ops::rollback(&invocation, &options, talk, cancel)).await?;
    console.settle();
    // Without its number the same command would go one revision further back.
    let completion = format!("`bastide rollback --to {to}` brings them there when they answer");
    Ok(ended(&reached, &completion, console))
}

pub(super) async fn rotate(
    config: &Path,
    rotate: RotateCerts,
    console: &Console,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<u8, OpsError> {
    if rotate.ca || rotate.service_account_key {
        return exchange(config, rotate, console, talk, cancel).await;
    }
    let options = RotateOptions {
        services: rotate.services,
        hosts: rotate.hosts,
        due_days: rotate.due,
        yes: rotate.yes,
        timings: rotate.timings,
    };
    let invocation = with(invocation(config, &rotate.reach, "rotate-certs"), &rotate.custom);
    let reached = Box::pin(ops::rotate(&invocation, &options, talk, cancel)).await?;
    console.settle();
    Ok(ended(&reached, UP, console))
}

async fn exchange(
    config: &Path,
    rotate: RotateCerts,
    console: &Console,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<u8, OpsError> {
    let options = ExchangeOptions {
        authorities: rotate.ca,
        names: rotate.authorities.into_iter().collect(),
        distrust_old: rotate.distrust_old,
        restart_pods: rotate.restart_pods,
        leave_pods: rotate.leave_pods,
        reissue_tokens: rotate.reissue_tokens,
        yes: rotate.yes,
        timings: rotate.timings,
    };
    let command = if rotate.ca { ops::ROTATE_AUTHORITIES } else { ops::ROTATE_TOKEN_KEY };
    let invocation = rotate.caution.with(with(invocation(config, &rotate.reach, command), &rotate.custom));
    let reached = Box::pin(ops::exchange(&invocation, &options, talk, cancel)).await?;
    console.settle();
    Ok(ended(&reached, UP, console))
}

pub(super) async fn diff(config: &Path, diff: args::Diff, talk: &Arc<dyn Talk>) -> Result<u8, OpsError> {
    let options = DiffOptions { from: diff.from, to: diff.to, live: diff.live };
    let found = Box::pin(ops::diff(&invocation(config, &diff.reach, "diff"), &options, talk)).await?;
    print(&show::diff(&found, diff.output))?;
    Ok(differs(&found))
}

/// Exit code of a comparison.
fn differs(found: &Diff) -> u8 {
    match (found.differences.is_empty(), found.notes.is_empty()) {
        (false, _) => error::CHANGES,
        // Nobody knows of what could not be looked at.
        (true, false) => error::EXCEPT,
        (true, true) => 0,
    }
}

pub(super) fn history(config: &Path, history: &History, talk: &Arc<dyn Talk>) -> Result<u8, OpsError> {
    let alone = |command| invocation(config, &Reach::default(), command);
    match &history.verb {
        None => print(&show::history(&ops::history(&alone("history"), &**talk)?, history.output))?,
        Some(HistoryVerb::Prune { keep }) => {
            print(&show::pruned(&ops::prune(&alone("history prune"), usize::from(*keep), &**talk)?))?;
        }
    }
    Ok(0)
}

pub(super) async fn certs(config: &Path, certs: Certs, talk: &Arc<dyn Talk>) -> Result<u8, OpsError> {
    let (reach, warn, critical, output) = match certs {
        Certs::Check { reach, warn, critical, output } => (reach, warn, critical, output),
        Certs::GenerateCsr(generate) => return self::generate(config, generate, &**talk),
    };
    let limits = Limits { warn_days: warn, critical_days: critical };
    let invocation = invocation(config, &reach, "certs check");
    let seen = Box::pin(ops::check_certificates(&invocation, limits, talk)).await?;
    print(&shown_certificates::shown(&seen, output))?;
    Ok(shown_certificates::code(seen.condition))
}

pub(super) fn generate(config: &Path, generate: GenerateCsr, talk: &dyn Talk) -> Result<u8, OpsError> {
    let options = GenerateOptions {
        folder: generate.cert_dir,
        authorities: generate.authorities.into_iter().collect(),
        no_identity_backup: generate.no_identity_backup,
    };
    let invocation = invocation(config, &Reach::default(), "certs generate-csr");
    print(&ops::generate_requests(&invocation, &options, talk)?)?;
    Ok(0)
}

impl From<Switch> for AutoRollback {
    fn from(switch: Switch) -> Self {
        match switch {
            Switch::On => Self::On,
            Switch::Off => Self::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::differs;
    use crate::cli::args::OutputFormat;
    use crate::cli::show;
    use crate::ops::Change;
    use crate::ops::Diff;
    use crate::ops::Difference;

    #[test]
    fn what_could_not_be_compared_is_not_the_same() {
        let found = |what: &[&str], notes: &[&str]| Diff {
            schema: 1,
            from: "revision 1".to_owned(),
            to: "live".to_owned(),
            differences: what
                .iter()
                .map(|what| Difference {
                    host: None,
                    what: (*what).to_owned(),
                    change: Change::Changed,
                    lines: Vec::new(),
                })
                .collect(),
            notes: notes.iter().map(|note| (*note).to_owned()).collect(),
        };
        let silent = found(&[], &["h2 does not answer"]);
        assert_eq!([differs(&found(&[], &[])), differs(&silent), differs(&found(&["x"], &["h2"]))], [0, 3, 2]);
        let shown = show::diff(&silent, OutputFormat::Text);
        assert!(shown.contains("nothing differs of what could be compared\nnote: h2 does not answer"), "{shown}");
    }
}
