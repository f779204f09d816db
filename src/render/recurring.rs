//! Recurring snapshots of etcd: bastide itself on the etcd hosts, started now and then by a timer. Nothing of it stays running.

use std::time::Duration;

use serde_json::json;

use crate::model::Access;
use crate::model::Component;
use crate::model::Effect;
use crate::render::RenderError;
use crate::render::draft::Draft;
use crate::secrets::AuthorityName;
use crate::secrets::HostSnapshots;
use crate::secrets::LeafName;

/// Everything that only this program reads: root's alone.
const FOLDER: &str = "/etc/bastide";
/// The settings, with the signing key and those of the bucket.
const SETTINGS: &str = "/etc/bastide/snapshots.json";
/// How long the program may take to end beyond a snapshot's own time.
const GRACE: Duration = Duration::from_mins(2);

/// Places program, settings, keys and timer on a host with an etcd member.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    let cluster = draft.shop.cluster;
    let backup = &cluster.services.etcd.backup;
    if !backup.enabled {
        return;
    }
    let Some(signers) = draft.shop.signers else {
        draft.wrong(RenderError::MissingSecret("keys with which hosts sign their snapshots".to_owned()));
        return;
    };
    let Some((_, signing_key)) = signers.hosts.get(&draft.node.name) else {
        draft.wrong(RenderError::MissingSecret(format!("key with which {} signs its snapshots", draft.node.name)));
        return;
    };
    let program = draft.own_program(
        "services.etcd.backup_config",
        "recurring snapshots are taken by bastide on the etcd hosts",
        "services:\n  etcd:\n    backup_config:\n      enabled: false",
    );
    let Some(program) = program else { return };
    let root = Access::root(0o600);
    let trust = draft.trust(AuthorityName::Etcd);
    draft.file(Component::Recurring, &format!("{FOLDER}/etcd-ca.crt"), root, trust);
    draft.pair(Component::Recurring, &format!("{FOLDER}/etcd-client"), LeafName::EtcdSnapshot, (0, 0));

    let tick = tick(backup.interval);
    let bucket = backup.bucket.as_ref().map(|bucket| (bucket.address.clone(), bucket.keys.clone()));
    let settings = HostSnapshots {
        cluster: draft.shop.secrets.cluster.clone(),
        cluster_name: cluster.name.clone(),
        kubernetes: cluster.kubernetes,
        host: draft.node.name.clone(),
        alone: cluster.etcd_members().count() == 1,
        interval: backup.interval,
        tick,
        retention: backup.retention,
        timeout: backup.timeout,
        identity: signers.identity.clone(),
        signers: signers.hosts.values().map(|(public, _)| public.clone()).collect(),
        signing_key: signing_key.clone(),
        bucket,
    };
    draft.secret(Component::Recurring, SETTINGS, root, settings.text());
    draft.rendered(
        Component::Recurring,
        "/etc/systemd/system/bastide-snapshots.service",
        root,
        "snapshots.service",
        &json!({
            "program": format!("{program}/bastide"), "settings": SETTINGS, "seconds": (backup.timeout + GRACE).as_secs(),
        }),
    );
    let timer = draft.rendered(
        Component::Recurring,
        "/etc/systemd/system/bastide-snapshots.timer",
        root,
        "snapshots.timer",
        &json!({"tick": tick.as_secs(), "spread": tick.as_secs() / 10}),
    );
    // The service is read at each of its starts; only the timer has to be told.
    draft.unit(Component::Recurring, "bastide-snapshots.timer", Effect::Restart, &[timer]);
}

/// A twelfth of the interval, 5 minutes to an hour: that is how late a snapshot may be, and how soon a host steps in for another.
fn tick(interval: Duration) -> Duration {
    // RKE's shortest interval is an hour.
    (interval / 12).clamp(Duration::from_mins(5), Duration::from_hours(1))
}
