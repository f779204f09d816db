//! An orderly end of control-plane hosts.
//!
//! systemd ends all containers at once: each is a scope of its own. Without its store the API server does not end and is
//! killed after 90 s. Here the kubelet ends first, so that nothing is started again, then the API server, then etcd,
//! then all scopes together.

use serde_json::json;

use crate::model::Access;
use crate::model::Component;
use crate::model::Effect;
use crate::render::balancer;
use crate::render::draft::Draft;

const SCRIPT: &str = "/opt/bastide/ordered-shutdown";

/// Places the unit that stands between the kubelet and the containers.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    let crictl = draft.package(Component::System, "crictl", &["crictl"]);
    draft.directory("/etc/systemd/system/cri-containerd-.scope.d", Access::root(0o755));
    draft.rendered(
        Component::System,
        "/etc/systemd/system/cri-containerd-.scope.d/50-bastide.conf",
        Access::root(0o644),
        "scope.conf",
        &json!({}),
    );
    if !draft.node.roles.control_plane() && !draft.node.roles.etcd() {
        return;
    }
    let delay = balancer::shutdown_delay(draft.shop.cluster);
    let script = draft.rendered(
        Component::System,
        SCRIPT,
        Access::root(0o700),
        "shutdown.sh",
        &json!({"crictl": format!("{crictl}/crictl"), "apiSeconds": delay + 5}),
    );
    let unit = draft.rendered(
        Component::System,
        "/etc/systemd/system/bastide-shutdown.service",
        Access::root(0o600),
        "shutdown.service",
        &json!({"script": SCRIPT}),
    );
    draft.unit(Component::System, "bastide-shutdown.service", Effect::Restart, &[script, unit]);
}
