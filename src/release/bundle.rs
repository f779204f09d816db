use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;

use crate::model::ArtifactFile;
use crate::model::Digest;
use crate::model::Package;
use crate::model::Release;
use crate::release::BundleError;
use crate::release::Flaw;

/// Programs that every host needs, by package.
pub(super) const PROGRAMS: &[(&str, &[&str])] = &[
    ("containerd", &["containerd", "containerd-shim-runc-v2", "ctr"]),
    ("runc", &["runc"]),
    ("cni", &["bridge", "host-local", "loopback", "portmap"]),
    ("kubelet", &["kubelet"]),
    ("crictl", &["crictl"]),
];

/// Images that no cluster does without. flannel is asked for by the clusters that use it.
pub(super) const IMAGES: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "coredns",
    "pause",
    "haproxy",
    "metrics-server",
];

/// What `bundle.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleDocument {
    /// Layout of the document; see [`BundleDocument::SCHEMA`].
    pub schema: u64,
    /// What is in the folder.
    pub release: Release,
}

impl BundleDocument {
    /// The layout that this program reads.
    pub const SCHEMA: u64 = 1;
    /// The document's name in the folder.
    pub const NAME: &str = "bundle.json";
}

/// A folder that holds every file and image of one release.
#[derive(Debug, Clone)]
pub struct Bundle {
    release: Release,
    files: BTreeMap<Digest, (PathBuf, u64)>,
}

/// Reads `bundle.json` in `folder` and checks that every file it names is there, inside the folder and of the size that it
/// says. Contents are checked where they are read: see [`Bundle::open`].
pub fn open_bundle(folder: &Path) -> Result<Bundle, BundleError> {
    let unreadable =
        |path: &Path, error: &io::Error| BundleError::Unreadable { path: path.to_owned(), reason: error.to_string() };
    let root = fs::canonicalize(folder).map_err(|error| unreadable(folder, &error))?;
    let path = root.join(BundleDocument::NAME);
    let text = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
    let release = parse(&path, &text)?.release;

    let mut flaws = missing(&release);
    let mut files = BTreeMap::new();
    for (item, file) in described(&release) {
        match locate(&root, &item, file) {
            Ok(found) => _ = files.insert(file.sha256, (found, file.size)),
            Err(flaw) => flaws.push(flaw),
        }
    }
    if flaws.is_empty() { Ok(Bundle { release, files }) } else { Err(BundleError::Contents { path: root, flaws }) }
}

impl Bundle {
    /// What it holds.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// This with one more program, which is not in its folder: whatever `path` is now.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn with_program(mut self, package: &str, version: &str, path: &Path) -> Result<Self, BundleError> {
        let unreadable =
            |error: io::Error| BundleError::Unreadable { path: path.to_owned(), reason: error.to_string() };
        let mut file = File::open(path).map_err(unreadable)?;
        let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
        loop {
            let count = file.read(&mut buffer).map_err(unreadable)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            size += count as u64;
        }
        let sha256 = Digest(hash.finalize().into());
        let file = ArtifactFile { sha256, size, path: path.display().to_string() };
        let files = [(package.to_owned(), file)].into();
        self.release.packages.insert(package.to_owned(), Package { version: version.to_owned(), files });
        self.files.insert(sha256, (path.to_owned(), size));
        Ok(self)
    }

    /// Whether a file with this digest is described.
    pub fn holds(&self, digest: &Digest) -> bool {
        self.files.contains_key(digest)
    }

    /// Opens the file with this digest. The reader ends after exactly the file's bytes, and ends in an error of kind
    /// `InvalidData` where these are not the digest's: whoever passes them on must not act before the end.
    pub fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let (path, size) = self.files.get(digest).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no file with digest {} in the bundle", digest.short()))
        })?;
        let file =
            File::open(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Box::new(Verified { file, left: *size, hash: Sha256::new(), digest: *digest, path: path.clone() }))
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<BundleDocument, BundleError> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: u64,
    }
    let malformed = |error: serde_json::Error| BundleError::Malformed {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        reason: error.to_string(),
    };
    // The schema first: a later layout would otherwise be called malformed.
    let schema = serde_json::from_slice::<Versioned>(text).map_err(malformed)?.schema;
    if schema != BundleDocument::SCHEMA {
        return Err(BundleError::Schema { path: path.to_owned(), found: schema, supported: BundleDocument::SCHEMA });
    }
    serde_json::from_slice(text).map_err(malformed)
}

fn missing(release: &Release) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for (name, files) in PROGRAMS {
        let Some(package) = release.packages.get(*name) else {
            flaws.push(Flaw::NoPackage((*name).to_owned()));
            continue;
        };
        let absent = files.iter().filter(|file| !package.files.contains_key(**file));
        flaws.extend(absent.map(|file| Flaw::NoFile { package: (*name).to_owned(), file: (*file).to_owned() }));
    }
    flaws.extend(
        IMAGES.iter().filter(|name| !release.images.contains_key(**name)).map(|name| Flaw::NoImage((*name).to_owned())),
    );
    flaws
}

fn described(release: &Release) -> Vec<(String, &ArtifactFile)> {
    let programs = release.packages.iter().flat_map(|(name, package)| {
        package.files.iter().map(move |(file, artifact)| (format!("{name}/{file}"), artifact))
    });
    let images = release.images.iter().map(|(name, image)| (format!("image {name}"), &image.archive));
    programs.chain(images).collect()
}

/// Where a described file lies. Links are followed, but not out of the folder: a bundle that came from somebody else must
/// not be able to send `/etc/shadow` to the hosts.
fn locate(root: &Path, item: &str, file: &ArtifactFile) -> Result<PathBuf, Flaw> {
    let leaves = || Flaw::Leaves { item: item.to_owned(), path: file.path.clone() };
    let unreadable = |reason: String| Flaw::Unreadable { item: item.to_owned(), path: file.path.clone(), reason };
    let relative = Path::new(&file.path);
    if file.path.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(leaves());
    }
    let found = fs::canonicalize(root.join(relative)).map_err(|error| unreadable(error.to_string()))?;
    if !found.starts_with(root) {
        return Err(leaves());
    }
    let metadata = fs::metadata(&found).map_err(|error| unreadable(error.to_string()))?;
    if !metadata.is_file() {
        return Err(unreadable("not a regular file".to_owned()));
    }
    if metadata.len() != file.size {
        return Err(Flaw::Size {
            item: item.to_owned(),
            path: file.path.clone(),
            found: metadata.len(),
            described: file.size,
        });
    }
    Ok(found)
}

/// A file that must turn out to be what its digest says.
struct Verified {
    file: File,
    left: u64,
    hash: Sha256,
    digest: Digest,
    path: PathBuf,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.left == 0 {
            return Ok(0);
        }
        let wrong =
            |reason: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {reason}", self.path.display()));
        let room = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(wrong("shorter than bundle.json says"));
        }
        self.hash.update(&buffer[..count]);
        self.left -= count as u64;
        // The last bytes are held back with the verdict: they are handed out only where the whole is right.
        if self.left == 0 && Digest(self.hash.finalize_reset().into()) != self.digest {
            return Err(wrong("not the content whose digest bundle.json gives"));
        }
        Ok(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use serde_json::Value;
    use serde_json::json;
    use tempfile::TempDir;

    use super::IMAGES;
    use super::PROGRAMS;
    use super::open_bundle;
    use crate::model::Digest;
    use crate::release::BundleError;
    use crate::release::Flaw;

    fn artifact(folder: &Path, path: &str) -> Value {
        fs::write(folder.join(path), path).unwrap();
        json!({"sha256": Digest::of(path.as_bytes()), "size": path.len(), "path": path})
    }

    /// A complete bundle in which every file holds its own name.
    fn bundle() -> (TempDir, Value) {
        let folder = tempfile::tempdir().unwrap();
        let mut packages = json!({});
        for (name, files) in PROGRAMS {
            packages[name] = json!({"version": "v1", "files": {}});
            for file in *files {
                packages[name]["files"][file] = artifact(folder.path(), file);
            }
        }
        let mut images = json!({});
        for name in IMAGES {
            images[name] = json!({
                "reference": format!("registry.example/{name}:1"), "version": "1", "manifest": Digest::of(b"manifest"),
                "archive": artifact(folder.path(), &format!("{name}.tar")),
            });
        }
        let document = json!({"schema": 1, "release": {
            "kubernetes": "v1.37.1", "architecture": "x86_64", "packages": packages, "images": images}});
        write(folder.path(), &document);
        (folder, document)
    }

    fn write(folder: &Path, document: &Value) {
        fs::write(folder.join("bundle.json"), serde_json::to_vec_pretty(document).unwrap()).unwrap();
    }

    /// The flaws found after `change` was made to a complete bundle.
    fn flaws(change: impl FnOnce(&Path, &mut Value)) -> Vec<Flaw> {
        let (folder, mut document) = bundle();
        change(folder.path(), &mut document["release"]);
        write(folder.path(), &document);
        match open_bundle(folder.path()) {
            Err(BundleError::Contents { flaws, .. }) => flaws,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_complete_bundle_opens_and_hands_out_its_files_by_digest() {
        let (folder, _) = bundle();
        let bundle = open_bundle(folder.path()).unwrap();
        assert_eq!(bundle.release().kubernetes.to_string(), "v1.37.1");
        let digest = Digest::of(b"kubelet");
        assert!(bundle.holds(&digest));
        let mut bytes = Vec::new();
        bundle.open(&digest).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"kubelet");
        assert_eq!(bundle.open(&Digest::of(b"other")).err().unwrap().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let found = flaws(|folder, release| {
            release["packages"].as_object_mut().unwrap().remove("runc");
            release["packages"]["containerd"]["files"].as_object_mut().unwrap().remove("ctr");
            release["images"].as_object_mut().unwrap().remove("etcd");
            release["packages"]["crictl"]["files"]["crictl"]["path"] = json!("../crictl");
            fs::remove_file(folder.join("pause.tar")).unwrap();
            fs::write(folder.join("kubelet"), "longer than it was").unwrap();
        });
        assert_eq!(
            found,
            [
                Flaw::NoFile { package: "containerd".into(), file: "ctr".into() },
                Flaw::NoPackage("runc".into()),
                Flaw::NoImage("etcd".into()),
                Flaw::Leaves { item: "crictl/crictl".into(), path: "../crictl".into() },
                Flaw::Size { item: "kubelet/kubelet".into(), path: "kubelet".into(), found: 18, described: 7 },
                Flaw::Unreadable {
                    item: "image pause".into(),
                    path: "pause.tar".into(),
                    reason: "No such file or directory (os error 2)".into(),
                },
            ]
        );
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        for path in ["/etc/hostname", "../x", "a/../../x", "./kubelet", ""] {
            let found = flaws(|_, release| release["packages"]["kubelet"]["files"]["kubelet"]["path"] = json!(path));
            assert_eq!(found, [Flaw::Leaves { item: "kubelet/kubelet".into(), path: path.into() }]);
        }
        let found = flaws(|folder, _| {
            fs::remove_file(folder.join("kubelet")).unwrap();
            symlink("/etc/hostname", folder.join("kubelet")).unwrap();
        });
        assert_eq!(found, [Flaw::Leaves { item: "kubelet/kubelet".into(), path: "kubelet".into() }]);
    }

    #[test]
    fn a_file_that_was_tampered_with_ends_in_an_error_before_its_last_byte() {
        for content in ["kubelat", "kube"] {
            let (folder, _) = bundle();
            let bundle = open_bundle(folder.path()).unwrap();
            fs::write(folder.path().join("kubelet"), content).unwrap();
            let mut bytes = Vec::new();
            let error = bundle.open(&Digest::of(b"kubelet")).unwrap().read_to_end(&mut bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(bytes.len() < "kubelet".len(), "{bytes:?}");
        }
    }

    #[test]
    fn a_later_schema_and_a_broken_document_are_told_apart() {
        let (folder, mut document) = bundle();
        let path = fs::canonicalize(folder.path()).unwrap().join("bundle.json");
        document["schema"] = json!(2);
        document["release"] = json!("something new");
        write(folder.path(), &document);
        assert_eq!(
            open_bundle(folder.path()).unwrap_err(),
            BundleError::Schema { path: path.clone(), found: 2, supported: 1 }
        );
        fs::write(&path, "{\n  \"schema\": }").unwrap();
        assert!(matches!(open_bundle(folder.path()).unwrap_err(), BundleError::Malformed { line: 2, column: 13, .. }));
        fs::remove_file(&path).unwrap();
        assert!(matches!(open_bundle(folder.path()).unwrap_err(), BundleError::Unreadable { .. }));
    }
}
