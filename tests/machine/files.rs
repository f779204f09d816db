use std::time::Duration;

use bastide::host::HostError;
use bastide::model::Access;
use bastide::model::Action;
use bastide::model::Digest;
use bastide::model::Directory;
use bastide::model::SystemUser;

use crate::support::Job;
use crate::support::boot;
use crate::support::locked;
use crate::support::machine;
use crate::support::path;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_is_killed_anywhere_leaves_each_file_old_or_new_and_the_next_run_goes_on() {
    let bed = boot();
    let host = bed.host("h1");
    let machine = machine(&bed);
    let wire = machine.wire().clone();
    let lock = locked(&machine, "r1").await;
    let paths: Vec<String> = (0..12).map(|at| format!("/srv/d{}/f{at}", at % 3)).collect();
    let names: Vec<&str> = paths.iter().map(String::as_str).collect();
    let content = |round: usize, at: usize| format!("round {round} file {at} {}", "x".repeat(20_000)).into_bytes();
    let job = |from: &[Option<Digest>], round: usize| {
        let mut job = Job::default();
        for (at, path) in paths.iter().enumerate() {
            job = job.replace(path, content(round, at), from[at], false);
        }
        job
    };
    let digests = async || {
        let seen = see(&machine, &names).await;
        names.iter().map(|name| seen.files.get(&path(name)).map(|file| file.digest)).collect::<Vec<_>>()
    };
    let begun = std::time::Instant::now();
    job(&vec![None; 12], 0).perform(&machine, "r1").await.0.unwrap();
    let whole = begun.elapsed();
    let (mut killed, mut partial) = (0, 0);
    let steps = 12;
    for round in 1..=steps {
        let before = digests().await;
        let delay = whole * u32::try_from(round).unwrap() / u32::try_from(steps).unwrap();
        let wire = wire.clone();
        let killer = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            wire.kill_newest();
        });
        let (result, _) = job(&before, round).perform(&machine, "r1").await;
        killer.await.unwrap();
        let between = digests().await;
        for at in 0..12 {
            let new = Some(Digest::of(&content(round, at)));
            assert!(
                between[at] == before[at] || between[at] == new,
                "round {round}: {} is neither old nor new",
                paths[at]
            );
        }
        killed += usize::from(result.is_err());
        partial += usize::from(
            between.windows(2).any(|pair| (pair[0] == before[0]) != (pair[1] == before[1]))
                || (result.is_err() && between != before),
        );
        job(&between, round).perform(&machine, "r1").await.0.unwrap();
        let expected: Vec<_> = (0..12).map(|at| Some(Digest::of(&content(round, at)))).collect();
        assert_eq!(digests().await, expected, "round {round}");
        assert_eq!(
            host.ssh("find /srv /var/lib/bastide -name '*.bastide' -o -name staging -o -name pending").unwrap(),
            ""
        );
    }
    eprintln!("{killed} of {steps} killed, {partial} between two files, whole work {whole:?}");
    assert!(killed > steps / 2);

    // The power goes in the middle; after that the record says so, and the next run goes on.
    let before = digests().await;
    let power = std::thread::spawn({
        let folder = bed.folder();
        move || {
            while !folder.join("h1/var/lib/bastide/staging/blobs").exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
            std::thread::sleep(Duration::from_millis(200));
            let pid = std::fs::read_to_string(folder.join("h1/pid")).unwrap();
            std::process::Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
        }
    });
    let (result, _) = job(&before, 99).put("/srv/large", vec![9; 300_000_000]).perform(&machine, "r1").await;
    power.join().unwrap();
    assert!(result.is_err(), "{result:?}");
    drop(lock);
    host.power_cut().unwrap();
    host.power_on().unwrap();
    host.wait().unwrap();
    let between = digests().await;
    let (result, _) = job(&between, 99).perform(&machine, "r1").await;
    assert!(matches!(result, Err(HostError::LockLost { .. })), "a reboot lets the lock go: {result:?}");
    let _lock = locked(&machine, "r2").await;
    job(&between, 99).perform(&machine, "r2").await.0.unwrap();
    let expected: Vec<_> = (0..12).map(|at| Some(Digest::of(&content(99, at)))).collect();
    assert_eq!(digests().await, expected);
}
