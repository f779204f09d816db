//! State that an older bastide wrote (`tests/fixtures/state/VERSION`, each as that version left it): it opens, its history and its
//! differences can be read, and the cluster can be walked on to what is rendered today, and back again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::model::Component;
use crate::model::Digest;
use crate::model::LockHolder;
use crate::model::Observed;
use crate::model::Revision;
use crate::model::RevisionId;
use crate::model::RevisionState;
use crate::ops::differences;
use crate::ops::differences::Side;
use crate::ops::kept::Kept;
use crate::ops::prepare::Target;
use crate::ops::rollback;
use crate::plan;
use crate::plan::testing::Sample;
use crate::plan::testing::after;
use crate::render;
use crate::render::Rendered;
use crate::render::tests::support;
use crate::secrets;
use crate::secrets::Secrets;
use crate::store::Backup;
use crate::store::Identity;
use crate::store::Journal;
use crate::store::JournalLine;
use crate::store::Outcome;
use crate::store::Protection;
use crate::store::Recipients;
use crate::store::Store;

const FILE: &str = "cluster.yml";
const IDENTITIES: &str = "identities";
/// What the cluster.yml of a fixture says; revision 2 has [`CHANGE`] besides.
const CLUSTER: &str = "\
kubernetes_version: v1.37.1
network: {plugin: flannel}
ingress: {provider: none}
nodes:
  - {address: 192.0.2.11, user: root, role: [controlplane, etcd, worker], hostname_override: h1}
";
const CHANGE: &str = "services: {kube-api: {extra_args: {v: '3'}}}\n";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/state")
}

fn rendered(text: &str, secrets: &Secrets) -> Rendered {
    let cluster = support::whole_file(text);
    let signers = support::signers(&cluster);
    render::desired(&cluster, secrets, &support::release(), &[], &BTreeMap::new(), Some(&signers)).unwrap()
}

fn revision(number: u32, config: &str) -> Revision {
    let id = |number| RevisionId { number, nonce: format!("{number:016x}") };
    Revision {
        id: id(number),
        parent: (number > 1).then(|| id(number - 1)),
        command: "up".to_owned(),
        why: "cluster.yml".to_owned(),
        who: "anna@laptop".to_owned(),
        at: support::NOW + i64::from(number),
        kubernetes: "v1.37.1".parse().unwrap(),
        config: Digest::of(config.as_bytes()),
        state: RevisionState::Started,
        barrier: None,
        versions: BTreeMap::new(),
        returns_to: None,
        ended: None,
        joins: None,
    }
}

/// Writes the fixture of the version that is built now; CONTRIBUTING.md says when. Everything in it is made up: its keys belong to
/// no cluster.
#[test]
#[ignore = "writes a fixture; FIXTURE names its folder"]
fn a_fixture_of_this_version_is_written() {
    let folder = fixtures().join(std::env::var("FIXTURE").unwrap());
    fs::create_dir(&folder).unwrap();
    let texts = [CLUSTER.to_owned(), format!("{CLUSTER}{CHANGE}")];
    fs::write(folder.join(FILE), &texts[1]).unwrap();
    let secrets = support::secrets(&support::whole_file(CLUSTER));
    let identity = Identity::generate(&secrets.cluster).unwrap();
    identity.save(&folder.join(IDENTITIES), &Protection::default()).unwrap();
    let holder = LockHolder { run: "1f".to_owned(), who: "anna@laptop".to_owned(), command: "up".to_owned(), since: 0 };
    let state = crate::store::folder_for(&folder.join(FILE));
    let made = Store::create(&state, "cluster", identity, Recipients::default(), Backup::None, support::NOW, &holder);
    let (mut store, lock) = made.unwrap();
    for (number, text) in (1..).zip(&texts) {
        let revision = revision(number, text);
        let rendered = rendered(text, &secrets);
        store.begin(&lock, &revision, &rendered.desired, &rendered.blobs, &secrets::seal_form(&secrets)).unwrap();
        for outcome in [Outcome::Started, Outcome::Finished] {
            let (run, time) = (format!("{number:x}"), revision.at);
            let components = BTreeSet::from([Component::ApiServer]);
            let host = crate::model::HostName::new("h1").ok();
            let line = JournalLine { run, revision: revision.id.clone(), time, stage: 1, host, components, outcome };
            Journal::at(&state).append(&line).unwrap();
        }
        store.finish(&lock, &revision.id, RevisionState::Reached, revision.at + 60).unwrap();
    }
}

/// A copy of a fixture, which belongs to its owner alone as state does: git keeps no such modes.
fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copied(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

fn opened(folder: &Path) -> Kept {
    let file = folder.join(FILE);
    let mut kept = Kept::nothing(&file);
    let peek = crate::store::peek(&kept.folder).unwrap();
    let identity = Identity::load(&folder.join(IDENTITIES), &peek.cluster, &mut |_| None).unwrap();
    kept.store = Some(Store::open(&kept.folder, identity, Recipients::default()).unwrap());
    kept.load().unwrap();
    kept
}

fn each(check: impl Fn(&str, &Path, Kept)) {
    let mut seen = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_type().unwrap().is_dir() {
            continue;
        }
        let home = tempfile::tempdir().unwrap();
        copied(&entry.path(), home.path());
        let kept = opened(home.path());
        check(&entry.file_name().to_string_lossy(), home.path(), kept);
        seen += 1;
    }
    assert!(seen > 0, "no fixture");
}

#[test]
fn older_state_opens_and_its_history_and_differences_can_be_read() {
    each(|version, _, kept| {
        let store = kept.store().unwrap();
        let history = store.history();
        let told: Vec<_> = history.iter().map(|one| (one.id.number, one.command.as_str(), one.was_reached())).collect();
        assert_eq!(told, [(1, "up", true), (2, "up", true)], "{version}");
        assert_eq!(kept.unfinished, plan::Unfinished::default(), "{version}");
        assert!(!kept.secrets().unwrap().leaves.is_empty(), "{version}");
        assert!(history.iter().all(|one| store.keeps(&one.id)), "{version}");
        let loaded: Vec<_> = history.iter().map(|one| store.load(&one.id).unwrap()).collect();
        let side = |at: usize| Side { desired: &loaded[at].1, blobs: &loaded[at].2 };
        let found = differences::differences(side(0), side(1));
        let lines: Vec<_> = found.iter().flat_map(|one| &one.lines).collect();
        assert!(lines.iter().any(|line| line.contains("--v: 3")), "{version}: {lines:?}");
    });
}

/// What is seen after a plan from `observed` to a target has run, which the same planner then has nothing to say about.
fn reached(version: &str, target: &Sample, observed: &Observed, previous: &crate::model::Desired) -> Observed {
    let context = after(previous);
    let plan = plan::plan(&target.desired, observed, &context).unwrap_or_else(|why| panic!("{version}: {why:?}"));
    let mut seen = plan::predict(observed, &plan);
    for (name, host) in &mut seen.hosts {
        // As a real host's record: what is desired is what bastide manages from then on.
        let desired = &target.desired.hosts[name];
        let record = host.record.as_mut().unwrap();
        record.files = desired.files.iter().map(|(path, file)| (path.clone(), file.digest)).collect();
    }
    assert!(plan::plan(&target.desired, &seen, &context).unwrap().is_empty(), "{version}");
    seen
}

fn sample(target: &Target) -> Sample {
    Sample { desired: target.desired.clone(), blobs: (*target.blobs).clone() }
}

#[test]
fn a_cluster_of_an_older_version_is_walked_on_to_todays_layout_and_back() {
    each(|version, folder, mut kept| {
        let newest = kept.store().unwrap().newest().unwrap().id.clone();
        let (_, desired, blobs, _) = kept.store().unwrap().load(&newest).unwrap();
        let then = Sample { desired, blobs };
        let observed = then.reached();
        assert!(plan::plan(&then.desired, &observed, &after(&then.desired)).unwrap().is_empty(), "{version}");

        // `up` of today, with the keys of then.
        let text = fs::read_to_string(folder.join(FILE)).unwrap();
        let keys = kept.secrets().unwrap().clone();
        let today = rendered(&text, &keys);
        let today = Sample { desired: today.desired, blobs: today.blobs };
        let there = reached(version, &today, &observed, &then.desired);

        // It is recorded beside the old ones, and `rollback` finds its way to each of them.
        let holder =
            LockHolder { run: "2f".to_owned(), who: "anna@laptop".to_owned(), command: "up".to_owned(), since: 0 };
        let store = kept.store.as_mut().unwrap();
        let lock = store.lock(&holder).unwrap();
        let next = Revision { parent: Some(newest.clone()), ..revision(newest.number + 1, &text) };
        store.begin(&lock, &next, &today.desired, &today.blobs, &secrets::seal_form(&keys)).unwrap();
        store.finish(&lock, &next.id, RevisionState::Reached, next.at).unwrap();
        drop(lock);
        kept.load().unwrap();
        for number in 1..=newest.number {
            let way = rollback::way(&kept, Some(number)).unwrap();
            let stops: Vec<_> = way.stops.iter().map(|stop| stop.id.number).collect();
            assert_eq!(stops, [number], "{version}");
            let terms = secrets::Terms::of(&support::whole_file(&text));
            let back = rollback::target(&kept, &way, terms, support::NOW + 3600).unwrap();
            assert!(back.issued.is_empty(), "{version}");
            let old = sample(&back);
            let seen = reached(version, &old, &there, &today.desired);
            let (_, stored, ..) = kept.store().unwrap().load(&way.stops[0].id).unwrap();
            assert_eq!(back.desired, stored, "{version}: the target of then");
            for (name, host) in &seen.hosts {
                let left: Vec<_> =
                    host.files.keys().filter(|path| !stored.hosts[name].files.contains_key(*path)).collect();
                assert!(left.is_empty(), "{version}: {left:?} stay behind");
            }
        }
    });
}
