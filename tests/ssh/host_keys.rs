//! Whether the host is the host: before anything but the key exchange is sent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bastide::host::HostError;
use bastide::host::Wire;
use bastide::host::ssh::NobodyToAsk;
use bastide::host::ssh::SshResources;
use bastide::host::ssh::SshTarget;
use bastide::host::ssh::connect;
use bastide::host::ssh::record;
use bastide::host::ssh::scan;

use crate::proxy::Proxy;
use crate::sshd::Sshd;
use crate::sshd::call;
use crate::sshd::keygen;
use crate::sshd::output;
use crate::sshd::resources;
use crate::sshd::run;

/// KEXINIT, key exchange init, and NEWKEYS, which belongs to the key exchange too.
const KEY_EXCHANGE: &[u8] = &[20, 30, 21];

/// Connects with these known_hosts lines; `{name}` is the host's name in them, `{key}` its right key.
async fn with_lines(sshd: &Sshd, port: u16, lines: &str) -> Result<(), HostError> {
    connect(target(sshd, port, lines), &resources()).await.map(drop)
}

fn target(sshd: &Sshd, port: u16, lines: &str) -> SshTarget {
    let mut target = sshd.target_at("root", port);
    let file = sshd.path("lines");
    fs::write(&file, lines.replace("{name}", &format!("[127.0.0.1]:{port}")).replace("{key}", &sshd.text("host.pub")))
        .unwrap();
    target.known_hosts = vec![sshd.path("missing"), file];
    target
}

fn other_key(sshd: &Sshd) -> String {
    keygen(&sshd.path("other"), &["-t", "ed25519"]);
    sshd.text("other.pub")
}

fn fingerprint(sshd: &Sshd, key: &str) -> String {
    output(Command::new("ssh-keygen").arg("-lf").arg(sshd.path(key))).split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_wrong_key_is_refused_before_anything_but_the_key_exchange_is_sent() {
    let sshd = Sshd::start();
    let other = other_key(&sshd);
    let proxy = Proxy::before(sshd.port).await;
    let name = format!("[127.0.0.1]:{}", proxy.port);
    let shown = fingerprint(&sshd, "host.pub");
    let lines =
        |marker: &str| format!("# first\n{marker}{name} {}\n", if marker.is_empty() { &other } else { "{key}" });

    let error = with_lines(&sshd, proxy.port, &lines("")).await.unwrap_err();
    let HostError::WrongHostKey { address, fingerprint: told, reason, .. } = error else { panic!("{error}") };
    assert_eq!((address, told), (format!("127.0.0.1:{}", proxy.port), shown.clone()));
    let recorded = fingerprint(&sshd, "other.pub");
    assert_eq!(reason, format!("{}:2 records ssh-ed25519 {recorded}", sshd.path("lines").display()));

    let error = with_lines(&sshd, proxy.port, &lines("@revoked ")).await.unwrap_err();
    let HostError::WrongHostKey { reason, .. } = error else { panic!("{error}") };
    assert_eq!(reason, format!("revoked by {}:2", sshd.path("lines").display()));

    let error = with_lines(&sshd, proxy.port, "").await.unwrap_err();
    let HostError::UnknownHostKey { fingerprint: told, .. } = error else { panic!("{error}") };
    assert_eq!(told, shown);

    tokio::time::sleep(Duration::from_millis(200)).await;
    for connection in 0..3 {
        assert_eq!(proxy.sent(connection), (KEY_EXCHANGE.to_vec(), 0));
    }
    assert_eq!(proxy.connections(), 3);
    assert!(!sshd.log().contains("Accepted"));

    // The same tap sees a login where the key is right, so that the emptiness above means something.
    let proxy = Proxy::before(sshd.port).await;
    with_lines(&sshd, proxy.port, "{name} {key}\n").await.unwrap();
    let (messages, encrypted) = proxy.sent(0);
    assert!(messages == KEY_EXCHANGE && encrypted > 100, "{messages:?} {encrypted}");
}

#[tokio::test]
async fn every_form_of_a_known_hosts_line_is_understood() {
    let sshd = Sshd::start();
    let other = other_key(&sshd);
    let port = sshd.port;
    fs::write(sshd.path("hashed"), format!("[127.0.0.1]:{port} {}\n", sshd.text("host.pub"))).unwrap();
    run(Command::new("ssh-keygen").arg("-Hf").arg(sshd.path("hashed")));
    let hashed = sshd.text("hashed");
    assert!(hashed.starts_with("|1|"), "{hashed}");
    for right in [
        "{name} {key}\n",
        "\t {name}\t{key} a comment # with a mark\n",
        "# comment\n\nnot a line\nexample.net,{name} {key}",
        "[127.0.*]:* {key}\n",
        "[127.0.0.?]:* {key}\r\n",
        &hashed,
        // A line for others that revokes, and one that names another host's key.
        &format!("@revoked other.example {{key}}\nother.example {other}\n{{name}} {{key}}\n"),
        // Two keys on record, one of which is right.
        &format!("{{name}} {other}\n{{name}} {{key}}\n"),
    ] {
        with_lines(&sshd, port, right).await.unwrap_or_else(|error| panic!("{right}: {error}"));
    }
    for unknown in ["127.0.0.1 {key}\n", "[127.0.*]:*,!{name} {key}\n", "[127.0.0.1]:1 {key}\n", "#{name} {key}\n"] {
        let error = with_lines(&sshd, port, unknown).await.unwrap_err();
        assert!(matches!(error, HostError::UnknownHostKey { .. }), "{unknown}: {error}");
    }
    let error = with_lines(&sshd, port, "{name} {key}\n@revoked * not-a-key\n").await.unwrap_err().to_string();
    assert!(error.ends_with("lines:2: this revocation cannot be read"), "{error}");
}

#[tokio::test]
async fn a_key_given_in_the_file_is_the_only_one_accepted() {
    let sshd = Sshd::start();
    let other = other_key(&sshd);
    let mut target = target(&sshd, sshd.port, "");
    target.login.host_key = Some(sshd.text("host.pub"));
    connect(target.clone(), &resources()).await.unwrap();
    let revoking = self::target(&sshd, sshd.port, "@revoked * {key}\n").known_hosts;
    let refused = connect(SshTarget { known_hosts: revoking, ..target.clone() }, &resources()).await.err().unwrap();
    assert!(matches!(refused, HostError::WrongHostKey { .. }), "{refused}");
    target.login.host_key = Some(other);
    let refused = connect(target.clone(), &resources()).await.err().unwrap();
    assert!(matches!(refused, HostError::WrongHostKey { .. }), "{refused}");
    target.login.host_key = Some("no key".to_owned());
    let refused = connect(target, &resources()).await.err().unwrap().to_string();
    assert!(refused.contains("not an OpenSSH public key line"), "{refused}");
}

#[tokio::test]
async fn a_host_is_asked_for_the_type_of_key_that_is_on_record() {
    let sshd = Sshd::with("HostKey {folder}/host_rsa\nHostKey {folder}/host_ecdsa");
    // sshd skips host keys that are not there when it starts, so they come with a second one.
    keygen(&sshd.path("host_rsa"), &["-t", "rsa", "-b", "2048"]);
    keygen(&sshd.path("host_ecdsa"), &["-t", "ecdsa", "-b", "384"]);
    let sshd = sshd.again();
    for name in ["host_rsa", "host_ecdsa", "host"] {
        let line = format!("{{name}} {}\n", sshd.text(&format!("{name}.pub")));
        with_lines(&sshd, sshd.port, &line).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn another_type_of_key_is_no_new_host() {
    let sshd = Sshd::start();
    keygen(&sshd.path("rsa"), &["-t", "rsa", "-b", "2048"]);
    let target = target(&sshd, sshd.port, &format!("{{name}} {}\n", sshd.text("rsa.pub")));
    let before = sshd.text("lines");
    let shared = Arc::new(SshResources::new(Arc::new(NobodyToAsk)).accepting_new_host_keys(true));
    let error = connect(target, &shared).await.err().unwrap();
    assert!(matches!(error, HostError::WrongHostKey { .. }), "{error}");
    assert_eq!(sshd.text("lines"), before);
}

#[tokio::test]
async fn a_new_key_is_recorded_only_on_request_and_once() {
    let sshd = Sshd::start();
    let mut target = target(&sshd, sshd.port, "example.net {key}");
    target.known_hosts.reverse();
    let file = target.known_hosts[0].clone();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let line = format!("[127.0.0.1]:{} {}", sshd.port, sshd.text("host.pub").trim_end_matches(" test"));
    let before = sshd.text("lines");
    assert!(connect(target.clone(), &resources()).await.is_err());
    assert_eq!(sshd.text("lines"), before);

    let shared = Arc::new(SshResources::new(Arc::new(NobodyToAsk)).accepting_new_host_keys(true));
    let connections = (0..6).map(|_| connect(target.clone(), &shared));
    for connection in futures::future::join_all(connections).await {
        connection.unwrap();
    }
    assert_eq!(sshd.text("lines"), format!("{before}\n{line}"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    connect(target, &resources()).await.unwrap();
}

#[tokio::test]
async fn looking_at_a_key_sends_nothing_beyond_the_key_exchange() {
    let sshd = Sshd::start();
    let proxy = Proxy::before(sshd.port).await;
    let target = target(&sshd, proxy.port, "");
    let key = scan(&target, &resources()).await.unwrap();
    assert_eq!((key.algorithm.as_str(), &key.fingerprint), ("ssh-ed25519", &fingerprint(&sshd, "host.pub")));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(proxy.sent(0), (KEY_EXCHANGE.to_vec(), 0));
    record(&key, &target.known_hosts[1]).unwrap();
    connect(target, &resources()).await.unwrap();
}

#[tokio::test]
async fn a_host_certificate_counts_where_its_authority_is_trusted() {
    let sshd = Sshd::with("HostCertificate {folder}/host-cert.pub");
    keygen(&sshd.path("ca"), &["-t", "ed25519"]);
    keygen(&sshd.path("ca_rsa"), &["-t", "rsa", "-b", "2048"]);
    let authority = format!("@cert-authority * {}\n", sshd.text("ca.pub"));
    let sign = |arguments: &[&str]| {
        run(Command::new("ssh-keygen")
            .args(["-q", "-I", "host", "-s"])
            .arg(sshd.path("ca"))
            .args(arguments)
            .arg(sshd.path("host.pub")));
    };
    let expect = async |sshd: &Sshd, lines: &str, wrong: &str| {
        let error = with_lines(sshd, sshd.port, lines).await.unwrap_err();
        let HostError::WrongHostKey { reason, .. } = error else { panic!("{wrong}: {error}") };
        assert!(reason.contains(wrong), "{reason}");
    };
    sign(&["-h", "-n", "127.0.0.1,other"]);
    let sshd = sshd.again();
    with_lines(&sshd, sshd.port, &authority).await.unwrap();
    // The key inside is on record, and no authority is.
    with_lines(&sshd, sshd.port, "{name} {key}\n").await.unwrap();
    let revoked = format!("{authority}@revoked * {}\n", sshd.text("ca.pub"));
    expect(&sshd, &revoked, "revoked by").await;
    let stranger = format!("@cert-authority * {}\n", sshd.text("ca_rsa.pub"));
    let error = with_lines(&sshd, sshd.port, &stranger).await.unwrap_err();
    assert!(matches!(error, HostError::UnknownHostKey { .. }), "{error}");
    let elsewhere = format!("@cert-authority *.example {}\n", sshd.text("ca.pub"));
    let error = with_lines(&sshd, sshd.port, &elsewhere).await.unwrap_err();
    assert!(matches!(error, HostError::UnknownHostKey { .. }), "{error}");

    for (arguments, wrong) in [
        (&["-h", "-n", "elsewhere"][..], "does not name this address"),
        (&["-h"], "does not name this address"),
        (&["-h", "-n", "127.0.0.1", "-V", "20200101:20210101"], "has expired"),
        (&["-h", "-n", "127.0.0.1", "-V", "20600101:20610101"], "is not valid yet"),
    ] {
        run(Command::new("ssh-keygen")
            .args(["-q", "-I", "host", "-s"])
            .arg(sshd.path("ca"))
            .args(arguments)
            .arg(sshd.path("host.pub")));
        let next = sshd.another();
        expect(&next, &authority, wrong).await;
    }
    // An RSA authority, and a pattern as the principal.
    run(Command::new("ssh-keygen")
        .args(["-q", "-I", "host", "-h", "-n", "127.*", "-s"])
        .arg(sshd.path("ca_rsa"))
        .arg(sshd.path("host.pub")));
    let next = sshd.another();
    let wire = connect(target(&next, next.port, &stranger), &resources()).await.unwrap();
    assert_eq!(wire.exec(call("true")).await.unwrap().status, 0);
}

#[tokio::test]
async fn what_stands_in_the_way_is_not_a_host_that_does_not_answer() {
    let sshd = Sshd::start();
    let mut folder = sshd.target("root");
    folder.known_hosts = vec![sshd.path(".")];
    let old = Sshd::with("Ciphers 3des-cbc");
    for target in [folder, old.target("root")] {
        let error = connect(target, &resources()).await.err().unwrap();
        assert!(matches!(error, HostError::Obstructed { .. }) && !error.is_silence(), "{error}");
    }
}
