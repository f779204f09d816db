//! Scripts: how they become root, what reaches them, what comes back.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bastide::host::Call;
use bastide::host::Channels;
use bastide::host::Held;
use bastide::host::HostError;
use bastide::host::Output;
use bastide::host::Payload;
use bastide::host::Wire;
use bastide::host::ssh::connect;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::sshd::Sshd;
use crate::sshd::call;
use crate::sshd::call_with;
use crate::sshd::resources;

pub(crate) fn printed(text: &str) -> Output {
    Output { status: 0, stdout: text.as_bytes().to_vec(), stderr: Vec::new() }
}

#[tokio::test]
async fn no_login_shell_mangles_script_arguments_or_payload() {
    let sshd = Sshd::start();
    let arguments = ["", "a b", "it's", "!!", "$HOME `id` \"x\"", "back\\slash\\", "two\nlines", "*", "-n", "ünï"];
    for user in ["root", "free", "dash", "fish", "csh"] {
        let wire = connect(sshd.target(user), &resources()).await.unwrap();
        let output = wire
            .exec(Call {
                script: "printf '%s|' \"$#\" \"$@\"\n! false && printf '%s' '!' \"\\\\\"\ncat; id -u; echo late >&2",
                arguments: arguments.map(str::to_owned).to_vec(),
                ..call_with("", b"payload\0\\n\n")
            })
            .await
            .unwrap();
        let expected = format!("10|{}|!\\payload\0\\n\n0\n", arguments.join("|"));
        assert_eq!(
            (output.status, String::from_utf8(output.stdout).unwrap(), output.stderr),
            (0, expected, b"late\n".to_vec()),
            "{user}"
        );
    }
}

#[tokio::test]
async fn status_signal_and_both_streams_come_back() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let output = wire.exec(call("echo out; echo err >&2; exit 7")).await.unwrap();
    assert_eq!(output, Output { status: 7, stdout: b"out\n".to_vec(), stderr: b"err\n".to_vec() });
    assert_eq!(wire.exec(call("kill -KILL $$")).await.unwrap().status, 137);
    assert_eq!(wire.exec(call("syntax ( error")).await.unwrap().status, 2);
    // Both directions at once, more than any window or pipe holds.
    let big = vec![b'x'; 5 << 20];
    let output = wire.exec(call_with("head -c 3000000 /dev/zero; wc -c", &big)).await.unwrap();
    assert_eq!((output.stdout.len(), &output.stdout[3_000_000..]), (3_000_008, &b"5242880\n"[..]));
    assert_eq!(wire.channels(), Channels { sessions: 4, forwards: 0 });
}

#[tokio::test]
async fn start_files_that_print_do_not_end_up_in_the_output() {
    let sshd = Sshd::start();
    std::fs::write(sshd.path("home_free/.bashrc"), "echo Welcome; echo Beware >&2\n").unwrap();
    let wire = connect(sshd.target("free"), &resources()).await.unwrap();
    assert_eq!(wire.exec(call("echo one")).await.unwrap(), printed("one\n"));
}

#[tokio::test]
async fn fifty_scripts_at_once_pass_a_stock_sshd() {
    let sshd = Sshd::with("MaxSessions 10");
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let runs =
        (0..50).map(|number: i32| {
            let wire = wire.clone();
            async move {
                wire.exec(Call { arguments: vec![number.to_string()], ..call("sleep 0.1; echo $1") }).await.unwrap()
            }
        });
    for (number, output) in futures::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!(output, printed(&format!("{number}\n")));
    }
    assert_eq!(wire.channels().sessions, 50);
}

#[tokio::test]
async fn sessions_of_others_are_waited_for() {
    // Fewer than this side keeps open: channels are refused, and tried again.
    let sshd = Sshd::with("MaxSessions 3");
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let runs = (0..6).map(|_| wire.exec(call("sleep 0.2; echo done")));
    for output in futures::future::join_all(runs).await {
        assert_eq!(output.unwrap(), printed("done\n"));
    }
}

#[tokio::test]
async fn output_that_is_not_kept_is_read_all_the_same() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let (flood, other) = tokio::join!(wire.exec(call("head -c 68000000 /dev/zero; echo err >&2; exit 3")), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let since = Instant::now();
        (wire.exec(call("echo beside")).await.unwrap(), since.elapsed())
    });
    let flood = flood.unwrap();
    assert_eq!((flood.status, flood.stdout.len(), flood.stderr), (3, 64 << 20, b"err\n".to_vec()));
    assert_eq!(other.0, printed("beside\n"));
    assert!(other.1 < Duration::from_secs(15), "{:?}", other.1);
}

#[tokio::test]
async fn a_held_script_that_nobody_listens_to_does_not_stop_the_others() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let held = wire.hold(call("head -c 20000000 /dev/zero | tr '\\0' '\\n'; echo end; cat")).await.unwrap();
    assert_eq!(wire.exec(call("echo beside")).await.unwrap(), printed("beside\n"));
    drop(held);
    assert_eq!(wire.exec(call("echo after")).await.unwrap(), printed("after\n"));
}

#[tokio::test]
async fn a_script_that_ends_before_its_stdin_ends_the_call_at_once() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let since = Instant::now();
    let output = wire.exec(call_with("exit 3", &vec![0; 50 << 20])).await.unwrap();
    assert_eq!(output.status, 3);
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    // A process left behind keeps the output open for ever.
    let since = Instant::now();
    let output = wire.exec(call("sleep 60 & echo started")).await.unwrap();
    assert_eq!(output, printed("started\n"));
    assert!(since.elapsed() < Duration::from_secs(40), "{:?}", since.elapsed());
}

/// Endless, and counts what was read of it.
struct Source {
    left: usize,
    read: Arc<AtomicUsize>,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.left);
        buffer[..count].fill(b'p');
        self.left -= count;
        self.read.fetch_add(count, Ordering::Relaxed);
        Ok(count)
    }
}

#[tokio::test]
async fn a_large_payload_is_read_only_as_fast_as_the_host_takes_it() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let source = Source { left: 256 << 20, read: Arc::clone(&read) };
    let go = sshd.path("go");
    let call = Call {
        payload: Payload::Stream(Box::new(source)),
        arguments: vec![go.display().to_string()],
        ..call("until [ -e \"$1\" ]; do echo; sleep 0.1; done; wc -c")
    };
    let (output, waiting) = tokio::join!(wire.exec(call), async {
        // Until no more is read: the host takes nothing.
        let mut waiting = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            match read.load(Ordering::Relaxed) {
                now if now > 0 && now == waiting => break,
                now => waiting = now,
            }
        }
        std::fs::write(go, "").unwrap();
        waiting
    });
    let output = output.unwrap();
    assert_eq!((output.status, output.stdout.trim_ascii_start()), (0, &b"268435456\n"[..]));
    // sshd's window, the pipe behind it, and our own queue.
    assert!((1..8 << 20).contains(&waiting), "{waiting} bytes were read for a host that took none");
}

/// Breaks after some bytes.
struct Torn(usize);

impl Read for Torn {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0 += 1;
        if self.0 > 3 {
            return Err(std::io::Error::other("disk on fire"));
        }
        buffer.fill(0);
        Ok(buffer.len())
    }
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_is_no_success() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let call = Call { payload: Payload::Stream(Box::new(Torn(0))), ..call("cat >/dev/null") };
    let error = wire.exec(call).await.unwrap_err().to_string();
    assert_eq!(error, "h1: reading what is to be sent: disk on fire");
}

#[tokio::test]
async fn a_held_script_is_talked_to_and_ends_when_dropped() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let witness = sshd.path("ended");
    let mut held = wire
        .hold(Call {
            arguments: vec![witness.display().to_string()],
            ..call_with("while read -r word; do echo \"<$word>\"; done; echo bye > \"$1\"", b"first\n")
        })
        .await
        .unwrap();
    assert_eq!(held.hear().await.unwrap().as_deref(), Some("<first>"));
    for word in ["one", "two"] {
        held.say(word).await.unwrap();
        assert_eq!(held.hear().await.unwrap().unwrap(), format!("<{word}>"));
    }
    drop(held);
    let since = Instant::now();
    while !witness.exists() {
        assert!(since.elapsed() < Duration::from_mins(1), "the script goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut held = wire.hold(call("echo last; exit 4")).await.unwrap();
    assert_eq!(held.hear().await.unwrap().as_deref(), Some("last"));
    assert_eq!(held.hear().await.unwrap(), None);
    assert!(matches!(held.say("too late").await, Err(HostError::Lost { .. })));
}

/// A byte now and then.
struct Slow;

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::thread::sleep(Duration::from_millis(500));
        buffer[0] = 0;
        Ok(1)
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_its_place_to_others() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    // More than sshd has sessions: each script must be gone before the next one can begin.
    for number in 1..=12 {
        let call = Call { payload: Payload::Stream(Box::new(Slow)), ..call("cat >/dev/null") };
        let begun = async {
            while wire.channels().sessions < number {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        tokio::select! {
            ended = wire.exec(call) => panic!("{ended:?}"),
            () = begun => {}
        }
    }
    let since = Instant::now();
    assert_eq!(wire.exec(call("echo room")).await.unwrap(), printed("room\n"));
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    assert_eq!(wire.channels().sessions, 13);
}

#[tokio::test]
async fn streams_reach_what_listens_at_the_host() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let (mut reader, mut writer) = socket.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        // The other direction is still open after its end of file.
        writer.write_all(b"goodbye").await.unwrap();
    });
    let stream = wire.dial("127.0.0.1", port).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent = vec![b's'; 10 << 20];
    let (received, ()) = tokio::join!(
        async {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            received
        },
        async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        }
    );
    assert_eq!((received.len(), &received[10 << 20..]), ((10 << 20) + 7, &b"goodbye"[..]));
    echo.await.unwrap();
    assert_eq!(wire.channels(), Channels { sessions: 0, forwards: 1 });
}

#[tokio::test]
async fn a_stream_that_nobody_reads_or_that_is_closed_stops_nobody() {
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let flood = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.write_all(&vec![0; 30 << 20]).await;
        let (closing, _) = listener.accept().await.unwrap();
        drop(closing);
        socket
    });
    let unread = wire.dial("127.0.0.1", port).await.unwrap();
    assert_eq!(wire.exec(call("sleep 0.3; echo beside")).await.unwrap(), printed("beside\n"));
    // The far end closes while this side waits for window.
    let mut closed = wire.dial("127.0.0.1", port).await.unwrap();
    let wrote = tokio::time::timeout(Duration::from_mins(1), closed.write_all(&vec![0; 30 << 20])).await;
    assert!(wrote.unwrap().is_err());
    drop(unread);
    flood.await.unwrap();
}

#[tokio::test]
async fn a_refused_stream_tells_forbidden_from_nobody_there() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let sshd = Sshd::start();
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let error = wire.dial("127.0.0.1", unused).await.err().unwrap().to_string();
    assert_eq!(error, format!("h1: nothing answers at 127.0.0.1:{unused}"));
    let sshd = Sshd::with("AllowTcpForwarding no");
    let wire = connect(sshd.target("root"), &resources()).await.unwrap();
    let error = wire.dial("127.0.0.1", unused).await.err().unwrap().to_string();
    assert_eq!(error, format!("h1: sshd refuses to forward to 127.0.0.1:{unused}"));
}

#[tokio::test]
async fn where_sshd_forwards_nothing_a_command_carries_the_stream() {
    let sshd = Sshd::with("AllowTcpForwarding no");
    for user in ["root", "free", "fish", "csh"] {
        let mut target = sshd.target(user);
        target.relay = true;
        let wire = connect(target, &resources()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut question = [0; 5];
            socket.read_exact(&mut question).await.unwrap();
            socket.write_all(&[&question[..], b" yourself", &[0, 255, 10]].concat()).await.unwrap();
        });
        let mut stream = wire.dial("127.0.0.1", port).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut heard = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, b"hello yourself\0\xff\n", "{user}");
        answer.await.unwrap();
        // Nobody listens any more: the stream ends without a byte. More of them than sshd has places, one after the other.
        for _ in 0..12 {
            let mut stream = wire.dial("127.0.0.1", port).await.unwrap();
            let mut heard = Vec::new();
            tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut heard)).await.unwrap().unwrap();
            assert_eq!(heard, b"");
        }
        assert_eq!(wire.channels(), Channels { sessions: 13, forwards: 0 });
        assert!(wire.dial("127.0.0.1;reboot", port).await.is_err(), "only addresses pass");
    }
}
