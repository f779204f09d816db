//! Machines in memory and a cluster that lives on them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::apply::Cluster;
use crate::apply::Deadlines;
use crate::apply::Entry;
use crate::apply::Event;
use crate::apply::Fleet;
use crate::apply::Health;
use crate::apply::Journal;
use crate::apply::JournalError;
use crate::apply::Locks;
use crate::apply::Report;
use crate::apply::Run;
use crate::apply::Stamp;
use crate::apply::hosts_to_lock;
use crate::apply::observe;
use crate::apply::run;
use crate::host::Contents;
use crate::host::fake::FakeHost;
use crate::host::fake::Silence;
use crate::model::Gate;
use crate::model::HostName;
use crate::model::LockHolder;
use crate::model::ObjectAction;
use crate::model::Observed;
use crate::model::ObservedObjects;
use crate::model::Plan;
use crate::model::RevisionId;
use crate::plan::Context;
use crate::plan::plan;
use crate::plan::predict;
use crate::plan::scope;
use crate::plan::testing::NOW;
use crate::plan::testing::Sample;

/// Hosts and the cluster's objects.
pub(super) struct World {
    pub(super) fleet: Fleet<FakeHost>,
    pub(super) cluster: FakeCluster,
    pub(super) journal: Lines,
    pub(super) deadlines: Deadlines,
    pub(super) cancel: CancellationToken,
}

/// Objects in memory; a gate is open where its pods run and nothing else is said.
#[derive(Default)]
pub(super) struct FakeCluster {
    pub(super) objects: Mutex<ObservedObjects>,
    pub(super) shut: Mutex<BTreeSet<Gate>>,
    pub(super) refused: Mutex<BTreeMap<String, String>>,
    /// So many tries to write to a node come too early.
    pub(super) late: AtomicUsize,
    /// Everything that was asked, in order.
    pub(super) asked: Mutex<Vec<Gate>>,
    /// Cancelled as soon as this gate is asked about.
    pub(super) pull_at: Mutex<Option<(Gate, CancellationToken)>>,
}

impl Cluster for FakeCluster {
    async fn apply(&self, action: &ObjectAction) -> Result<(), String> {
        if let ObjectAction::Apply { id, .. } | ObjectAction::Delete { id, .. } = action
            && let Some(reason) = self.refused.lock().unwrap().get(&id.name)
        {
            return Err(reason.clone());
        }
        if matches!(action, ObjectAction::Node { .. })
            && self.late.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
        {
            return Err("not found".to_owned());
        }
        let before = Observed { objects: Some(self.objects.lock().unwrap().clone()), ..Observed::default() };
        let stage = crate::model::Stage {
            title: String::new(),
            width: 1,
            steps: Vec::new(),
            objects: vec![action.clone()],
            gates: Vec::new(),
        };
        let after = predict(&before, &Plan { stages: vec![stage], ..Plan::default() });
        *self.objects.lock().unwrap() = after.objects.unwrap();
        Ok(())
    }
    async fn gate(&self, gate: &Gate) -> Result<Health, String> {
        self.asked.lock().unwrap().push(gate.clone());
        if let Some((at, token)) = &*self.pull_at.lock().unwrap()
            && at == gate
        {
            token.cancel();
        }
        if self.shut.lock().unwrap().contains(gate) {
            return Ok(Health::Unwell("etcd: no leader".to_owned()));
        }
        if let Gate::NodeReady { host } = gate {
            self.objects.lock().unwrap().nodes.entry(host.clone()).or_default().ready = true;
        }
        Ok(Health::Well)
    }
}

#[derive(Default)]
pub(super) struct Lines {
    pub(super) lines: Mutex<Vec<String>>,
    pub(super) fail_at: Mutex<Option<usize>>,
}

impl Journal for Lines {
    fn write(&self, entry: &Entry) -> Result<(), JournalError> {
        let mut lines = self.lines.lock().unwrap();
        if self.fail_at.lock().unwrap().is_some_and(|at| lines.len() + 1 >= at) {
            return Err(JournalError("disk full".to_owned()));
        }
        let host = entry.host.as_ref().map_or("stage", HostName::as_str);
        let event = match entry.event {
            Event::Started => "started",
            Event::Finished => "finished",
            Event::Failed => "failed",
            Event::LeftOut => "left out",
        };
        lines.push(format!("{} {host} {event}", entry.stage));
        Ok(())
    }
}

/// How one `up` ended.
pub(super) struct Up {
    pub(super) plan: Plan,
    pub(super) report: Report,
}

impl World {
    pub(super) fn new(sample: &Sample) -> Self {
        let hosts = sample.desired.hosts.keys().map(|name| {
            let host = FakeHost::new(name.as_str());
            host.state().facts.clock = NOW;
            host
        });
        Self {
            fleet: Fleet::new(hosts, BTreeMap::new()),
            cluster: FakeCluster::default(),
            journal: Lines::default(),
            deadlines: Deadlines {
                transfer: Duration::from_secs(5),
                health: Duration::from_millis(600),
                ready: Duration::from_millis(600),
            },
            cancel: CancellationToken::new(),
        }
    }

    pub(super) fn host(&self, name: &str) -> &FakeHost {
        self.fleet.get(&crate::plan::testing::name(name)).unwrap()
    }

    pub(super) async fn look(&self, sample: &Sample) -> Observed {
        let scopes = sample.desired.hosts.iter().map(|(name, host)| (name.clone(), scope(host))).collect();
        let sighting = observe(&self.fleet, &scopes).await;
        assert!(sighting.errors.is_empty(), "{:?}", sighting.errors);
        Observed {
            hosts: sighting.hosts,
            unreachable: sighting.unreachable,
            etcd_leader: None,
            objects: Some(self.cluster.objects.lock().unwrap().clone()),
        }
    }

    pub(super) async fn lock(&self, sample: &Sample, plan: &Plan) -> Locks<FakeHost> {
        let (members, others) = hosts_to_lock(&sample.desired, None, plan);
        Locks::take(&self.fleet, &members, &others, &holder("run")).await.unwrap()
    }

    pub(super) async fn run(&self, sample: &Sample, observed: &Observed, plan: &Plan) -> Report {
        let contents: Arc<dyn Contents> = Arc::new(sample.blobs.clone());
        let mut locks = self.lock(sample, plan).await;
        let with = Run {
            target: &sample.desired,
            observed,
            fleet: &self.fleet,
            cluster: &self.cluster,
            journal: &self.journal,
            contents: &contents,
            progress: &Silence,
            deadlines: self.deadlines,
            stamp: &Stamp {
                cluster: sample.desired.cluster.clone(),
                cluster_name: sample.desired.cluster_name.clone(),
                revision: RevisionId { number: 1, nonce: "0".to_owned() },
                parent: None,
            },
            id: "run",
            cancel: &self.cancel,
        };
        run(plan, &with, &mut locks).await
    }

    pub(super) async fn up(&self, sample: &Sample, context: &Context<'_>) -> Up {
        let observed = self.look(sample).await;
        let plan = plan(&sample.desired, &observed, context).unwrap();
        let report = self.run(sample, &observed, &plan).await;
        Up { plan, report }
    }

    /// Every file of the target has its content and access, and nothing that bastide wrote is left over.
    pub(super) fn is_at(&self, sample: &Sample) {
        for (name, host) in &sample.desired.hosts {
            let state = self.host(name.as_str()).state();
            let wanted: BTreeMap<_, _> =
                host.files.iter().map(|(path, file)| (path.clone(), (file.digest, file.access))).collect();
            let there: BTreeMap<_, _> = state
                .files
                .iter()
                .map(|(path, (content, access))| (path.clone(), (crate::model::Digest::of(content.expose()), *access)))
                .collect();
            assert_eq!(there, wanted, "{name}");
            let record = state.record.as_ref().unwrap();
            assert!(record.complete, "{name}");
            assert_eq!(
                record.files,
                host.files.iter().map(|(path, file)| (path.clone(), file.digest)).collect(),
                "{name}"
            );
            assert_eq!(record.directories, host.directories.iter().map(|directory| directory.path.clone()).collect());
            assert!(host.units.iter().all(|unit| state.units[&unit.name].inputs == Some(unit.inputs)), "{name}");
            assert!(host.pods.iter().all(|(pod, inputs)| state.pods[pod] == Some(*inputs)), "{name}");
            assert!(state.lock.is_none(), "{name}");
        }
    }
}

pub(super) fn holder(run: &str) -> LockHolder {
    LockHolder { run: run.to_owned(), who: "me@here".to_owned(), command: "up".to_owned(), since: NOW }
}
