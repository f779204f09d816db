//! What stands in the way of a leg after which something old is believed no more, and what is done about it first.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::api::CallingPod;
use crate::api::TokenSecret;
use crate::model::Blobs;
use crate::model::Desired;
use crate::model::ObjectId;
use crate::model::Observed;
use crate::model::utc;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::exchange::outsiders;
use crate::ops::exchange::walk::ExchangeOptions;
use crate::ops::exchange::walk::Next;
use crate::ops::flags;
use crate::ops::prepare::Prepared;
use crate::ops::rollback::ROTATE_TOKEN_KEY;
use crate::route::Exchange;
use crate::route::ExchangeLeg;
use crate::secrets;
use crate::secrets::AuthorityName;

/// How many workloads are restarted at once.
const AT_ONCE: usize = 4;
/// The pause between two looks.
const POLL: Duration = Duration::from_secs(1);
/// The controller manager puts a token into a Secret within seconds.
const REISSUED: Duration = Duration::from_mins(2);

/// What is done before the first host is changed.
#[derive(Debug, Clone, Default)]
pub(in crate::ops) struct First {
    /// Workloads that are restarted.
    restart: BTreeSet<ObjectId>,
    /// Secrets whose tokens are issued anew.
    reissue: Vec<TokenSecret>,
    /// Names of the keys that may have signed no token that is left then.
    old_keys: BTreeSet<String>,
}

/// Looks for what would be cut off by `next`, and refuses where nobody accepted that. What will be done about it first.
pub(super) async fn look(prepared: &mut Prepared, next: &Next, options: &ExchangeOptions) -> Result<First, OpsError> {
    let mut first = First::default();
    // A run that died in this leg asked all this, and did it, before it changed a host; the API server may be away since.
    if prepared.kept.reached.as_ref().is_some_and(|was| begun(was, &prepared.target.desired, &prepared.observed)) {
        return Ok(first);
    }
    let mut notes = Vec::new();
    if next.exchange == Exchange::TokenKey {
        notes.push(outsiders::verifiers(next.leg, &prepared.target.desired, &prepared.target.blobs));
    }
    // Without a certificate that leads from the new authority to the old one, pods are cut off by the second leg already.
    let sets = || prepared.target.secrets.authorities.values();
    let crossed = sets().any(|set| set.other.as_ref().is_some_and(|other| other.cross_signed.is_some()));
    let cuts_pods = match (&next.exchange, next.leg) {
        (_, ExchangeLeg::Drop) => true,
        (Exchange::Authorities(names), ExchangeLeg::Issue) => names.contains(&AuthorityName::Kubernetes) && !crossed,
        _ => false,
    };
    if cuts_pods {
        let api = api(prepared).await?;
        let pods = match &next.exchange {
            Exchange::Authorities(names) if names.contains(&AuthorityName::Kubernetes) => {
                trusting(&api, prepared).await?
            }
            // Tokens of pods are renewed long before a wait has come to its end.
            Exchange::TokenKey if options.distrust_old => {
                let signs_since = signs_since(prepared).unwrap_or(i64::MAX);
                let since = utc(signs_since.min(prepared.now));
                api.calling_pods()
                    .await?
                    .into_iter()
                    .filter(|pod| !pod.started.is_empty() && pod.started <= since)
                    .collect()
            }
            _ => Vec::new(),
        };
        first.restart = judged(&pods, options, &mut notes)?;
    }
    if next.leg == ExchangeLeg::Drop {
        match &next.exchange {
            Exchange::Authorities(names) => {
                notes.extend(outsiders::cut_off(&*api(prepared).await?, prepared, next, names).await?);
            }
            Exchange::TokenKey => tokens(prepared, next, options, &mut first, &mut notes).await?,
        }
        if options.distrust_old {
            notes.push("--distrust-old: no rollback leads back over this leg".to_owned());
        }
    }
    prepared.plan.notes.extend(notes);
    Ok(first)
}

/// Whether a host has a file of the target's already that differs from the one of before.
fn begun(was: &Desired, target: &Desired, observed: &Observed) -> bool {
    target.hosts.iter().any(|(name, host)| {
        let (Some(was), Some(seen)) = (was.hosts.get(name), observed.hosts.get(name)) else { return false };
        host.files.iter().any(|(path, file)| {
            let differs = was.files.get(path).is_some_and(|was| was.digest != file.digest);
            differs && seen.files.get(path).is_some_and(|seen| seen.digest == file.digest)
        })
    })
}

async fn api(prepared: &Prepared) -> Result<std::sync::Arc<Api>, OpsError> {
    let nobody = || OpsError::Impossible("no API server is ready, so nobody can say which pods hold what".to_owned());
    prepared.doors.api().await?.ok_or_else(nobody)
}

/// Pods that were given the cluster's authority before the new one was in it.
async fn trusting(api: &Api, prepared: &Prepared) -> Result<Vec<CallingPod>, OpsError> {
    let set = prepared.target.secrets.authorities.get(&AuthorityName::Kubernetes);
    let target = set.map(secrets::AuthoritySet::trust_bundle).unwrap_or_default();
    let given = api.given_trust().await?.into_iter();
    // Where the target's own is given already, a run that died got past this, and asked.
    let given = given.filter(|given| given.bundle.trim() != target.trim());
    let since: BTreeMap<_, _> = given.map(|given| (given.namespace, given.changed)).collect();
    let old = |pod: &CallingPod| {
        since.get(&pod.namespace).is_some_and(|changed| !pod.started.is_empty() && pod.started <= *changed)
    };
    Ok(api.calling_pods().await?.into_iter().filter(old).collect())
}

/// Which workloads are restarted for these pods; an error where pods are left that nobody accepted.
fn judged(
    pods: &[CallingPod],
    options: &ExchangeOptions,
    notes: &mut Vec<String>,
) -> Result<BTreeSet<ObjectId>, OpsError> {
    let words = |pod: &CallingPod| {
        let of = pod
            .workload
            .as_ref()
            .map_or_else(|| "nothing makes a new one in its place".to_owned(), ToString::to_string);
        format!("pod {}/{} (since {}; {of})", pod.namespace, pod.name, pod.started)
    };
    let restart: BTreeSet<_> = if options.restart_pods {
        pods.iter().filter_map(|pod| pod.workload.clone()).collect()
    } else {
        BTreeSet::new()
    };
    let left: Vec<_> = pods.iter().filter(|pod| pod.workload.as_ref().is_none_or(|of| !restart.contains(of))).collect();
    if !left.is_empty() && !options.leave_pods {
        return Err(OpsError::PodsHoldOn { pods: left.into_iter().map(words).collect() });
    }
    notes.extend(restart.iter().map(|workload| format!("{workload} is restarted first")));
    notes.extend(left.into_iter().map(|pod| format!("{} goes on as it is, as accepted", words(pod))));
    Ok(restart)
}

/// Whether the old key may verify no more: after the longest life of a token, and of those in Secrets where they are issued
/// anew or given up.
async fn tokens(
    prepared: &Prepared,
    next: &Next,
    options: &ExchangeOptions,
    first: &mut First,
    notes: &mut Vec<String>,
) -> Result<(), OpsError> {
    if !options.distrust_old {
        let longest = longest_life(&prepared.target.desired, &prepared.target.blobs);
        match (signs_since(prepared), longest) {
            (Some(since), Some(longest)) if since + longest <= prepared.now => {}
            (since, longest) => {
                let until = since.zip(longest).map(|(since, longest)| utc(since + longest));
                return Err(OpsError::TokensLive { until });
            }
        }
    }
    let old = next.was.service_account.verifying.iter().skip(1);
    first.old_keys = old.filter_map(|key| secrets::token_key_id(key)).collect();
    let held = api(prepared).await?.token_secrets().await?;
    let held = held.into_iter().filter(|secret| secret.key_id.as_ref().is_some_and(|key| first.old_keys.contains(key)));
    let held: Vec<_> = held.collect();
    let words = |secret: &TokenSecret| format!("Secret {}/{}", secret.namespace, secret.name);
    if options.reissue_tokens {
        notes.extend(
            held.iter().map(|secret| {
                format!("{}: its token is issued anew, whoever uses it needs the new one", words(secret))
            }),
        );
        first.reissue = held;
    } else if options.distrust_old {
        notes.extend(held.iter().map(|secret| format!("{}: its token ends", words(secret))));
    } else if !held.is_empty() {
        return Err(OpsError::TokensHeld { secrets: held.iter().map(words).collect() });
    }
    Ok(())
}

/// From when on every API server signs with the new key.
fn signs_since(prepared: &Prepared) -> Option<i64> {
    let issue = Exchange::TokenKey.words(ExchangeLeg::Issue);
    let history = prepared.kept.store.as_ref()?.history();
    let leg = |revision: &&crate::model::Revision| {
        revision.was_reached() && revision.command == ROTATE_TOKEN_KEY && revision.why == issue
    };
    history.iter().rev().find(leg)?.ended
}

/// The longest life of a token, in seconds, as the API servers of this target are told; none where they are told none.
fn longest_life(desired: &Desired, blobs: &Blobs) -> Option<i64> {
    let told = flags::of_api_servers(desired, blobs, "service-account-max-token-expiration");
    let lives: Option<Vec<i64>> = told.iter().map(|values| seconds(values.first()?)).collect();
    lives?.into_iter().max()
}

/// `24h`, `1h30m0s`: a duration as Go writes it, in whole seconds.
fn seconds(text: &str) -> Option<i64> {
    let mut total = 0;
    let mut number = String::new();
    for char in text.chars() {
        let unit = match char {
            '0'..='9' => {
                number.push(char);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total += number.parse::<i64>().ok()? * unit;
        number.clear();
    }
    (number.is_empty() && total > 0).then_some(total)
}

/// Does that.
pub(in crate::ops) async fn first(
    prepared: &Prepared,
    first: &First,
    talk: &dyn Talk,
    cancel: &CancellationToken,
) -> Result<(), OpsError> {
    if !first.restart.is_empty() {
        restart(prepared, &first.restart, talk, cancel).await?;
    }
    if first.reissue.is_empty() {
        return Ok(());
    }
    let api = api(prepared).await?;
    talk.cluster(&format!("has {} tokens issued anew", first.reissue.len()));
    for secret in &first.reissue {
        api.drop_token(secret).await?;
    }
    let started = Instant::now();
    loop {
        let all = api.token_secrets().await?;
        let ours = |secret: &&TokenSecret| {
            first.reissue.iter().any(|asked| (&asked.namespace, &asked.name) == (&secret.namespace, &secret.name))
        };
        let late = all
            .iter()
            .filter(ours)
            .filter(|secret| secret.key_id.as_ref().is_none_or(|key| first.old_keys.contains(key)));
        let late: Vec<_> = late.map(|secret| format!("Secret {}/{}", secret.namespace, secret.name)).collect();
        if late.is_empty() {
            return Ok(());
        }
        if started.elapsed() > REISSUED || cancel.is_cancelled() {
            return Err(OpsError::TokensHeld { secrets: late });
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn restart(
    prepared: &Prepared,
    workloads: &BTreeSet<ObjectId>,
    talk: &dyn Talk,
    cancel: &CancellationToken,
) -> Result<(), OpsError> {
    let api = api(prepared).await?;
    let stamp = utc(prepared.now);
    let longest = prepared.local.cluster.options.deadlines.ready;
    let restarts = stream::iter(workloads).map(|workload| {
        let (api, stamp) = (&api, &stamp);
        async move {
            talk.cluster(&format!("restarts {workload}"));
            api.restart(workload, stamp).await?;
            let started = Instant::now();
            loop {
                let waiting = api.workloads_ready(std::slice::from_ref(workload), &BTreeSet::new()).await?;
                if waiting.is_empty() {
                    return Ok(());
                }
                if started.elapsed() > longest || cancel.is_cancelled() {
                    return Err(OpsError::Impossible(format!("not restarted: {}", waiting.join("; "))));
                }
                tokio::time::sleep(POLL).await;
            }
        }
    });
    let answers: Vec<Result<(), OpsError>> = restarts.buffer_unordered(AT_ONCE).collect().await;
    answers.into_iter().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::begun;
    use super::judged;
    use super::seconds;
    use crate::api::CallingPod;
    use crate::model::ObjectId;
    use crate::ops::OpsError;
    use crate::ops::exchange::walk::ExchangeOptions;

    fn pod(name: &str, workload: Option<&str>) -> CallingPod {
        let workload = workload.map(|name| ObjectId {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: Some("a".to_owned()),
            name: name.to_owned(),
        });
        CallingPod {
            namespace: "a".to_owned(),
            name: name.to_owned(),
            started: "2026-01-01T00:00:00Z".to_owned(),
            workload,
        }
    }

    #[test]
    fn pods_are_restarted_or_accepted_and_otherwise_named() {
        let pods = [pod("web-1", Some("web")), pod("web-2", Some("web")), pod("bare", None)];
        let asked = |restart_pods, leave_pods| {
            let mut notes = Vec::new();
            let options = ExchangeOptions { restart_pods, leave_pods, ..ExchangeOptions::default() };
            (judged(&pods, &options, &mut notes), notes.len())
        };
        let named = |answer| match answer {
            (Err(OpsError::PodsHoldOn { pods }), _) => pods.len(),
            _ => 0,
        };
        assert_eq!(named(asked(false, false)), 3);
        assert_eq!(named(asked(true, false)), 1);
        let (restart, notes) = asked(true, true);
        assert_eq!((restart.unwrap().len(), notes), (1, 2));
        let (restart, notes) = asked(false, true);
        assert_eq!((restart.unwrap().len(), notes), (0, 3));
    }

    #[test]
    fn a_leg_has_begun_once_a_host_has_a_file_of_it() {
        let sample = crate::plan::testing::Builder::five().build();
        let observed = sample.reached();
        let mut target = sample.desired.clone();
        assert!(!begun(&sample.desired, &target, &observed));
        let file = target.hosts.values_mut().flat_map(|host| host.files.values_mut()).next().unwrap();
        file.digest = crate::model::Digest::of(b"other");
        assert!(!begun(&sample.desired, &target, &observed));
        assert!(begun(&target, &sample.desired, &observed));
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(["24h", "1h30m0s", "90m"].map(seconds), [Some(86_400), Some(5_400), Some(5_400)]);
        assert_eq!(["", "24", "1d", "h", "0s"].map(seconds), [None; 5]);
    }
}
