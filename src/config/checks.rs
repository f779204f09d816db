//! What only the whole file can show to be wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::cluster::SshSettings;
use crate::config::field::Field;
use crate::config::field::Section;
use crate::config::network::Ranges;
use crate::config::nodes::Placed;
use crate::model::Role;

/// Unique names and addresses, enough hosts of each role.
pub(super) fn nodes(top: &Section, placed: &[Placed], all_read: bool) {
    unique(placed, "name", |placed| (placed.node.name.to_string(), &placed.name));
    unique(placed, "address", |placed| (placed.node.address.to_lowercase(), &placed.address));
    let same_place = |placed: &Placed| placed.internal.path == placed.address.path;
    unique(placed, "internal address", |placed| (placed.node.internal_address.to_string(), &placed.internal));
    for (index, one) in placed.iter().enumerate() {
        for other in &placed[index + 1..] {
            let clash = (!same_place(one) || !same_place(other))
                && one.node.internal_address != other.node.internal_address
                && (one.node.address == other.node.internal_address.to_string()
                    || other.node.address == one.node.internal_address.to_string());
            if clash {
                other.internal.error(format!("line {} gives the same address to another node", one.address.line()));
            }
        }
    }
    // A node that could not be read may have had the missing role: its own errors come first.
    if !all_read || placed.is_empty() {
        return;
    }
    let at = top.get("nodes").unwrap_or_else(|| top.field.clone());
    let count = |role| placed.iter().filter(|placed| placed.node.roles.has(role)).count();
    for role in [Role::ControlPlane, Role::Etcd] {
        if count(role) == 0 {
            let hint = format!("add {} to the `role:` of at least one node, better three", role.as_str());
            at.error_at_key(format!("no node has the role {}", role.as_str()), Some(hint));
        }
    }
    let members = count(Role::Etcd);
    if members > 0 && members % 2 == 0 {
        at.warn_with(
            format!("{members} etcd members survive no more losses than {}", members - 1),
            "give the role etcd to an odd number of nodes",
        );
    }
    if count(Role::Worker) == 0 {
        at.warn("no node has the role worker: ordinary workloads, cluster DNS among them, find no place");
    }
}

fn unique<'p, 'a>(placed: &'p [Placed<'a>], what: &str, of: impl Fn(&'p Placed<'a>) -> (String, &'p Field<'a>)) {
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for one in placed {
        let (value, field) = of(one);
        match first.get(&value) {
            Some(line) if *line == field.line() => field.error(format!("two nodes have the {what} {value}")),
            Some(line) => field.error(format!("the node of line {line} has the {what} {value} already")),
            None => {
                first.insert(value, field.line());
            }
        }
    }
}

/// Networks apart from each other and from the nodes, and large enough for them.
pub(super) fn networks(top: &Section, ranges: &Ranges, placed: &[Placed], mask_given: bool) {
    let (pods, services) = (ranges.network.cluster_cidr, ranges.network.service_cidr);
    let at = |field: &Option<Field>| field.as_ref().map_or_else(|| top.field.span(), Field::span);
    let report = |field: &Option<Field>, path: &str, message: String| {
        let severity = crate::config::problem::Severity::Error;
        top.field.log.add(severity, path, Some(at(field)), message, None);
    };
    let cluster_path = "services.kube-controller.cluster_cidr";
    let service_path = "services.kube-api.service_cluster_ip_range";
    if pods.contains(&services) || services.contains(&pods) {
        let message = format!("the pod network {pods} and the service range {services} overlap");
        match &ranges.cluster_field {
            Some(_) => report(&ranges.cluster_field, cluster_path, message),
            None => report(&ranges.service_field, service_path, message),
        }
    }
    for one in placed {
        let mut addresses = vec![(one.node.internal_address, &one.internal)];
        if let Ok(address) = one.node.address.parse::<IpAddr>()
            && address != one.node.internal_address
        {
            addresses.push((address, &one.address));
        }
        for (address, field) in addresses {
            for (what, net) in [("pod network", pods), ("service range", services)] {
                if net.contains(&address) {
                    field.error(format!("{address} lies inside the {what} {net}"));
                }
            }
        }
    }
    // kube-controller-manager hands each node a /24 unless node-cidr-mask-size says otherwise.
    let blocks = 1_usize << (24_u8.saturating_sub(pods.prefix_len())).min(24);
    let wanted = placed.len();
    if !mask_given && (pods.prefix_len() > 24 || blocks < wanted) {
        let message = format!("{pods} has no room for {wanted} nodes with a /24 each");
        report(&ranges.cluster_field, cluster_path, message);
    }
}

/// Gives each host key to its host. One for a host that nobody goes to is a typing error.
pub(super) fn host_keys(keys: BTreeMap<String, (String, Field)>, placed: &mut [Placed], ssh: &mut SshSettings) {
    for (address, (line, field)) in keys {
        let mut used = false;
        for one in placed.iter_mut().filter(|one| one.node.address == address) {
            one.node.login.host_key = Some(line.clone());
            used = true;
        }
        for jump in ssh.jumps.iter_mut().filter(|jump| jump.address == address) {
            jump.login.host_key = Some(line.clone());
            used = true;
        }
        if !used {
            let known: Vec<String> = placed.iter().map(|one| one.node.address.clone()).collect();
            field.error_at_key(
                format!("no node, bastion or jump has the address {address:?}"),
                Some(format!("addresses of nodes: {}", known.join(", "))),
            );
        }
    }
}
