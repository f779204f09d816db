//! Static pods: one shape for all, rendered through one template and read back as a Kubernetes Pod.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::model::Component;
use crate::model::Digest;
use crate::model::ImageRef;
use crate::render::RenderError;
use crate::render::args::Bind;
use crate::render::template::Templates;

const TEMPLATE: &str = "static-pod.yaml";

/// A static pod with one container.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StaticPod {
    /// Name of the pod, of its container and of the program.
    pub name: String,
    /// Image.
    pub image: ImageRef,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment in order.
    pub environment: Vec<Variable>,
    /// What of the host it sees.
    pub mounts: Vec<Mount>,
    /// User and group; capabilities are dropped for root too.
    pub user: u32,
    /// See `user`.
    pub group: u32,
    /// The only capabilities it keeps.
    pub capabilities: Vec<String>,
    /// Whether the container may write to its own file system.
    pub read_only_root: bool,
    /// CPU request.
    pub cpu: String,
    /// Memory request.
    pub memory: String,
    /// How long it may take to end.
    pub grace_seconds: u32,
    /// Startup, liveness and readiness in this order.
    pub probes: Vec<Probe>,
}

/// An environment variable.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Variable {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A path of the host inside the container.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount {
    /// Volume name.
    pub name: String,
    /// On the host.
    pub host: String,
    /// In the container.
    pub container: String,
    /// Whether it may only be read.
    pub read_only: bool,
    /// `Directory`, `DirectoryOrCreate`, `File`, `FileOrCreate`; empty: whatever is there.
    pub kind: &'static str,
}

impl Mount {
    /// A folder at the same path, read-only. Folders are mounted, not files, so that a renamed file is seen.
    pub(super) fn folder(name: &str, path: &str) -> Self {
        Self {
            name: name.to_owned(),
            host: path.to_owned(),
            container: path.to_owned(),
            read_only: true,
            kind: "Directory",
        }
    }
    /// A file at the same path, read-only: only for files whose change restarts the pod anyway.
    pub(super) fn file(name: &str, path: &str) -> Self {
        Self { kind: "File", ..Self::folder(name, path) }
    }
    /// The same, writable.
    pub(super) fn writable(self) -> Self {
        Self { read_only: false, ..self }
    }
    /// The file's own `extra_binds`.
    pub(super) fn extra(binds: Vec<Bind>) -> impl Iterator<Item = Self> {
        binds.into_iter().enumerate().map(|(at, bind)| Self {
            name: format!("extra-{at}"),
            host: bind.host,
            container: bind.container,
            read_only: bind.read_only,
            kind: "",
        })
    }
}

/// How the kubelet asks whether the container is well.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Probe {
    /// `startupProbe`, `livenessProbe` or `readinessProbe`.
    pub field: &'static str,
    /// A GET, or none to see only whether the port is open.
    pub get: Option<Get>,
    /// Address on the host's network.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Seconds between two.
    pub period: u32,
    /// Seconds for one.
    pub timeout: u32,
    /// How many must fail.
    pub failures: u32,
}

/// The GET of a probe.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Get {
    /// Path and query.
    pub path: String,
    /// `HTTP` or `HTTPS`.
    pub scheme: &'static str,
}

impl StaticPod {
    /// Nobody gives up a container that starts sooner than bastide gives up its health: a slow machine is not a failed one.
    pub(super) fn start_within(&mut self, patience: Duration) {
        for probe in self.probes.iter_mut().filter(|probe| probe.field == "startupProbe") {
            let failures = patience.as_secs().div_ceil(u64::from(probe.period.max(1)));
            probe.failures = probe.failures.max(u32::try_from(failures).unwrap_or(u32::MAX));
        }
    }
}

/// Startup every 2 s for 5 min, liveness and readiness with kubeadm's thresholds but at half its period.
pub(super) fn probes(
    host: &str,
    port: u16,
    scheme: &'static str,
    live: Option<&str>,
    ready: Option<&str>,
) -> Vec<Probe> {
    let probe = |field, path: Option<&str>, period, timeout, failures| Probe {
        field,
        get: path.map(|path| Get { path: path.to_owned(), scheme }),
        host: host.to_owned(),
        port,
        period,
        timeout,
        failures,
    };
    vec![
        probe("startupProbe", live, 2, 5, 150),
        probe("livenessProbe", live, 10, 15, 8),
        probe("readinessProbe", ready, 5, 15, 3),
    ]
}

/// What a static pod's annotation carries: over its manifest with that annotation left empty, and over the contents whose
/// change restarts it, sorted by path.
pub fn pod_inputs<'a>(bare: &str, restart_inputs: impl Iterator<Item = (&'a str, Digest)>) -> Digest {
    let mut all = format!("{}\n", Digest::of(bare.as_bytes()));
    for (path, digest) in restart_inputs {
        all.push_str(path);
        all.push(' ');
        all.push_str(&digest.to_string());
        all.push('\n');
    }
    Digest::of(all.as_bytes())
}

/// A rendered manifest with the digest over everything whose change restarts it.
pub(super) struct Manifest {
    /// The file.
    pub text: String,
    /// What its annotation carries.
    pub inputs: Digest,
}

/// Renders `pod`; `restart_inputs` are the contents, by path, whose change needs a restart.
pub(super) fn manifest(
    templates: &Templates,
    pod: &StaticPod,
    restart_inputs: &BTreeMap<String, Digest>,
) -> Result<Manifest, RenderError> {
    let data = |inputs: &str| -> Result<Value, RenderError> {
        let mut data = serde_json::to_value(pod)
            .map_err(|error| RenderError::Template { template: TEMPLATE.to_owned(), why: error.to_string() })?;
        data["annotation"] = Component::INPUTS_ANNOTATION.into();
        data["inputs"] = inputs.into();
        Ok(data)
    };
    // The manifest without its annotation stands for all flags, mounts and probes.
    let bare = templates.render(TEMPLATE, &data("")?)?;
    let inputs = pod_inputs(&bare, restart_inputs.iter().map(|(path, digest)| (path.as_str(), *digest)));
    let text = templates.render(TEMPLATE, &data(&inputs.to_string())?)?;
    let read: Pod = serde_saphyr::from_str(&text).map_err(|error| read_back(&error.to_string()))?;
    let meant = meant(pod, inputs).map_err(|error| read_back(&error.to_string()))?;
    if read != meant {
        return Err(read_back("a field differs"));
    }
    Ok(Manifest { text, inputs })
}

fn read_back(why: &str) -> RenderError {
    RenderError::ReadBack { template: TEMPLATE.to_owned(), why: why.to_owned() }
}

/// The pod as a typed object, made without the template.
fn meant(pod: &StaticPod, inputs: Digest) -> Result<Pod, serde_json::Error> {
    let mut container = json!({
        "name": pod.name,
        "image": pod.image,
        "imagePullPolicy": "IfNotPresent",
        "command": pod.command,
        "resources": {"requests": {"cpu": pod.cpu, "memory": pod.memory}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "readOnlyRootFilesystem": pod.read_only_root,
            "runAsUser": pod.user,
            "runAsGroup": pod.group,
            "runAsNonRoot": pod.user != 0,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": pod.mounts.iter()
            .map(|m| json!({"name": m.name, "mountPath": m.container, "readOnly": m.read_only}))
            .collect::<Vec<_>>(),
    });
    if !pod.environment.is_empty() {
        container["env"] = serde_json::to_value(&pod.environment)?;
    }
    if !pod.capabilities.is_empty() {
        container["securityContext"]["capabilities"]["add"] = json!(pod.capabilities);
    }
    for probe in &pod.probes {
        let mut value = json!({
            "periodSeconds": probe.period, "timeoutSeconds": probe.timeout, "failureThreshold": probe.failures,
        });
        match &probe.get {
            Some(get) => {
                value["httpGet"] =
                    json!({"host": probe.host, "port": probe.port, "path": get.path, "scheme": get.scheme});
            }
            None => value["tcpSocket"] = json!({"host": probe.host, "port": probe.port}),
        }
        container[probe.field] = value;
    }
    let volumes: Vec<Value> =
        pod.mounts.iter().map(|m| json!({"name": m.name, "hostPath": {"path": m.host, "type": m.kind}})).collect();
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": "kube-system",
            "labels": {"component": pod.name, "tier": "node", "app.kubernetes.io/managed-by": "bastide"},
            "annotations": {Component::INPUTS_ANNOTATION: inputs.to_string()},
        },
        "spec": {
            "hostNetwork": true,
            "priorityClassName": "system-node-critical",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": pod.grace_seconds,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": volumes,
        },
    }))
}
