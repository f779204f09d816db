//! AlwaysPullImages without a registry.
//!
//! The admission plugin makes every pod ask a registry before each start, so that nobody uses an image that somebody else
//! was allowed to pull. bastide's own images lie pinned on every host and often in no registry in reach: this small
//! responder on loopback confirms these, and only these, from what containerd holds. Any other image goes to its registry.

use serde_json::json;

use crate::config::Cluster;
use crate::config::Profile;
use crate::model::Access;
use crate::model::Component;
use crate::model::Effect;
use crate::render::draft::Draft;

const SCRIPT: &str = "/opt/bastide/local-images";
const LISTEN: &str = "127.0.0.1:6445";

/// Whether pods always ask a registry.
pub(super) fn wanted(cluster: &Cluster) -> bool {
    let plugins = cluster.services.api.common.extra_args.get("enable-admission-plugins");
    cluster.services.api.always_pull_images
        || cluster.options.profile == Profile::Strict
        || plugins.is_some_and(|plugins| plugins.split(',').any(|plugin| plugin.trim() == "AlwaysPullImages"))
}

/// Places the responder on hosts of a cluster whose pods always pull.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    if !wanted(draft.shop.cluster) {
        return;
    }
    let folder = draft.package(Component::Containerd, "containerd", &["ctr"]);
    let mut images: Vec<String> = draft.shop.release.images.values().map(|image| image.reference.to_string()).collect();
    images.sort();
    draft.directory("/etc/containerd/certs.d/_default", Access::root(0o755));
    draft.rendered(
        Component::Containerd,
        "/etc/containerd/certs.d/_default/hosts.toml",
        Access::root(0o644),
        "local-images.toml",
        &json!({"listen": LISTEN}),
    );
    let script = draft.rendered(
        Component::Containerd,
        SCRIPT,
        Access::root(0o700),
        "local-images.sh",
        &json!({"ctr": format!("{folder}/ctr"), "images": images}),
    );
    let socket = draft.rendered(
        Component::Containerd,
        "/etc/systemd/system/bastide-images.socket",
        Access::root(0o600),
        "local-images.socket",
        &json!({"listen": LISTEN}),
    );
    let service = draft.rendered(
        Component::Containerd,
        "/etc/systemd/system/bastide-images@.service",
        Access::root(0o600),
        "local-images@.service",
        &json!({"script": SCRIPT}),
    );
    draft.unit(Component::Containerd, "bastide-images.socket", Effect::Restart, &[script, socket, service]);
}
