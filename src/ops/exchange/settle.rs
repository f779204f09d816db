//! Whether a cluster works with the authorities and token keys that lie on its hosts: it takes them up by itself, part by part,
//! and no further leg may begin before it has.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::Api;
use crate::api::PublishedTrust;
use crate::host::Host;
use crate::model::HostName;
use crate::ops::OpsError;
use crate::ops::Talk;
use crate::ops::connect::RealHost;
use crate::ops::exchange::trials::Asker;
use crate::ops::exchange::trials::Place;
use crate::ops::exchange::trials::Signer;
use crate::ops::exchange::trials::signers;
use crate::ops::patience::Patience;
use crate::ops::prepare::Prepared;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;

/// Servers look for new files once a minute, kubelets for new ConfigMaps too; twice that, and time for busy ones.
const LONGEST: Duration = Duration::from_mins(5);
/// The pause between two looks.
const POLL: Duration = Duration::from_secs(2);
/// Which extension API server of bastide's own believes the front proxy.
const METRICS: (&str, &str) = ("metrics-server.kube-system.svc", "metrics.k8s.io/v1beta1");

/// What differs between the cluster as it was and the target.
struct Change<'a> {
    prepared: &'a Prepared,
    was: Secrets,
    /// Authorities whose certificates differ.
    names: BTreeSet<AuthorityName>,
    /// Whether the keys for tokens do.
    tokens: bool,
}

/// Where the target has other authorities or token keys than what was reached last: waits until every part works with them,
/// and believes nothing else.
pub(in crate::ops) async fn settled(
    prepared: &Prepared,
    talk: &dyn Talk,
    cancel: &CancellationToken,
) -> Result<(), OpsError> {
    let Some(change) = Change::of(prepared)? else { return Ok(()) };
    let started = Instant::now();
    let mut told = BTreeSet::new();
    loop {
        let reasons = change.pending().await;
        if reasons.is_empty() {
            return Ok(());
        }
        if started.elapsed() > LONGEST || cancel.is_cancelled() {
            return Err(OpsError::TrustNotSettled { reasons });
        }
        for reason in reasons {
            if told.insert(reason.clone()) {
                talk.cluster(&format!("waits: {reason}"));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = cancel.cancelled() => {}
        }
    }
}

impl<'a> Change<'a> {
    fn of(prepared: &'a Prepared) -> Result<Option<Self>, OpsError> {
        let store = prepared.kept.store.as_ref();
        // A run begins its own revision before it ends here, so that what was reached is still what was there before.
        let Some((store, reached)) = store.and_then(|store| Some((store, store.reached()?))) else { return Ok(None) };
        let was = secrets::unseal_form(&store.load(&reached.id)?.3)?;
        let target = &prepared.target.secrets;
        let names = target.authorities.iter().filter(|(name, set)| was.authorities.get(name) != Some(set));
        let names: BTreeSet<_> = names.map(|(name, _)| *name).collect();
        let tokens = was.service_account.verifying != target.service_account.verifying;
        Ok((!names.is_empty() || tokens).then_some(Self { prepared, was, names, tokens }))
    }

    /// Signers of the target and of before: those that must be believed, and those that must not.
    fn signers(&self, name: AuthorityName) -> (Vec<Signer>, Vec<Signer>) {
        let wanted = signers(name, &self.prepared.target.secrets);
        let accepted = |signer: &Signer| wanted.iter().any(|wanted| wanted.certificate == signer.certificate);
        let dropped = signers(name, &self.was).into_iter().filter(|signer| !accepted(signer)).collect();
        (wanted, dropped)
    }

    fn asker(&self) -> Asker<'a> {
        let Prepared { local, target, now, .. } = self.prepared;
        let patience = Patience::of(local.cluster.options.deadlines.health).question;
        Asker { trust: &target.secrets, now: *now, patience }
    }

    /// What is still being waited for, one sentence each.
    async fn pending(&self) -> Vec<String> {
        let desired = &self.prepared.target.desired;
        let servers = desired.hosts.iter().filter(|(_, host)| host.roles.control_plane());
        let asked = servers.filter_map(|(name, host)| {
            let connection = self.prepared.fleet.get(name)?;
            Some(self.api_server(name, connection, host.internal_address))
        });
        let mut reasons: Vec<String> = join_all(asked).await.into_iter().flatten().collect();
        if !reasons.is_empty() {
            // What API servers publish follows from what they believe.
            return reasons;
        }
        let api = match self.prepared.doors.api().await {
            Ok(Some(api)) => api,
            Ok(None) => return vec!["no API server is ready".to_owned()],
            Err(error) => return vec![error.to_string()],
        };
        for answer in [self.given(&api).await, self.published(&api).await, self.extension(&api).await] {
            match answer {
                Ok(more) => reasons.extend(more),
                Err(error) => {
                    self.prepared.doors.forget_api().await;
                    reasons.push(error.to_string());
                }
            }
        }
        reasons
    }

    /// What one API server shows, and whom it believes.
    async fn api_server(&self, name: &HostName, host: &RealHost, address: IpAddr) -> Vec<String> {
        let asker = self.asker();
        let mut reasons = Vec::new();
        if self.names.contains(&AuthorityName::Kubernetes) {
            let leaf = asker.trust.leaves.get(&LeafId::of(LeafName::ApiServer, name));
            let wanted = leaf.and_then(|leaf| CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).ok());
            match api::presented(host, address, 6443, asker.patience).await {
                Ok(shown) if wanted.is_some_and(|wanted| *wanted == *shown) => {}
                Ok(_) => reasons.push(format!("{name}: the API server still shows another certificate")),
                Err(error) => reasons.push(format!("{name}: {error}")),
            }
        }
        for authority in [AuthorityName::Kubernetes, AuthorityName::FrontProxy] {
            if !self.names.contains(&authority) {
                continue;
            }
            let (accepted, dropped) = self.signers(authority);
            let all = accepted.iter().map(|signer| (signer, true)).chain(dropped.iter().map(|signer| (signer, false)));
            for (signer, wanted) in all.filter(|(signer, _)| signer.can_be_tried()) {
                match signer.is_accepted(host, address, &asker).await {
                    Ok(seen) if seen == wanted => {}
                    Ok(true) => {
                        reasons.push(format!("{name}: the API server still believes the old {authority} authority"));
                    }
                    Ok(false) => {
                        reasons.push(format!("{name}: the API server does not believe the {authority} authority yet"));
                    }
                    Err(error) => reasons.push(format!("{name}: {error}")),
                }
            }
        }
        if self.tokens {
            reasons.extend(self.token_keys(name).await);
        }
        reasons
    }

    /// With which keys it verifies tokens.
    async fn token_keys(&self, name: &HostName) -> Option<String> {
        let keys = &self.prepared.target.secrets.service_account.verifying;
        let wanted: BTreeSet<_> = keys.iter().filter_map(|key| secrets::token_key_id(key)).collect();
        match self.prepared.doors.token_keys(name).await {
            Ok(seen) if seen.iter().eq(&wanted) => None,
            Ok(_) => Some(format!("{name}: the API server does not verify tokens with the keys on its host yet")),
            Err(trouble) => Some(format!("{name}: {trouble}")),
        }
    }

    /// What pods are given.
    async fn given(&self, api: &Api) -> Result<Vec<String>, OpsError> {
        let set = self.prepared.target.secrets.authorities.get(&AuthorityName::Kubernetes);
        let Some(set) = set.filter(|_| self.names.contains(&AuthorityName::Kubernetes)) else { return Ok(Vec::new()) };
        let wanted = set.trust_bundle();
        let all = api.given_trust().await?;
        let late = all.into_iter().filter(|given| given.bundle.trim() != wanted.trim());
        Ok(late.map(|given| format!("namespace {} still gives its pods other authorities", given.namespace)).collect())
    }

    /// What extension API servers are told. API servers add what they believe; what they believe no more is taken out here.
    async fn published(&self, api: &Api) -> Result<Vec<String>, OpsError> {
        let Some(seen) = api.published_trust().await? else { return Ok(Vec::new()) };
        let mut reasons = Vec::new();
        let mut without = seen.clone();
        let PublishedTrust { clients, front_proxies, .. } = &mut without;
        for (authority, text) in [(AuthorityName::Kubernetes, clients), (AuthorityName::FrontProxy, front_proxies)] {
            if !self.names.contains(&authority) {
                continue;
            }
            let (accepted, dropped) = self.signers(authority);
            for signer in accepted.iter().filter(|signer| !text.contains(signer.certificate.trim())) {
                reasons.push(format!("extension API servers are not told of the {} authority yet", signer.name));
            }
            for signer in &dropped {
                *text = text.replace(&format!("{}\n", signer.certificate.trim()), "");
                *text = text.replace(signer.certificate.trim(), "");
            }
        }
        if without != seen {
            api.publish_trust(&without).await?;
            reasons.push("extension API servers are told to forget the old authorities".to_owned());
        }
        Ok(reasons)
    }

    /// Whether bastide's own extension API server answers the aggregator, and believes no front proxy of the old authority.
    async fn extension(&self, api: &Api) -> Result<Vec<String>, OpsError> {
        let target = &self.prepared.target.secrets;
        let there = target.leaves.contains_key(&LeafId { name: LeafName::MetricsServer, host: None });
        if !there || self.names.is_disjoint(&[AuthorityName::Kubernetes, AuthorityName::FrontProxy].into()) {
            return Ok(Vec::new());
        }
        let (name, group) = METRICS;
        if let Err(error) = api.serves_group(group).await {
            return Ok(vec![format!("metrics-server does not answer the API servers: {error}")]);
        }
        let (_, dropped) = self.signers(AuthorityName::FrontProxy);
        let mut hosts = self.prepared.target.desired.hosts.iter().filter(|(_, host)| host.roles.control_plane());
        let Some(host) = hosts.find_map(|(name, _)| self.prepared.fleet.get(name)) else {
            return Ok(vec!["no control plane's host answers".to_owned()]);
        };
        let mut reasons = Vec::new();
        for address in api.pod_addresses("kube-system", "k8s-app=metrics-server").await? {
            for signer in dropped.iter().filter(|signer| signer.can_be_tried()) {
                if self.metrics_server_believes(&**host, address, name, signer).await? {
                    reasons.push("metrics-server still believes the old front-proxy authority".to_owned());
                }
            }
        }
        Ok(reasons)
    }

    async fn metrics_server_believes<H: Host>(
        &self,
        host: &H,
        address: IpAddr,
        name: &str,
        signer: &Signer,
    ) -> Result<bool, OpsError> {
        let path = "/apis/metrics.k8s.io/v1beta1";
        let place = Place { address, port: 10250, name: Some(name), path };
        let answer = signer.is_accepted_at(host, &place, &self.asker()).await;
        answer.map_err(|error| OpsError::Impossible(format!("{}: metrics-server: {error}", host.name())))
    }
}
