use bastide::host::HostError;
use bastide::host::Machine;
use bastide::model::Access;
use bastide::model::Action;
use bastide::model::Digest;
use bastide::model::Directory;
use bastide::model::SystemUser;
use bed::Bed;
use bed::Points;

use crate::support::Job;
use crate::support::LocalWire;
use crate::support::boot;
use crate::support::locked;
use crate::support::machine;
use crate::support::path;
use crate::support::reached;
use crate::support::record;
use crate::support::see;

/// One boot serves all: each part leaves what the next one does not look at.
#[tokio::test(flavor = "multi_thread")]
async fn files_reach_a_host_whole_or_not_at_all() {
    let bed = boot();
    let host = bed.host("h1");
    let ssh = |script: &str| host.ssh(script).unwrap();
    let machine = machine(&bed);
    let lock = locked(&machine, "r1").await;

    // Every kind of action that needs no container.
    let job = Job::default()
        .then(Action::EnsureUser(SystemUser { name: "etcd".to_owned(), uid: 52034, gid: 52034 }))
        .then(Action::EnsureDirectory(Directory {
            path: path("/srv/new/deep"),
            access: Access { mode: 0o700, uid: 52034, gid: 52034 },
        }))
        .put("/srv/new/deep/a", "first")
        .put("/srv/parents/of/b", "second")
        .put("/run/c", "on another file system");
    let (result, told) = job.perform(&machine, "r1").await;
    result.unwrap();
    assert_eq!(
        told.doing.lock().unwrap().join(","),
        "makes the user etcd,makes the folder /srv/new/deep,\
        writes /srv/new/deep/a,writes /srv/parents/of/b,writes /run/c"
    );
    assert!(*told.sent.lock().unwrap() > 1000);
    assert_eq!(
        ssh(
            "id -u etcd; id -g etcd; stat -c '%a %u %g' /srv/new/deep /srv/new/deep/a; cat /srv/new/deep/a /srv/parents/of/b /run/c"
        ),
        "52034\n52034\n700 52034 52034\n640 0 0\nfirstsecondon another file system"
    );
    assert_eq!(
        ssh("ls -A /var/lib/bastide /srv/new/deep /srv/parents/of; cat /var/lib/bastide/made"),
        "/srv/new/deep:\na\n\n/srv/parents/of:\nb\n\n/var/lib/bastide:\nfound\nmade\nrecord.json\n\
         /srv/new\n/srv/new/deep\n/srv/parents\n/srv/parents/of\n"
    );

    // The same again changes nothing: same inode, same time.
    let before = ssh("stat -c '%i %y %z' /srv/new/deep/a /srv/parents/of/b");
    Job::default().put("/srv/parents/of/b", "second").perform(&machine, "r1").await.0.unwrap();
    let job = Job::default().replace("/srv/new/deep/a", "first", Some(Digest::of(b"first")), false);
    job.perform(&machine, "r1").await.0.unwrap();
    let after = ssh("stat -c '%i %y' /srv/new/deep/a /srv/parents/of/b");
    assert!(before.lines().zip(after.lines()).all(|(before, after)| before.starts_with(after)), "{before}{after}");

    // Drift is refused before anything is written, naming the path.
    let job =
        Job::default().put("/srv/innocent", "x").replace("/srv/new/deep/a", "third", Some(Digest::of(b"other")), false);
    let (result, _) = job.perform(&machine, "r1").await;
    assert!(matches!(&result, Err(HostError::Drift { path, .. }) if path.as_str() == "/srv/new/deep/a"), "{result:?}");
    let job = Job::default().put("/srv/new/deep/a", "third");
    assert!(matches!(job.perform(&machine, "r1").await.0, Err(HostError::Drift { .. })));
    let remove = |text: &str, digest| Action::RemoveFile { path: path(text), replaces: digest };
    let job = Job::default().then(remove("/srv/new/deep/a", Digest::of(b"other")));
    assert!(matches!(job.perform(&machine, "r1").await.0, Err(HostError::Drift { .. })));
    assert_eq!(ssh("cat /srv/new/deep/a; ls /srv"), "firstnew\nparents\n");

    // A foreign file is kept by its digest before it is replaced.
    ssh("echo mine > /etc/foreign.conf; chmod 604 /etc/foreign.conf");
    let mine = Digest::of(b"mine\n");
    Job::default().replace("/etc/foreign.conf", "ours", Some(mine), true).perform(&machine, "r1").await.0.unwrap();
    assert_eq!(
        ssh(&format!("cat /etc/foreign.conf /var/lib/bastide/foreign/{mine} /var/lib/bastide/foreign/index")),
        format!("oursmine\n{mine} 604 0 0 /etc/foreign.conf\n")
    );

    // Access and removal.
    let job = Job::default()
        .then(Action::SetAccess { path: path("/srv/new/deep/a"), access: Access { mode: 0o4711, uid: 52034, gid: 0 } })
        .then(remove("/srv/parents/of/b", Digest::of(b"second")))
        .then(remove("/srv/never/there", Digest::of(b"")));
    job.perform(&machine, "r1").await.0.unwrap();
    assert_eq!(ssh("stat -c '%a %u %g' /srv/new/deep/a; ls /srv/parents/of"), "4711 52034 0\n");

    // A user whose number or name is taken is refused before any write.
    for (name, uid) in [("other", 52034), ("etcd", 52035), ("ops2", 0)] {
        let user = SystemUser { name: name.to_owned(), uid, gid: uid };
        let job = Job::default().put("/srv/innocent", "x").then(Action::EnsureUser(user));
        let (result, _) = job.perform(&machine, "r1").await;
        assert!(matches!(result, Err(HostError::Failed { .. })), "{name} {uid}: {result:?}");
    }
    assert_eq!(ssh("ls /srv"), "new\nparents\n");

    // A full disk names the file; the old content stays, and nothing else does.
    ssh("mkdir /srv/small; mount -t tmpfs -o size=64k tmpfs /srv/small; echo old > /srv/small/f");
    let job = Job::default().replace("/srv/small/f", vec![1; 100_000], Some(Digest::of(b"old\n")), false);
    let (result, _) = job.perform(&machine, "r1").await;
    let Err(HostError::Failed { doing, reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!(doing, "writes /srv/small/f");
    assert!(reason.contains("/srv/small/f") && reason.contains("No space left"), "{reason}");
    assert_eq!(
        ssh("ls -A /srv/small; cat /srv/small/f; ls /var/lib/bastide; umount /srv/small; rmdir /srv/small"),
        "f\nold\nforeign\nfound\nmade\nrecord.json\n"
    );
    let seen = see(&machine, &[]).await;
    assert!(!seen.record.unwrap().complete, "the record says that work was begun and not finished");

    // A file that is a mount point cannot be renamed over: an error, and no copy in its place.
    ssh("mkdir /srv/m; echo inner > /srv/inner; touch /srv/m/f; mount --bind /srv/inner /srv/m/f");
    let job = Job::default().replace("/srv/m/f", "new", Some(Digest::of(b"inner\n")), false);
    let (result, _) = job.perform(&machine, "r1").await;
    assert!(matches!(&result, Err(HostError::Failed { doing, .. }) if doing == "writes /srv/m/f"), "{result:?}");
    assert_eq!(ssh("ls -A /srv/m; cat /srv/m/f; umount /srv/m/f; rm -r /srv/m /srv/inner"), "f\ninner\n");

    // Large files.
    for size in [10_000_000, 300_000_000] {
        let content: Vec<u8> = (0..size).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let digest = Digest::of(&content);
        let begun = std::time::Instant::now();
        Job::default().put(&format!("/srv/large-{size}"), content).perform(&machine, "r1").await.0.unwrap();
        eprintln!("{size} bytes: {:?}", begun.elapsed());
        assert_eq!(
            see(&machine, &[&format!("/srv/large-{size}")]).await.files[&path(&format!("/srv/large-{size}"))].digest,
            digest
        );
    }

    // Another cluster's record.
    let mut foreign = record(true, &[]);
    foreign.cluster.0 = "d".repeat(32);
    let (result, _) = Job::default().put("/srv/innocent", "x").recorded(foreign).perform(&machine, "r1").await;
    assert!(
        matches!(&result, Err(HostError::Failed { reason, .. }) if reason.contains("another cluster")),
        "{result:?}"
    );
    drop(lock);
}

/// Files on three file systems that are replaced, one whose access is set and one that is removed.
struct Killed {
    bed: Bed,
    machine: Machine<LocalWire>,
    paths: Vec<String>,
}

impl Killed {
    fn new() -> Self {
        let bed = boot();
        let machine = machine(&bed);
        let paths = (0..6).map(|at| format!("{}/d{}/f{at}", ["/srv", "/var/t", "/run/t"][at % 3], at / 3)).collect();
        Self { bed, machine, paths }
    }

    fn content(round: usize, at: usize) -> Vec<u8> {
        format!("round {round} file {at} {}", "x".repeat(20_000)).into_bytes()
    }

    fn new_digests(round: usize) -> Vec<Option<Digest>> {
        (0..6).map(|at| Some(Digest::of(&Self::content(round, at)))).collect()
    }

    fn job(&self, from: &[Option<Digest>], round: usize) -> Job {
        let mut job = Job::default();
        for (at, path) in self.paths.iter().enumerate() {
            job = job.replace(path, Self::content(round, at), from[at], false);
        }
        job.then(Action::SetAccess { path: path("/var/t/access"), access: Access::root(0o600) })
            .then(Action::RemoveFile { path: path("/var/t/gone"), replaces: Digest::of(b"gone") })
    }

    /// What is in the host's folder /var/t whatever the last run did there.
    fn prepare(&self) {
        let folder = self.bed.folder().join("h1/var/t");
        std::fs::write(folder.join("access"), "x").unwrap();
        std::fs::write(folder.join("gone"), "gone").unwrap();
    }

    /// What the files are now, and whether the record says that all work was finished.
    async fn look(&self) -> (Vec<Option<Digest>>, bool) {
        let names: Vec<&str> = self.paths.iter().map(String::as_str).collect();
        let seen = see(&self.machine, &names).await;
        let digests = names.iter().map(|name| seen.files.get(&path(name)).map(|file| file.digest)).collect();
        (digests, seen.record.is_none_or(|record| record.complete))
    }

    fn assert_nothing_is_left_half_done(&self, what: &str) {
        let left = "find /srv /var/t /run/t /var/lib/bastide -name '*.bastide' -o -name staging -o -name pending -o -name new; \
                    ls /var/t/gone 2>/dev/null; stat -c %a /var/t/access";
        assert_eq!(self.bed.host("h1").ssh(left).unwrap(), "600\n", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_is_killed_anywhere_leaves_each_file_old_or_new_and_the_next_run_goes_on() {
    let killed = Killed::new();
    let machine = &killed.machine;
    let lock = locked(machine, "r1").await;
    let points = Points::install(&killed.bed, "h1", Points::FILES).unwrap();
    std::fs::create_dir(killed.bed.folder().join("h1/var/t")).unwrap();
    killed.prepare();
    killed.job(&[None; 6], 0).perform(machine, "r1").await.0.unwrap();

    // An uninterrupted run tells where it can be killed.
    killed.prepare();
    points.watch().unwrap();
    killed.job(&Killed::new_digests(0), 1).perform(machine, "r1").await.0.unwrap();
    let calls = points.calls().unwrap();
    for (program, least) in [("cp", 3), ("install", 6), ("mv", 9), ("sync", 8), ("rm", 4), ("chmod", 1), ("tar", 1)] {
        let made = calls.iter().filter(|call| call.starts_with(&format!("{program} "))).count();
        assert!(made >= least, "{program} was called {made} times: {calls:#?}");
    }

    let (mut nothing, mut between, mut all, mut told) = (0, 0, 0, 0);
    for (nth, call) in calls.iter().enumerate() {
        let what = format!("killed at call {} of {}, {call}", nth + 1, calls.len());
        let (old, new) = (Killed::new_digests(nth + 1), Killed::new_digests(nth + 2));
        killed.prepare();
        points.kill_at(nth + 1).unwrap();
        let (result, _) = killed.job(&old, nth + 2).perform(machine, "r1").await;
        assert_eq!(points.calls().unwrap().len(), nth + 1, "{what}: it went on");
        let (now, complete) = killed.look().await;
        for at in 0..6 {
            assert!(now[at] == old[at] || now[at] == new[at], "{what}: {} is neither old nor new", killed.paths[at]);
        }
        match () {
            () if result.is_ok() => {
                assert!(now == new && complete, "{what}: it said that all was done, {complete}");
                told += 1;
            }
            () if now == old => nothing += 1,
            () if now == new => all += 1,
            () => {
                assert!(!complete, "{what}: the record says that all was done");
                between += 1;
            }
        }
        killed.job(&now, nth + 2).perform(machine, "r1").await.0.unwrap();
        assert_eq!(killed.look().await, (new, true), "{what}, the next run");
        killed.assert_nothing_is_left_half_done(&what);
    }
    eprintln!(
        "{} points: nothing written {nothing}, between two files {between}, all written {all}, and said so {told}",
        calls.len()
    );
    // Before the first rename, between any two of six, after the last.
    assert!(nothing > 10 && between >= 5 && all > 5 && told > 0);

    // The power goes between two files; after that the record says so, and the next run goes on.
    let (old, new) = (Killed::new_digests(calls.len() + 1), Killed::new_digests(99));
    killed.prepare();
    points.hold_at(3, "mv *.bastide *").unwrap();
    let cut = async {
        reached(&points).await;
        tokio::task::block_in_place(|| killed.bed.host("h1").power_cut().unwrap());
    };
    let ((result, _), ()) = tokio::join!(killed.job(&old, 99).perform(machine, "r1"), cut);
    assert!(result.is_err(), "{result:?}");
    drop(lock);
    points.calls().unwrap();
    killed.bed.host("h1").power_on().unwrap();
    killed.bed.host("h1").wait().unwrap();
    // Two were renamed; what lay in /run is gone with the power.
    let (now, complete) = killed.look().await;
    assert_eq!(now, [new[0], new[1], None, old[3], old[4], None], "after the power cut");
    assert!(!complete, "the record says that all was done");
    let (result, _) = killed.job(&now, 99).perform(machine, "r1").await;
    assert!(matches!(result, Err(HostError::LockLost { .. })), "a reboot lets the lock go: {result:?}");
    let _lock = locked(machine, "r2").await;
    killed.job(&now, 99).perform(machine, "r2").await.0.unwrap();
    assert_eq!(killed.look().await, (new, true));
    killed.assert_nothing_is_left_half_done("after the power cut");
}
