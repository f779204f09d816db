//! Errors for people: what, where, why, what to do next; and the exit code.

use miette::Diagnostic as _;
use miette::GraphicalReportHandler;
use miette::GraphicalTheme;

use crate::apply::LockError;
use crate::apply::Outcome;
use crate::apply::Report;
use crate::cli::console::Console;
use crate::config::Severity;
use crate::host::HostError;
use crate::model::SnapshotName;
use crate::ops;
use crate::ops::OpsError;
use crate::ops::Talk as _;
use crate::route::Blocked;
use crate::secrets::SecretsError;
use crate::store::StoreError;

/// Refused or failed.
pub(super) const FAILED: u8 = 1;
/// `plan` has changes.
pub(super) const CHANGES: u8 = 2;
/// Done, but for hosts that do not answer.
pub(super) const EXCEPT: u8 = 3;
/// `status`: something is unwell, silent or different.
pub(super) const DEGRADED: u8 = 4;
/// `status`: no control plane answers.
pub(super) const UNREACHABLE: u8 = 5;
/// Somebody else is at work.
pub(super) const BUSY: u8 = 6;
/// A change made a component ill and was taken back.
pub(super) const TAKEN_BACK: u8 = 7;
/// `certs check`: a certificate ends soon, or is not the one it should be.
pub(super) const CERTIFICATE_WARNING: u8 = 8;
/// `certs check`: a certificate ends very soon, has ended, or cannot be seen.
pub(super) const CERTIFICATE_CRITICAL: u8 = 9;
/// The command line is wrong (`EX_USAGE` of sysexits.h).
pub(super) const USAGE: u8 = 64;
/// Interrupted: 128 plus SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// Prints `error` with its hints and gives the exit code. `interrupted`: somebody asked the run to end.
pub(super) fn report(error: &OpsError, interrupted: bool, console: &Console) -> u8 {
    if matches!(error, OpsError::TakenBack { .. }) {
        // What was under way when it ended was the way back, and that was gone to its end.
        console.settle();
    } else {
        console.break_off();
    }
    if console.was_broken_off() && is_unanswered(error) {
        return report(&OpsError::Interrupted, interrupted, console);
    }
    show(error, console);
    for hint in hints(error) {
        console.show(&format!("hint: {hint}"));
    }
    code(error, interrupted)
}

/// Whether it comes of a question that has no answer.
fn is_unanswered(error: &OpsError) -> bool {
    matches!(
        error,
        OpsError::Unasked { .. } | OpsError::Declined | OpsError::Store(StoreError::PassphraseMissing { .. })
    )
}

fn show(error: &OpsError, console: &Console) {
    match error {
        OpsError::Config(errors) if console.is_for_programs() => {
            for problem in &errors.problems {
                let hint = problem.hint.iter().map(|hint| format!("; {hint}")).collect::<String>();
                let text = format!("{}:{}:{}: {problem}{hint}", problem.file(), problem.line, problem.column);
                match problem.severity {
                    Severity::Error => console.error(&text),
                    Severity::Warning => console.warn(&text),
                }
            }
            console.error(&format!("error: {errors}"));
        }
        OpsError::Config(errors) => console.error(&diagnostics(errors)),
        OpsError::Stopped(report) | OpsError::TakenBack { report, .. } => console.error(&stopped(error, report)),
        OpsError::LockLost { cause, .. } => {
            console.error(&format!("error: {error}; this run writes nothing more"));
            show(cause, console);
        }
        OpsError::Interrupted => console.error(&error.to_string()),
        _ => console.error(&format!("error: {error}")),
    }
}

fn code(error: &OpsError, interrupted: bool) -> u8 {
    match error {
        OpsError::Lock(LockError::Busy { .. }) | OpsError::Store(StoreError::Locked { .. }) => BUSY,
        OpsError::TakenBack { .. } => TAKEN_BACK,
        OpsError::Stopped(report) if report.outcome == Outcome::Cancelled => INTERRUPTED,
        // Something went wrong while the rest was finished.
        OpsError::Stopped(_) => FAILED,
        OpsError::Interrupted => INTERRUPTED,
        // Whatever a wait says that was broken off: it ended because it was told to.
        _ if interrupted => INTERRUPTED,
        _ => FAILED,
    }
}

/// Every problem with its line, then their number.
fn diagnostics(errors: &crate::config::ConfigErrors) -> String {
    let theme = if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme);
    let mut text = String::new();
    for problem in errors.related().into_iter().flatten() {
        if handler.render_report(&mut text, problem).is_err() {
            text.push_str(&problem.to_string());
        }
    }
    format!("{text}\nerror: {errors}")
}

fn stopped(error: &OpsError, report: &Report) -> String {
    let mut lines = vec![match report.outcome {
        Outcome::Cancelled => "interrupted; the running steps were finished".to_owned(),
        Outcome::LockLost => {
            "error: the lock is gone: somebody else may be at work; nothing more was written".to_owned()
        }
        Outcome::Failed | Outcome::Done => format!("error: {error}"),
    }];
    for cause in &report.errors {
        lines.push(format!("  {cause}"));
        if let crate::apply::ApplyError::Gate { last_words, .. } = cause {
            lines.extend(last_words.lines().map(|line| format!("    | {line}")));
        }
    }
    lines.push(format!("{} of {} stages are done", report.stages_done, report.stages));
    lines.join("\n")
}

fn hints(error: &OpsError) -> Vec<String> {
    let hint = |text: &str| vec![text.to_owned()];
    match error {
        OpsError::Hosts(errors) => {
            let mut hints: Vec<String> = errors.iter().filter_map(host_hint).map(str::to_owned).collect();
            hints.dedup();
            hints
        }
        OpsError::NoClusterFile { .. } => vec![
            "name it with `--config FILE` or BASTIDE_CONFIG, or go to its folder".to_owned(),
            "to begin with a new one, copy examples/one-host.yml or examples/three-hosts.yml of bastide's sources"
                .to_owned(),
        ],
        OpsError::Store(StoreError::PassphraseMissing { .. }) => hint(
            "run it on a terminal, where it is asked for; where nobody is to be asked, protect the identity by a second recipient instead (`bastide.state.recipients`, docs/state.md)",
        ),
        OpsError::Store(StoreError::NoState { .. }) => vec![
            "`bastide up` makes the cluster and its state; where hosts carry it already, `bastide state recover --host HOST` brings \
             the state back from them"
                .to_owned(),
        ],
        OpsError::Store(StoreError::PluginMissing { program }) => {
            vec![format!("install {program}, or take its recipient out of bastide.state.recipients")]
        }
        OpsError::NoArtifacts => hint("write `bastide: {artifacts: {bundle: FOLDER}}`; docs/cluster-yml.md says more"),
        OpsError::OtherRelease { found, .. } => {
            vec![format!("write `kubernetes_version: {found}`, or name a bundle of the version you want")]
        }
        OpsError::NothingBegun { .. } => hint("`bastide up` makes the cluster"),
        OpsError::StateMissing { .. } => {
            hint("put the state folder back beside cluster.yml, or run `bastide state recover --host HOST`")
        }
        OpsError::StateOlder { .. } => hint("`bastide state recover --host HOST` fetches the newer state"),
        OpsError::LockLost { .. } => hint(
            "another run may have gone further; where it did, `bastide state recover --host HOST` fetches its state",
        ),
        OpsError::RestoreUnfinished { joins: true, .. } => hint(
            "`bastide etcd snapshot restore --rejoin` goes on; where the host does not answer any more, it takes it out again",
        ),
        OpsError::RestoreUnfinished { .. } => hint(
            "the same command goes on (`bastide etcd snapshot restore` with the same snapshot, or `bastide etcd recover` from the same host); with --abort the old data come back",
        ),
        OpsError::DataBeforeRestore { hosts, .. } => vec![
            "`bastide etcd snapshot restore --rejoin` keeps those data aside and lets etcd there join the others".to_owned(),
            format!(
                "until then leave it out: {}",
                hosts.iter().map(|host| format!("--without {host}")).collect::<Vec<_>>().join(" ")
            ),
        ],
        OpsError::KeysOfThen { .. } => hint(
            "write into cluster.yml what encrypted then (`bastide.encryption` with its plugin, or RKE's `custom_config` with its keys) and run the same command; `bastide up` goes on to another one afterwards",
        ),
        OpsError::NeverCaughtUp { .. } => hint(
            "etcd's log on that host says why (`crictl logs`), and so may the leader's; the same command tries it again",
        ),
        OpsError::Membership { .. } => hint("`bastide etcd status` shows the members; the same command goes on from here"),
        OpsError::Moved => hint("run `bastide plan` again and look at what changed"),
        OpsError::Stopped(_) | OpsError::BetweenLegs => {
            hint("the same command goes on from here; it looks at every host first")
        }
        OpsError::TakenBack { .. } => hint("cluster.yml still asks for the change; put it right before the next `up`"),
        OpsError::NoWayBack { blocked, past, .. } if matches!(**blocked, Blocked::Barrier { .. }) => {
            vec![past_barrier(blocked, past.as_ref())]
        }
        OpsError::NoWayBack { .. } | OpsError::NeverReached { .. } => {
            hint("`bastide history` lists the revisions and what is kept of them")
        }
        OpsError::AllEnded { .. } => hint("`bastide rotate-certs` without --service, --host and --due renews all at once; where an external authority signs, all of its certificates must be new"),
        OpsError::Secrets(SecretsError::AuthorityExternal { .. }) => vec![
            "`bastide certs generate-csr` writes requests for its certificates; `bastide rotate-certs --custom-certs` (or `up`) uses what comes back"
                .to_owned(),
            "docs/certificates.md says what else an external authority means".to_owned(),
        ],
        OpsError::Misfits { .. } => hint("`bastide certs generate-csr` writes requests that ask for the right thing; sign these as they are (docs/certificates.md)"),
        OpsError::Unfinished { .. } => hint("go forward with `bastide up`, or back with `bastide rollback`, first"),
        OpsError::NothingReached => hint("`bastide up` goes forward; `bastide remove` takes off what was begun"),
        OpsError::OutOfReach { .. } => hint("name the bundle of that release under `bastide.artifacts.bundle`"),
        OpsError::NotReached(_) => {
            hint("run `bastide up` again; if it does not settle, something else changes the hosts")
        }
        OpsError::Lock(LockError::Busy { .. }) => hint("wait until that run has ended; a dead one lets go after 30 s"),
        OpsError::Refused(_) => hint("nothing was changed"),
        _ => exchange_hints(error),
    }
}

/// What leads past a barrier.
fn past_barrier(blocked: &Blocked, snapshot: Option<&SnapshotName>) -> String {
    match (blocked, snapshot) {
        (Blocked::Barrier { at, .. }, Some(name)) => format!(
            "`bastide etcd snapshot restore {name}` leads past it: it holds what etcd held before revision {at}, and cluster.yml says the \
             rest"
        ),
        (Blocked::Barrier { at, barrier }, None) if ops::snapshot_leads_past(barrier) => format!(
            "only an etcd snapshot from before revision {at} leads past it, and none was found (`bastide etcd snapshot list`)"
        ),
        _ => "nothing brings back what is believed no more; put cluster.yml back to what it was, and `bastide up` brings back all else"
            .to_owned(),
    }
}

/// What to do where an exchange of keys or authorities cannot go on.
fn exchange_hints(error: &OpsError) -> Vec<String> {
    let hint = |text: &str| vec![text.to_owned()];
    match error {
        OpsError::KeysNotLoaded { .. } => hint(
            "an API server looks once a minute; its log says why it does not take a file. The same command goes on from here",
        ),
        OpsError::KeyNeeded { .. } => {
            hint("see what is wrong with them; the same command goes on, `bastide rollback` goes back")
        }
        OpsError::TrustNotSettled { .. } => {
            hint("servers and kubelets look once a minute; the same command goes on from here, `bastide rollback` goes back")
        }
        OpsError::HostsAway { .. } => hint(
            "bring them back; where a host missed a leg, `bastide up` gives it what it missed. The same command goes on then",
        ),
        OpsError::PodsHoldOn { .. } => vec![
            "--restart-pods restarts those that something makes anew (Deployments, DaemonSets, StatefulSets)".to_owned(),
            "restart the others yourself, or accept with --leave-pods that they may be cut off".to_owned(),
        ],
        OpsError::TokensLive { until: Some(_) } => vec![
            "the same command goes on then".to_owned(),
            "where the old key is not to be believed any more: --distrust-old ends these tokens now, with --restart-pods for the pods that hold one".to_owned(),
        ],
        OpsError::TokensLive { until: None } => hint(
            "the API servers bound no token's life (--service-account-max-token-expiration), so no wait is long enough; --distrust-old ends these tokens",
        ),
        OpsError::TokensHeld { .. } => hint(
            "--reissue-tokens has them issued anew (whoever uses one needs the new one); --distrust-old lets them end",
        ),
        _ => Vec::new(),
    }
}

fn host_hint(error: &HostError) -> Option<&'static str> {
    match error {
        HostError::UnknownHostKey { .. } => {
            Some("`bastide hosts trust` shows the keys and records them; compare them with the hosts' consoles first")
        }
        HostError::WrongHostKey { .. } => {
            Some("if the host was installed anew, remove its old line; if not, somebody else may be answering for it")
        }
        HostError::ForwardingRefused { .. } => {
            Some("set `AllowTcpForwarding yes` in the host's sshd_config, or `bastide: {api: {dial: direct}}`")
        }
        HostError::Drift { .. } => Some("run `bastide plan` again and look at what changed"),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::FAILED;
    use super::INTERRUPTED;
    use super::code;
    use super::hints;
    use crate::apply::Outcome;
    use crate::apply::Report;
    use crate::model::Barrier;
    use crate::model::RevisionId;
    use crate::model::SnapshotName;
    use crate::ops::OpsError;
    use crate::route::Blocked;

    fn stopped(outcome: Outcome) -> OpsError {
        OpsError::Stopped(Box::new(Report { outcome, ..Report::of(1) }))
    }

    #[test]
    fn whoever_interrupts_is_told_so_by_the_exit_code_wherever_the_run_was() {
        for ended in
            [stopped(Outcome::Cancelled), OpsError::BetweenLegs, OpsError::TrustNotSettled { reasons: Vec::new() }]
        {
            assert_eq!(code(&ended, true), INTERRUPTED, "{ended}");
        }
        assert_eq!(code(&stopped(Outcome::Failed), true), FAILED);
        assert_eq!(code(&OpsError::TrustNotSettled { reasons: Vec::new() }, false), FAILED);
    }

    #[test]
    fn a_barrier_names_what_leads_past_it_and_promises_nothing_else() {
        let id = |number| RevisionId { number, nonce: "n".to_owned() };
        let hint = |barrier: &str, past: Option<&str>| {
            let barrier = Barrier { name: barrier.to_owned(), why: "it was done".to_owned() };
            let blocked = Box::new(Blocked::Barrier { at: id(3), barrier });
            let past = past.map(|name| SnapshotName::new(name).unwrap());
            hints(&OpsError::NoWayBack { from: id(4), to: id(2), blocked, past }).join("\n")
        };
        let named = hint("etcd-restore", Some("before-restore_1"));
        assert!(named.contains("`bastide etcd snapshot restore before-restore_1` leads past it"), "{named}");
        assert!(hint("etcd-restore", None).contains("none was found"));
        assert!(!hint("old-distrusted", None).contains("snapshot"));
    }
}
