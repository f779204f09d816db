//! Waits for health within a deadline.

use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::apply::ApplyError;
use crate::apply::Cluster;
use crate::apply::Fleet;
use crate::apply::Health;
use crate::host::Host;
use crate::model::Gate;

/// The first pause between two questions, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A component's last words are worth this much more time.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Asks until the gate is open or `deadline` is over. The error has the component's last words, and
/// comes with whether the host itself no longer answers.
pub(super) async fn pass<H: Host, C: Cluster>(
    gate: &Gate,
    cluster: &C,
    fleet: &Fleet<H>,
    deadline: Duration,
) -> Result<Duration, (ApplyError, bool)> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut last = (false, "it never answered".to_owned());
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        match timeout(left, cluster.gate(gate)).await {
            Ok(Ok(Health::Well)) => return Ok(started.elapsed()),
            Ok(Ok(Health::Unwell(words))) => last = (true, words),
            Ok(Err(reason)) => last = (false, reason),
            Err(_) => {}
        }
        if started.elapsed() + pause >= deadline {
            break;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let (answered, reason) = last;
    let (last_words, silent) = last_words(gate, fleet).await;
    let error = ApplyError::Gate {
        gate: words(gate),
        which: gate.clone(),
        reason,
        answered,
        waited: started.elapsed(),
        last_words,
    };
    Err((error, silent))
}

async fn last_words<H: Host>(gate: &Gate, fleet: &Fleet<H>) -> (String, bool) {
    let Some((host, component)) = gate.host().zip(component(gate)) else {
        return (String::new(), false);
    };
    let Some(host) = fleet.get(host) else {
        return (String::new(), true);
    };
    match timeout(LAST_WORDS, host.last_words(component)).await {
        Ok(Ok(words)) => (words, false),
        Ok(Err(error)) => (String::new(), error.is_silence()),
        Err(_) => (String::new(), true),
    }
}

/// The static pod or unit whose log explains a closed gate.
fn component(gate: &Gate) -> Option<&'static str> {
    match gate {
        Gate::EtcdMember { .. } => Some("etcd"),
        Gate::ApiServer { .. } => Some("kube-apiserver"),
        Gate::ControllerManager { .. } => Some("kube-controller-manager"),
        Gate::Scheduler { .. } => Some("kube-scheduler"),
        Gate::Kubelet { .. } | Gate::NodeReady { .. } => Some("kubelet.service"),
        Gate::Proxy { .. } => Some("kube-proxy"),
        Gate::Balancer { .. } => Some("haproxy"),
        Gate::SystemWorkloads => None,
    }
}

/// `h1: etcd`, `h1: node Ready`, `system workloads`.
pub(super) fn words(gate: &Gate) -> String {
    match (gate, gate.host(), component(gate)) {
        (Gate::NodeReady { host }, ..) => format!("{host}: node Ready"),
        (Gate::Balancer { host }, ..) => format!("{host}: balancer"),
        (_, Some(host), Some(component)) => format!("{host}: {}", component.trim_end_matches(".service")),
        _ => "system workloads".to_owned(),
    }
}
