//! The health of each component, asked of itself on its own host.

use std::collections::BTreeMap;

use crate::api::probe;
use crate::apply::Health;
use crate::host::Host;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::Roles;
use crate::ops::doors::Doors;
use crate::ops::doors::Trouble;
use crate::ops::doors::told;

impl<H: Host> Doors<H> {
    /// Whether that API server is ready.
    pub(in crate::ops) async fn api_server(&self, name: &HostName) -> Result<(), Trouble> {
        let (host, seat) = self.seat(name)?;
        told(probe::api_server(&**host, seat.address, &self.kubernetes, self.patience.question).await)
    }

    /// Whether that controller manager is healthy.
    pub(in crate::ops) async fn controller_manager(&self, name: &HostName) -> Result<(), Trouble> {
        told(probe::controller_manager(&**self.seat(name)?.0, self.patience.question).await)
    }

    /// Whether that scheduler is healthy.
    pub(in crate::ops) async fn scheduler(&self, name: &HostName) -> Result<(), Trouble> {
        told(probe::scheduler(&**self.seat(name)?.0, self.patience.question).await)
    }

    /// Whether that kubelet is healthy.
    pub(in crate::ops) async fn kubelet(&self, name: &HostName) -> Result<(), Trouble> {
        told(probe::kubelet(&**self.seat(name)?.0, self.patience.question).await)
    }

    /// Whether that kube-proxy is healthy.
    pub(in crate::ops) async fn proxy(&self, name: &HostName) -> Result<(), Trouble> {
        told(probe::proxy(&**self.seat(name)?.0, self.patience.question).await)
    }

    /// Whether an API server is ready behind that host's own balancer.
    pub(in crate::ops) async fn balancer(&self, name: &HostName) -> Result<(), Trouble> {
        let (host, _) = self.seat(name)?;
        told(probe::api_server(&**host, probe::LOOPBACK, &self.kubernetes, self.patience.question).await)
    }

    /// Whether that member is healthy and knows every member as started.
    pub(in crate::ops) async fn etcd_member(&self, name: &HostName) -> Result<(), Trouble> {
        told(probe::etcd(&**self.seat(name)?.0, self.patience.question).await)?;
        let etcd = self.etcd(name).ok_or_else(|| Trouble::silent("it has no health-check certificate"))?;
        let members = etcd.members_it_knows().await.map_err(Trouble::silent)?;
        let expected = self.seats.iter().filter(|(name, seat)| seat.etcd && !self.away.contains(*name)).count();
        let started = members.iter().filter(|member| !member.name.is_empty() && !member.learner).count();
        if started == expected {
            Ok(())
        } else {
            Err(Trouble::Unwell(format!("{started} of {expected} members have started")))
        }
    }

    /// Whether that member can commit, whatever the other ones are doing.
    pub(in crate::ops) async fn etcd_commits(&self, name: &HostName) -> bool {
        let Ok((host, _)) = self.seat(name) else { return false };
        told(probe::etcd(&**host, self.patience.question).await) == Ok(())
    }

    /// Whether the node is Ready with the host's present boot.
    pub(in crate::ops) async fn node_ready(&self, name: &HostName) -> Result<(), Trouble> {
        let boot = self.boots.get(name).map(String::as_str).unwrap_or_default();
        let api = self.ready_api().await.map_err(Trouble::Silent)?;
        match api.node_ready(name, boot).await {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => Err(Trouble::Unwell(reason)),
            Err(error) => Err(Trouble::Silent(self.lost(&error).await)),
        }
    }

    /// Every component of that host, asked itself, with what is wrong with it.
    pub(in crate::ops) async fn components(
        &self,
        name: &HostName,
        roles: &Roles,
    ) -> BTreeMap<&'static str, Option<String>> {
        let mut components = BTreeMap::new();
        let mut note = |component, answer: Result<(), Trouble>| {
            components.insert(component, answer.err().map(|trouble| trouble.to_string()));
        };
        if roles.etcd() {
            note("etcd", self.etcd_member(name).await);
        }
        if roles.control_plane() {
            note("kube-apiserver", self.api_server(name).await);
            note("kube-controller-manager", self.controller_manager(name).await);
            note("kube-scheduler", self.scheduler(name).await);
        }
        note("kubelet", self.kubelet(name).await);
        if !roles.control_plane() {
            note("balancer", self.balancer(name).await);
        }
        note("kube-proxy", self.proxy(name).await);
        note("node", self.node_ready(name).await);
        components
    }

    /// Whether every Deployment and DaemonSet of bastide's own is rolled out, as far as hosts answer.
    pub(in crate::ops) async fn system_workloads(&self) -> Result<(), Trouble> {
        let api = self.ready_api().await.map_err(Trouble::Silent)?;
        let left_out = self.seats.keys().filter(|name| !self.hosts.contains_key(*name)).cloned().collect();
        match api.workloads_ready(&self.workloads, &left_out).await {
            Ok(waiting) if waiting.is_empty() => Ok(()),
            Ok(waiting) => Err(Trouble::Unwell(waiting.join("; "))),
            Err(error) => Err(Trouble::Silent(self.lost(&error).await)),
        }
    }
}

impl<H: Host> crate::apply::Cluster for Doors<H> {
    async fn apply(&self, action: &crate::model::ObjectAction) -> Result<(), String> {
        let api = self.ready_api().await?;
        match api.apply(action, &self.blobs).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(&error).await),
        }
    }

    async fn gate(&self, gate: &Gate) -> Result<Health, String> {
        let answer = match gate {
            Gate::EtcdMember { host } => self.etcd_member(host).await,
            Gate::ApiServer { host } => self.api_server(host).await,
            Gate::ControllerManager { host } => self.controller_manager(host).await,
            Gate::Scheduler { host } => self.scheduler(host).await,
            Gate::Kubelet { host } => self.kubelet(host).await,
            Gate::Proxy { host } => self.proxy(host).await,
            Gate::Balancer { host } => self.balancer(host).await,
            Gate::NodeReady { host } => self.node_ready(host).await,
            Gate::SystemWorkloads => self.system_workloads().await,
        };
        match answer {
            Ok(()) => Ok(Health::Well),
            Err(Trouble::Unwell(words)) => Ok(Health::Unwell(words)),
            Err(Trouble::Silent(reason)) => Err(reason),
        }
    }
}
