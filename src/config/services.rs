//! `services`: settings of each component.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::config::api::api_service;
use crate::config::backup::backup;
use crate::config::cluster::Backup;
use crate::config::cluster::ComponentSettings;
use crate::config::cluster::EtcdService;
use crate::config::cluster::KubeletService;
use crate::config::cluster::NetworkPlugin;
use crate::config::cluster::Services;
use crate::config::field::Field;
use crate::config::field::Section;
use crate::config::flags;
use crate::config::flags::FlagTable;
use crate::config::network::Ranges;
use crate::config::network::ranges;

/// The user and group of etcd where the file names none: RKE's documented pair (design 11.10).
const ETCD_ID: u32 = 52_034;

/// The sections of `services` that other readers look into as well.
pub(super) struct ServiceSections<'a> {
    pub(super) api: Option<Section<'a>>,
    pub(super) controller: Option<Section<'a>>,
    pub(super) kubelet: Option<Section<'a>>,
}

/// Opens `services`.
pub(super) fn open<'a>(services: Option<&Section<'a>>) -> ServiceSections<'a> {
    let open = |key| services.and_then(|services| services.section(key));
    ServiceSections { api: open("kube-api"), controller: open("kube-controller"), kubelet: open("kubelet") }
}

/// Pod and service networks.
pub(super) fn networks<'a>(plugin: NetworkPlugin, sections: &ServiceSections<'a>) -> Ranges<'a> {
    ranges(plugin, sections.api.as_ref(), sections.controller.as_ref())
}

/// All components; every section is finished here.
pub(super) fn services(services: Option<Section>, sections: ServiceSections, table: Option<&FlagTable>) -> Services {
    let open = |key| services.as_ref().and_then(|services: &Section| services.section(key));
    let (etcd_section, scheduler_section, proxy_section) = (open("etcd"), open("scheduler"), open("kubeproxy"));
    let etcd = etcd_service(etcd_section.as_ref());
    let api = api_service(sections.api.as_ref());
    let controller_manager = common(sections.controller.as_ref());
    let scheduler = common(scheduler_section.as_ref());
    let kubelet = kubelet_service(sections.kubelet.as_ref());
    let proxy = common(proxy_section.as_ref());
    for (section, program, settings) in [
        (&etcd_section, "etcd", &etcd.common),
        (&sections.api, "kube-apiserver", &api.common),
        (&sections.controller, "kube-controller-manager", &controller_manager),
        (&scheduler_section, "kube-scheduler", &scheduler),
        (&sections.kubelet, "kubelet", &kubelet.common),
        (&proxy_section, "kube-proxy", &proxy),
    ] {
        flags::check(section.as_ref(), program, settings, table);
    }
    if let Some(services) = &services {
        for (old, new) in [("kube_api", "kube-api"), ("kube_controller", "kube-controller")] {
            if let Some(field) = services.get(old) {
                field.error_at_key("RKE does not know this key and ignores it", Some(format!("write `{new}:`")));
            }
        }
    }
    let all = [etcd_section, sections.api, sections.controller, scheduler_section, sections.kubelet, proxy_section];
    for section in all.into_iter().flatten() {
        section.finish();
    }
    if let Some(services) = services {
        services.finish();
    }
    Services { etcd, api, controller_manager, scheduler, kubelet, proxy }
}

/// What every component shares.
pub(super) fn common(section: Option<&Section>) -> ComponentSettings {
    let extra_binds = section.and_then(|section| section.get("extra_binds")).map(|field| binds(&field));
    ComponentSettings { extra_binds: extra_binds.unwrap_or_default(), ..unbound(section) }
}

/// `extra_binds` and `extra_env` alone, of what runs as a pod and has no flags of Kubernetes'.
pub(super) fn mounted(section: &Section) -> ComponentSettings {
    ComponentSettings {
        extra_binds: section.get("extra_binds").map(|field| binds(&field)).unwrap_or_default(),
        extra_env: section.get("extra_env").map(|field| environment(&field)).unwrap_or_default(),
        ..ComponentSettings::default()
    }
}

/// The same without `extra_binds`.
fn unbound(section: Option<&Section>) -> ComponentSettings {
    let Some(section) = section else { return ComponentSettings::default() };
    section.dead("image", "images come from the release (RKE overwrites it as well)");
    for key in ["win_extra_args", "win_extra_args_array", "win_extra_binds", "win_extra_env"] {
        section.unsupported(key, "remove it: there are no Windows nodes");
    }
    let extra_args = section.get("extra_args").map(|field| arguments(&field)).unwrap_or_default();
    let extra_args_array = section.get("extra_args_array").map(|field| argument_lists(&field)).unwrap_or_default();
    if let Some(field) = section.get("extra_args_array") {
        for (name, member) in field.members().into_iter().filter(|(name, _)| extra_args.contains_key(name)) {
            member.error_at_key(format!("{name} is under extra_args as well"), Some("keep one of them".to_owned()));
        }
    }
    ComponentSettings {
        extra_args,
        extra_args_array,
        extra_binds: Vec::new(),
        extra_env: section.get("extra_env").map(|field| environment(&field)).unwrap_or_default(),
    }
}

fn arguments(field: &Field) -> BTreeMap<String, String> {
    let members = field.members().into_iter().filter(|(name, member)| is_flag(name, member));
    members.filter_map(|(name, member)| Some((name, one_line(&member, flag_text(&member)?)?))).collect()
}

fn argument_lists(field: &Field) -> BTreeMap<String, Vec<String>> {
    let members = field.members().into_iter().filter(|(name, member)| is_flag(name, member));
    members
        .map(|(name, member)| {
            let items = member.items();
            (name, items.iter().filter_map(|item| one_line(item, flag_text(item)?)).collect())
        })
        .collect()
}

/// What the program is given. Go's flags know `true` and `false` alone, and RKE's reader makes these of YAML 1.1's `yes`.
fn flag_text(field: &Field) -> Option<String> {
    match field.node.json() {
        Json::Bool(value) => Some(value.to_string()),
        _ => field.text_or_empty(),
    }
}

/// A flag is written without its dashes, as in RKE.
fn is_flag(name: &str, field: &Field) -> bool {
    let bare = name.trim_start_matches('-');
    if bare != name {
        field.error_at_key("a flag is written without its dashes", Some(format!("write `{bare}:`")));
        return false;
    }
    let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !valid {
        field.error_at_key(format!("{name:?} is not the name of a flag"), None);
    }
    valid
}

fn one_line(field: &Field, text: String) -> Option<String> {
    if text.contains(char::is_control) {
        field.error("the value of a flag is one line");
        return None;
    }
    Some(text)
}

/// `host:container[:options]` with absolute paths. RKE drops SELinux' `z` and `Z`, and so does this.
fn binds(field: &Field) -> Vec<String> {
    let parse = |text: &str| {
        let wrong = || format!("{text:?} is not a bind of the form /host/path:/container/path[:ro]");
        let mut parts = text.split(':');
        let (host, container) = (parts.next().ok_or_else(wrong)?, parts.next().ok_or_else(wrong)?);
        let options: Vec<&str> =
            parts.next().unwrap_or_default().split(',').filter(|o| !o.eq_ignore_ascii_case("z")).collect();
        for path in [host, container].into_iter().filter(|path| *path != "/") {
            crate::model::RemotePath::new(path.strip_suffix('/').filter(|bare| !bare.is_empty()).unwrap_or(path))
                .map_err(|_| wrong())?;
        }
        let known = ["", "ro", "rw"];
        if parts.next().is_some() || options.iter().any(|option| !known.contains(option)) {
            return Err(wrong());
        }
        let options = options.join(",");
        Ok(if options.is_empty() { format!("{host}:{container}") } else { format!("{host}:{container}:{options}") })
    };
    field.items().iter().filter_map(|item| item.parsed(parse)).collect()
}

/// `NAME=value`. The value is not repeated in a problem: it may be a password.
fn environment(field: &Field) -> Vec<String> {
    let parse = |text: &str| {
        let name = text.split_once('=').map_or("", |(name, _)| name);
        let valid = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && !text.contains(char::is_control);
        if valid { Ok(text.to_owned()) } else { Err("expected NAME=value on one line") }
    };
    field.items().iter().filter_map(|item| item.parsed(parse)).collect()
}

fn etcd_service(section: Option<&Section>) -> EtcdService {
    let Some(etcd) = section else {
        let backup = Backup::default();
        return EtcdService { uid: ETCD_ID, gid: ETCD_ID, backup, common: ComponentSettings::default() };
    };
    let id = |key| {
        let field = etcd.get(key).filter(|field| !field.node.is_inert())?;
        field.number::<u32>(1, u32::MAX - 1)
    };
    let (uid, gid) = (id("uid"), id("gid"));
    for key in ["external_urls", "ca_cert", "cert", "key", "path"] {
        etcd.unsupported(key, "an etcd outside the cluster cannot be used: remove it and give hosts the role etcd");
    }
    let backup = backup(etcd);
    EtcdService { uid: uid.unwrap_or(ETCD_ID), gid: gid.or(uid).unwrap_or(ETCD_ID), backup, common: common(section) }
}

fn kubelet_service(section: Option<&Section>) -> KubeletService {
    let Some(kubelet) = section else { return KubeletService::default() };
    kubelet.dead("infra_container_image", "the pause image comes from the release and is set in containerd");
    // bastide's kubelets always have a serving certificate of the cluster's authority.
    if let Some(field) = kubelet.get("generate_serving_certificate") {
        field.boolean();
    }
    if let Some(field) = kubelet.given("extra_binds") {
        kubelet_binds(&field);
    }
    KubeletService {
        common: unbound(section),
        fail_swap_on: kubelet.get("fail_swap_on").and_then(|field| field.boolean()).unwrap_or(false),
    }
}

/// RKE's kubelet is a container, bastide's is not: it sees the whole host, at the host's own paths.
fn kubelet_binds(field: &Field) {
    for item in field.items() {
        let Some(text) = item.required_text("a bind") else { continue };
        let mut paths = text.split(':').map(|path| path.trim_end_matches('/'));
        if paths.next() == paths.next() {
            item.warn_with("not needed: the kubelet runs on the host itself and sees this path", "remove it");
        } else {
            item.error_with(
                "the kubelet runs on the host itself, where no path has a second name",
                "remove it, and name the host's own path where the second one was used",
            );
        }
    }
}
