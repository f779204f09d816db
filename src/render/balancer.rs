//! The node-local balancer: every host without an API server reaches all of them on its own 127.0.0.1:6443.
//!
//! Everything on the host, the kubelet among it, asks through it: other certificates are taken up by the running program, whose
//! sockets stay open. A container that is started anew leaves the host without any API server for ten seconds and more.

use std::collections::BTreeMap;

use serde_json::json;

use crate::config::Cluster;
use crate::config::Profile;
use crate::model::Access;
use crate::model::Component;
use crate::model::Content;
use crate::model::Digest;
use crate::model::Effect;
use crate::render::draft::Draft;
use crate::render::pod;
use crate::render::pod::Mount;
use crate::render::pod::StaticPod;
use crate::render::url_host;
use crate::secrets::AuthorityName;
use crate::secrets::LeafId;
use crate::secrets::LeafName;

const FOLDER: &str = "/etc/kubernetes/balancer";
const RELOAD: &str = "/opt/bastide/reload-balancer";
/// Failed checks until a server is left. Leaving one ends its sessions, so that one slow answer must not be enough.
const FALL: u32 = 3;

/// Seconds between two checks of one server by one host, and the longest a handshake may take. Every check is a TLS
/// handshake: with one more second for each 50 hosts a server sees at most about 50 a second up to 500 hosts.
fn interval(cluster: &Cluster) -> u32 {
    let hosts = u32::try_from(cluster.nodes.len()).unwrap_or(u32::MAX);
    (2 + hosts / 50).min(12)
}

/// Seconds that an ending API server goes on serving while /readyz already fails: longer than a balancer of the same pace needs to
/// leave it, which is one interval and then a second for each further failure. Our own leave it later: it then tells its clients
/// itself to go elsewhere (GOAWAY) and lets what is in flight end, where leaving it would cut that off.
pub(super) fn shutdown_delay(cluster: &Cluster) -> u32 {
    if cluster.nodes.iter().all(|node| node.roles.control_plane()) {
        // No balancer anywhere; clients outside may still have to go elsewhere.
        return 1;
    }
    interval(cluster) + FALL
}

/// Places configuration and manifest.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    let cluster = draft.shop.cluster;
    draft.directory(FOLDER, Access::root(0o700));
    let trust = draft.trust(AuthorityName::Kubernetes);
    draft.file(Component::Balancer, &format!("{FOLDER}/ca.crt"), Access::root(0o600), trust);
    let certificate = certificate(draft);
    let servers: Vec<_> = cluster
        .control_planes()
        .enumerate()
        .map(|(at, node)| json!({"name": format!("api{at}"), "address": url_host(node.internal_address)}))
        .collect();
    let data = json!({
        "folder": FOLDER,
        "servers": servers,
        "interval": interval(cluster),
        "fall": FALL,
        "certificate": certificate,
    });
    draft.rendered(Component::Balancer, &format!("{FOLDER}/haproxy.cfg"), Access::root(0o600), "haproxy.cfg", &data);
    let Some(image) = draft.image("haproxy") else { return };
    let pod = StaticPod {
        name: "haproxy".to_owned(),
        image,
        command: ["haproxy", "-W", "-db", "-f", "/etc/kubernetes/balancer/haproxy.cfg"].map(str::to_owned).to_vec(),
        environment: Vec::new(),
        mounts: vec![Mount::folder("config", FOLDER)],
        user: 0,
        group: 0,
        capabilities: Vec::new(),
        read_only_root: true,
        cpu: "25m".to_owned(),
        memory: "32Mi".to_owned(),
        grace_seconds: 5,
        probes: pod::probes("127.0.0.1", 6444, "HTTP", Some("/healthz"), Some("/healthz")),
    };
    draft.pod(Component::Balancer, pod, &BTreeMap::new());
    reloads(draft);
}

/// Places the unit that makes the running program read its files.
fn reloads(draft: &mut Draft<'_, '_>) {
    let crictl = draft.package(Component::System, "crictl", &["crictl"]);
    let script = draft.rendered(
        Component::Balancer,
        RELOAD,
        Access::root(0o700),
        "reload-balancer.sh",
        &json!({"crictl": format!("{crictl}/crictl")}),
    );
    let unit = draft.rendered(
        Component::Balancer,
        "/etc/systemd/system/bastide-balancer.service",
        Access::root(0o600),
        "balancer.service",
        &json!({"script": RELOAD}),
    );
    let files = draft.digests(&[
        "/etc/kubernetes/balancer/ca.crt",
        "/etc/kubernetes/balancer/haproxy.cfg",
        "/etc/kubernetes/balancer/health-check.pem",
    ]);
    let inputs: Vec<Digest> = [script, unit].into_iter().chain(files.into_values()).collect();
    draft.unit(Component::Balancer, "bastide-balancer.service", Effect::Restart, &inputs);
}

/// The certificate of the health checks, where there is one: without anonymous access they need it.
fn certificate(draft: &mut Draft<'_, '_>) -> Option<String> {
    let cluster = draft.shop.cluster;
    let off = cluster.options.profile == Profile::Strict
        || cluster.services.api.common.extra_args.get("anonymous-auth").is_some_and(|value| value == "false");
    let id = LeafId { name: LeafName::HealthCheck, host: Some(draft.node.name.clone()) };
    if !off && !draft.shop.secrets.leaves.contains_key(&id) {
        return None;
    }
    let leaf = draft.leaf(LeafName::HealthCheck)?;
    let mut pem = leaf.certificate.trim_end().as_bytes().to_vec();
    pem.push(b'\n');
    pem.extend_from_slice(leaf.key.expose());
    let path = format!("{FOLDER}/health-check.pem");
    draft.secret(Component::Balancer, &path, Access::root(0o600), Content::new(pem));
    Some(path)
}
