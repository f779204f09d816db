//! One host's target while it is being put together.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::Cluster;
use crate::config::Node;
use crate::model::Access;
use crate::model::ArtifactFile;
use crate::model::Blobs;
use crate::model::Component;
use crate::model::Content;
use crate::model::DesiredHost;
use crate::model::DesiredImage;
use crate::model::Digest;
use crate::model::Directory;
use crate::model::Effect;
use crate::model::File;
use crate::model::ImageRef;
use crate::model::Keep;
use crate::model::Release;
use crate::model::RemotePath;
use crate::model::Unit;
use crate::model::UnitName;
use crate::render::RenderError;
use crate::render::judge::Judge;
use crate::render::pod;
use crate::render::pod::StaticPod;
use crate::render::template::Templates;
use crate::secrets;
use crate::secrets::AuthorityName;
use crate::secrets::HostSigners;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Secrets;

/// What all hosts share while a target is made.
pub(super) struct Shop<'a> {
    /// What the file means.
    pub cluster: &'a Cluster,
    /// Keys and certificates.
    pub secrets: &'a Secrets,
    /// Programs and images.
    pub release: &'a Release,
    /// The keys that hosts sign with.
    pub signers: Option<&'a HostSigners>,
    /// The template engine.
    pub templates: Templates,
    /// Contents so far.
    pub blobs: Blobs,
    /// Refusals, allowances, notes.
    pub judge: Judge<'a>,
}

/// One host's target so far.
pub(super) struct Draft<'s, 'a> {
    /// What all hosts share.
    pub shop: &'s mut Shop<'a>,
    /// Which host.
    pub node: &'a Node,
    /// The target.
    pub host: DesiredHost,
    directories: BTreeMap<RemotePath, Access>,
}

/// What a unit's marker on the host holds: over the contents whose change restarts it, in their order.
pub fn unit_inputs(contents: &[Digest]) -> Digest {
    let all: String = contents.iter().map(|digest| format!("{digest}\n")).collect();
    Digest::of(all.as_bytes())
}

/// A path that stands in the source.
///
/// # Panics
/// Where the literal is no normalized path; every path of this room passes through a test.
pub(super) fn literal(path: &str) -> RemotePath {
    RemotePath::new(path).expect("a path in the source is normalized")
}

impl<'s, 'a> Draft<'s, 'a> {
    /// An empty target for `node`.
    pub(super) fn new(shop: &'s mut Shop<'a>, node: &'a Node) -> Self {
        let host = DesiredHost {
            roles: node.roles.clone(),
            internal_address: node.internal_address,
            users: Vec::new(),
            directories: Vec::new(),
            files: BTreeMap::new(),
            units: Vec::new(),
            images: BTreeMap::new(),
            pods: BTreeMap::new(),
            restarts: BTreeMap::new(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
        };
        Self { shop, node, host, directories: BTreeMap::new() }
    }

    /// The finished target: folders sorted, so that parents stand before children.
    pub(super) fn finish(mut self) -> DesiredHost {
        self.host.directories = self.directories.into_iter().map(|(path, access)| Directory { path, access }).collect();
        self.host
    }

    /// Notes an error.
    pub(super) fn wrong(&mut self, error: RenderError) {
        self.shop.judge.errors.push(error);
    }

    /// A folder.
    pub(super) fn directory(&mut self, path: &str, access: Access) {
        self.directories.insert(literal(path), access);
    }

    /// A managed file with `content`.
    pub(super) fn file(
        &mut self,
        component: Component,
        path: &str,
        access: Access,
        content: impl Into<Vec<u8>>,
    ) -> Digest {
        self.put(component, path, access, Content::new(content), Keep::Managed, false)
    }

    /// A managed file whose content may not be shown.
    pub(super) fn secret(&mut self, component: Component, path: &str, access: Access, content: Content) -> Digest {
        self.put(component, path, access, content, Keep::Managed, true)
    }

    /// A file that the host itself renews.
    pub(super) fn seeded(&mut self, component: Component, path: &str, content: Content, authorities: Vec<String>) {
        self.put(component, path, Access::root(0o600), content, Keep::Seeded { authorities, since: None }, true);
    }

    fn put(
        &mut self,
        component: Component,
        path: &str,
        access: Access,
        content: Content,
        keep: Keep,
        secret: bool,
    ) -> Digest {
        let size = content.len() as u64;
        let digest = self.shop.blobs.insert(content);
        self.host.files.insert(literal(path), File { digest, size, access, component, keep, secret });
        digest
    }

    /// A rendered managed file; where its template fails, the error is noted and nothing is written.
    pub(super) fn rendered(
        &mut self,
        component: Component,
        path: &str,
        access: Access,
        template: &str,
        data: &Value,
    ) -> Digest {
        match self.shop.templates.render(template, data) {
            Ok(text) => self.file(component, path, access, text),
            Err(error) => {
                self.wrong(error);
                Digest::of(b"")
            }
        }
    }

    /// All programs of a package, installed into a folder of their own whose name changes with their bytes, so that
    /// the programs of an older revision stay beside them. Returns the folder.
    pub(super) fn package(&mut self, component: Component, package: &str, needed: &[&str]) -> String {
        let Some(files) = self.shop.release.packages.get(package) else {
            for program in needed {
                self.wrong(RenderError::MissingProgram { package: package.to_owned(), program: (*program).to_owned() });
            }
            return format!("/opt/bastide/{package}");
        };
        let mut all = String::new();
        for (name, file) in &files.files {
            all.push_str(name);
            all.push(' ');
            all.push_str(&file.sha256.to_string());
            all.push('\n');
        }
        let digest = Digest::of(all.as_bytes()).to_string();
        let version: String =
            files.version.chars().filter(|c| c.is_ascii_alphanumeric() || ".-+".contains(*c)).collect();
        let folder = format!("/opt/bastide/{package}-{version}-{}", &digest[..8]);
        for program in needed {
            if !files.files.contains_key(*program) {
                self.wrong(RenderError::MissingProgram { package: package.to_owned(), program: (*program).to_owned() });
            }
        }
        self.directory("/opt/bastide", Access::root(0o755));
        self.directory(&folder, Access::root(0o755));
        let programs: Vec<(String, ArtifactFile)> = files.files.iter().map(|(n, f)| (n.clone(), f.clone())).collect();
        for (name, file) in programs {
            self.program(component, &format!("{folder}/{name}"), &file);
        }
        folder
    }

    /// One program of the release.
    pub(super) fn program(&mut self, component: Component, path: &str, artifact: &ArtifactFile) {
        let Ok(path) = RemotePath::new(path) else {
            self.wrong(RenderError::Malformed {
                place: "the release".to_owned(),
                value: path.to_owned(),
                expected: "the path of a program".to_owned(),
            });
            return;
        };
        let file = File {
            digest: artifact.sha256,
            size: artifact.size,
            access: Access::root(0o755),
            component,
            keep: Keep::Managed,
            secret: false,
        };
        self.host.files.insert(path, file);
    }

    /// The host holds the release's image for `name`.
    pub(super) fn image(&mut self, name: &str) -> Option<ImageRef> {
        let Some(image) = self.shop.release.images.get(name) else {
            self.wrong(RenderError::MissingImage(name.to_owned()));
            return None;
        };
        let desired =
            DesiredImage { manifest: image.manifest, archive: image.archive.sha256, size: image.archive.size };
        self.host.images.insert(image.reference.clone(), desired);
        Some(image.reference.clone())
    }

    /// This host's certificate of a row of the leaf table.
    pub(super) fn leaf(&mut self, name: LeafName) -> Option<&'a Leaf> {
        let secrets = self.shop.secrets;
        let leaf = secrets.leaves.get(&LeafId { name, host: Some(self.node.name.clone()) });
        if leaf.is_none() {
            self.wrong(RenderError::MissingLeaf { leaf: format!("{name:?}"), host: self.node.name.clone() });
        }
        leaf
    }

    /// A certificate and its key as two files of one owner, never readable by others (CIS 1.1.20, 1.1.21).
    pub(super) fn pair(&mut self, component: Component, stem: &str, name: LeafName, owner: (u32, u32)) {
        let access = Access { mode: 0o600, uid: owner.0, gid: owner.1 };
        if let Some(leaf) = self.leaf(name) {
            self.file(component, &format!("{stem}.crt"), access, leaf.certificate.as_bytes());
            self.secret(component, &format!("{stem}.key"), access, leaf.key.clone());
        }
    }

    /// A server's pair, which belongs to root: its certificate leads to the old authority as well while that one is exchanged, for
    /// those who do not trust the new one yet.
    pub(super) fn server_pair(&mut self, component: Component, stem: &str, name: LeafName) {
        let root = Access::root(0o600);
        let id = LeafId { name, host: Some(self.node.name.clone()) };
        if let (Some(leaf), Some(chain)) = (self.leaf(name), secrets::serving_chain(self.shop.secrets, &id)) {
            self.file(component, &format!("{stem}.crt"), root, chain);
            self.secret(component, &format!("{stem}.key"), root, leaf.key.clone());
        }
    }

    /// All accepted certificates of an authority as one PEM text.
    pub(super) fn trust(&mut self, name: AuthorityName) -> String {
        if let Some(authority) = self.shop.secrets.authorities.get(&name) {
            return authority.trust_bundle();
        }
        self.wrong(RenderError::MissingSecret(format!("authority {name}")));
        String::new()
    }

    /// Writes a static pod's manifest. `restart` are the files, by path, whose change needs a restart.
    pub(super) fn pod(&mut self, component: Component, mut pod: StaticPod, restart: &BTreeMap<String, Digest>) {
        pod.start_within(self.shop.cluster.options.deadlines.health);
        match pod::manifest(&self.shop.templates, &pod, restart) {
            Ok(manifest) => {
                let path = format!("/etc/kubernetes/manifests/{}.yaml", pod.name);
                // CIS 1.1.1 to 1.1.8.
                self.file(component, &path, Access::root(0o600), manifest.text);
                let paths = restart.keys().map(|path| literal(path)).collect();
                self.host.restarts.insert(pod.name.clone(), paths);
                self.host.pods.insert(pod.name.clone(), manifest.inputs);
            }
            Err(error) => self.wrong(error),
        }
    }

    /// The folder of bastide itself for this host, with the settings' folder beside it; an error where the bundle has none: `place` asks
    /// for it, `what` says why, `off` how to do without.
    pub(super) fn own_program(&mut self, place: &'static str, what: &'static str, off: &'static str) -> Option<String> {
        if !self.shop.release.packages.contains_key("bastide") {
            let architecture = self.shop.release.architecture.clone();
            self.wrong(RenderError::NoOwnProgram { architecture, place, what, off });
            return None;
        }
        self.directory("/etc/bastide", Access::root(0o700));
        Some(self.package(Component::Recurring, "bastide", &["bastide"]))
    }

    /// A unit that is restarted when one of `inputs` changes.
    pub(super) fn unit(&mut self, component: Component, name: &str, effect: Effect, inputs: &[Digest]) {
        let name = UnitName::new(name).expect("a unit name in the source is valid");
        // A path for each, so that the inputs can be computed anew; equal contents stay equal, so any path of it will do.
        let path = |digest: &Digest| self.host.files.iter().find(|(_, file)| file.digest == *digest);
        let paths: Option<Vec<_>> = inputs.iter().map(|digest| Some(path(digest)?.0.clone())).collect();
        if let Some(paths) = paths {
            self.host.restarts.insert(name.to_string(), paths);
        }
        self.host.units.push(Unit { name, component, inputs: unit_inputs(inputs), effect });
    }

    /// The digests of files that were placed already, by path.
    pub(super) fn digests(&self, paths: &[&str]) -> BTreeMap<String, Digest> {
        paths
            .iter()
            .filter_map(|path| Some(((*path).to_owned(), self.host.files.get(&literal(path))?.digest)))
            .collect()
    }
}
