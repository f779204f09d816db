//! containerd, runc and the CNI plugins.

use serde_json::Value;
use serde_json::json;

use crate::config::NetworkPlugin;
use crate::model::Access;
use crate::model::Component;
use crate::model::Effect;
use crate::model::RemotePath;
use crate::render::RenderError;
use crate::render::draft::Draft;
use crate::render::local_images;
use crate::render::merge;
use crate::render::objects::flannel_conflist;
use crate::render::toml;

/// Places programs, configuration and unit. Returns the folder of crictl.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    let folder = draft.package(Component::Containerd, "containerd", &["containerd", "containerd-shim-runc-v2"]);
    let runc = if draft.shop.release.packages.contains_key("runc") {
        let folder = draft.package(Component::Containerd, "runc", &["runc"]);
        format!("{folder}/runc")
    } else {
        // A release without a runc of its own leaves it to the distribution's, found on PATH.
        "runc".to_owned()
    };
    cni(draft);
    let pause = draft.image("pause").map(|image| image.to_string()).unwrap_or_default();

    let mut config = json!({
        "version": 3,
        "plugins": {
            "io.containerd.cri.v1.images": {
                "pinned_images": {"sandbox": pause},
                "registry": {"config_path": "/etc/containerd/certs.d"},
            },
            "io.containerd.cri.v1.runtime": {
                "cni": {"bin_dirs": ["/opt/cni/bin"], "conf_dir": "/etc/cni/net.d"},
                "containerd": {
                    "default_runtime_name": "runc",
                    "runtimes": {
                        "runc": {
                            "runtime_type": "io.containerd.runc.v2",
                            "options": {"BinaryName": runc, "SystemdCgroup": true},
                        },
                    },
                },
            },
        },
    });
    if local_images::wanted(draft.shop.cluster) {
        // A pull would take the pin away that the import gave, and the kubelet may then remove the image.
        for (name, image) in &draft.shop.release.images {
            config["plugins"]["io.containerd.cri.v1.images"]["pinned_images"][name] = json!(image.reference);
        }
    }
    let extra = &draft.shop.cluster.options.containerd_config;
    merge::overlay(&mut config, extra);
    let text = match &config {
        Value::Object(table) => toml::document(table),
        _ => String::new(),
    };
    draft.directory("/etc/containerd", Access::root(0o755));
    draft.directory("/etc/containerd/certs.d", Access::root(0o755));
    let config = draft.rendered(
        Component::Containerd,
        "/etc/containerd/config.toml",
        Access::root(0o600),
        "config.toml",
        &json!({"document": text}),
    );
    draft.directory("/etc/systemd/system", Access::root(0o755));
    let unit = draft.rendered(
        Component::Containerd,
        "/etc/systemd/system/containerd.service",
        Access::root(0o600),
        "containerd.service",
        &json!({"folder": folder}),
    );
    draft.rendered(Component::Containerd, "/etc/crictl.yaml", Access::root(0o644), "crictl.yaml", &json!({}));
    draft.unit(Component::Containerd, "containerd.service", Effect::Restart, &[config, unit]);
}

/// The plugins, and folders that only root may look into (CIS 1.1.9, 1.1.10).
fn cni(draft: &mut Draft<'_, '_>) {
    for folder in ["/opt/cni", "/opt/cni/bin"] {
        draft.directory(folder, Access::root(0o755));
    }
    for folder in ["/etc/cni", "/etc/cni/net.d", "/var/lib/cni", "/var/lib/cni/networks"] {
        draft.directory(folder, Access::root(0o700));
    }
    let plugins: Vec<_> = match draft.shop.release.packages.get("cni") {
        Some(package) => package.files.iter().map(|(name, file)| (name.clone(), file.clone())).collect(),
        None => Vec::new(),
    };
    if plugins.is_empty() {
        draft.wrong(RenderError::MissingProgram { package: "cni".to_owned(), program: "host-local".to_owned() });
    }
    for (name, file) in plugins {
        if RemotePath::new(format!("/{name}")).is_ok() {
            draft.program(Component::Containerd, &format!("/opt/cni/bin/{name}"), &file);
        }
    }
    if draft.shop.cluster.network.plugin != NetworkPlugin::None {
        // host-local would create its lock with mode 0750, which CIS 1.1.9 refuses; an existing file keeps its mode.
        let network = "/var/lib/cni/networks/cbr0";
        draft.directory(network, Access::root(0o700));
        draft.file(Component::Containerd, &format!("{network}/lock"), Access::root(0o600), Vec::new());
        let list = flannel_conflist(draft.shop.cluster);
        draft.file(Component::Containerd, "/etc/cni/net.d/10-flannel.conflist", Access::root(0o600), list);
    }
}
