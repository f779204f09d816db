//! The plugin of a key service (KMS v2): a static pod beside every API server, which speaks to it through a socket.

use serde_json::json;

use crate::config::KmsPlugin;
use crate::model::Component;
use crate::model::Content;
use crate::render::api_files;
use crate::render::args;
use crate::render::draft::Draft;
use crate::render::pod::Mount;
use crate::render::pod::StaticPod;
use crate::render::pod::Variable;

/// Where plugins listen. It is gone after a boot, and with it the sockets of plugins that did not end by themselves.
pub const FOLDER: &str = "/run/kmsplugin";
/// The pod's name.
pub const POD: &str = "kms-plugin";

/// The folder with the sockets, made by whichever pod comes first; only root may open what lies there.
pub(super) fn sockets(draft: &Draft<'_, '_>) -> Option<Mount> {
    draft.shop.cluster.options.at_rest.kms.as_ref()?;
    Some(Mount { kind: "DirectoryOrCreate", ..Mount::folder("kms", FOLDER) })
}

/// Places the plugin's manifest.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    const SECTION: &str = "encryption.kms";
    let cluster = draft.shop.cluster;
    let Some(plugin) = &cluster.options.at_rest.kms else { return };
    let environment = args::environment(SECTION, &plugin.common, &mut draft.shop.judge);
    let binds = args::binds(SECTION, &plugin.common, &mut draft.shop.judge);
    let sockets = sockets(draft).map(Mount::writable);
    let Some(image) = draft.image(&plugin.image) else { return };
    let pod = StaticPod {
        name: POD.to_owned(),
        image,
        command: plugin.command.clone(),
        environment: environment.into_iter().map(|(name, value)| Variable { name, value }).collect(),
        mounts: sockets.into_iter().chain(Mount::extra(binds)).collect(),
        user: 0,
        group: 0,
        capabilities: Vec::new(),
        read_only_root: true,
        cpu: "25m".to_owned(),
        memory: "32Mi".to_owned(),
        grace_seconds: 10,
        // The API server asks the plugin itself once a minute, and is not ready while it does not answer.
        probes: Vec::new(),
    };
    draft.pod(Component::ApiServer, pod, &std::collections::BTreeMap::new());
}

/// The `EncryptionConfiguration` that leaves Secrets to the plugin.
pub(super) fn configuration(plugin: &KmsPlugin) -> Content {
    let kms = json!({
        "apiVersion": "v2", "name": plugin.name, "endpoint": plugin.endpoint(), "timeout": plugin.timeout_words(),
    });
    let document = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"kms": kms}]}],
    });
    api_files::encryption_document(&document)
}
