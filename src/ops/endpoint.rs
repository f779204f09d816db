//! `bastide.api.endpoint`, looked at before anything is changed.

use std::time::Duration;

use crate::ops::prepare::Prepared;

/// A machine that cannot reach it may still be the one that bastide runs on: it is worth seconds, not more.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a person should know before saying yes: the kubeconfig names the endpoint alone. It is no reason to stop, because a balancer
/// is often made after what it leads to.
pub(super) async fn note(prepared: &Prepared) -> Option<String> {
    let endpoint = prepared.local.cluster.options.endpoint.as_ref()?;
    let serves = prepared.observed.objects.is_some();
    let obstacle = prepared.doors.front(&endpoint.host, endpoint.port, serves, DEADLINE).await?;
    Some(format!("bastide.api.endpoint: {obstacle}; the kubeconfig names no other way to the API"))
}
