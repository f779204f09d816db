//! `network`, `ingress` and the networks under `services`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::cluster::Network;
use crate::config::cluster::NetworkPlugin;
use crate::config::field::Field;
use crate::config::field::Section;
use crate::config::values;

/// RKE's defaults.
const CLUSTER_CIDR: &str = "10.42.0.0/16";
const SERVICE_CIDR: &str = "10.43.0.0/16";
/// Kubernetes' own default, and RKE's.
const NODE_PORTS: (u16, u16) = (30_000, 32_767);

/// RKE's other engines and what stands under their names.
const OTHER_BLOCKS: [&str; 4] =
    ["calico_network_provider", "canal_network_provider", "weave_network_provider", "aci_network_provider"];

/// The pod network's engine. RKE's silent default, canal, is refused: it enforces NetworkPolicies and flannel does not.
pub(super) fn plugin(top: &Section) -> NetworkPlugin {
    let section = top.section("network");
    let field = section.as_ref().and_then(|section| section.given("plugin"));
    let hint = "write `network: {plugin: flannel}` (NetworkPolicies are then not enforced) or `network: {plugin: none}` and bring your own";
    let name = field.as_ref().and_then(Field::text);
    match (&field, name.as_deref()) {
        (_, Some("flannel" | "none")) | (Some(_), None) => {}
        (Some(field), Some(other @ ("canal" | "calico" | "weave" | "aci"))) => {
            field.error_with(format!("RKE knows {other}, bastide does not support it yet"), hint);
        }
        (Some(field), Some(other)) => field.error_with(format!("{other:?} is not a network plugin"), hint),
        (None, _) => {
            let message = "no network plugin is named; RKE would take canal, which bastide does not support yet";
            match &section {
                Some(section) => section.missing("plugin", message, hint.to_owned()),
                None => top.missing("network", message, hint.to_owned()),
            }
        }
    }
    let flannel = name.as_deref() == Some("flannel");
    let Some(section) = section else { return NetworkPlugin::None };
    // What belongs to an engine that bastide has not: its own settings are no second mistake.
    let foreign = field.is_some() && !matches!(name.as_deref(), Some("flannel" | "none"));
    if let Some(mtu) = section.given("mtu").filter(|field| !foreign && !field.node.is_inert()) {
        mtu.error_with(
            "the MTU cannot be set",
            "remove it: flannel takes it from the host's interface (RKE refuses it with flannel as well)",
        );
    }
    section.unsupported("node_selector", "remove it: the engine runs on every node");
    section.unsupported("tolerations", "remove it: the engine tolerates every taint");
    section.unsupported("update_strategy", "");
    section.unsupported("enable_br_netfilter", "remove it: bastide loads the module itself");
    let engine = options(&section, flannel, foreign);
    for block in OTHER_BLOCKS {
        if let Some(field) = section.get(block).filter(|field| !foreign && !field.node.is_inert()) {
            field.warn_with("ignored: it belongs to another plugin", "remove it");
        }
    }
    section.finish();
    if flannel { engine } else { NetworkPlugin::None }
}

fn options(section: &Section, flannel: bool, foreign: bool) -> NetworkPlugin {
    let (mut interface, mut backend, mut vni, mut port) = (None, None, None, None);
    if let Some(options) = section.section("options") {
        for (key, field) in options.field.members() {
            if field.node.is_empty() || foreign {
                continue;
            }
            match key.as_str() {
                "flannel_iface" => interface = self::interface(&field),
                "flannel_backend_type" => backend = self::backend(&field),
                "flannel_backend_vni" => vni = field.number::<u32>(1, 16_777_215),
                "flannel_backend_port" => port = field.number::<u16>(1, u16::MAX),
                "kube_flannel_priority_class_name"
                | "flannel_priority_class_name"
                | "flannel_autoscaler_priority_class_name" => {
                    if flannel && field.text().as_deref() != Some("system-node-critical") {
                        field.error_with(
                            "the priority class cannot be chosen yet",
                            "remove it: system-node-critical is used",
                        );
                    }
                }
                _ if ["canal_", "calico_", "weave_", "aci_"].iter().any(|prefix| key.starts_with(prefix)) => {
                    field.warn_with("ignored: it belongs to another plugin", "remove it");
                }
                _ => field.error_at_key(
                    "unknown key",
                    Some(
                        "known here: flannel_iface, flannel_backend_type, flannel_backend_port, flannel_backend_vni"
                            .to_owned(),
                    ),
                ),
            }
            if !flannel && key.starts_with("flannel_") {
                field.warn_with("ignored: the plugin is not flannel", "remove it");
            }
        }
    }
    if let Some(provider) = section.section("flannel_network_provider") {
        if let Some(field) = provider.given("iface") {
            interface = interface.or(self::interface(&field));
        }
        provider.finish();
    }
    NetworkPlugin::Flannel {
        interface,
        backend: backend.unwrap_or_else(|| "vxlan".to_owned()),
        vni: vni.unwrap_or(1),
        port: port.unwrap_or(8472),
    }
}

/// An interface's name, at most 15 bytes (IFNAMSIZ).
fn interface(field: &Field) -> Option<String> {
    field.parsed(|text| {
        let valid = text.len() <= 15
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@'));
        if valid { Ok(text.to_owned()) } else { Err(format!("{text:?} is not the name of a network interface")) }
    })
}

fn backend(field: &Field) -> Option<String> {
    field.parsed(|text| match text {
        "vxlan" | "host-gw" => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not a backend that bastide supports: vxlan or host-gw")),
    })
}

/// Networks with the fields that gave them, for the checks over all nodes.
pub(super) struct Ranges<'a> {
    pub(super) network: Network,
    pub(super) cluster_field: Option<Field<'a>>,
    pub(super) service_field: Option<Field<'a>>,
}

/// Pod and service networks. `api` and `controller` are `services.kube-api` and `services.kube-controller`.
pub(super) fn ranges<'a>(
    plugin: NetworkPlugin,
    api: Option<&Section<'a>>,
    controller: Option<&Section<'a>>,
) -> Ranges<'a> {
    let cluster_field = controller.and_then(|section| section.given("cluster_cidr"));
    let service_field = api.and_then(|section| section.given("service_cluster_ip_range"));
    let twin = controller.and_then(|section| section.given("service_cluster_ip_range"));
    let cluster_cidr = read(cluster_field.as_ref(), CLUSTER_CIDR);
    let service_cidr = read(service_field.as_ref(), SERVICE_CIDR);
    if let Some(twin) = twin
        && let Some(other) = twin.parsed(values::network)
        && other.trunc() != service_cidr
    {
        twin.error_with(
            format!("{other} is not the API server's service range {service_cidr}"),
            "give services.kube-api.service_cluster_ip_range the same value",
        );
    }
    let node_ports = api
        .and_then(|section| section.given("service_node_port_range"))
        .and_then(|field| field.parsed(values::port_range))
        .unwrap_or(NODE_PORTS);
    // kube-apiserver refuses fewer than 8 addresses and more than 2^20 (v1.37, `validateMaxCIDRRange` and `ServiceIPRange`).
    if let Some(field) = &service_field
        && !(12..=29).contains(&service_cidr.prefix_len())
    {
        field.error("the API server takes service ranges from /12 to /29 only");
    }
    let first_service_ip = nth(service_cidr, 1).unwrap_or(service_cidr.addr());
    let network = Network { plugin, cluster_cidr, service_cidr, node_ports, first_service_ip };
    Ranges { network, cluster_field, service_field }
}

fn read(field: Option<&Field>, default: &str) -> IpNet {
    let default = || {
        let zero = IpNet::V4(ipnet::Ipv4Net::default());
        default.parse().unwrap_or(zero)
    };
    let Some(field) = field else { return default() };
    let Some(net) = field.parsed(values::network) else { return default() };
    if net != net.trunc() {
        field.warn_with(
            format!("{net} names an address inside a network; the network is {}", net.trunc()),
            format!("write {}", net.trunc()),
        );
    }
    net.trunc()
}

/// The address number `index` of a network, the network's own address being 0.
pub(super) fn nth(net: IpNet, index: u32) -> Option<IpAddr> {
    let IpNet::V4(net) = net else { return None };
    let address = u32::from(net.network()).checked_add(index)?;
    let address = std::net::Ipv4Addr::from(address);
    (net.contains(&address) && address != net.broadcast()).then_some(IpAddr::V4(address))
}

/// `ingress`: bastide brings no ingress controller, and RKE's silent default is one.
pub(super) fn ingress(top: &Section) {
    let hint = "write `ingress: {provider: none}` and install a controller of your choice with `addons_include`";
    let section = top.section("ingress");
    let provider = section.as_ref().and_then(|section| section.given("provider"));
    match (&provider, provider.as_ref().and_then(Field::text).as_deref()) {
        (_, Some("none")) | (Some(_), None) => {}
        (Some(field), Some("nginx")) => field.error_with("RKE knows nginx, bastide does not support it yet", hint),
        (Some(field), Some(other)) => field.error_with(format!("{other:?} is not an ingress controller"), hint),
        (None, _) => {
            let message = "no ingress controller is named; RKE would take nginx, which bastide does not support yet";
            match &section {
                Some(section) => section.missing("provider", message, hint.to_owned()),
                None => top.missing("ingress", message, hint.to_owned()),
            }
        }
    }
    let Some(section) = section else { return };
    for key in INGRESS_KEYS {
        if let Some(field) = section.get(key).filter(|field| !field.node.is_inert()) {
            field.warn_with("ignored: there is no ingress controller to configure", "remove it");
        }
    }
    section.finish();
}

const INGRESS_KEYS: [&str; 17] = [
    "default_http_backend_priority_class_name",
    "ingress_priority_class_name",
    "options",
    "node_selector",
    "extra_args",
    "dns_policy",
    "extra_envs",
    "extra_volumes",
    "extra_volume_mounts",
    "update_strategy",
    "http_port",
    "https_port",
    "network_mode",
    "tolerations",
    "default_backend",
    "default_ingress_class",
    "nginx_ingress_controller_priority_class_name",
];
