//! A real sshd of a test's own: on a loopback port, with users, sudo rules and keys that exist only inside its mount namespace.

use std::fmt::Write;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bastide::host::Call;
use bastide::host::Payload;
use bastide::host::ssh::NobodyToAsk;
use bastide::host::ssh::SshResources;
use bastide::host::ssh::SshTarget;
use bastide::model::Content;
use bastide::model::HostName;
use bastide::model::KeySource;
use bastide::model::Login;
use tempfile::TempDir;

/// The password of every user who has one. A word that no log has another reason to hold.
pub(crate) const PASSWORD: &str = "correct-horse-battery";

/// Users beside root: name, login shell, and what sudo says to them.
const USERS: &[(&str, &str, &str)] = &[
    ("free", "/bin/bash", "NOPASSWD: ALL"),
    ("dash", "/bin/dash", "NOPASSWD: ALL"),
    ("fish", "/usr/bin/fish", "NOPASSWD: ALL"),
    ("csh", "/bin/csh", "NOPASSWD: ALL"),
    ("asked", "/bin/bash", "ALL"),
    ("cached", "/bin/bash", "ALL"),
    ("relayed", "/bin/bash", "ALL"),
    ("barred", "/bin/bash", ""),
    ("nologin", "/usr/sbin/nologin", "NOPASSWD: ALL"),
];

/// A running sshd; it and everything it started dies with the value.
pub(crate) struct Sshd {
    pub(crate) folder: Arc<TempDir>,
    pub(crate) port: u16,
    config: String,
    child: Child,
}

impl Sshd {
    /// One with an Ed25519 host key, that lets in the key `id`.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// As [`Sshd::start`], with further lines of `sshd_config`, which win over the usual ones. `{folder}` is the test's folder.
    pub(crate) fn with(config: &str) -> Self {
        need("/usr/sbin/sshd", "openssh-server");
        need("/usr/bin/sudo", "sudo");
        need("/usr/bin/fish", "fish");
        need("/bin/csh", "csh");
        let folder = tempfile::Builder::new().prefix("bastide-sshd-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path();
        keygen(&path.join("host"), &["-t", "ed25519"]);
        keygen(&path.join("id"), &["-t", "ed25519"]);
        fs::copy(path.join("id.pub"), path.join("authorized")).unwrap();
        accounts(path);
        Self::run(Arc::new(folder), config)
    }

    /// A second sshd with the same files, which may have changed meanwhile.
    pub(crate) fn another(&self) -> Self {
        Self::run(Arc::clone(&self.folder), &self.config)
    }

    /// The same sshd, started again.
    pub(crate) fn again(self) -> Self {
        self.another()
    }

    fn run(folder: Arc<TempDir>, config: &str) -> Self {
        let path = folder.path().display().to_string();
        let config = config.replace("{folder}", &path);
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let usual = format!(
                "{config}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {path}/host\nPidFile none\n\
                 AuthorizedKeysFile {path}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
                 KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nLogLevel VERBOSE\n{}",
                lenience()
            );
            fs::write(folder.path().join("sshd_config"), usual).unwrap();
            let log = folder.path().join("log");
            let _ = fs::remove_file(&log);
            let mut child = Command::new("unshare")
                .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec"])
                .arg(format!(
                    "mkdir -p /run/sshd /run/sudo; mount -t tmpfs tmpfs /run/sudo\n\
                     for f in passwd shadow sudoers; do mount --bind {path}/$f /etc/$f; done\n\
                     exec /usr/sbin/sshd -D -E {path}/log -f {path}/sshd_config"
                ))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(20) {
                let text = fs::read_to_string(&log).unwrap_or_default();
                if text.contains("Server listening on") {
                    return Self { folder, port, config, child };
                }
                if child.try_wait().unwrap().is_some() {
                    // Somebody else was given the port in between.
                    assert!(text.contains("Address already in use"), "sshd did not start: {text}");
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("sshd found no port");
    }

    /// A file of the test's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a file of the test's folder holds.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap().trim().to_owned()
    }

    /// A target that knows the host key and has the right private key.
    pub(crate) fn target(&self, user: &str) -> SshTarget {
        self.target_at(user, self.port)
    }

    /// As [`Sshd::target`], at another port in front of this sshd.
    pub(crate) fn target_at(&self, user: &str, port: u16) -> SshTarget {
        let known = self.path(&format!("known_hosts_{port}"));
        fs::write(&known, format!("[127.0.0.1]:{port} {}\n", self.text("host.pub"))).unwrap();
        let mut target = SshTarget::new(HostName::new("h1").unwrap(), "127.0.0.1", self.login(user, port));
        target.known_hosts = vec![known];
        target.connect_timeout = Duration::from_secs(10);
        target
    }

    /// A login with the right private key.
    pub(crate) fn login(&self, user: &str, port: u16) -> Login {
        Login {
            port,
            user: user.to_owned(),
            keys: vec![KeySource::Path { key: self.path("id"), certificate: None }],
            host_key: None,
        }
    }

    /// What sshd has logged so far.
    pub(crate) fn log(&self) -> String {
        self.text("log")
    }

    /// Stops every process of this sshd, as a host that hangs.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP", |_| true);
    }

    /// Undoes [`Sshd::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal("-CONT", |_| true);
    }

    /// Kills sshd and its sessions' sshd processes, but not what runs in them.
    pub(crate) fn kill_sshd(&self) {
        self.signal("-KILL", |pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().starts_with("sshd")
        });
    }

    /// Kills the sessions' sshd processes; the listener goes on.
    pub(crate) fn kill_sessions(&self) {
        self.signal("-KILL", |pid| {
            let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            // Since 9.8 a program of its own, sshd-session.
            title.starts_with("sshd") && title.contains(": ") && !title.contains("[listener]")
        });
    }

    fn signal(&self, signal: &str, wanted: fn(u32) -> bool) {
        let pids: Vec<String> =
            descendants(self.child.id()).into_iter().filter(|pid| wanted(*pid)).map(|pid| pid.to_string()).collect();
        assert!(!pids.is_empty(), "sshd is not running");
        // A process may have ended meanwhile.
        let _ = Command::new("kill").arg(signal).args(&pids).stderr(Stdio::null()).status().unwrap();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn descendants(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in brackets may hold anything; the parent is the second word after it.
        let Some(parent) = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok())
        else {
            continue;
        };
        parents.push((pid, parent));
    }
    let mut found: Vec<u32> = Vec::new();
    let mut next = vec![root];
    while let Some(one) = next.pop() {
        for (pid, parent) in &parents {
            if *parent == one {
                found.push(*pid);
                next.push(*pid);
            }
        }
    }
    found
}

fn need(program: &str, package: &str) {
    assert!(Path::new(program).exists(), "{program} is missing: these tests need Debian's package {package}");
    assert!(rustix::process::geteuid().is_root(), "these tests start sshd in a namespace and need root");
}

/// sshd 9.8 and later shut out an address after failed logins, of which these tests make many.
fn lenience() -> &'static str {
    let version = Command::new("ssh").arg("-V").output().unwrap().stderr;
    let version = String::from_utf8_lossy(&version).into_owned();
    let number = version.trim_start_matches("OpenSSH_").split(|c: char| !c.is_ascii_digit() && c != '.').next();
    let mut parts = number.unwrap_or_default().split('.').map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= (9, 8) { "PerSourcePenalties no\n" } else { "" }
}

/// Writes passwd, shadow and sudoers.
fn accounts(folder: &Path) {
    let hash = output(Command::new("openssl").args(["passwd", "-6", PASSWORD]));
    // Not root's own home: its start files are not this test's.
    let root = folder.join("home_root");
    fs::create_dir(&root).unwrap();
    let mut passwd =
        format!("root:x:0:0::{}:/bin/bash\nsshd:x:64999:65534::/run/sshd:/usr/sbin/nologin\n", root.display());
    let mut shadow = String::from("root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n");
    let mut sudoers = String::from("root ALL=(ALL:ALL) ALL\nDefaults:cached timestamp_type=global\n");
    // The default since sudo 1.9.14: everything passes through sudo's own pipes.
    sudoers.push_str("Defaults:relayed use_pty\n");
    for (number, (name, shell, rule)) in (64001..).zip(USERS) {
        let home = folder.join(format!("home_{name}"));
        fs::create_dir(&home).unwrap();
        chown(&home, Some(number), Some(number)).unwrap();
        let _ = writeln!(passwd, "{name}:x:{number}:{number}::{}:{shell}", home.display());
        let _ = writeln!(shadow, "{name}:{}:19000:0:99999:7:::", hash.trim());
        if !rule.is_empty() {
            let _ = writeln!(sudoers, "{name} ALL=(ALL:ALL) {rule}");
        }
    }
    for (name, text, mode) in [("passwd", passwd, 0o644), ("shadow", shadow, 0o600), ("sudoers", sudoers, 0o440)] {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Makes a key pair without passphrase, unless `arguments` give one.
pub(crate) fn keygen(file: &Path, arguments: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-C", "test", "-f"]).arg(file).args(arguments);
    if !arguments.contains(&"-N") {
        command.args(["-N", ""]);
    }
    run(&mut command);
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) {
    output(command);
}

/// What a program that must succeed prints.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a run shares, with nobody to ask.
pub(crate) fn resources() -> Arc<SshResources> {
    Arc::new(SshResources::new(Arc::new(NobodyToAsk)))
}

/// A call without arguments or payload.
pub(crate) fn call(script: &'static str) -> Call {
    Call { script, arguments: Vec::new(), payload: Payload::None, deadline: Duration::from_secs(20) }
}

/// A call that reads these bytes.
pub(crate) fn call_with(script: &'static str, payload: &[u8]) -> Call {
    Call { payload: Payload::Bytes(Content::new(payload)), ..call(script) }
}
