//! From a plan to a run that somebody agreed to, with the cluster's name, and that nobody else can disturb.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::apply::Locks;
use crate::apply::Report;
use crate::model::HostName;
use crate::model::LockHolder;
use crate::model::Plan;
use crate::ops::Invocation;
use crate::ops::OpsError;
use crate::ops::RestoreOptions;
use crate::ops::Talk;
use crate::ops::access;
use crate::ops::connect::RealHost;
use crate::ops::local;
use crate::ops::prepare::Prepared;
use crate::ops::remove;
use crate::ops::timings;
use crate::plan;
use crate::store::FolderLock;

/// What somebody is asked.
pub(super) struct Question<'a> {
    /// Everything that will be done.
    pub plan: &'a Plan,
    /// What that is, in a sentence without its stop.
    pub words: &'a str,
    /// Control-plane and etcd hosts that take part.
    pub members: &'a BTreeSet<HostName>,
    /// Other hosts that do.
    pub others: &'a BTreeSet<HostName>,
}

/// Who works here, and what keeps others out.
pub(super) struct Agreed {
    /// Who.
    pub holder: LockHolder,
    /// Of the state folder.
    pub folder: FolderLock,
    /// Of the hosts.
    pub locks: Locks<RealHost>,
}

impl Agreed {
    /// Shows the plan, asks, and locks.
    pub(super) async fn ask(
        prepared: &mut Prepared,
        question: &Question<'_>,
        invocation: &Invocation,
        options: &RestoreOptions,
        talk: &Arc<dyn Talk>,
    ) -> Result<Self, OpsError> {
        talk.show(&plan::text(question.plan, plan::Detail::Folded));
        let (cluster, keys) = (prepared.local.cluster.clone(), prepared.target.secrets.clone());
        let words = format!("{}. Type the cluster's name to go on", question.words);
        remove::agree(&cluster.name, options.yes, options.cluster.as_deref(), &words, &**talk)?;
        let holder = local::holder(invocation, prepared.now)?;
        let folder = prepared.kept.for_writing(&cluster, &keys, false, &holder, &**talk)?;
        let locks = Locks::take(&prepared.fleet, question.members, question.others, &holder).await?;
        Ok(Self { holder, folder, locks })
    }

    /// Lets the hosts go, says where the time went, and leaves the operator a way in.
    pub(super) fn end(
        self,
        prepared: &Prepared,
        reports: &[Report],
        options: &RestoreOptions,
        talk: &Arc<dyn Talk>,
    ) -> Result<(), OpsError> {
        drop(self.locks);
        for report in reports.iter().filter(|_| options.timings) {
            talk.show(&timings::timings(report));
        }
        access::keep_operator_file(&prepared.local, &prepared.target.secrets, prepared.now, &**talk)
    }
}
