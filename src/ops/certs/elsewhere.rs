//! Certificates that lie on no host: bastide's own, and that of metrics-server, which is a Secret of the cluster.

use std::time::Duration;

use futures::future::join_all;

use crate::api;
use crate::apply::Fleet;
use crate::model::Desired;
use crate::model::Observed;
use crate::ops::Local;
use crate::ops::certs::Certificate;
use crate::ops::certs::Judged;
use crate::ops::certs::Limits;
use crate::ops::certs::Read;
use crate::ops::connect::RealHost;
use crate::ops::doors::Doors;
use crate::ops::patience::Patience;
use crate::ops::prepare;
use crate::ops::prepare::Target;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;

/// Where metrics-server listens in its pod.
const METRICS_PORT: u16 = 10250;
/// As the tables name them.
const METRICS_SERVER: &str = "metrics-server's Secret";
const OPERATOR: &str = "bastide's own, in the state";

/// Those that the cluster has.
pub(super) async fn certificates(
    local: &Local,
    fleet: &Fleet<RealHost>,
    target: &Target,
    observed: &Observed,
    limits: Limits,
    now: i64,
) -> Vec<Certificate> {
    let patience = Patience::of(local.cluster.options.deadlines.health).question;
    let mut all = Vec::new();
    // Kept only where an external authority signs it: without it nobody here would be let in.
    if let Some(own) = kept(LeafName::Operator, &target.secrets) {
        all.push(judge(OPERATOR, &own, None, limits, now));
    }
    if let Some(leaf) = kept(LeafName::MetricsServer, &target.secrets) {
        let shown = match prepare::doors(local, fleet, target, observed, now) {
            Ok(doors) => by_metrics_server(&doors, &target.desired, fleet, patience).await,
            Err(error) => Err(error.to_string()),
        };
        all.push(judge(METRICS_SERVER, &leaf, Some(shown), limits, now));
    }
    all
}

fn kept(name: LeafName, secrets: &Secrets) -> Option<Read> {
    Read::pem(&secrets.leaves.get(&LeafId { name, host: None })?.certificate)
}

/// What the pods of metrics-server show, dialed from a control plane; of several the one that ends first.
async fn by_metrics_server(
    doors: &Doors<RealHost>,
    desired: &Desired,
    fleet: &Fleet<RealHost>,
    patience: Duration,
) -> Result<Read, String> {
    let api = doors.api().await.map_err(|error| error.to_string())?.ok_or("no API server is ready")?;
    let pods = api.pod_addresses("kube-system", "k8s-app=metrics-server").await.map_err(|error| error.to_string())?;
    let mut planes = desired.hosts.iter().filter(|(_, host)| host.roles.control_plane());
    let host = planes.find_map(|(name, _)| fleet.get(name)).ok_or("no control plane's host answers")?;
    let asked = pods.into_iter().map(|address| async move {
        let der = api::presented(&**host, address, METRICS_PORT, patience).await.map_err(|error| error.to_string())?;
        Read::der(&der).ok_or_else(|| "what it shows is no certificate".to_owned())
    });
    let shown: Vec<Read> = join_all(asked).await.into_iter().collect::<Result<_, String>>()?;
    shown.into_iter().min_by_key(|read| read.not_after).ok_or_else(|| "no pod of it runs".to_owned())
}

/// Judges what the state holds by its time, and by what is shown of it.
fn judge(what: &str, kept: &Read, shown: Option<Result<Read, String>>, limits: Limits, now: i64) -> Certificate {
    let shown = shown.map(|shown| (format!("metrics-server :{METRICS_PORT}"), shown));
    Judged::default().certificate(None, what, Some(kept), shown.as_ref(), limits, now)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::judge;
    use crate::ops::certs::Condition;
    use crate::ops::certs::Limits;
    use crate::ops::certs::Read;

    const DAY: i64 = 86_400;
    const LIMITS: Limits = Limits { warn_days: 30, critical_days: 7 };

    fn certificate() -> Read {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2027, 1, 1);
        Read::pem(&parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()).unwrap()
    }

    #[test]
    fn what_lies_on_no_host_is_judged_by_what_the_state_holds_and_by_what_is_shown() {
        let (kept, other) = (certificate(), certificate());
        let at = |shown: Option<Result<Read, String>>, left: i64| {
            let one = judge("a Secret", &kept, shown, LIMITS, kept.not_after - left * DAY);
            assert!(one.host.is_none() && one.path == "a Secret" && one.days_left == Some(left));
            (one.condition, one.remarks.join("; "))
        };
        assert_eq!(at(None, 300), (Condition::Ok, String::new()));
        assert_eq!(at(Some(Ok(kept.clone())), 300), (Condition::Ok, String::new()));
        assert_eq!(at(None, 6), (Condition::Critical, "it ends in 6 days".to_owned()));
        let words = "metrics-server :10250 shows another certificate than bastide issued".to_owned();
        assert_eq!(at(Some(Ok(other)), 300), (Condition::Warning, words));
        let words = "metrics-server :10250 cannot be asked: no pod of it runs".to_owned();
        assert_eq!(at(Some(Err("no pod of it runs".to_owned())), 300), (Condition::Critical, words));
    }
}
