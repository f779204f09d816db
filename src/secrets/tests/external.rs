//! An authority of the real openssl's, and what bastide asks of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::support::read;
use crate::config::Cluster;
use crate::model::Content;
use crate::secrets::AuthorityName;
use crate::secrets::Brought;
use crate::secrets::CustomFiles;
use crate::secrets::Secrets;
use crate::secrets::SecretsError;
use crate::secrets::SeededEntropy;
use crate::secrets::bring;
use crate::secrets::complete;
use crate::secrets::issuer;
use crate::secrets::requests;

/// openssl signs with the machine's clock.
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// An authority in a folder of its own.
pub(super) struct Authority(tempfile::TempDir);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.openssl(
            &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "900"],
            &["-keyout", "ca.key", "-out", "ca.pem", "-subj", &format!("/CN={name}")],
        );
        authority
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn openssl(&self, first: &[&str], second: &[&str]) {
        let output = Command::new("openssl").args(first).args(second).current_dir(self.path()).output().unwrap();
        assert!(output.status.success(), "openssl {first:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(super) fn certificate(&self) -> Content {
        Content::new(std::fs::read(self.path().join("ca.pem")).unwrap())
    }

    pub(super) fn key(&self) -> Content {
        Content::new(std::fs::read(self.path().join("ca.key")).unwrap())
    }

    /// What it makes of a request; `more` are options of `openssl x509`.
    pub(super) fn sign(&self, request: &str, more: &[&str]) -> Content {
        std::fs::write(self.path().join("request"), request).unwrap();
        let copies =
            ["x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "leaf"];
        let days: &[&str] = if more.contains(&"-days") { &[] } else { &["-days", "300"] };
        let extensions: &[&str] = if more.contains(&"-extfile") { &[] } else { &["-copy_extensions", "copyall"] };
        self.openssl(&copies, &[days, extensions, more].concat());
        Content::new(std::fs::read(self.path().join("leaf")).unwrap())
    }

    /// With other extensions than it was asked for.
    pub(super) fn sign_as(&self, request: &str, extensions: &str, more: &[&str]) -> Content {
        std::fs::write(self.path().join("extensions"), extensions).unwrap();
        self.sign(request, &[more, &["-extfile", "extensions"]].concat())
    }
}

/// Requests of `names`, and what `authority` made of them.
pub(super) struct Folder {
    pub(super) files: CustomFiles,
    pub(super) requests: BTreeMap<String, String>,
}

pub(super) fn asked(cluster: &Cluster, previous: Option<&Secrets>, files: CustomFiles, seed: u64) -> Folder {
    let names = [AuthorityName::Kubernetes].into();
    let all = requests(cluster, previous, &names, &files, &mut SeededEntropy::new(seed)).unwrap();
    let mut folder = Folder { files, requests: BTreeMap::new() };
    for request in all {
        folder.files.files.insert(request.file.clone(), Content::new(request.text.as_bytes()));
        folder.files.keys.extend(request.key.map(|key| (request.stem.clone(), key)));
        folder.requests.insert(request.stem, request.text);
    }
    folder
}

impl Folder {
    pub(super) fn signed(mut self, authority: &Authority) -> Self {
        self.files.files.insert("kube-ca.pem".to_owned(), authority.certificate());
        for (stem, request) in &self.requests {
            self.files.files.insert(format!("{stem}.pem"), authority.sign(request, &[]));
        }
        self
    }

    pub(super) fn put(&mut self, file: &str, content: Content) -> Content {
        self.files.files.insert(file.to_owned(), content).unwrap_or_default()
    }

    pub(super) fn brought(&self, cluster: &Cluster) -> Result<Brought, SecretsError> {
        bring(cluster, None, &self.files, now(), &mut SeededEntropy::new(8))
    }

    /// Everything that is wrong, one line each.
    pub(super) fn misfits(&self, cluster: &Cluster) -> Vec<String> {
        match self.brought(cluster) {
            Err(SecretsError::Misfits(all)) => all.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn born(cluster: &Cluster, folder: &Folder) -> Secrets {
    let brought = folder.brought(cluster).unwrap();
    let (secrets, issued) = complete(cluster, Some(&brought.secrets), now(), &mut SeededEntropy::new(9)).unwrap();
    assert!(issued.iter().all(|one| issuer(one.id.name) != AuthorityName::Kubernetes), "{issued:?}");
    secrets
}

/// One host with all roles, and a worker behind a balancer.
pub(super) fn two_hosts() -> Cluster {
    read(
        "{cluster_name: demo, kubernetes_version: v1.37.1, network: {plugin: none}, ingress: {provider: none}, nodes: [\
         {address: 192.0.2.11, hostname_override: cp1, user: root, role: [controlplane, etcd, worker]}, \
         {address: 192.0.2.21, hostname_override: w1, user: root, role: [worker]}]}",
    )
}
