//! Rising to root: sudo with and without a password, asked for once.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bastide::host::Call;
use bastide::host::Held;
use bastide::host::Output;
use bastide::host::Wire;
use bastide::host::ssh::Ask;
use bastide::host::ssh::SshResources;
use bastide::host::ssh::connect;
use bastide::model::Content;

use crate::running::printed;
use crate::sshd::PASSWORD;
use crate::sshd::Sshd;
use crate::sshd::call;
use crate::sshd::call_with;
use crate::sshd::resources;

/// Answers, and counts how often it was asked.
struct Person {
    password: &'static str,
    asked: AtomicUsize,
}

impl Ask for Person {
    fn key_passphrase(&self, _key: &str, _again: bool) -> Option<Content> {
        None
    }
    fn sudo_password(&self, _user: &str) -> Option<Content> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Some(Content::new(self.password))
    }
}

#[tokio::test]
async fn sudo_is_given_its_password_only_where_it_asks() {
    let sshd = Sshd::start();
    // No password needed, always needed, needed the first time only, and asked for by a sudo that relays.
    for user in ["free", "asked", "cached", "relayed"] {
        let mut target = sshd.target(user);
        // As it comes from a file, with its line end.
        target.sudo_password = Some(Content::new(format!("{PASSWORD}\n")));
        let wire = connect(target, &resources()).await.unwrap();
        for _ in 0..2 {
            let output = wire.exec(call_with("id -u; cat; env", b"payload\n")).await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.starts_with("0\npayload\n"), "{user}: {text}");
            assert!(!text.contains(PASSWORD), "{user}: {text}");
            assert_eq!((output.status, output.stderr), (0, Vec::new()), "{user}");
        }
        let output = wire.exec(call_with("wc -c; echo err >&2; exit 9", &vec![0; 10 << 20])).await.unwrap();
        let expected = Output { status: 9, stdout: b"10485760\n".to_vec(), stderr: b"err\n".to_vec() };
        assert_eq!(output, expected, "{user}");
        let mut held = wire.hold(call("while read -r word; do echo \"<$word>\"; done")).await.unwrap();
        held.say("hello").await.unwrap();
        assert_eq!(held.hear().await.unwrap().as_deref(), Some("<hello>"), "{user}");
    }
    assert!(!sshd.log().contains(PASSWORD));
}

#[tokio::test]
async fn a_password_that_nobody_reads_is_neither_executed_nor_logged() {
    let sshd = Sshd::with("SetEnv PATH={folder}/bin:/usr/bin:/bin");
    // A sudo that asks and then does not read, as one whose policy changes its mind.
    std::fs::create_dir(sshd.path("bin")).unwrap();
    std::fs::write(
        sshd.path("bin/sudo"),
        "#!/bin/sh\nprintf %s \"$3\" >&2\nsleep 0.3\nshift 3\nexec /usr/bin/sudo -n \"$@\"\n",
    )
    .unwrap();
    std::fs::set_permissions(sshd.path("bin/sudo"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut target = sshd.target("free");
    let witness = sshd.path("executed");
    // Were it executed, it would leave a trace.
    target.sudo_password = Some(Content::new(format!("touch {}", witness.display())));
    let wire = connect(target, &resources()).await.unwrap();
    let output = wire.exec(call_with("echo \"$#\"; cat", b"payload\n")).await.unwrap();
    assert_eq!(output, printed("0\npayload\n"));
    assert!(!witness.exists());
    assert!(!sshd.log().contains("touch"));
}

#[tokio::test]
async fn a_wrong_or_missing_sudo_password_is_an_error_that_says_so() {
    let sshd = Sshd::start();
    let mut target = sshd.target("asked");
    let wire = connect(target.clone(), &resources()).await.unwrap();
    let error = wire.exec(call("true")).await.unwrap_err().to_string();
    assert_eq!(error, "h1: sudo refused: it asks for a password, and none is at hand");

    target.sudo_password = Some(Content::new("wrong"));
    let wire = connect(target.clone(), &resources()).await.unwrap();
    let witness = sshd.path("executed");
    let error = wire
        .exec(Call { arguments: vec![witness.display().to_string()], ..call("touch \"$1\"") })
        .await
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("h1: sudo refused: it does not take the password: Sorry"), "{error}");
    assert!(!witness.exists());

    let wire = connect(sshd.target("barred"), &resources()).await.unwrap();
    let person = Arc::new(Person { password: PASSWORD, asked: AtomicUsize::new(0) });
    let shared = Arc::new(SshResources::new(person.clone()));
    drop(wire);
    let wire = connect(sshd.target("barred"), &shared).await.unwrap();
    let error = wire.exec(call("true")).await.unwrap_err().to_string();
    assert!(error.contains("not in the sudoers file") || error.contains("not allowed"), "{error}");

    let error = connect(sshd.target("nologin"), &shared).await.unwrap().exec(call("true")).await.unwrap_err();
    assert!(error.to_string().contains("not available"), "{error}");
    assert_eq!(person.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_person_is_asked_for_the_sudo_password_once_a_run() {
    let sshd = Sshd::start();
    let person = Arc::new(Person { password: PASSWORD, asked: AtomicUsize::new(0) });
    let shared = Arc::new(SshResources::new(person.clone()));
    let runs = (0..4).map(|_| async {
        let wire = connect(sshd.target("asked"), &shared).await.unwrap();
        wire.exec(call("id -u")).await.unwrap()
    });
    for output in futures::future::join_all(runs).await {
        assert_eq!(output, printed("0\n"));
    }
    assert_eq!(person.asked.load(Ordering::Relaxed), 1);
}
