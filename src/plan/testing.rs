//! A cluster in miniature, for the tests of the planner and of what runs its plans.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use crate::model::Access;
use crate::model::Blobs;
use crate::model::ClusterId;
use crate::model::Component;
use crate::model::Content;
use crate::model::Desired;
use crate::model::DesiredHost;
use crate::model::DesiredImage;
use crate::model::DesiredObject;
use crate::model::Digest;
use crate::model::Directory;
use crate::model::Effect;
use crate::model::File;
use crate::model::HostName;
use crate::model::HostRecord;
use crate::model::ImageRef;
use crate::model::Keep;
use crate::model::KubeVersion;
use crate::model::ObjectId;
use crate::model::ObjectSet;
use crate::model::Observed;
use crate::model::ObservedHost;
use crate::model::RemotePath;
use crate::model::RevisionId;
use crate::model::Role;
use crate::model::SystemUser;
use crate::model::Taint;
use crate::model::Unit;
use crate::model::UnitName;
use crate::plan::Context;

/// A moment at which [`CLIENT`] is good.
pub(crate) const NOW: i64 = 1_800_000_000;
/// The clock of a machine in memory.
pub(crate) const ETCD_UID: u32 = 52034;

pub(crate) fn name(text: &str) -> HostName {
    HostName::new(text).unwrap()
}

pub(crate) fn path(text: &str) -> RemotePath {
    RemotePath::new(text).unwrap()
}

/// Builds targets that differ in chosen parts of chosen hosts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Builder {
    hosts: Vec<(String, String)>,
    changes: BTreeMap<(String, Component), u32>,
    extra: Vec<(String, String)>,
    objects: Vec<(ObjectId, ObjectSet, u32)>,
    recurring: bool,
}

impl Builder {
    /// Hosts by name and roles in letters: `c`ontrol plane, `e`tcd, `w`orker.
    pub(crate) fn new(hosts: &[(&str, &str)]) -> Self {
        let objects = vec![
            (object("apps/v1", "DaemonSet", "flannel"), ObjectSet::System, 0),
            (object("apps/v1", "Deployment", "coredns"), ObjectSet::System, 0),
            (object("v1", "ConfigMap", "extra"), ObjectSet::Addon("addons".to_owned()), 0),
        ];
        let hosts = hosts.iter().map(|(name, roles)| ((*name).to_owned(), (*roles).to_owned())).collect();
        Self { hosts, objects, ..Self::default() }
    }
    /// Three hosts with all roles and two workers.
    pub(crate) fn five() -> Self {
        Self::new(&[("h1", "cew"), ("h2", "cew"), ("h3", "cew"), ("w1", "w"), ("w2", "w")])
    }
    /// Every file of the component on this host gets another content, and its inputs change.
    pub(crate) fn change(mut self, host: &str, component: Component) -> Self {
        *self.changes.entry((host.to_owned(), component)).or_default() += 1;
        self
    }
    pub(crate) fn change_everywhere(self, component: Component) -> Self {
        let hosts = self.hosts.clone();
        hosts.iter().fold(self, |builder, (host, _)| builder.change(host, component))
    }
    /// etcd hosts take snapshots by themselves.
    pub(crate) fn recurring(mut self) -> Self {
        self.recurring = true;
        self
    }
    /// A managed file that only some targets have.
    pub(crate) fn file(mut self, host: &str, path: &str) -> Self {
        self.extra.push((host.to_owned(), path.to_owned()));
        self
    }
    pub(crate) fn without_objects(mut self) -> Self {
        self.objects.clear();
        self
    }
    pub(crate) fn build(&self) -> Sample {
        let mut blobs = Blobs::default();
        let hosts = self.hosts.iter().enumerate();
        let hosts = hosts.map(|(at, (host, roles))| (name(host), self.host(at, host, roles, &mut blobs))).collect();
        let objects = self
            .objects
            .iter()
            .map(|(id, set, version)| DesiredObject {
                id: id.clone(),
                digest: blobs.insert(Content::new(format!("{id} {version}"))),
                set: set.clone(),
                secret: false,
            })
            .collect();
        Sample {
            desired: Desired {
                schema: Desired::SCHEMA,
                cluster: ClusterId("c1".to_owned()),
                cluster_name: "demo".to_owned(),
                kubernetes: KubeVersion { minor: 37, patch: 1 },
                hosts,
                objects,
                allowances: Vec::new(),
            },
            blobs,
        }
    }

    fn host(&self, at: usize, host: &str, letters: &str, blobs: &mut Blobs) -> DesiredHost {
        let roles = letters.chars().map(|letter| match letter {
            'c' => Role::ControlPlane,
            'e' => Role::Etcd,
            _ => Role::Worker,
        });
        let mut built = Built { builder: self, host, blobs, files: BTreeMap::new(), pods: BTreeMap::new() };
        built.file(Component::System, "/etc/sysctl.d/90-bastide.conf", 0o644);
        built.file(Component::Containerd, "/opt/bastide/bin/containerd", 0o755);
        built.file(Component::Containerd, "/etc/containerd/config.toml", 0o600);
        built.file(Component::Containerd, "/etc/systemd/system/containerd.service", 0o644);
        built.file(Component::Kubelet, "/opt/bastide/bin/kubelet", 0o755);
        built.file(Component::Kubelet, "/var/lib/kubelet/config.yaml", 0o600);
        built.file(Component::Kubelet, "/etc/systemd/system/kubelet.service", 0o644);
        built.seeded("/var/lib/kubelet/pki/kubelet-client-current.pem");
        built.pod(Component::Proxy, "kube-proxy");
        if letters.contains('e') {
            built.file(Component::Etcd, "/etc/etcd/pki/server.key", 0o600);
            built.pod(Component::Etcd, "etcd");
            if self.recurring {
                built.file(Component::Recurring, "/opt/bastide/bin/bastide", 0o755);
                built.file(Component::Recurring, "/etc/systemd/system/bastide-snapshots.timer", 0o600);
            }
        }
        if letters.contains('c') {
            built.file(Component::ApiServer, "/etc/kubernetes/pki/apiserver.key", 0o600);
            built.pod(Component::ApiServer, "kube-apiserver");
            built.pod(Component::ControllerManager, "kube-controller-manager");
            built.pod(Component::Scheduler, "kube-scheduler");
        } else {
            built.pod(Component::Balancer, "api-balancer");
        }
        for (_, extra) in self.extra.iter().filter(|(owner, _)| owner == host) {
            built.file(Component::Operator, extra, 0o600);
        }
        let timer = self.recurring && letters.contains('e');
        let Built { files, pods, .. } = built;
        let unit = |component, name: &str, effect| Unit {
            name: UnitName::new(name).unwrap(),
            component,
            inputs: self.inputs(host, component),
            effect,
        };
        DesiredHost {
            roles: roles.collect(),
            internal_address: std::net::IpAddr::from([10, 0, 0, u8::try_from(at).unwrap() + 1]),
            users: if letters.contains('e') {
                vec![SystemUser { name: "etcd".to_owned(), uid: ETCD_UID, gid: ETCD_UID }]
            } else {
                Vec::new()
            },
            directories: ["/etc/kubernetes", "/etc/kubernetes/manifests", "/var/lib/kubelet"]
                .map(|text| Directory { path: path(text), access: Access::root(0o700) })
                .into(),
            files,
            units: [
                unit(Component::System, "systemd-sysctl.service", Effect::Rerun),
                unit(Component::Containerd, "containerd.service", Effect::Restart),
                unit(Component::Kubelet, "kubelet.service", Effect::Restart),
            ]
            .into_iter()
            .chain(timer.then(|| unit(Component::Recurring, "bastide-snapshots.timer", Effect::Restart)))
            .collect(),
            images: [("registry.k8s.io/pause:3.10.2", image("pause", blobs))]
                .map(|(text, image)| (ImageRef::new(text).unwrap(), image))
                .into(),
            restarts: BTreeMap::new(),
            pods,
            labels: [("bastide.dev/host".to_owned(), host.to_owned())].into(),
            taints: if letters.contains('w') {
                Vec::new()
            } else {
                vec![Taint { key: "role".to_owned(), value: String::new(), effect: "NoSchedule".to_owned() }]
            },
        }
    }

    fn generation(&self, host: &str, component: Component) -> u32 {
        self.changes.get(&(host.to_owned(), component)).copied().unwrap_or(0)
    }
    fn inputs(&self, host: &str, component: Component) -> Digest {
        Digest::of(format!("{host} {component:?} {}", self.generation(host, component)).as_bytes())
    }
}

fn image(text: &str, blobs: &mut Blobs) -> DesiredImage {
    let archive = blobs.insert(Content::new(format!("archive of {text}")));
    DesiredImage { manifest: Digest::of(text.as_bytes()), archive, size: 1000 }
}

pub(crate) fn object(api_version: &str, kind: &str, name: &str) -> ObjectId {
    ObjectId {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: Some("kube-system".to_owned()),
        name: name.to_owned(),
    }
}

struct Built<'a> {
    builder: &'a Builder,
    host: &'a str,
    blobs: &'a mut Blobs,
    files: BTreeMap<RemotePath, File>,
    pods: BTreeMap<String, Digest>,
}

impl Built<'_> {
    fn put(&mut self, component: Component, text: &str, mode: u32, keep: Keep) {
        let generation = self.builder.generation(self.host, component);
        let content = Content::new(format!("{text} of {} {generation}", self.host));
        let size = content.len() as u64;
        let file = File {
            digest: self.blobs.insert(content),
            size,
            access: Access::root(mode),
            component,
            keep,
            secret: text.contains("/pki/") && component != Component::Kubelet,
        };
        self.files.insert(path(text), file);
    }
    fn file(&mut self, component: Component, text: &str, mode: u32) {
        self.put(component, text, mode, Keep::Managed);
    }
    fn seeded(&mut self, text: &str) {
        self.put(Component::Kubelet, text, 0o600, Keep::Seeded { authorities: Vec::new(), since: None });
    }
    fn pod(&mut self, component: Component, pod: &str) {
        self.file(component, &format!("/etc/kubernetes/manifests/{pod}.yaml"), 0o600);
        self.pods.insert(pod.to_owned(), self.builder.inputs(self.host, component));
    }
}

/// A target with its contents.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) desired: Desired,
    pub(crate) blobs: Blobs,
}

impl Sample {
    /// Bare machines for every host.
    pub(crate) fn bare(&self) -> Observed {
        let machine = ObservedHost {
            os: "debian 13".to_owned(),
            kernel: "6.12.63+deb13-amd64".to_owned(),
            architecture: "x86_64".to_owned(),
            clock: NOW,
            systemd: 257,
            cgroup_v2: true,
            free_bytes: 1 << 30,
            ..ObservedHost::default()
        };
        let hosts = self.desired.hosts.keys().map(|host| (host.clone(), machine.clone())).collect();
        Observed { hosts, ..Observed::default() }
    }
    /// The cluster as it is once this target was reached.
    pub(crate) fn reached(&self) -> Observed {
        let bare = self.bare();
        let plan = crate::plan::plan(&self.desired, &bare, &fresh()).unwrap();
        let mut observed = crate::plan::predict(&bare, &plan);
        for (name, seen) in &mut observed.hosts {
            let desired = &self.desired.hosts[name];
            seen.record = Some(HostRecord {
                schema: 1,
                cluster: self.desired.cluster.clone(),
                cluster_name: self.desired.cluster_name.clone(),
                revision: RevisionId { number: 1, nonce: "0".to_owned() },
                parent: None,
                complete: true,
                files: desired.files.iter().map(|(path, file)| (path.clone(), file.digest)).collect(),
                directories: desired.directories.iter().map(|directory| directory.path.clone()).collect(),
                units: ["containerd.service", "kubelet.service"].map(|unit| UnitName::new(unit).unwrap()).into(),
                users: desired.users.iter().map(|user| user.name.clone()).collect(),
                images: desired.images.iter().map(|(name, image)| (name.clone(), image.manifest)).collect(),
            });
        }
        observed
    }
}

/// The circumstances of a first `up`.
pub(crate) fn fresh() -> Context<'static> {
    Context { now: NOW, architecture: "x86_64", ..Context::default() }
}

/// The circumstances of a cluster that has reached `previous`.
pub(crate) fn after(previous: &Desired) -> Context<'_> {
    Context { previous: Some(previous), ..fresh() }
}
