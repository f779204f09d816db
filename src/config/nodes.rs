//! `nodes`: the machines.

use std::net::IpAddr;

use crate::config::cluster::Node;
use crate::config::field::Field;
use crate::config::field::Section;
use crate::config::login::ClusterKeys;
use crate::config::login::login;
use crate::config::read::Context;
use crate::config::values;
use crate::model::HostName;
use crate::model::Role;
use crate::model::Roles;
use crate::model::Taint;

/// A node and where it stands, so that a check over all nodes can point at it.
pub(super) struct Placed<'a> {
    pub(super) node: Node,
    pub(super) address: Field<'a>,
    pub(super) name: Field<'a>,
    pub(super) internal: Field<'a>,
}

/// All nodes that could be read.
pub(super) fn nodes<'a>(top: &Section<'a>, keys: &ClusterKeys, context: &Context) -> Vec<Placed<'a>> {
    let Some(field) = top.given("nodes") else {
        let hint = "add a list `nodes:` with address, user and role of each host";
        top.missing("nodes", "there are no nodes", hint.to_owned());
        return Vec::new();
    };
    field.items().iter().filter_map(|item| node(item, keys, context)).collect()
}

fn node<'a>(item: &Field<'a>, keys: &ClusterKeys, context: &Context) -> Option<Placed<'a>> {
    let section = item.required_section("a node is a map with address, user and role")?;
    let login = login(&section, keys, context);
    let address_field = section.given("address");
    let address = if let Some(field) = &address_field {
        field.parsed(values::address)
    } else {
        section.missing("address", "the node has no address", "add `address:` with its IP address or name".to_owned());
        None
    };
    let roles = roles(&section);
    let (name, name_field) = name(&section, address_field.as_ref(), address.as_deref());
    let (internal, internal_field) = internal_address(&section, address_field.as_ref(), address.as_deref());
    let labels = section.get("labels").map(|field| labels(&field)).unwrap_or_default();
    let taints = section.get("taints").map(|field| taints(&field)).unwrap_or_default();
    section.dead("docker_socket", "bastide runs containerd, not Docker");
    section.dead("nodeName", "only Rancher gives it a meaning");
    section.finish();
    let node = Node {
        name: name?,
        address: address?,
        internal_address: internal?,
        roles: roles?,
        login: login?,
        labels,
        taints,
    };
    Some(Placed { node, address: address_field?, name: name_field?, internal: internal_field? })
}

fn roles(section: &Section) -> Option<Roles> {
    let hint = "one or more of controlplane, etcd, worker";
    let Some(field) = section.given("role") else {
        let (message, hint) = ("the node has no role", format!("add `role:` with {hint}"));
        match section.get("role") {
            Some(field) => field.error_at_key(message, Some(hint)),
            None => section.missing("role", message, hint),
        }
        return None;
    };
    let mut all_known = true;
    let roles: Roles = field
        .items()
        .iter()
        .filter_map(|item| {
            let role = match item.required_text("a role")?.as_str() {
                "controlplane" => Role::ControlPlane,
                "etcd" => Role::Etcd,
                "worker" => Role::Worker,
                other => {
                    item.error_with(format!("{other:?} is not a role"), hint);
                    all_known = false;
                    return None;
                }
            };
            Some(role)
        })
        .collect();
    // A node with one wrong role is still counted by its right ones, so that no second error follows from the first.
    (!roles.0.is_empty() || !all_known).then_some(roles)
}

/// `hostname_override`, else the address, lower-cased as RKE does.
fn name<'a>(
    section: &Section<'a>,
    address_field: Option<&Field<'a>>,
    address: Option<&str>,
) -> (Option<HostName>, Option<Field<'a>>) {
    if let Some(field) = section.given("hostname_override") {
        let name = field.parsed(|text| HostName::new(text.to_lowercase()));
        return (name, Some(field));
    }
    let name = address.and_then(|address| HostName::new(address.to_lowercase()).ok());
    if let (Some(field), Some(_), None) = (address_field, address, &name) {
        field.error_with("this address cannot be a node's name", "add `hostname_override:` with a name for the node");
    }
    (name, address_field.cloned())
}

/// `internal_address`, else the address where that is an IP address.
fn internal_address<'a>(
    section: &Section<'a>,
    address_field: Option<&Field<'a>>,
    address: Option<&str>,
) -> (Option<IpAddr>, Option<Field<'a>>) {
    let field = section.given("internal_address");
    let Some(source) = field.as_ref().or(address_field) else { return (None, None) };
    let Some(text) = (if field.is_some() { source.text() } else { address.map(str::to_owned) }) else {
        return (None, None);
    };
    let hint = "add `internal_address:` with the IPv4 address that the other nodes reach it at";
    let internal = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() => {
            source.error_with(format!("{ip} is no address that other nodes can reach"), hint);
            None
        }
        Ok(ip @ IpAddr::V4(_)) => Some(ip),
        Ok(IpAddr::V6(ip)) => {
            source.error_with(format!("{ip} is IPv6, which bastide does not support yet between nodes"), hint);
            None
        }
        Err(_) if field.is_some() => {
            source.error(format!("{text:?} is not an IP address"));
            None
        }
        Err(_) => {
            source.error_with("internal_address is needed where the address is a name", hint);
            None
        }
    };
    (internal, Some(source.clone()))
}

fn labels(field: &Field) -> std::collections::BTreeMap<String, String> {
    for (key, member) in field.members() {
        if !values::is_qualified_name(&key) {
            member.error_at_key(format!("{key:?} is not a label key"), None);
        }
        if let Some(value) = member.text_or_empty()
            && !values::is_label_text(&value)
        {
            member.error(format!("{value:?} is not a label value: at most 63 letters, digits, '-', '_' and '.'"));
        }
    }
    field.text_map()
}

fn taints(field: &Field) -> Vec<Taint> {
    let mut taints: Vec<Taint> = Vec::new();
    for item in field.items() {
        let Some(section) = item.required_section("a taint is a map with key, value and effect") else {
            continue;
        };
        let key = section.get("key").and_then(|field| field.required_text("the key"));
        let value = section.get("value").and_then(|field| field.text()).unwrap_or_default();
        let effect = section.get("effect").and_then(|field| {
            field.parsed(|text| match text {
                "NoSchedule" | "PreferNoSchedule" | "NoExecute" => Ok(text.to_owned()),
                _ => Err(format!("{text:?} is not NoSchedule, PreferNoSchedule or NoExecute")),
            })
        });
        for (name, missing) in [("key", section.get("key").is_none()), ("effect", section.get("effect").is_none())] {
            if missing {
                item.error_at_key(format!("the taint has no {name}"), None);
            }
        }
        section.dead("timeAdded", "Kubernetes sets the time itself");
        section.dead("time_added", "Kubernetes sets the time itself");
        section.finish();
        let (Some(key), Some(effect)) = (key, effect) else { continue };
        if !values::is_qualified_name(&key) || !values::is_label_text(&value) {
            item.error_at_key(format!("\"{key}={value}\" is not a taint: it follows the rules of labels"), None);
            continue;
        }
        let taint = Taint { key, value, effect };
        // RKE skips these two as well, by key and effect.
        if matches!(
            (taint.key.as_str(), taint.effect.as_str()),
            ("node-role.kubernetes.io/etcd", "NoExecute") | ("node-role.kubernetes.io/controlplane", "NoSchedule")
        ) {
            item.warn_with(format!("ignored: {}:{} is set by the node's roles", taint.key, taint.effect), "remove it");
        } else if taints.iter().any(|other| (&other.key, &other.effect) == (&taint.key, &taint.effect)) {
            item.error(format!("a taint {}:{} is there already", taint.key, taint.effect));
        } else {
            taints.push(taint);
        }
    }
    taints
}
