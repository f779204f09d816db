//! A host's watch over its own certificates: bastide itself, started now and then by a timer, says in the journal and on the Node
//! when one ends soon. `up` and `rotate-certs` renew them long before; this is for when nobody runs either.

use serde_json::json;

use crate::model::Access;
use crate::model::CertificateWatch;
use crate::model::Component;
use crate::model::Content;
use crate::model::Effect;
use crate::model::Keep;
use crate::model::RemotePath;
use crate::render::draft::Draft;
use crate::render::draft::literal;

pub(super) const SETTINGS: &str = "/etc/bastide/certificates.json";

/// Places program, settings and timer. Last of all, when every file of the host is known.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    let warn_days = draft.shop.cluster.options.warn_days;
    if warn_days == 0 {
        return;
    }
    let program = draft.own_program(
        "bastide.pki.warn_days",
        "hosts look after their certificates with bastide",
        "bastide:\n  pki:\n    warn_days: 0",
    );
    let Some(program) = program else { return };
    let root = Access::root(0o600);
    let holds = |(path, file): (&RemotePath, &crate::model::File)| {
        let text = draft.shop.blobs.get(&file.digest).and_then(Content::expose_text)?;
        let certificate = text.contains("-----BEGIN CERTIFICATE-----") || text.contains("client-certificate-data: ");
        certificate.then(|| (path.clone(), matches!(file.keep, Keep::Seeded { .. })))
    };
    let found: Vec<(RemotePath, bool)> = draft.host.files.iter().filter_map(holds).collect();
    let settings = CertificateWatch {
        schema: CertificateWatch::SCHEMA,
        node: draft.node.name.clone(),
        warn_days,
        files: found.iter().map(|(path, _)| path.clone()).collect(),
        renewed: found.iter().filter(|(_, renewed)| *renewed).map(|(path, _)| path.clone()).collect(),
        authority: literal("/etc/kubernetes/pki/ca.crt"),
        client: literal("/var/lib/kubelet/pki/kubelet-client-current.pem"),
    };
    draft.file(Component::Recurring, SETTINGS, root, written(&settings));
    draft.rendered(
        Component::Recurring,
        "/etc/systemd/system/bastide-certificates.service",
        root,
        "certificates.service",
        &json!({"program": format!("{program}/bastide"), "settings": SETTINGS}),
    );
    let timer = draft.rendered(
        Component::Recurring,
        "/etc/systemd/system/bastide-certificates.timer",
        root,
        "certificates.timer",
        &json!({}),
    );
    draft.unit(Component::Recurring, "bastide-certificates.timer", Effect::Restart, &[timer]);
}

/// The settings' file.
pub(super) fn written(settings: &CertificateWatch) -> String {
    // Plain names and numbers have no way to fail.
    let text = serde_json::to_string_pretty(settings).unwrap_or_default();
    format!("{text}\n")
}
