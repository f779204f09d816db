//! How the operator proves who he is.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

use bastide::host::HostError;
use bastide::host::Wire;
use bastide::host::ssh::Ask;
use bastide::host::ssh::NobodyToAsk;
use bastide::host::ssh::SshResources;
use bastide::host::ssh::SshTarget;
use bastide::host::ssh::connect;
use bastide::model::Content;
use bastide::model::KeySource;

use crate::sshd::Sshd;
use crate::sshd::call;
use crate::sshd::keygen;
use crate::sshd::resources;
use crate::sshd::run;

/// An ssh-agent of the test's own.
struct Agent {
    socket: PathBuf,
    process: Child,
}

impl Agent {
    fn start(sshd: &Sshd) -> Self {
        let socket = sshd.path("agent");
        let process = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        while !socket.exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Self { socket, process }
    }

    fn add(&self, key: PathBuf) {
        run(Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket));
    }

    fn resources(&self) -> Arc<SshResources> {
        Arc::new(SshResources::new(Arc::new(NobodyToAsk)).with_agent(Some(self.socket.clone())))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn with_keys(sshd: &Sshd, keys: Vec<KeySource>) -> SshTarget {
    let mut target = sshd.target("root");
    target.login.keys = keys;
    target
}

fn path(sshd: &Sshd, name: &str) -> KeySource {
    KeySource::Path { key: sshd.path(name), certificate: None }
}

/// Lets this key in as well.
fn authorize(sshd: &Sshd, name: &str) {
    let line = format!("{}\n{}\n", sshd.text("authorized"), sshd.text(&format!("{name}.pub")));
    fs::write(sshd.path("authorized"), line).unwrap();
}

async fn works(target: SshTarget, shared: &Arc<SshResources>) {
    let wire = connect(target, shared).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(wire.exec(call("true")).await.unwrap().status, 0);
}

#[tokio::test]
async fn the_agent_logs_in_with_any_of_its_keys() {
    let sshd = Sshd::start();
    let agent = Agent::start(&sshd);
    for (name, arguments) in [("rsa", &["-t", "rsa", "-b", "2048"][..]), ("ecdsa", &["-t", "ecdsa"])] {
        keygen(&sshd.path(name), arguments);
        agent.add(sshd.path(name));
    }
    let target = with_keys(&sshd, vec![KeySource::Agent]);
    let error = connect(target.clone(), &agent.resources()).await.err().unwrap().to_string();
    assert_eq!((error.matches("agent key SHA256:").count(), error.matches("test: refused").count()), (2, 2), "{error}");
    authorize(&sshd, "ecdsa");
    works(target.clone(), &agent.resources()).await;
    fs::write(sshd.path("authorized"), sshd.text("rsa.pub")).unwrap();
    works(target.clone(), &agent.resources()).await;
    assert!(sshd.log().contains("Accepted publickey for root from 127.0.0.1 port"));

    let error = connect(target, &resources()).await.err().unwrap().to_string();
    assert!(error.ends_with("agent: SSH_AUTH_SOCK is not set"), "{error}");
}

#[tokio::test]
async fn rsa_is_signed_with_sha_2_and_never_with_sha_1() {
    for (algorithm, accepted) in [("rsa-sha2-512", true), ("ssh-rsa", false)] {
        let sshd = Sshd::with(&format!("PubkeyAcceptedAlgorithms {algorithm}"));
        keygen(&sshd.path("rsa"), &["-t", "rsa", "-b", "2048", "-m", "PEM"]);
        authorize(&sshd, "rsa");
        let outcome = connect(with_keys(&sshd, vec![path(&sshd, "rsa")]), &resources()).await;
        assert_eq!(outcome.is_ok(), accepted, "{algorithm}");
        assert_eq!(sshd.log().contains("rsa-sha2-512 not in PubkeyAcceptedAlgorithms"), !accepted, "{}", sshd.log());
    }
}

/// Knows some passphrases, and notes what it was asked.
struct Person {
    answers: Mutex<Vec<&'static str>>,
    asked: Mutex<Vec<(String, bool)>>,
}

impl Person {
    fn who_says(answers: &[&'static str]) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.to_vec()), asked: Mutex::default() })
    }
}

impl Ask for Person {
    fn key_passphrase(&self, key: &str, again: bool) -> Option<Content> {
        self.asked.lock().unwrap().push((key.to_owned(), again));
        let mut answers = self.answers.lock().unwrap();
        (!answers.is_empty()).then(|| Content::new(answers.remove(0)))
    }
    fn sudo_password(&self, _user: &str) -> Option<Content> {
        None
    }
}

#[tokio::test]
async fn an_encrypted_key_is_asked_for_once_a_run() {
    let sshd = Sshd::start();
    keygen(&sshd.path("locked"), &["-t", "ed25519", "-N", "open sesame"]);
    authorize(&sshd, "locked");
    let target = with_keys(&sshd, vec![path(&sshd, "locked")]);
    let name = sshd.path("locked").display().to_string();

    let person = Person::who_says(&["mistyped", "open sesame"]);
    let shared = Arc::new(SshResources::new(person.clone()));
    let connections = (0..3).map(|_| connect(target.clone(), &shared));
    for connection in futures::future::join_all(connections).await {
        connection.unwrap();
    }
    assert_eq!(*person.asked.lock().unwrap(), [(name.clone(), false), (name.clone(), true)]);

    // The same key, at hand instead of in a file.
    let key = Content::new(fs::read(sshd.path("locked")).unwrap());
    let inline = with_keys(&sshd, vec![KeySource::Inline { key, certificate: None }]);
    works(inline, &shared).await;
    assert_eq!(person.asked.lock().unwrap().len(), 2);

    let error = connect(target, &resources()).await.err().unwrap().to_string();
    assert!(error.ends_with(&format!("{name}: encrypted, and there is nobody to ask for its passphrase")), "{error}");
}

#[tokio::test]
async fn older_key_files_are_read_too() {
    let sshd = Sshd::start();
    for (name, arguments) in [
        ("pem_rsa", &["-t", "rsa", "-b", "2048", "-m", "PEM"][..]),
        ("pkcs8_rsa", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
        ("pkcs8_ecdsa", &["-t", "ecdsa", "-m", "PKCS8"]),
        ("locked_pkcs8", &["-t", "ecdsa", "-m", "PKCS8", "-N", "open sesame"]),
    ] {
        keygen(&sshd.path(name), arguments);
        fs::write(sshd.path("authorized"), sshd.text(&format!("{name}.pub"))).unwrap();
        let shared = Arc::new(SshResources::new(Person::who_says(&["open sesame"])));
        works(with_keys(&sshd, vec![path(&sshd, name)]), &shared).await;
    }
}

#[tokio::test]
async fn a_user_certificate_opens_where_its_authority_is_trusted() {
    let sshd = Sshd::with("TrustedUserCAKeys {folder}/ca.pub");
    keygen(&sshd.path("ca"), &["-t", "ed25519"]);
    let sshd = sshd.again();
    let agent = Agent::start(&sshd);
    for (name, arguments) in [("user", &["-t", "ed25519"][..]), ("user_rsa", &["-t", "rsa", "-b", "2048"])] {
        keygen(&sshd.path(name), arguments);
        let sign = ["-q", "-I", "the operator", "-n", "root", "-s"];
        run(Command::new("ssh-keygen").args(sign).arg(sshd.path("ca")).arg(sshd.path(&format!("{name}.pub"))));
        let certificate = format!("{name}-cert.pub");
        let key = sshd.path(name);
        let source = KeySource::Path { key: key.clone(), certificate: Some(sshd.path(&certificate)) };
        works(with_keys(&sshd, vec![source]), &resources()).await;
        let source = KeySource::Inline {
            key: Content::new(fs::read(&key).unwrap()),
            certificate: Some(sshd.text(&certificate)),
        };
        works(with_keys(&sshd, vec![source]), &resources()).await;
        // ssh-add takes the certificate beside the key along.
        run(Command::new("ssh-add").args(["-q", "-D"]).env("SSH_AUTH_SOCK", &agent.socket));
        agent.add(key);
        works(with_keys(&sshd, vec![KeySource::Agent]), &agent.resources()).await;
    }
    assert!(sshd.log().contains("ID the operator"));
    // Without it the key is a stranger's; with another key's it is not even tried.
    let error = connect(with_keys(&sshd, vec![path(&sshd, "user")]), &resources()).await.err().unwrap();
    assert!(matches!(&error, HostError::Login { .. }), "{error}");
    let swapped = KeySource::Path { key: sshd.path("user"), certificate: Some(sshd.path("user_rsa-cert.pub")) };
    let error = connect(with_keys(&sshd, vec![swapped]), &resources()).await.err().unwrap().to_string();
    assert!(error.ends_with("its certificate is for another key"), "{error}");
}

#[tokio::test]
async fn a_refused_login_tells_all_that_was_tried() {
    let sshd = Sshd::start();
    keygen(&sshd.path("stranger"), &["-t", "ed25519"]);
    fs::write(sshd.path("rubbish"), "no key").unwrap();
    let sources = ["missing", "rubbish", "stranger"].map(|name| path(&sshd, name)).to_vec();
    let error = connect(with_keys(&sshd, sources.clone()), &resources()).await.err().unwrap();
    let HostError::Login { user, reason, .. } = error else { panic!("{error}") };
    let folder = sshd.path("").display().to_string();
    assert_eq!(
        (user.as_str(), reason.replace(&folder, "")),
        (
            "root",
            format!(
                "127.0.0.1:{}: missing: No such file or directory (os error 2); rubbish: not a private key that can be \
                 read: Could not read key; stranger: refused",
                sshd.port
            )
        )
    );
    // The right one after them still opens, on the same connection.
    works(with_keys(&sshd, [sources, vec![path(&sshd, "id")]].concat()), &resources()).await;

    // More keys than MaxAuthTries: sshd hangs up.
    let strict = Sshd::with("MaxAuthTries 2");
    let keys = (0..4).map(|number| {
        keygen(&strict.path(&format!("k{number}")), &["-t", "ed25519"]);
        path(&strict, &format!("k{number}"))
    });
    let error = connect(with_keys(&strict, keys.collect()), &resources()).await.err().unwrap().to_string();
    assert!(error.contains("Too many authentication failures"), "{error}");
}
