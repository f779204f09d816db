use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bastide::host::HeldLock as _;
use bastide::host::Host as _;
use bastide::host::HostError;
use bastide::host::Machine;
use bed::Bed;
use bed::Points;

use crate::support;
use crate::support::Job;
use crate::support::LocalWire;
use crate::support::boot;
use crate::support::holder;
use crate::support::locked;
use crate::support::machine;
use crate::support::machine_with_bash;
use crate::support::reached;
use crate::support::see;
use crate::support::within;

#[tokio::test(flavor = "multi_thread")]
async fn one_run_at_a_time_holds_a_host() {
    let bed = boot();
    // Both shells, one after the other.
    let points = Points::install(&bed, "h1", Points::FILES).unwrap();
    one_run_at_a_time(&bed, &points, &machine(&bed)).await;
    bed.host("h1").ssh("rm -r /srv/* /var/lib/bastide").unwrap();
    one_run_at_a_time(&bed, &points, &machine_with_bash(&bed)).await;
}

async fn one_run_at_a_time(bed: &Bed, points: &Points, machine: &Machine<LocalWire>) {
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
    host.until("test ! -e /run/bastide", Duration::from_mins(1)).unwrap();

    // A holder that was killed on the host: the run that had it is told, the next one gets it.
    let mut third = locked(machine, "r3").await;
    machine.wire().kill_newest();
    within(60, third.lost()).await;
    assert_eq!(see(machine, &[]).await.lock, None);
    let fourth = locked(machine, "r4").await;
    let (result, _) = Job::default().put("/srv/c", "c").perform(machine, "r3").await;
    assert!(matches!(result, Err(HostError::LockLost { .. })), "{result:?}");
    drop(third);
    drop(fourth);

    // The lock goes to another run while files are on their way: not one of them is put in place.
    let fifth = locked(machine, "r5").await;
    let job = Job::default().put("/srv/d", "d").put("/srv/e", "e");
    points.hold_at(1, "tar *").unwrap();
    let thief = async {
        reached(points).await;
        host.ssh("echo r6 > /run/bastide/run").unwrap();
        points.go_on().unwrap();
    };
    let ((result, _), ()) = tokio::join!(job.perform(machine, "r5"), thief);
    points.calls().unwrap();
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
    within(60, lock.lost()).await;
    let machine = support::machine(&bed);
    let refused = machine.lock(&holder("r2")).await;
    assert!(matches!(refused, Err(HostError::Locked { .. })), "{refused:?}");
    while machine.lock(&holder("r2")).await.is_err() {}
    let elapsed = silent.elapsed();
    assert!((25..120).contains(&elapsed.as_secs()), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stands_still_ends_with_its_lock_and_holds_nobody_up() {
    let bed = boot();
    for machine in [machine(&bed), machine_with_bash(&bed)] {
        let host = bed.host("h1");
        let first = locked(&machine, "r1").await;
        machine.wire().stall.store(true, Ordering::Relaxed);
        let mut noise = 1_u32;
        let large: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .take(2_000_000)
        .collect();
        let other = support::machine(&bed);
        let takes_over = async {
            host.until("test -p /var/lib/bastide/staging/stream || pgrep -x tar", Duration::from_mins(1)).unwrap();
            host.ssh("echo r2 > /run/bastide/run").unwrap();
            // It would be told after 120 s that the first one's step is still being finished.
            let (result, _) = within(100, Job::default().put("/srv/b", "b").perform(&other, "r2")).await;
            result.unwrap();
        };
        let ((result, _), ()) = tokio::join!(Job::default().put("/srv/a", large).perform(&machine, "r1"), takes_over);
        assert!(matches!(result, Err(HostError::LockLost { .. })), "{result:?}");
        assert_eq!(host.ssh("ls -A /srv; pgrep -x 'tar|head' || true").unwrap(), "b\n");
        machine.wire().stall.store(false, Ordering::Relaxed);
        drop(first);
        host.ssh("rm -rf /srv/* /var/lib/bastide /run/bastide").unwrap();
    }
}
