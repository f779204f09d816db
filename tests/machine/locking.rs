use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bastide::host::HeldLock as _;
use bastide::host::Host as _;
use bastide::host::HostError;
use bastide::host::Machine;
use bed::Bed;

use crate::support;
use crate::support::Job;
use crate::support::LocalWire;
use crate::support::boot;
use crate::support::holder;
use crate::support::locked;
use crate::support::machine;
use crate::support::machine_with_bash;
use crate::support::see;
use crate::support::within;

#[tokio::test(flavor = "multi_thread")]
async fn one_run_at_a_time_holds_a_host() {
    let bed = boot();
    // Both shells, one after the other.
    one_run_at_a_time(&bed, &machine(&bed)).await;
    bed.host("h1").ssh("rm -r /srv/* /var/lib/bastide").unwrap();
    one_run_at_a_time(&bed, &machine_with_bash(&bed)).await;
}

async fn one_run_at_a_time(bed: &Bed, machine: &Machine<LocalWire>) {
    let host = bed.host("h1");
    let clean = "ls -d /run/bastide /var/lib/bastide 2>/dev/null; true";

    // Without the lock nothing is written.
    let (result, _) = Job::default().put("/srv/a", "a").perform(machine, "r1").await;
    assert!(matches!(result, Err(HostError::LockLost { .. })), "{result:?}");
    assert_eq!(host.ssh(clean).unwrap(), "");

    // A second run is told who is at work, and leaves nothing behind.
    let first = locked(machine, "r1").await;
    assert_eq!(see(machine, &[]).await.lock, Some(holder("r1")));
    let second = machine.lock(&holder("r2")).await;
    assert!(matches!(&second, Err(HostError::Locked { holder: other, .. }) if *other == holder("r1")), "{second:?}");
    Job::default().put("/srv/a", "a").perform(machine, "r1").await.0.unwrap();
    let (result, _) = Job::default().put("/srv/b", "b").perform(machine, "r2").await;
    assert!(matches!(result, Err(HostError::LockLost { .. })), "{result:?}");

    // Dropped, it is free at once, and the host is as before.
    drop(first);
    let second = locked(machine, "r2").await;
    assert_eq!(see(machine, &[]).await.lock, Some(holder("r2")));
    drop(second);
    host.until("test ! -e /run/bastide", Duration::from_secs(5)).unwrap();

    // A holder that was killed on the host: the run that had it is told, the next one gets it.
    let mut third = locked(machine, "r3").await;
    machine.wire().kill_newest();
    within(20, third.lost()).await;
    assert_eq!(see(machine, &[]).await.lock, None);
    let fourth = locked(machine, "r4").await;
    let (result, _) = Job::default().put("/srv/c", "c").perform(machine, "r3").await;
    assert!(matches!(result, Err(HostError::LockLost { .. })), "{result:?}");
    drop(third);
    drop(fourth);

    // The lock goes to another run while files are on their way: not one of them is put in place.
    let fifth = locked(machine, "r5").await;
    let job = Job::default().put("/srv/d", "d").put("/srv/e", vec![7; 200_000_000]);
    let thief = std::thread::spawn({
        let script = "until [ -d /var/lib/bastide/staging ]; do sleep 0.01; done; echo r6 > /run/bastide/run";
        let mut command = host.command(script);
        move || command.status().unwrap()
    });
    let (result, _) = job.perform(machine, "r5").await;
    assert!(thief.join().unwrap().success());
    assert!(matches!(result, Err(HostError::LockLost { .. })), "{result:?}");
    assert_eq!(host.ssh("ls -A /srv /var/lib/bastide").unwrap(), "/srv:\na\n\n/var/lib/bastide:\nfound\nrecord.json\n");
    drop(fifth);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_run_loses_the_lock_and_knows_it_first() {
    let bed = boot();
    let machine = machine(&bed);
    let mut lock = locked(&machine, "r1").await;
    machine.wire().mute.store(true, Ordering::Relaxed);
    let silent = Instant::now();
    // This side gives up before the host does, so that two runs never both believe that they hold it.
    within(25, lock.lost()).await;
    let machine = support::machine(&bed);
    let refused = machine.lock(&holder("r2")).await;
    assert!(matches!(refused, Err(HostError::Locked { .. })), "{refused:?}");
    while machine.lock(&holder("r2")).await.is_err() {}
    let elapsed = silent.elapsed();
    assert!((25..40).contains(&elapsed.as_secs()), "{elapsed:?}");
}
