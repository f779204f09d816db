//! The kernel: modules and settings, now and after every boot.

use serde_json::json;

use crate::model::Access;
use crate::model::Component;
use crate::model::Effect;
use crate::render::draft::Draft;
use crate::render::hardening::MODULES;
use crate::render::hardening::SYSCTLS;

/// Places the files of systemd-modules-load and systemd-sysctl; both are run again when theirs changed.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    let access = Access::root(0o644);
    for folder in ["/etc/modules-load.d", "/etc/sysctl.d"] {
        draft.directory(folder, Access::root(0o755));
    }
    let modules = draft.rendered(
        Component::System,
        "/etc/modules-load.d/90-bastide.conf",
        access,
        "modules.conf",
        &json!({"modules": MODULES}),
    );
    let settings: Vec<_> =
        SYSCTLS.iter().map(|s| json!({"name": s.name, "value": s.value, "needed": s.needed})).collect();
    let sysctls = draft.rendered(
        Component::System,
        "/etc/sysctl.d/90-bastide.conf",
        access,
        "sysctl.conf",
        &json!({"settings": settings}),
    );
    draft.unit(Component::System, "systemd-modules-load.service", Effect::Rerun, &[modules]);
    // The bridge's settings exist only once br_netfilter is loaded.
    draft.unit(Component::System, "systemd-sysctl.service", Effect::Rerun, &[modules, sysctls]);
}
