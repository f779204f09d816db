use bastide::host::Host as _;
use bastide::model::Access;
use bastide::model::Content;
use bastide::model::Digest;
use bastide::model::Scope;
use bastide::model::Squatter;
use bastide::model::UnitName;

use crate::support::Job;
use crate::support::boot;
use crate::support::locked;
use crate::support::machine_with_bash;
use crate::support::path;
use crate::support::record;
use crate::support::see;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_shows_what_is_there_and_is_not_changed_by_it() {
    let bed = boot();
    let host = bed.host("h1");
    let ssh = |script: &str| host.ssh(script).unwrap();
    let machine = machine_with_bash(&bed);
    let unit = |name: &str| UnitName::new(name).unwrap();

    ssh("mkdir -p /var/lib/etcd/member /srv/d; chmod 711 /srv/d; echo hello > /srv/f; chmod 604 /srv/f; chown 7:8 /srv/f;
        printf -- 'key\\n-----BEGIN CERTIFICATE-----\\nabc\\n-----END CERTIFICATE-----\\n-----BEGIN CERTIFICATE-----\\nsecond\\n' > /srv/pair");
    let scope = Scope {
        files: ["/srv/f", "/srv/absent"].map(path).into(),
        seeded: ["/srv/pair"].map(path).into(),
        directories: ["/srv/d", "/srv/no"].map(path).into(),
        units: ["ssh.service", "absent.service", "systemd-sysctl.service"].map(unit).into(),
        users: ["ops", "etcd"].map(str::to_owned).into(),
        uids: [0, 52034].into(),
        ports: [22, 6443].into(),
    };
    let listing = "find / -xdev -newer /srv/pair -type f -o -xdev -newer /srv/pair -type d | sort";
    let before = ssh(listing);
    let begun = std::time::Instant::now();
    let seen = machine.observe(&scope).await.unwrap();
    eprintln!("observed in {:?}", begun.elapsed());
    assert_eq!(ssh(listing), before);
    assert_eq!(machine.channels().sessions, 1);

    assert_eq!((seen.os.as_str(), seen.hostname.as_str(), seen.record, seen.lock), ("debian 13", "h1", None, None));
    assert_eq!(seen.boot_id, host.boot_id().unwrap());
    assert!(
        seen.clock > 1_700_000_000 && seen.systemd >= 250 && seen.free_bytes > 1 << 20,
        "{} {}",
        seen.clock,
        seen.systemd
    );
    let files: Vec<_> = seen.files.into_iter().collect();
    assert_eq!(files.len(), 2);
    assert_eq!(files[0].0, path("/srv/f"));
    assert_eq!(files[0].1.digest, Digest::of(b"hello\n"));
    assert_eq!(files[0].1.access, Access { mode: 0o604, uid: 7, gid: 8 });
    let certificate = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n";
    assert_eq!(files[1].1.certificate.as_deref(), Some(certificate));
    assert_eq!(seen.directories.into_iter().collect::<Vec<_>>(), [(path("/srv/d"), Access::root(0o711))]);
    let units: Vec<_> = seen.units.keys().map(UnitName::as_str).collect();
    assert_eq!(units, ["ssh.service", "systemd-sysctl.service"]);
    assert!(seen.units[&unit("ssh.service")].active && seen.units[&unit("ssh.service")].enabled);
    assert_eq!(seen.taken_uids.into_iter().collect::<Vec<_>>(), [(0, "root".to_owned())]);
    assert_eq!(seen.users.keys().collect::<Vec<_>>(), ["ops"]);
    assert_eq!(seen.squatters, [Squatter::Folder(path("/var/lib/etcd")), Squatter::Port(22)]);

    // With a record the host is ours, and what the record names is looked at too.
    let lock = locked(&machine, "r1").await;
    Job::default().put("/srv/ours", "ours").perform(&machine, "r1").await.0.unwrap();
    let seen = see(&machine, &[]).await;
    assert_eq!(seen.record, Some(record(true, &[("/srv/ours", Digest::of(b"ours"))])));
    assert_eq!(seen.files.keys().collect::<Vec<_>>(), [&path("/srv/ours")]);
    assert_eq!(seen.squatters, []);

    // The sealed state lies there before the record that names its revision.
    assert_eq!(machine.fetch_state().await.unwrap(), None);
    let sealed = Content::new([0, 255, 10, 13, 7].repeat(100_000));
    machine.keep_state(&sealed, &record(false, &[]), "r1").await.unwrap();
    assert_eq!(machine.fetch_state().await.unwrap(), Some(sealed));
    assert_eq!(see(&machine, &[]).await.record, Some(record(false, &[])));
    assert_eq!(
        ssh("stat -c '%a %u' /var/lib/bastide /var/lib/bastide/state.age /var/lib/bastide/record.json"),
        "700 0\n600 0\n600 0\n"
    );
    let result = machine.keep_state(&Content::new("x"), &record(true, &[]), "r2").await;
    assert!(result.is_err(), "{result:?}");

    // A record that somebody laid out anew is refused, not half read.
    ssh(
        "cd /var/lib/bastide; tr -d ' \\n' < record.json > new; sed -i 's/\"files\":{/&\"\\/srv\\/x\":\"'$(printf %064d 0)'\"/' new; mv new record.json",
    );
    let result = machine.observe(&Scope::default()).await;
    assert!(result.is_err_and(|error| error.to_string().contains("laid out")));
    drop(lock);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containerd_that_hangs_is_not_one_that_has_no_images() {
    let bed = boot();
    let host = bed.host("h1");
    let machine = machine_with_bash(&bed);
    host.ssh(
        "mkdir -p /opt/bastide/containerd-x /run/containerd
        printf '#!/bin/sh\\nexec sleep 600\\n' > /opt/bastide/containerd-x/ctr; chmod 755 /opt/bastide/containerd-x/ctr
        ln -sfn /run/dbus/system_bus_socket /run/containerd/containerd.sock",
    )
    .unwrap();
    let begun = std::time::Instant::now();
    let error = machine.observe(&Scope::default()).await.unwrap_err();
    assert!(error.to_string().contains("containerd did not list its images within 6 s"), "{error}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_byte_by_byte_and_what_is_not_there_is_left_out() {
    let bed = boot();
    let machine = machine_with_bash(&bed);
    bed.host("h1")
        .ssh("printf 'one\\n\\nend\\nfile 3 /x' > /srv/odd; : > /srv/empty; head -c 1048577 /dev/zero > /srv/large")
        .unwrap();
    let asked = ["/srv/odd", "/srv/empty", "/srv/large", "/srv/absent", "/srv"].map(path).into();
    let seen = machine.read(&asked).await.unwrap();
    let seen: Vec<_> = seen.iter().map(|(path, content)| (path.as_str(), content.expose())).collect();
    assert_eq!(seen, [("/srv/empty", &b""[..]), ("/srv/odd", b"one\n\nend\nfile 3 /x")]);
}
