//! What lies on the operator's machine: cluster.yml, its includes, the bundle.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config;
use crate::config::AddonSource;
use crate::config::BackupBucket;
use crate::config::Cluster;
use crate::config::ParseOptions;
use crate::config::Problem;
use crate::host::Contents;
use crate::model::Blobs;
use crate::model::Digest;
use crate::model::KeySource;
use crate::model::LockHolder;
use crate::ops::OpsError;
use crate::release;
use crate::release::Bundle;
use crate::render::objects::AddonText;
use crate::secrets::Entropy as _;
use crate::secrets::SystemEntropy;

/// A command with its circumstances.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// cluster.yml.
    pub config: PathBuf,
    /// `--kubernetes-version`.
    pub kubernetes_version: Option<String>,
    /// `--accept-new-host-keys`.
    pub accept_new_host_keys: bool,
    /// `--without`.
    pub without: Vec<String>,
    /// `--prune-data`.
    pub prune_data: Vec<String>,
    /// `--custom-certs`: the folder with what an external authority signed.
    pub custom_certs: Option<PathBuf>,
    /// `--ssh-agent-auth`: keys are the agent's, whatever the file says.
    pub ssh_agent: bool,
    /// `--s3`: the bucket of this command; none leaves it to the file.
    pub bucket: Option<BucketChoice>,
    /// `--no-last-snapshot`.
    pub no_last_snapshot: bool,
    /// The verb, for history and lock.
    pub command: &'static str,
    /// `user@machine`.
    pub who: String,
}

/// A bucket that a command was told to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketChoice {
    /// The one that cluster.yml must name.
    OfFile,
    /// This one.
    Named(BackupBucket),
}

/// The cluster's file, read.
pub struct Local {
    /// Its path.
    pub path: PathBuf,
    /// Of its bytes.
    pub digest: Digest,
    /// What it means; boxed, because every command's future carries it.
    pub cluster: Box<Cluster>,
    /// Where snapshots go besides the hosts; what hosts are told is the file's alone.
    pub bucket: Option<BackupBucket>,
    /// What should be known about it.
    pub warnings: Vec<Problem>,
    /// Texts of addons.
    pub addons: Vec<AddonText>,
    /// What the command line says may go although others keep data in it.
    pub prune_data: BTreeSet<String>,
}

/// Who works here, for the locks.
pub(super) fn holder(invocation: &Invocation, now: i64) -> Result<LockHolder, OpsError> {
    let mut bytes = [0; 16];
    SystemEntropy.fill(&mut bytes)?;
    Ok(LockHolder {
        run: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        who: invocation.who.clone(),
        command: invocation.command.to_owned(),
        since: now,
    })
}

impl Local {
    /// Reads the file, or says everything that is wrong with it.
    pub(super) fn read(invocation: &Invocation) -> Result<Self, OpsError> {
        let path = &invocation.config;
        let text = config::read_text(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => OpsError::NoClusterFile { path: path.clone() },
            _ => OpsError::local(path, source),
        })?;
        let options = ParseOptions {
            file_name: path.display().to_string(),
            kubernetes_version: invocation.kubernetes_version.clone(),
            supported: release::supported(),
            home: etcetera::home_dir().ok(),
        };
        let mut parsed = config::parse(&text, &options)?;
        let backup = &parsed.cluster.services.etcd.backup;
        let bucket = match &invocation.bucket {
            Some(BucketChoice::Named(bucket)) => Some(bucket.clone()),
            Some(BucketChoice::OfFile) if backup.bucket.is_none() => {
                let words = "--s3: cluster.yml names no bucket (services.etcd.backup_config.s3backupconfig): name one with --bucket-name";
                return Err(OpsError::Impossible(words.to_owned()));
            }
            Some(BucketChoice::OfFile) | None => backup.bucket.clone(),
        };
        if invocation.ssh_agent {
            let nodes = parsed.cluster.nodes.iter_mut().map(|node| &mut node.login);
            for login in nodes.chain(parsed.cluster.ssh.jumps.iter_mut().map(|jump| &mut jump.login)) {
                login.keys = vec![KeySource::Agent];
            }
        }
        let addons = addons(&parsed.cluster, path.parent().unwrap_or(Path::new(".")))?;
        Ok(Self {
            path: path.clone(),
            digest: Digest::of(text.as_bytes()),
            cluster: Box::new(parsed.cluster),
            bucket,
            warnings: parsed.warnings,
            addons,
            prune_data: invocation.prune_data.iter().cloned().collect(),
        })
    }

    /// Where a path of the file points: relative ones start at the file.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).join(path)
    }

    /// The bundle that the file names, checked against the version it asks for.
    pub(super) fn bundle(&self) -> Result<Arc<Bundle>, OpsError> {
        let named = self.cluster.options.bundle.as_ref().ok_or(OpsError::NoArtifacts)?;
        let folder = self.resolve(named);
        let bundle = release::open_bundle(&folder)?;
        let found = bundle.release().kubernetes;
        if found != self.cluster.kubernetes {
            return Err(OpsError::OtherRelease { bundle: folder, found, wanted: self.cluster.kubernetes });
        }
        Ok(Arc::new(self.with_bastide(bundle)?))
    }
}

impl Local {
    /// Hosts that take snapshots and look after their certificates by themselves do so with bastide: the bundle's, or else this very program, where they can run it.
    fn with_bastide(&self, bundle: Bundle) -> Result<Bundle, OpsError> {
        let release = bundle.release();
        let runs = cfg!(target_os = "linux") && release.architecture == std::env::consts::ARCH;
        let wanted = self.cluster.services.etcd.backup.enabled || self.cluster.options.warn_days > 0;
        if !wanted || release.packages.contains_key("bastide") || !runs {
            return Ok(bundle);
        }
        // Not by its path: a newer one may lie there by now.
        Ok(bundle.with_program("bastide", env!("CARGO_PKG_VERSION"), Path::new("/proc/self/exe"))?)
    }
}

fn addons(cluster: &Cluster, beside: &Path) -> Result<Vec<AddonText>, OpsError> {
    let read = |source: &AddonSource| match source {
        AddonSource::Inline(text) => Ok(AddonText { name: "addons".to_owned(), text: text.clone() }),
        AddonSource::Path(path) => {
            let place = beside.join(path);
            let text = config::read_bytes(&place).map_err(|source| OpsError::local(&place, source))?;
            Ok(AddonText { name: path.display().to_string(), text: crate::model::Content::new(text) })
        }
    };
    cluster.addons.iter().map(read).collect()
}

/// Rendered blobs and the bundle's files as one source of bytes.
pub(super) struct Shelf {
    /// What was rendered.
    pub blobs: Arc<Blobs>,
    /// What was built.
    pub bundle: Option<Arc<Bundle>>,
}

impl Contents for Shelf {
    fn open(&self, digest: &Digest) -> std::io::Result<Box<dyn Read + Send>> {
        if let Some(content) = self.blobs.get(digest) {
            return Ok(Box::new(std::io::Cursor::new(Bytes(content.clone()))));
        }
        match &self.bundle {
            Some(bundle) => bundle.open(digest),
            None => {
                Err(std::io::Error::new(std::io::ErrorKind::NotFound, format!("nothing has digest {}", digest.short())))
            }
        }
    }
}

/// A content that a cursor can read; wiped with the cursor.
struct Bytes(crate::model::Content);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}
