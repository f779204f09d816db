//! Why not to begin: foreign ground, silent hosts, unfit hosts, quorum, space.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::model::Action;
use crate::model::Component;
use crate::model::Desired;
use crate::model::DesiredHost;
use crate::model::HostName;
use crate::model::Observed;
use crate::model::ObservedHost;
use crate::model::Plan;
use crate::plan::Context;
use crate::plan::Refusal;
use crate::plan::diff::only_worker;
use crate::plan::situation::API_POD;
use crate::plan::situation::Diffs;
use crate::plan::situation::ETCD_POD;
use crate::plan::situation::Situation;
use crate::plan::situation::pod_network;
use crate::plan::situation::quorum as quorum_of;

/// Layout of the record that this program writes and reads.
const RECORD_SCHEMA: u32 = 1;
/// kube-proxy's nftables mode asks for 5.13 (Kubernetes documentation, "Kernel Version Requirements"); nothing else asks
/// for more.
const KERNEL: (u32, u32) = (5, 13);
/// The oldest one of a distribution that offers such a kernel (Ubuntu 20.04 with its newer kernels).
const SYSTEMD: u32 = 245;
/// Leases and certificates suffer from more; `not_before` lies five minutes back.
const CLOCK_SKEW: i64 = 30;
/// A host whose clock is this far behind the operator's would call new certificates not yet valid.
const CLOCK_BEHIND: i64 = 60;
/// A file lies in the staging folder and at its place.
const FILE_COPIES: u64 = 2;
/// An archive lies in the staging folder, in containerd's content store, and unpacked (about twice its size).
const IMAGE_COPIES: u64 = 4;

/// Everything that forbids a first write, apart from the set of hosts.
pub(super) fn ground(target: &Desired, observed: &Observed, context: &Context<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (name, desired) in &target.hosts {
        if context.without.contains(name) {
            continue;
        }
        if let Some(seen) = observed.hosts.get(name) {
            refusals.extend(foreign(target, name, seen));
            refusals.extend(unfit(name, desired, seen, context));
        }
    }
    refusals.extend(silent(target, observed, context));
    refusals.extend(skew(target, observed));
    refusals
}

fn foreign(target: &Desired, name: &HostName, seen: &ObservedHost) -> Vec<Refusal> {
    match &seen.record {
        Some(record) if record.schema > RECORD_SCHEMA => {
            vec![Refusal::NewerRecord { host: name.clone(), schema: record.schema }]
        }
        Some(record) if record.cluster != target.cluster => vec![Refusal::OtherCluster {
            host: name.clone(),
            name: record.cluster_name.clone(),
            cluster: record.cluster.to_string(),
        }],
        Some(_) => Vec::new(),
        None => {
            let refusals: Vec<_> = seen.squatters.iter().map(|squatter| Refusal::squatter(name, squatter)).collect();
            // On an RKE host its kubelet, folders and ports say nothing new.
            let rke: Vec<_> =
                refusals.iter().filter(|refusal| matches!(refusal, Refusal::LiveRke { .. })).take(1).cloned().collect();
            if rke.is_empty() { refusals } else { rke }
        }
    }
}

fn unfit(name: &HostName, desired: &DesiredHost, seen: &ObservedHost, context: &Context<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if kernel(&seen.kernel).is_none_or(|kernel| kernel < KERNEL) {
        refusals.push(Refusal::Kernel { host: name.clone(), kernel: seen.kernel.clone(), needed: "5.13" });
    }
    match seen.systemd {
        0 => refusals.push(Refusal::NoSystemd { host: name.clone() }),
        version if version < SYSTEMD => {
            refusals.push(Refusal::OldSystemd { host: name.clone(), version, needed: SYSTEMD });
        }
        _ => {}
    }
    if seen.architecture != context.architecture {
        refusals.push(Refusal::Architecture {
            host: name.clone(),
            architecture: seen.architecture.clone(),
            needed: context.architecture.to_owned(),
        });
    }
    for user in &desired.users {
        match seen.users.get(&user.name) {
            Some(&(uid, gid)) if (uid, gid) != (user.uid, user.gid) => refusals.push(Refusal::OtherNumbers {
                host: name.clone(),
                user: user.name.clone(),
                uid,
                gid,
                wanted_uid: user.uid,
                wanted_gid: user.gid,
            }),
            Some(_) => {}
            None => refusals.extend(seen.taken_uids.get(&user.uid).map(|holder| Refusal::TakenUid {
                host: name.clone(),
                user: user.name.clone(),
                uid: user.uid,
                holder: holder.clone(),
            })),
        }
    }
    refusals
}

/// The first two numbers of a kernel release such as `6.12.63+deb13-amd64`.
fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn silent(target: &Desired, observed: &Observed, context: &Context<'_>) -> Vec<Refusal> {
    let mut refusals: Vec<_> = context
        .without
        .iter()
        .filter(|host| !target.hosts.contains_key(*host))
        .map(|host| Refusal::UnknownHost { host: host.clone() })
        .collect();
    for (name, host) in &target.hosts {
        if only_worker(&host.roles) {
            continue;
        }
        if context.without.contains(name) {
            if context.previous.is_none() {
                refusals.push(Refusal::NeededAtBirth { host: name.clone() });
            }
        } else if !observed.hosts.contains_key(name) {
            refusals.push(Refusal::Unreachable {
                host: name.clone(),
                reason: observed.unreachable.get(name).cloned().unwrap_or_else(|| "it was not looked at".to_owned()),
                role: if host.roles.control_plane() { "a control-plane host" } else { "an etcd host" },
            });
        }
    }
    if !context.without.is_empty() && refusals.is_empty() {
        let answers = |name: &HostName| observed.hosts.contains_key(name) && !context.without.contains(name);
        let members: Vec<_> = target.hosts.iter().filter(|(_, host)| host.roles.etcd()).collect();
        let running = members.iter().filter(|(name, _)| answers(name)).count();
        if running < quorum_of(members.len()) {
            refusals.push(Refusal::NoQuorum { running, members: members.len(), quorum: quorum_of(members.len()) });
        }
        if !target.hosts.iter().any(|(name, host)| host.roles.control_plane() && answers(name)) {
            refusals.push(Refusal::NoControlPlane);
        }
    }
    refusals
}

fn skew(target: &Desired, observed: &Observed) -> Option<Refusal> {
    let clocks = || observed.hosts.iter().filter(|(name, _)| target.hosts.contains_key(*name));
    let (behind, slowest) = clocks().min_by_key(|(_, seen)| seen.clock)?;
    let (ahead, fastest) = clocks().max_by_key(|(_, seen)| seen.clock)?;
    let seconds = fastest.clock.saturating_sub(slowest.clock);
    (seconds > CLOCK_SKEW).then(|| Refusal::ClockSkew {
        behind: behind.clone(),
        ahead: ahead.clone(),
        seconds,
        allowed: CLOCK_SKEW,
    })
}

/// Hosts that nothing is done on: named by the operator, or workers that do not answer.
pub(super) fn left_out(target: &Desired, observed: &Observed, context: &Context<'_>) -> BTreeSet<HostName> {
    target
        .hosts
        .keys()
        .filter(|name| context.without.contains(*name) || !observed.hosts.contains_key(*name))
        .cloned()
        .collect()
}

/// Hosts whose disk can't hold what will be written.
pub(super) fn space(plan: &Plan, observed: &Observed) -> Vec<Refusal> {
    let mut needed: BTreeMap<&HostName, u64> = BTreeMap::new();
    for step in plan.stages.iter().flat_map(|stage| &stage.steps) {
        let bytes: u64 = step
            .batch
            .0
            .iter()
            .map(|action| match action {
                Action::PutFile { size, .. } => size * FILE_COPIES,
                Action::ImportImage { size, .. } => size * IMAGE_COPIES,
                Action::RestoreEtcd(restore) => restore.size * FILE_COPIES,
                _ => 0,
            })
            .sum();
        *needed.entry(&step.host).or_default() += bytes;
    }
    needed
        .into_iter()
        .filter_map(|(host, needed)| {
            let free = observed.hosts.get(host)?.free_bytes;
            (free < needed).then(|| Refusal::DiskSpace { host: host.clone(), free, needed })
        })
        .collect()
}

/// Restarts of etcd that would stop all writes because another member is missing already.
pub(super) fn quorum(plan: &Plan, situation: &Situation<'_>) -> Vec<Refusal> {
    let members = situation.etcd_members();
    let gone = situation.etcd_left_out(&plan.left_out);
    // Without any member in the target (a restore stops them all) there is no quorum to lose.
    let left = members.saturating_sub(gone + 1);
    if gone == 0 || situation.fresh() || left >= quorum_of(members) {
        return Vec::new();
    }
    let restarted = |step: &&crate::model::Step| {
        let away = situation.unprotected().contains(&Component::Etcd);
        step.components.contains(&Component::Etcd) && interrupts(step) && !away
    };
    plan.stages
        .iter()
        .flat_map(|stage| &stage.steps)
        .filter(restarted)
        .map(|step| Refusal::RestartLosesQuorum {
            host: step.host.clone(),
            running: left,
            members,
            quorum: quorum_of(members),
        })
        .collect()
}

/// Whether something is away for a while: neither what is harmless, nor a step that only waits.
fn interrupts(step: &crate::model::Step) -> bool {
    !step.gates.is_empty() && !step.batch.0.is_empty()
}

/// What a person should know before saying yes.
pub(super) fn notes(
    target: &Desired,
    observed: &Observed,
    context: &Context<'_>,
    diffs: &Diffs,
    plan: &Plan,
) -> Vec<String> {
    let mut notes = Vec::new();
    let hosts = |which: &dyn Fn(&ObservedHost) -> bool| {
        let seen = observed.hosts.iter().filter(|(name, _)| target.hosts.contains_key(*name));
        seen.filter(|(_, seen)| which(seen)).map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(", ")
    };
    let mut note = |which: &dyn Fn(&ObservedHost) -> bool, text: &str| {
        let hosts = hosts(which);
        if !hosts.is_empty() {
            notes.push(format!("{hosts}: {text}"));
        }
    };
    note(&|seen| seen.swap, "swap is on");
    note(
        &|seen| !seen.cgroup_v2,
        "control groups of version 1; the kubelet starts only where its configuration says failCgroupV1: false",
    );
    note(
        &|seen| seen.lacks.default_route,
        "there is no default route: connections to service addresses end before kube-proxy sees them, and a pod network does not \
         come up; a default route that leads nowhere is enough",
    );
    note(
        &|seen| seen.lacks.name_server,
        "there is no name server: pods there resolve the cluster's own names alone, and others once dns.upstreamnameservers names \
         a server",
    );
    note(
        &|seen| seen.clock != 0 && context.now - seen.clock > CLOCK_BEHIND,
        "the clock is more than a minute behind this machine's; new certificates may not be valid there yet",
    );
    if context.previous.is_some() && observed.hosts.values().all(|seen| seen.record.is_none()) {
        notes.push("no host holds this cluster any more: it is made anew, empty".to_owned());
    }
    let ended: Vec<_> = diffs.iter().filter(|(_, diff)| diff.ended).map(|(name, _)| name.to_string()).collect();
    if !ended.is_empty() {
        notes.push(format!(
            "{}: certificates have ended and no API server answers: `bastide rotate-certs` and `bastide up` both issue them \
             anew and bring back everything there at once, because nobody can be waited for",
            ended.join(", ")
        ));
    }
    if context.previous.is_some() && observed.objects.is_none() {
        notes.push("no API server answers: all objects are applied again and none is pruned".to_owned());
    }
    if !pod_network(target) {
        notes.push("no pod network is installed: nodes become Ready when you bring one".to_owned());
    }
    let servers = target.hosts.values().filter(|host| host.roles.control_plane()).count();
    // Files that a server takes up while it runs change without a pod to wait for.
    let restarted = |pod: &str| {
        let steps = plan.stages.iter().flat_map(|stage| &stage.steps);
        let mut actions = steps.flat_map(|step| &step.batch.0);
        actions.any(|action| matches!(action, Action::AwaitPod { pod: awaited, .. } if awaited == pod))
    };
    if context.previous.is_some() && servers == 1 && restarted(API_POD) {
        notes.push("there is one API server: the API is away while it restarts".to_owned());
    }
    let members = target.hosts.values().filter(|host| host.roles.etcd()).count();
    if context.previous.is_some() && members < 3 && restarted(ETCD_POD) {
        notes.push(format!("etcd has {members} member(s): nothing can be written while one restarts"));
    }
    notes
}
