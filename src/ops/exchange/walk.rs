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
        let find = |kept: &Kept| target(kept, invocation.command, options, terms, now);
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
        let first = before::look(&mut prepared, &next, options).await?;
        let errand = Errand {
            why: next.exchange.words(next.leg),
            barrier: next.barrier.clone().or_else(|| barrier(&next, options, &prepared.target.secrets)),
            config: Some(next.config),
            yes: options.yes,
            timings: options.timings,
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
    command: &str,
    options: &ExchangeOptions,
    terms: secrets::Terms,
    now: i64,
) -> Result<(Target, Next), OpsError> {
    let store = kept.store()?;
    let newest = store.newest().ok_or(OpsError::NothingReached)?;
    let (revision, desired, blobs, sealed) = store.load(&newest.id)?;
    let today = secrets::unseal_form(&sealed)?;
    let begun = |secrets: &Secrets| {
        if options.authorities { Exchange::of_authorities(secrets) } else { Exchange::of_token_key(secrets) }
    };
    if !newest.was_reached() {
        if newest.command != command {
            return Err(OpsError::Unfinished { revision: newest.id.clone(), command: newest.command.clone() });
        }
        let reached = store.reached().ok_or(OpsError::NothingReached)?;
        let missed = missed(reached);
        let was = secrets::unseal_form(&store.load(&reached.id)?.3)?;
        let exchange = begun(&today).or_else(|| begun(&was)).ok_or_else(|| {
            OpsError::Impossible(format!(
                "revision {} was begun by `{command}`, and no exchange stands in it",
                newest.id
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
    let exchange = wanted(options, begun(&today))?;
    let legs = exchange.legs_left(&today);
    let leg = *legs.first().ok_or_else(|| OpsError::Impossible("no leg is left".to_owned()))?;
    let (with, issued) = exchange.after(leg, &today, terms, now, &mut SystemEntropy)?;
    let moved = route::retarget(&desired, &blobs, &today, &with);
    let (left, missed) = (legs.len(), missed(&revision));
    let next = Next { exchange, leg, left, was: today, config: revision.config, barrier: None, missed };
    Ok((Target { desired: moved.desired, blobs: Arc::new(moved.blobs), secrets: with, issued }, next))
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
