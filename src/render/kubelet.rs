//! The kubelet: a systemd unit on every host.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::config::Cluster;
use crate::model::Access;
use crate::model::Component;
use crate::model::Effect;
use crate::model::Taint;
use crate::render::args;
use crate::render::args::Flags;
use crate::render::draft::Draft;
use crate::render::hardening::CIPHERS;
use crate::render::kubeconfig;
use crate::render::kubelet_rules;
use crate::render::merge;
use crate::render::node;
use crate::render::read_back;
use crate::secrets::AuthorityName;
use crate::secrets::LeafName;

const SECTION: &str = "kubelet";
const CONFIG: &str = "/var/lib/kubelet/config.yaml";
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// Whom it believes, as a client of API servers and as a server.
const AUTHORITY: &str = "/etc/kubernetes/pki/ca.crt";
/// The kubelet's own name for its newest pair: a link that it moves at each renewal.
pub(super) const PAIR: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
pub(super) const PREPARE: &str = "/opt/bastide/kubelet-prepare";
pub(super) const UNIT: &str = "kubelet.service";
/// How long a pair lasts that a kubelet got by itself, unless other certificates last less.
const RENEWED_FOR: Duration = Duration::from_hours(720);

/// As the controller manager's flag takes it.
pub(super) fn renewed_for(cluster: &Cluster) -> String {
    if cluster.options.leaf_lifetime < RENEWED_FOR {
        format!("{}s", cluster.options.leaf_lifetime.as_secs())
    } else {
        format!("{}h", RENEWED_FOR.as_secs() / 3600)
    }
}

/// Places program, configuration, identity and unit. `os_name` is the host's own name, where it was seen.
pub(super) fn render(draft: &mut Draft<'_, '_>, os_name: Option<&str>) {
    let folder = draft.package(Component::Kubelet, "kubelet", &["kubelet"]);
    draft.directory("/var/lib/kubelet", Access::root(0o750));
    draft.directory("/var/lib/kubelet/pki", Access::root(0o700));
    draft.directory("/etc/kubernetes/manifests", Access::root(0o700));
    identity(draft);
    let (config, config_extra) = configuration(draft);
    merge_and_place(draft, config, &config_extra);
    let flags = flags(draft, os_name);
    let common = &draft.shop.cluster.services.kubelet.common;
    let environment: Vec<String> = args::environment(SECTION, common, &mut draft.shop.judge)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let prepare =
        draft.rendered(Component::Kubelet, PREPARE, Access::root(0o700), "kubelet-prepare.sh", &json!({"pair": PAIR}));
    let unit = draft.rendered(
        Component::Kubelet,
        "/etc/systemd/system/kubelet.service",
        // CIS 4.1.1.
        Access::root(0o600),
        "kubelet.service",
        &json!({
            "prepare": PREPARE,
            "environment": environment,
            "command": flags.command(&format!("{folder}/kubelet")),
        }),
    );
    // The serving pair and whom it believes as a server are watched by the kubelet itself. The same file says whom it believes as a
    // client, and that is read once.
    let mut inputs: Vec<_> = draft.digests(&[CONFIG, KUBECONFIG, AUTHORITY]).into_values().collect();
    if is_external(draft) {
        // One that nobody renews is read at the start alone.
        inputs.extend(draft.digests(&[PAIR]).into_values());
    }
    inputs.extend([prepare, unit]);
    draft.unit(Component::Kubelet, UNIT, Effect::Restart, &inputs);
}

/// Who the kubelet is, to the API server and to those who call it.
fn identity(draft: &mut Draft<'_, '_>) {
    let user = format!("system:node:{}", draft.node.name);
    kubeconfig::of_kubelet(draft, KUBECONFIG, &user, AUTHORITY, PAIR);
    draft.server_pair(Component::Kubelet, "/etc/kubernetes/pki/kubelet-server", LeafName::KubeletServer);
    // Where another authority issues, a pair from the one before is replaced although that one is still accepted: no pair may be
    // left when it is not.
    let issuing = draft.shop.secrets.authorities.get(&AuthorityName::Kubernetes);
    let authorities = issuing.map(|set| set.certificate.clone()).into_iter().collect();
    if let Some(leaf) = draft.leaf(LeafName::KubeletClient) {
        let pair = kubeconfig::joined(leaf);
        if is_external(draft) {
            draft.secret(Component::Kubelet, PAIR, Access::root(0o600), pair);
        } else {
            draft.seeded(Component::Kubelet, PAIR, pair, authorities);
        }
    }
}

/// Whether nobody in the cluster signs kubelets' renewals.
fn is_external(draft: &Draft<'_, '_>) -> bool {
    draft.shop.secrets.external().contains(&AuthorityName::Kubernetes)
}

/// bastide's own KubeletConfiguration and what the file lays over it. CIS section 4.2.
fn configuration(draft: &Draft<'_, '_>) -> (Value, Value) {
    let cluster = draft.shop.cluster;
    let taints: Vec<Value> = node::taints(draft.node)
        .into_iter()
        .map(|Taint { key, value, effect }| json!({"key": key, "value": value, "effect": effect}))
        .collect();
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "allowedUnsafeSysctls": [],
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"cacheTTL": "2m0s", "enabled": true},
            "x509": {"clientCAFile": AUTHORITY},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "systemd",
        "clusterDNS": [cluster.dns.server],
        "clusterDomain": cluster.dns.domain,
        "containerLogMaxFiles": 5,
        "containerLogMaxSize": "10Mi",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "enableDebugFlagsHandler": false,
        "enableDebuggingHandlers": true,
        "enableProfilingHandler": false,
        "enableSystemLogHandler": false,
        "enforceNodeAllocatable": ["pods"],
        "eventRecordQPS": 50,
        "evictionHard": {
            "imagefs.available": "15%",
            "memory.available": "100Mi",
            "nodefs.available": "10%",
            "nodefs.inodesFree": "5%",
        },
        "failSwapOn": cluster.services.kubelet.fail_swap_on,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "kubeReserved": {"cpu": "100m", "ephemeral-storage": "1Gi", "memory": "256Mi"},
        "makeIPTablesUtilChains": true,
        "maxPods": 110,
        "podPidsLimit": 4096,
        "protectKernelDefaults": true,
        "readOnlyPort": 0,
        // A link that the unit sets to the list of real name servers: systemd-resolved's stub would make CoreDNS ask
        // itself.
        "resolvConf": "/run/kubelet/resolv.conf",
        "rotateCertificates": true,
        "seccompDefault": true,
        "serverTLSBootstrap": false,
        "staticPodPath": "/etc/kubernetes/manifests",
        "streamingConnectionIdleTimeout": "5m0s",
        "systemReserved": {"cpu": "100m", "ephemeral-storage": "1Gi", "memory": "256Mi"},
        "tlsCertFile": "/etc/kubernetes/pki/kubelet-server.crt",
        "tlsCipherSuites": CIPHERS,
        "tlsMinVersion": "VersionTLS12",
        "tlsPrivateKeyFile": "/etc/kubernetes/pki/kubelet-server.key",
        // Where RKE has it; /usr is read-only on some systems.
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
    });
    if !taints.is_empty() {
        // From the first moment on, so that no workload slips in.
        config["registerWithTaints"] = Value::from(taints);
    }
    (config, cluster.options.kubelet_config.clone())
}

fn merge_and_place(draft: &mut Draft<'_, '_>, mut config: Value, extra: &Value) {
    kubelet_rules::judge(extra, &mut draft.shop.judge);
    merge::overlay(&mut config, extra);
    let data = json!({"hint": "bastide.kubelet.extra_config", "document": config});
    match draft.shop.templates.render("config.yaml", &data) {
        Ok(text) => {
            if let Err(error) = read_back::value("config.yaml", &text, &config) {
                draft.wrong(error);
            }
            // CIS 4.1.9 and 4.1.10.
            draft.file(Component::Kubelet, CONFIG, Access::root(0o600), text);
        }
        Err(error) => draft.wrong(error),
    }
}

fn flags(draft: &mut Draft<'_, '_>, os_name: Option<&str>) -> Flags {
    let mut flags = Flags::default();
    flags.set("config", CONFIG).set("kubeconfig", KUBECONFIG).set("node-ip", draft.node.internal_address.to_string());
    // CIS 4.2.7: the flag stands only where the node has another name than the system says.
    if !os_name.is_some_and(|own| node::is_named_alike(&draft.node.name, own)) {
        flags.set("hostname-override", draft.node.name.as_str());
    }
    let common = &draft.shop.cluster.services.kubelet.common;
    flags.overlay(SECTION, common, kubelet_rules::FLAGS, &mut draft.shop.judge);
    flags
}
