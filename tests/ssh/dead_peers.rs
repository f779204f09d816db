//! Hosts that die, hang or are cut off: an error within the deadline, never a wait without end.

use std::net::TcpListener;
use std::time::Duration;
use std::time::Instant;

use aws_lc_rs::digest;
use bastide::host::Call;
use bastide::host::Held;
use bastide::host::HostError;
use bastide::host::Payload;
use bastide::host::Wire;
use bastide::host::ssh::SshTarget;
use bastide::host::ssh::connect;
use tokio::io::AsyncReadExt;

use crate::proxy::Proxy;
use crate::sshd::Sshd;
use crate::sshd::call;
use crate::sshd::resources;

/// A target whose connection counts as dead after some seconds of silence.
fn nervous(target: SshTarget) -> SshTarget {
    SshTarget { keepalive: Duration::from_secs(1), ..target }
}

fn patient(target: SshTarget) -> SshTarget {
    SshTarget { keepalive: Duration::from_mins(1), ..target }
}

/// Long before the calls' own deadline (20 s) or the end of their scripts (60 s), and far beyond what a busy machine takes.
fn soon(since: Instant) {
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
}

fn lost(error: &HostError) {
    assert!(matches!(error, HostError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn an_sshd_that_dies_under_a_script_is_a_lost_connection() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let (outcome, ()) = tokio::join!(wire.exec(call("echo half; sleep 60; echo whole")), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        sshd.kill_sshd();
    });
    lost(&outcome.unwrap_err());
    let since = Instant::now();
    lost(&wire.exec(call("true")).await.unwrap_err());
    lost(&wire.dial("127.0.0.1", 22).await.err().unwrap());
    soon(since);
}

#[tokio::test]
async fn a_frozen_host_is_an_error_at_the_deadline_of_the_call() {
    let sshd = Sshd::start();
    let wire = connect(patient(sshd.target("root")), &resources()).await.unwrap();
    let mut held = wire
        .hold(Call { deadline: Duration::from_secs(4), ..call("echo up; while read -r l; do echo \"$l\"; done") })
        .await
        .unwrap();
    assert_eq!(held.hear().await.unwrap().as_deref(), Some("up"));
    sshd.freeze();
    let since = Instant::now();
    let call = || Call { deadline: Duration::from_secs(4), ..call("true") };
    let full = Call { payload: Payload::Stream(Box::new(std::io::repeat(0))), ..call() };
    let (opened, fed, heard) = tokio::join!(wire.exec(call()), wire.exec(full), held.hear());
    for error in [opened.unwrap_err(), fed.unwrap_err(), heard.unwrap_err()] {
        lost(&error);
    }
    soon(since);
    sshd.thaw();
    assert_eq!(wire.exec(call()).await.unwrap().status, 0);
}

#[tokio::test]
async fn a_frozen_host_in_the_middle_of_a_script_is_an_error_at_the_deadline() {
    let sshd = Sshd::start();
    let wire = connect(patient(sshd.target("root")), &resources()).await.unwrap();
    let slow = Call { deadline: Duration::from_secs(4), ..call("for i in 1 2 3 4 5 6; do echo $i; sleep 1; done") };
    // Longer than its deadline, but never silent for so long.
    assert_eq!(wire.exec(slow).await.unwrap().status, 0);
    let silent = Call { deadline: Duration::from_secs(1), ..call("sleep 60") };
    let since = Instant::now();
    lost(&wire.exec(silent).await.unwrap_err());
    soon(since);
    let flood = Call {
        deadline: Duration::from_secs(1),
        payload: Payload::Stream(Box::new(std::io::repeat(0))),
        ..call("cat >/dev/null")
    };
    let (outcome, ()) = tokio::join!(wire.exec(flood), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        sshd.freeze();
    });
    lost(&outcome.unwrap_err());
    sshd.thaw();
}

#[tokio::test]
async fn a_cut_link_is_noticed_by_keepalives() {
    let sshd = Sshd::start();
    let tap = Proxy::before(sshd.port).await;
    let wire = connect(nervous(sshd.target_at("root", tap.port)), &resources()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = wire.dial("127.0.0.1", listener.local_addr().unwrap().port()).await.unwrap();
    let held = wire.hold(call("cat")).await;
    let since = Instant::now();
    tap.cut();
    let mut held = held.unwrap();
    let mut buffer = [0];
    // The scripts' own deadline is 20 s: it is not that which ends them.
    let (ran, heard, read) =
        tokio::join!(wire.exec(call("sleep 60")), held.hear(), async { stream.read(&mut buffer).await });
    lost(&ran.unwrap_err());
    lost(&heard.unwrap_err());
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    soon(since);
}

#[tokio::test]
async fn keepalives_keep_a_quiet_connection() {
    let sshd = Sshd::start();
    let wire = connect(nervous(sshd.target("root")), &resources()).await.unwrap();
    let output = wire.exec(call("sleep 8; echo still")).await.unwrap();
    assert_eq!(output.stdout, b"still\n");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_an_error_within_the_connect_timeout() {
    let sshd = Sshd::start();
    // Accepts, as the kernel does for a frozen process, and never speaks.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let since = Instant::now();
    let target = sshd.target_at("root", mute.local_addr().unwrap().port());
    let target = SshTarget { connect_timeout: Duration::from_secs(1), ..target };
    let error = connect(target, &resources()).await.err().unwrap();
    assert!(error.is_silence() && error.to_string().ends_with("no SSH key exchange within 1s"), "{error}");
    soon(since);

    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = connect(nervous(sshd.target_at("root", unused)), &resources()).await.err().unwrap().to_string();
    assert_eq!(error, format!("h1: cannot connect: 127.0.0.1:{unused}: Connection refused (os error 111)"));
}

/// Bytes that differ everywhere, so that a lost or doubled block shows.
struct Pattern {
    next: u64,
    left: u64,
}

impl std::io::Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let words = (buffer.len() as u64 / 8).min(self.left);
        for word in buffer.chunks_exact_mut(8).take(usize::try_from(words).unwrap()) {
            word.copy_from_slice(&self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            self.next += 1;
        }
        self.left -= words;
        Ok(usize::try_from(words * 8).unwrap())
    }
}

#[tokio::test]
async fn keys_are_changed_under_a_long_transfer_without_loss() {
    let sshd = Sshd::with("RekeyLimit 16M\nLogLevel DEBUG1");
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let pattern = || Pattern { next: 1, left: (200 << 20) / 8 };
    let mut context = digest::Context::new(&digest::SHA256);
    let mut reader = pattern();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = std::io::Read::read(&mut reader, &mut buffer).unwrap();
        if count == 0 {
            break;
        }
        context.update(&buffer[..count]);
    }
    let expected: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let upload = Call {
        payload: Payload::Stream(Box::new(pattern())),
        arguments: vec![sshd.path("big").display().to_string()],
        ..call("tee \"$1\" | sha256sum; head -c 60000000 \"$1\"")
    };
    let output = wire.exec(upload).await.unwrap();
    let (sum, download) = output.stdout.split_at(expected.len() + 4);
    assert_eq!(String::from_utf8_lossy(sum), format!("{expected}  -\n"));
    let mut first = vec![0; 60_000_000];
    std::io::Read::read(&mut pattern(), &mut first).unwrap();
    assert!(download == first);
    let changes = sshd.log().matches("rekeying").count();
    assert!(changes >= 12, "only {changes}");
}
