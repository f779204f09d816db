//! The cluster as the plan's runner needs it: objects and health, through the hosts' own connections.

mod health;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::api;
use crate::api::Api;
use crate::api::ApiError;
use crate::api::Credentials;
use crate::api::etcd::Etcd;
use crate::api::probe;
use crate::config::Deadlines;
use crate::host::Host;
use crate::model::Blobs;
use crate::model::Desired;
use crate::model::Digest;
use crate::model::HostName;
use crate::model::ObjectId;
use crate::model::ObjectSet;
use crate::model::ObservedObjects;
use crate::ops::OpsError;
use crate::ops::patience::Patience;
use crate::secrets::AuthorityName;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;

/// Where API servers listen.
const API_PORT: u16 = 6443;

/// Everything behind the hosts' doors, for one run.
pub(super) struct Doors<H: Host> {
    hosts: BTreeMap<HostName, Arc<H>>,
    seats: BTreeMap<HostName, Seat>,
    workloads: Vec<ObjectId>,
    kubernetes: Credentials,
    etcd: BTreeMap<HostName, Credentials>,
    blobs: Arc<Blobs>,
    direct: bool,
    boots: BTreeMap<HostName, String>,
    /// Members that a restore went without.
    away: BTreeSet<HostName>,
    patience: Patience,
    /// How long a node may take to register.
    registration: Duration,
    api: Mutex<Option<(HostName, Arc<Api>)>>,
}

/// Why a question has no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It answered, and it is not well, in its own words.
    Unwell(String),
    /// Nobody could be asked.
    Silent(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unwell(words) | Self::Silent(words) => f.write_str(words),
        }
    }
}

impl Trouble {
    fn silent(reason: impl std::fmt::Display) -> Self {
        Self::Silent(reason.to_string())
    }
}

fn told(answer: Result<probe::Health, probe::ProbeError>) -> Result<(), Trouble> {
    match answer {
        Ok(probe::Health::Ok) => Ok(()),
        Ok(probe::Health::Unwell(words)) => Err(Trouble::Unwell(words)),
        Err(error) => Err(Trouble::silent(error)),
    }
}

/// What is known of a host without asking it.
struct Seat {
    address: IpAddr,
    control_plane: bool,
    etcd: bool,
}

/// How the doors are opened.
pub(super) struct Keys<'a> {
    /// Authorities and health-check leaves.
    pub secrets: &'a Secrets,
    /// bastide's own short-lived certificate.
    pub operator: &'a crate::secrets::Leaf,
    /// `bastide.api.dial: direct`.
    pub direct: bool,
    /// How slow components and nodes may be.
    pub deadlines: Deadlines,
}

impl<H: Host> Doors<H> {
    /// Doors to `hosts`, which are those of `desired` that answered; `boots` are their present boot ids.
    pub(super) fn new(
        hosts: BTreeMap<HostName, Arc<H>>,
        desired: &Desired,
        blobs: Arc<Blobs>,
        boots: BTreeMap<HostName, String>,
        keys: &Keys<'_>,
    ) -> Self {
        let trust = |name| {
            let set = keys.secrets.authorities.get(&name);
            set.map(crate::secrets::AuthoritySet::trust_bundle).unwrap_or_default()
        };
        let etcd = desired
            .hosts
            .keys()
            .filter_map(|host| {
                let leaf = keys.secrets.leaves.get(&LeafId::of(LeafName::EtcdHealthcheck, host))?;
                let credentials = Credentials {
                    authorities: trust(AuthorityName::Etcd),
                    certificate: leaf.certificate.clone(),
                    key: leaf.key.clone(),
                };
                Some((host.clone(), credentials))
            })
            .collect();
        let workloads = desired
            .objects
            .iter()
            .filter(|object| object.set == ObjectSet::System)
            .filter(|object| ["Deployment", "DaemonSet"].contains(&object.id.kind.as_str()))
            .map(|object| object.id.clone())
            .collect();
        let seats = desired.hosts.iter().map(|(name, host)| {
            let seat = Seat {
                address: host.internal_address,
                control_plane: host.roles.control_plane(),
                etcd: host.roles.etcd(),
            };
            (name.clone(), seat)
        });
        Self {
            hosts,
            seats: seats.collect(),
            workloads,
            kubernetes: Credentials {
                authorities: trust(AuthorityName::Kubernetes),
                certificate: keys.operator.certificate.clone(),
                key: keys.operator.key.clone(),
            },
            etcd,
            blobs,
            direct: keys.direct,
            boots,
            away: keys.secrets.etcd.away.clone(),
            patience: Patience::of(keys.deadlines.health),
            registration: keys.deadlines.ready,
            api: Mutex::new(None),
        }
    }

    /// The objects as the first API server that answers shows them; none where none answers. One that was ready and then falls
    /// silent, as one does whose etcd has just lost its quorum, is none that answers.
    pub(super) async fn observe(&self, desired: &Desired) -> Result<Option<ObservedObjects>, OpsError> {
        let mut silent = BTreeSet::new();
        loop {
            let Some((name, api)) = self.ready(&silent).await? else { return Ok(None) };
            match api.observe(&desired.objects, &self.blobs).await {
                Err(error) if error.is_silence() => {
                    tracing::debug!(host = %name, %error, "this API server is asked no more");
                    self.forget_api().await;
                    silent.insert(name);
                }
                answer => return Ok(Some(answer?)),
            }
        }
    }

    /// An API server that is ready, kept for the run; none where none is.
    pub(super) async fn api(&self) -> Result<Option<Arc<Api>>, OpsError> {
        Ok(self.ready(&BTreeSet::new()).await?.map(|(_, api)| api))
    }

    /// [`Self::api`] on another host than those of `silent`.
    async fn ready(&self, silent: &BTreeSet<HostName>) -> Result<Option<(HostName, Arc<Api>)>, OpsError> {
        let mut kept = self.api.lock().await;
        if let Some((name, api)) = kept.as_ref().filter(|(name, _)| !silent.contains(name)) {
            return Ok(Some((name.clone(), Arc::clone(api))));
        }
        let candidates = self.seats.iter().filter(|(name, seat)| seat.control_plane && !silent.contains(*name));
        for (name, seat) in candidates {
            let Some(host) = self.hosts.get(name) else { continue };
            if let Err(trouble) = self.api_server(name).await {
                tracing::debug!(host = %name, %trouble, "this API server is not ready");
                continue;
            }
            let api = if self.direct {
                Api::direct(seat.address, API_PORT, &self.kubernetes, self.patience.request)?
            } else {
                Api::through(Arc::clone(host), seat.address, API_PORT, &self.kubernetes, self.patience.request)?
            };
            let found = (name.clone(), Arc::new(api.with_waiting(self.registration)));
            *kept = Some(found.clone());
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// Lets the kept API server go, so that the next request looks for one that answers.
    pub(super) async fn forget_api(&self) {
        *self.api.lock().await = None;
    }

    /// Why people here do not reach the API at `address:port`; `serves`: whether any API server runs.
    pub(super) async fn front(&self, address: &str, port: u16, serves: bool, deadline: Duration) -> Option<String> {
        api::obstacle(address, port, serves.then_some(&self.kubernetes), deadline).await
    }

    fn seat(&self, name: &HostName) -> Result<(&Arc<H>, &Seat), Trouble> {
        let host = self.hosts.get(name).ok_or_else(|| Trouble::silent("the host does not answer"))?;
        let seat = self.seats.get(name).ok_or_else(|| Trouble::silent("no such host"))?;
        Ok((host, seat))
    }

    /// The digest of the encryption configuration that this API server works with; none where it does not say.
    pub(super) async fn loaded_encryption(&self, name: &HostName) -> Result<Option<Digest>, Trouble> {
        let (host, seat) = self.seat(name)?;
        let answer = api::loaded_encryption(&**host, seat.address, &self.kubernetes, self.patience.long_question).await;
        answer.map_err(Trouble::silent)
    }

    /// Whether this API server gets answers from the plugins that encrypt for it.
    pub(super) async fn plugins(&self, name: &HostName) -> Result<(), Trouble> {
        let (host, seat) = self.seat(name)?;
        told(api::plugins(&**host, seat.address, &self.kubernetes, self.patience.question).await)
    }

    /// The names of the keys with which this API server verifies tokens, in order.
    pub(super) async fn token_keys(&self, name: &HostName) -> Result<BTreeSet<String>, Trouble> {
        let (host, seat) = self.seat(name)?;
        let trial = api::Trial {
            address: seat.address,
            port: API_PORT,
            name: None,
            path: "/openid/v1/jwks",
            on_behalf_of: None,
        };
        let answer =
            api::trial(&**host, &trial, &self.kubernetes, self.patience.question).await.map_err(Trouble::silent)?;
        let keys = api::published_key_ids(&answer.body).map(|keys| keys.into_iter().collect());
        keys.ok_or_else(|| Trouble::Unwell(format!("{}: the API server names no keys for tokens", answer.status)))
    }

    /// The etcd members whose hosts answer.
    pub(super) fn etcd_members(&self) -> impl Iterator<Item = (&HostName, Etcd<'_, H>)> {
        let members = self.seats.iter().filter(|(_, seat)| seat.etcd);
        members.filter_map(|(name, _)| Some((name, self.etcd(name)?)))
    }

    fn etcd(&self, name: &HostName) -> Option<Etcd<'_, H>> {
        let (host, seat) = self.seat(name).ok()?;
        let (address, credentials) = (seat.address, self.etcd.get(name)?);
        Some(Etcd { host, address, credentials, deadline: self.patience.question })
    }

    /// The host of the etcd member that leads, where one of those that answer does.
    pub(super) async fn etcd_leader(&self) -> Option<HostName> {
        let asked = self
            .etcd_members()
            .map(|(name, etcd)| async move { etcd.status().await.ok()?.leads().then(|| name.clone()) });
        futures::future::join_all(asked).await.into_iter().flatten().next()
    }

    async fn ready_api(&self) -> Result<Arc<Api>, String> {
        match self.api().await {
            Ok(Some(api)) => Ok(api),
            Ok(None) => Err("no API server is ready".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn lost(&self, error: &ApiError) -> String {
        self.forget_api().await;
        error.to_string()
    }
}

#[cfg(test)]
mod tests;
