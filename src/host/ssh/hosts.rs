//! The host keys of one target: reads the files, judges, records.

use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use etcetera::BaseStrategy;
use russh::keys::Algorithm;
use russh::keys::EcdsaCurve;
use russh::keys::HashAlg;
use russh::keys::PublicKey;

use super::known_hosts::KnownHosts;
use super::known_hosts::Shown;
use super::known_hosts::Verdict;
use super::known_hosts::host_name;
use super::resources::SshResources;
use super::resources::locked;

/// Where OpenSSH looks: `~/.ssh/known_hosts`, then `/etc/ssh/ssh_known_hosts`.
pub fn default_known_hosts() -> Vec<PathBuf> {
    let system = PathBuf::from("/etc/ssh/ssh_known_hosts");
    match etcetera::choose_base_strategy() {
        Ok(base) => vec![base.home_dir().join(".ssh/known_hosts"), system],
        Err(_) => vec![system],
    }
}

/// What is known about the keys of one sshd.
pub(super) struct HostKeys {
    address: String,
    port: u16,
    files: Vec<PathBuf>,
    pin: Option<String>,
    known: KnownHosts,
    shared: Arc<SshResources>,
}

impl HostKeys {
    /// Reads all files. An error is a file that is there and cannot be read, a revocation that cannot be read, or a pin that
    /// is no key.
    pub(super) fn load(
        address: &str,
        port: u16,
        pin: Option<&str>,
        files: &[PathBuf],
        shared: &Arc<SshResources>,
    ) -> Result<Self, String> {
        let known = read(files, pin)?;
        for line in known.unreadable() {
            let origin = line.origin.to_string();
            // Once a run, not once a host.
            if locked(&shared.passed_over).insert(origin.clone()) {
                tracing::warn!("{origin}: not a known_hosts line, passed over");
            }
        }
        Ok(Self {
            address: address.to_owned(),
            port,
            files: files.to_vec(),
            pin: pin.map(str::to_owned),
            known,
            shared: Arc::clone(shared),
        })
    }

    pub(super) fn judge(&self, shown: Shown<'_>, now: u64) -> Verdict {
        self.known.judge(&self.address, self.port, shown, now)
    }

    /// Types to ask for, those on record first: a host known by one key must not be asked for another.
    pub(super) fn preferred_types(&self) -> Vec<Algorithm> {
        let recorded = self.known.types(&host_name(&self.address, self.port));
        let mut types: Vec<Algorithm> = Vec::new();
        for algorithm in recorded.iter().flat_map(signing).chain(accepted_types()) {
            if accepted_types().contains(&algorithm) && !types.contains(&algorithm) {
                types.push(algorithm);
            }
        }
        types
    }

    /// Types to ask for with a certificate: none unless an authority is named for this host.
    pub(super) fn certificate_types(&self) -> Vec<Algorithm> {
        if self.known.names_authority(&host_name(&self.address, self.port)) { accepted_types() } else { Vec::new() }
    }

    /// Whether the operator chose to trust unknown hosts.
    pub(super) fn may_record(&self) -> bool {
        self.shared.accept_new_host_keys && !self.files.is_empty()
    }

    /// Writes the key into the first file, unless somebody was faster: then what they wrote counts.
    pub(super) async fn record(&mut self, key: &PublicKey, now: u64) -> Result<Verdict, String> {
        let (files, pin, shared) = (self.files.clone(), self.pin.clone(), Arc::clone(&self.shared));
        let (address, port, key) = (self.address.clone(), self.port, key.clone());
        let outcome = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = locked(&shared.recording);
            let known = read(&files, pin.as_deref())?;
            let verdict = known.judge(&address, port, Shown::Key(&key), now);
            if verdict != (Verdict::Unknown { recordable: true }) {
                return Ok((known, verdict));
            }
            let file = files.first().ok_or("no known_hosts file is named")?;
            append(file, &line(&address, port, &key)).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok((read(&files, pin.as_deref())?, Verdict::Trusted))
        })
        .await
        .map_err(|error| error.to_string())?;
        let (known, verdict): (KnownHosts, Verdict) = outcome.map_err(|reason: String| reason)?;
        self.known = known;
        Ok(verdict)
    }
}

fn read(files: &[PathBuf], pin: Option<&str>) -> Result<KnownHosts, String> {
    let mut known = KnownHosts::default();
    for file in files {
        match fs::read(file) {
            Ok(bytes) => known.read(&file.display().to_string(), &String::from_utf8_lossy(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", file.display())),
        }
    }
    if let Some(line) = known.unreadable().iter().find(|line| line.revokes) {
        return Err(format!("{}: this revocation cannot be read", line.origin));
    }
    if let Some(pin) = pin
        && !known.pin(pin)
    {
        return Err("the host_key that cluster.yml gives is not an OpenSSH public key line".to_owned());
    }
    Ok(known)
}

/// The algorithms that a key of this type may sign a key exchange with.
fn signing(key: &Algorithm) -> Vec<Algorithm> {
    match key {
        Algorithm::Rsa { .. } => {
            vec![Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, Algorithm::Rsa { hash: Some(HashAlg::Sha256) }]
        }
        other => vec![other.clone()],
    }
}

/// Every type, best first. No `ssh-rsa`: that is RSA with SHA-1 (RFC 8332).
pub(super) fn accepted_types() -> Vec<Algorithm> {
    vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ]
}

/// The line to record: name, type, base64.
pub(super) fn line(address: &str, port: u16, key: &PublicKey) -> String {
    // Encoding fails only for key types that `accepted_types` does not let in.
    let mut bare = key.clone();
    bare.set_comment("");
    format!("{} {}", host_name(address, port), bare.to_openssh().unwrap_or_default().trim())
}

/// Adds a line to a file that may be missing: a new file beside it, 0600, synced and renamed, so that a reader sees the old
/// or the new one. A symbolic link stays one.
pub(super) fn append(file: &Path, line: &str) -> io::Result<()> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    let mut text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
    // Temporary files are 0600 from the start.
    let mut aside = tempfile::NamedTempFile::new_in(folder)?;
    aside.write_all(&text)?;
    aside.as_file().sync_all()?;
    aside.persist(&file)?;
    fs::File::open(folder)?.sync_all()
}
