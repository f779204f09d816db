//! `rotate-certs --ca` and `--service-account-key`: the target is the one that was reached last, with the keys moved on by one leg.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::model::Barrier;
use crate::model::Desired;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::Revision;
use crate::model::RevisionState;
use crate::ops::Invocation;
use crate::ops::Local;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::custom;
use crate::ops::exchange::before;
use crate::ops::kept::Kept;
use crate::ops::legs;
use crate::ops::prepare;
use crate::ops::prepare::Prepared;
use crate::ops::prepare::Target;
use crate::ops::reach;
use crate::ops::reach::Errand;
use crate::ops::reach::Reached;
use crate::route;
use crate::route::Exchange;
use crate::route::ExchangeLeg;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::AuthoritySet;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::SystemEntropy;

/// What `rotate-certs --ca` or `--service-account-key` was told.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct ExchangeOptions {
    /// `--ca`; otherwise the key for service-account tokens.
    pub authorities: bool,
    /// `--authority`; none: those of the exchange that was begun, else all.
    pub names: BTreeSet<AuthorityName>,
    /// `--distrust-old`
    pub distrust_old: bool,
    /// `--restart-pods`
    pub restart_pods: bool,
    /// `--leave-pods`
    pub leave_pods: bool,
    /// `--reissue-tokens`
    pub reissue_tokens: bool,
    /// `--yes`
    pub yes: bool,
    /// `--timings`
    pub timings: bool,
}

/// The next leg as it was found from the state.
#[derive(Debug, Clone)]
pub(super) struct Next {
    /// What is exchanged.
    pub exchange: Exchange,
    /// Which leg of it.
    pub leg: ExchangeLeg,
    /// How many legs are left, this one included.
    pub left: usize,
    /// The keys of before this leg.
    pub was: Secrets,
    config: Digest,
    /// That of a run of this leg that died.
    barrier: Option<Barrier>,
    /// Hosts that the revision before did not reach.
    missed: BTreeSet<HostName>,
}

/// Takes the legs that are left, one after the other.
pub async fn exchange(
    invocation: &Invocation,
    options: &ExchangeOptions,
    talk: &Arc<dyn Talk>,
    cancel: &CancellationToken,
) -> Result<Reached, OpsError> {
    let terms = secrets::Terms::of(&Local::read(invocation)?.cluster);
    let now = prepare::now();
    let mut changed = false;
    loop {
        let find = |kept: &Kept| target(kept, invocation, options, (terms, now), &**talk);
        let (mut prepared, next) = legs::prepared(invocation, &find, talk).await?;
        talk.show(&format!("{} (legs left: {})", next.exchange.words(next.leg), next.left));
        everybody(&prepared, &next)?;
        let last = next.leg == ExchangeLeg::Drop;
        if !prepared.plan.is_empty() {
            prepared.plan.notes.push(
                "exec, attach, port-forward, followed logs and watches through a restarted server or kubelet end once"
                    .to_owned(),
            );
        }
        prepared.plan.notes.extend(hands(&next, &prepared.target.secrets));
        let first = before::look(&mut prepared, &next, options).await?;
        let errand = Errand {
            why: next.exchange.words(next.leg),
            barrier: next.barrier.clone().or_else(|| barrier(&next, options, &prepared.target.secrets)),
            config: Some(next.config),
            yes: options.yes,
            timings: options.timings,
            guarded: !changed,
            first,
            ..Errand::default()
        };
        let reached = Box::pin(reach::reach(prepared, invocation, &errand, talk, cancel)).await?;
        if let Some(end) = legs::after(reached, last, &mut changed, cancel)? {
            return Ok(end);
        }
    }
}

/// What nobody walks back over: once the old one is not to be believed any more, or where nobody can issue from it.
fn barrier(next: &Next, options: &ExchangeOptions, target: &Secrets) -> Option<Barrier> {
    let exchange = &next.exchange;
    if next.leg == ExchangeLeg::Issue && target.authorities.values().any(AuthoritySet::is_lost) {
        let why = format!("{exchange}: the key of the old one is lost, so that nothing can be issued from it");
        return Some(Barrier { name: "authority-lost".to_owned(), why });
    }
    (next.leg == ExchangeLeg::Drop && options.distrust_old).then(|| Barrier {
        name: "old-distrusted".to_owned(),
        why: format!("{exchange}: the old one is not to be believed any more"),
    })
}

/// The last reached target with the keys of the next leg; that of a leg that was begun, where one was.
fn target(
    kept: &Kept,
    invocation: &Invocation,
    options: &ExchangeOptions,
    (terms, now): (secrets::Terms, i64),
    talk: &dyn Talk,
) -> Result<(Target, Next), OpsError> {
    let store = kept.store()?;
    let newest = store.newest().ok_or(OpsError::NothingReached)?;
    let (revision, desired, blobs, sealed) = store.load(&newest.id)?;
    let today = secrets::unseal_form(&sealed)?;
    let begun = |secrets: &Secrets| {
        if options.authorities { Exchange::of_authorities(secrets) } else { Exchange::of_token_key(secrets) }
    };
    if !newest.was_reached() {
        if newest.command != invocation.command {
            return Err(OpsError::Unfinished { revision: newest.id.clone(), command: newest.command.clone() });
        }
        let reached = store.reached().ok_or(OpsError::NothingReached)?;
        let missed = missed(reached);
        let was = secrets::unseal_form(&store.load(&reached.id)?.3)?;
        let exchange = begun(&today).or_else(|| begun(&was)).ok_or_else(|| {
            OpsError::Impossible(format!(
                "revision {} was begun by `{}`, and no exchange stands in it",
                newest.id, newest.command
            ))
        })?;
        let exchange = wanted(options, Some(exchange))?;
        let (leg, left) = match exchange.legs_left(&today).len() {
            2 => (ExchangeLeg::Accept, 3),
            1 => (ExchangeLeg::Issue, 2),
            _ => (ExchangeLeg::Drop, 1),
        };
        let (config, barrier) = (revision.config, revision.barrier);
        let next = Next { exchange, leg, left, was, config, barrier, missed };
        return Ok((Target { desired, blobs: Arc::new(blobs), secrets: today, issued: Vec::new() }, next));
    }
    let begun = begun(&today);
    let brings = invocation.custom_certs.as_ref().filter(|_| begun.is_none());
    let (exchange, brought) = if let Some(folder) = brings {
        let (secrets, names) = custom::bring_authorities(kept, &today, &options.names, folder, (terms, now), talk)?;
        (Exchange::Authorities(names), Some(secrets))
    } else {
        let exchange = wanted(options, begun.clone())?;
        if begun.is_none() {
            named(&exchange, options, &today)?;
        }
        (exchange, None)
    };
    let legs = exchange.legs_left(&today);
    let leg = *legs.first().ok_or_else(|| OpsError::Impossible("no leg is left".to_owned()))?;
    let (with, issued) = match brought {
        Some(secrets) => (secrets, Vec::new()),
        None => exchange.after(leg, &today, terms, now, &mut SystemEntropy).map_err(|error| brings_none(error, leg))?,
    };
    let moved = route::retarget(&desired, &blobs, &today, &with);
    let (left, missed) = (legs.len(), missed(&revision));
    let next = Next { exchange, leg, left, was: today, config: revision.config, barrier: None, missed };
    Ok((Target { desired: moved.desired, blobs: Arc::new(moved.blobs), secrets: with, issued }, next))
}

/// An authority of bastide's own takes an external one's place where it is named, and not by the way.
fn named(exchange: &Exchange, options: &ExchangeOptions, today: &Secrets) -> Result<(), OpsError> {
    let Exchange::Authorities(names) = exchange else { return Ok(()) };
    let external = today.external();
    let mut theirs = names.intersection(&external);
    match theirs.next().filter(|_| options.names.is_empty()) {
        None => Ok(()),
        Some(name) => Err(OpsError::Impossible(format!(
            "the {name} authority is an external one: `--custom-certs` puts the one in its place that lies in the folder, `--authority {name}` \
             one of bastide's own; nothing was changed"
        ))),
    }
}

/// What was brought along in the first leg, and ended before the second one.
fn brings_none(error: SecretsError, leg: ExchangeLeg) -> OpsError {
    match error {
        SecretsError::Misfits(misfits) if leg == ExchangeLeg::Issue => {
            OpsError::Impossible(misfits.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        error => error.into(),
    }
}

/// What changes with whoever has the key.
fn hands(next: &Next, target: &Secrets) -> Vec<String> {
    let (leg, mut notes) = (next.leg, Vec::new());
    for (name, set) in &target.authorities {
        let Some(was) = next.was.authorities.get(name).filter(|was| was.other != set.other) else { continue };
        match (&set.other, was.external, set.external) {
            (Some(other), theirs, _) if other.comes && (other.external || theirs) => {
                let of = |external| if external { "an external one" } else { "one whose key bastide has" };
                notes.push(format!(
                    "the {name} authority, {}, gives its place to {}, in three legs; `bastide rollback` goes back until the last",
                    of(theirs),
                    of(other.external)
                ));
                if *name == AuthorityName::Kubernetes && other.cross_signed.is_none() {
                    notes.push(
                        "nothing leads from the new authority to the old one: pods that started before this leg have to be restarted \
                         before the next"
                            .to_owned(),
                    );
                }
            }
            (_, false, true) if *name == AuthorityName::Kubernetes && leg == ExchangeLeg::Issue => notes.push(
                "the authority's key leaves the control planes; from here on nobody in the cluster signs kubelets' renewals, and bastide \
                 renews none of these certificates: `bastide certs generate-csr`, then `bastide rotate-certs --custom-certs`"
                    .to_owned(),
            ),
            (_, true, false) if *name == AuthorityName::Kubernetes && leg == ExchangeLeg::Issue => {
                notes.push("the new authority's key comes to the control planes, which sign kubelets' renewals".to_owned());
            }
            _ => {}
        }
    }
    notes
}

/// What is to be exchanged: what was begun, else what was asked for.
fn wanted(options: &ExchangeOptions, begun: Option<Exchange>) -> Result<Exchange, OpsError> {
    match begun {
        Some(Exchange::Authorities(names)) if !options.names.is_empty() && options.names != names => {
            let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
            Err(OpsError::Impossible(format!(
                "--authority: an exchange of {} was begun; go on with it (without --authority) or take it back with `bastide \
                 rollback`, before others are exchanged",
                names.join(", ")
            )))
        }
        Some(begun) => Ok(begun),
        None if !options.authorities => Ok(Exchange::TokenKey),
        None if options.names.is_empty() => Ok(Exchange::Authorities(AuthorityName::ALL.into())),
        None => Ok(Exchange::Authorities(options.names.clone())),
    }
}

fn missed(revision: &Revision) -> BTreeSet<HostName> {
    match &revision.state {
        RevisionState::ReachedExcept { hosts } => {
            hosts.iter().filter_map(|name| HostName::new(name.clone()).ok()).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// A control plane or an etcd member that does not accept the new one yet would be cut off by the second leg; any host by the
/// last one (design 11.3).
fn everybody(prepared: &Prepared, next: &Next) -> Result<(), OpsError> {
    let member = |name: &HostName, desired: &Desired| {
        let host = desired.hosts.get(name);
        host.is_some_and(|host| host.roles.control_plane() || host.roles.etcd())
    };
    // What a host missed before, it catches up with in this leg's own run, which is too late for the others.
    let away = prepared.observed.unreachable.keys().chain(&next.missed);
    let in_the_way: BTreeSet<_> = match next.leg {
        ExchangeLeg::Accept => return Ok(()),
        ExchangeLeg::Issue => away.filter(|name| member(name, &prepared.target.desired)).cloned().collect(),
        ExchangeLeg::Drop => away.cloned().collect(),
    };
    if in_the_way.is_empty() {
        return Ok(());
    }
    Err(OpsError::HostsAway { leg: next.exchange.words(next.leg), hosts: in_the_way.into_iter().collect() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::ExchangeOptions;
    use super::wanted;
    use crate::route::Exchange;
    use crate::secrets::AuthorityName;
    use crate::secrets::AuthorityName::Etcd;
    use crate::secrets::AuthorityName::Kubernetes;

    #[test]
    fn what_was_begun_goes_on_and_no_other_exchange_of_authorities_begins_beside_it() {
        let of = |names: &[AuthorityName]| Exchange::Authorities(names.iter().copied().collect());
        let asked = |names: &[AuthorityName], begun: Option<Exchange>| {
            let names = names.iter().copied().collect();
            wanted(&ExchangeOptions { authorities: true, names, ..ExchangeOptions::default() }, begun)
        };
        assert_eq!(asked(&[], None).unwrap(), of(&AuthorityName::ALL));
        assert_eq!(asked(&[Etcd], None).unwrap(), of(&[Etcd]));
        assert_eq!(asked(&[], Some(of(&[Etcd]))).unwrap(), of(&[Etcd]));
        assert_eq!(asked(&[Etcd], Some(of(&[Etcd]))).unwrap(), of(&[Etcd]));
        let refused = asked(&[Kubernetes], Some(of(&[Etcd]))).unwrap_err().to_string();
        assert!(refused.contains("an exchange of etcd was begun"), "{refused}");
        assert_eq!(wanted(&ExchangeOptions::default(), None).unwrap(), Exchange::TokenKey);
    }
}
