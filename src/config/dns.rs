//! `dns` and `monitoring`: what runs in the cluster beside the network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::cluster::Dns;
use crate::config::cluster::Network;
use crate::config::field::Field;
use crate::config::field::Section;
use crate::config::network::nth;
use crate::config::values;

/// RKE's default, 10.43.0.10, is the tenth address of its default service range.
const DNS_INDEX: u32 = 10;

/// Cluster DNS, from `dns` and the DNS settings of `services.kubelet`.
pub(super) fn dns(top: &Section, kubelet: Option<&Section>, network: &Network) -> Dns {
    let server = server(top, kubelet, network);
    let domain = kubelet.and_then(|section| section.given("cluster_domain")).and_then(|field| {
        field.parsed(|text| {
            if values::is_dns_name(text) && text == text.to_lowercase() {
                Ok(text.to_owned())
            } else {
                Err(format!("{text:?} is not a DNS domain such as cluster.local"))
            }
        })
    });
    let mut dns = Dns {
        coredns: true,
        server,
        domain: domain.unwrap_or_else(|| "cluster.local".to_owned()),
        upstream: Vec::new(),
        reverse_cidrs: vec!["in-addr.arpa".to_owned(), "ip6.arpa".to_owned()],
        stub_domains: BTreeMap::new(),
        node_selector: BTreeMap::new(),
    };
    let Some(section) = top.section("dns") else { return dns };
    if let Some(field) = section.given("provider") {
        match field.text().as_deref() {
            Some("coredns") | None => {}
            Some("none") => dns.coredns = false,
            Some("kube-dns") => {
                field.error_with("kube-dns has no image for any supported Kubernetes", "write `provider: coredns`");
            }
            Some(other) => field.error(format!("{other:?} is not a DNS provider: coredns or none")),
        }
    }
    if let Some(field) = section.get("upstreamnameservers") {
        dns.upstream = field.items().iter().filter_map(|item| item.parsed(nameserver)).collect();
    }
    if let Some(field) = section.given("reversecidrs") {
        dns.reverse_cidrs = field.items().iter().filter_map(|item| item.parsed(reverse_zone)).collect();
    }
    if let Some(field) = section.get("stubdomains") {
        for (domain, servers) in field.members() {
            if !values::is_dns_name(&domain) {
                servers.error_at_key(format!("{domain:?} is not a DNS domain"), None);
            }
            let servers = servers.items().iter().filter_map(|item| item.parsed(nameserver)).collect();
            dns.stub_domains.insert(domain, servers);
        }
    }
    if let Some(field) = section.get("node_selector") {
        dns.node_selector = node_selector(&field);
    }
    section.unsupported("nodelocal", "");
    section.unsupported("options", "");
    section.unsupported("update_strategy", "");
    section.unsupported("tolerations", "");
    section.unsupported("linear_autoscaler_params", "remove it: two replicas run, spread over the hosts");
    section.finish();
    dns
}

fn server(top: &Section, kubelet: Option<&Section>, network: &Network) -> IpAddr {
    let field = kubelet.and_then(|section| section.given("cluster_dns_server"));
    let range = network.service_cidr;
    let default = nth(range, DNS_INDEX);
    let given = field.as_ref().and_then(|field| {
        field.parsed(|text| match text.parse::<IpAddr>() {
            Ok(ip) if !range.contains(&ip) => Err(format!("{ip} is not inside the service range {range}")),
            Ok(ip) if ip == network.first_service_ip => Err(format!("{ip} is the address of the service `kubernetes`")),
            Ok(ip) if ip == range.network() || ip == range.broadcast() => Err(format!("{ip} is no address of a host")),
            Ok(ip) => Ok(ip),
            Err(_) => Err(format!("{text:?} is not an IP address")),
        })
    });
    if field.is_none() && default.is_none() {
        kubelet.unwrap_or(top).field.error_at_key(
            format!("the service range {range} has no tenth address for DNS"),
            Some("add services.kubelet.cluster_dns_server with an address of the range, not the first".to_owned()),
        );
    }
    given.or(default).unwrap_or(network.first_service_ip)
}

/// An address with an optional port, as CoreDNS' `forward` takes it.
fn nameserver(text: &str) -> Result<String, String> {
    let with_port = text.parse::<std::net::SocketAddr>().is_ok();
    if with_port || text.parse::<IpAddr>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not the IP address of a name server"))
    }
}

/// A network or a reverse zone.
fn reverse_zone(text: &str) -> Result<String, String> {
    if text.parse::<ipnet::IpNet>().is_ok() || values::is_dns_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is neither a network nor a reverse zone"))
    }
}

fn node_selector(field: &Field) -> BTreeMap<String, String> {
    for (key, member) in field.members() {
        let value = member.text_or_empty().unwrap_or_default();
        if !values::is_qualified_name(&key) || !values::is_label_text(&value) {
            member.error_at_key(format!("\"{key}={value}\" is not a label"), None);
        }
    }
    field.text_map()
}

/// metrics-server's replicas; none where the file does without it.
pub(super) fn metrics_server(top: &Section) -> Option<u32> {
    let Some(section) = top.section("monitoring") else { return Some(1) };
    let mut wanted = true;
    if let Some(field) = section.given("provider") {
        match field.text().as_deref() {
            Some("metrics-server") | None => {}
            Some("none") => wanted = false,
            Some(other) => field.error(format!("{other:?} is not a provider: metrics-server or none")),
        }
    }
    let replicas = section
        .get("replicas")
        .filter(|field| !field.node.is_inert())
        .and_then(|field| field.number::<u32>(1, 20))
        .unwrap_or(1);
    for key in ["options", "node_selector", "update_strategy", "tolerations", "metrics_server_priority_class_name"] {
        section.unsupported(key, "");
    }
    section.finish();
    wanted.then_some(replicas)
}
