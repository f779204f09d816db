//! Files that are taken, and what they mean.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::BASE;
use super::options;
use super::read;
use super::said;
use super::with;
use crate::config::NetworkPlugin;
use crate::config::Profile;
use crate::config::parse;
use crate::model::KeySource;
use crate::model::KubeVersion;
use crate::model::Login;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_smallest_file_has_rke_s_defaults() {
    let parsed = read(&with("")).unwrap();
    assert_eq!(parsed.warnings, []);
    let cluster = parsed.cluster;
    assert_eq!(cluster.options.leaf_lifetime, Duration::from_hours(365 * 24));
    assert_eq!(cluster.name, "local");
    assert_eq!(cluster.kubernetes, KubeVersion { minor: 37, patch: 1 });
    assert_eq!(cluster.network.cluster_cidr.to_string(), "10.42.0.0/16");
    assert_eq!(cluster.network.service_cidr.to_string(), "10.43.0.0/16");
    assert_eq!(cluster.network.first_service_ip, ip("10.43.0.1"));
    assert_eq!(cluster.network.node_ports, (30_000, 32_767));
    assert_eq!(
        cluster.network.plugin,
        NetworkPlugin::Flannel { interface: None, backend: "vxlan".to_owned(), vni: 1, port: 8472 }
    );
    assert_eq!((cluster.dns.server, cluster.dns.domain.as_str()), (ip("10.43.0.10"), "cluster.local"));
    assert_eq!((cluster.services.etcd.uid, cluster.services.etcd.gid), (52_034, 52_034));
    assert_eq!(cluster.services.api.audit.path, "/var/log/kubernetes/audit/audit.log");
    assert_eq!(cluster.metrics_server_replicas, Some(1));
    let node = &cluster.nodes[0];
    assert_eq!((node.name.as_str(), node.internal_address), ("192.0.2.11", ip("192.0.2.11")));
    assert_eq!(
        node.login,
        Login {
            port: 22,
            user: "root".to_owned(),
            keys: vec![KeySource::Path { key: PathBuf::from("/home/ann/.ssh/id_rsa"), certificate: None }],
            host_key: None,
        }
    );
}

#[test]
fn scalars_are_read_with_rke_s_leniency() {
    let text = format!(
        "{BASE}{}",
        "
nodes:
- address: 192.0.2.11
  port: '2222'
  user: root
  role: [controlplane, etcd, worker]
  hostname_override: CP1
  labels: {x: true, y: 5, z: }
  taints: [{key: a, value: true, effect: NoSchedule}]
  ssh_agent_auth: yes
services:
  kubelet:
    extra_args: {max-pods: 250, v: 4, register-node: yes, node-ip: 'on', seccomp-default: Off}
    extra_env:
    fail_swap_on: on
"
    );
    let cluster = read(&text).unwrap().cluster;
    let node = &cluster.nodes[0];
    assert_eq!((node.name.as_str(), node.login.port), ("cp1", 2222));
    assert_eq!(node.login.keys, [KeySource::Agent]);
    let labels: Vec<_> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["x=true", "y=5", "z="]);
    assert_eq!(node.taints[0].value, "true");
    let args: Vec<_> =
        cluster.services.kubelet.common.extra_args.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(args, ["max-pods=250", "node-ip=on", "register-node=true", "seccomp-default=false", "v=4"]);
    assert!(cluster.services.kubelet.fail_swap_on);
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let text = format!(
        "{BASE}{}",
        "
nodes:
- &node {address: 192.0.2.11, user: root, role: [controlplane, etcd], port: 2200}
- {<<: *node, address: 192.0.2.12, role: [worker]}
"
    );
    let cluster = read(&text).unwrap().cluster;
    let nodes: Vec<_> = cluster.nodes.iter().map(|n| (n.address.as_str(), n.login.port, n.roles.worker())).collect();
    assert_eq!(nodes, [("192.0.2.11", 2200, false), ("192.0.2.12", 2200, true)]);
}

#[test]
fn the_command_line_s_version_wins() {
    let options = crate::config::ParseOptions { kubernetes_version: Some("v1.37".to_owned()), ..options() };
    let text = with("").replace("v1.37.1", "v1.20.0-rancher1-1");
    assert_eq!(parse(&text, &options).unwrap().cluster.kubernetes, KubeVersion { minor: 37, patch: 1 });
}

#[test]
fn bastide_s_own_key_fills_the_options() {
    let text = with(
        "
bastion_host: {address: bastion.example.com, user: jump}
bastide:
  artifacts: {bundle: ~/bundle}
  state: {recipients: [age1qqqq]}
  ssh:
    known_hosts: keys/known_hosts
    connect_timeout: 1m30s
    sudo_password_env: SUDO_PASSWORD
    jump: [{address: 192.0.2.1, user: inner, port: 2022}]
    hosts:
      192.0.2.11: {host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ann}
  hardening: {profile: strict, allow: [{setting: kube-api.profiling, reason: debugging this week}]}
  api: {endpoint: 'api.example.com:443', bind_address: 192.0.2.11, dial: direct}
  pki: {algorithm: ecdsa-p384, leaf_lifetime: 720h}
  kubelet: {extra_config: {failCgroupV1: false}}
  deadlines: {ready: 15m}
",
    );
    let cluster = read(&text).unwrap().cluster;
    let options = &cluster.options;
    assert_eq!(options.bundle, Some(PathBuf::from("/home/ann/bundle")));
    assert_eq!(options.profile, Profile::Strict);
    assert_eq!(options.allow[0].setting, "kube-api.profiling");
    assert_eq!(options.endpoint.as_ref().map(|e| (e.host.as_str(), e.port)), Some(("api.example.com", 443)));
    assert_eq!(options.kubelet_config, serde_json::json!({"failCgroupV1": false}));
    assert_eq!(options.proxy_config, serde_json::json!({}));
    assert_eq!((options.deadlines.ready, options.deadlines.health), (Duration::from_mins(15), Duration::from_mins(5)));
    assert_eq!(options.leaf_lifetime, Duration::from_hours(720));
    assert_eq!(cluster.ssh.connect_timeout, Duration::from_secs(90));
    let jumps: Vec<_> = cluster.ssh.jumps.iter().map(|jump| (jump.address.as_str(), jump.login.port)).collect();
    assert_eq!(jumps, [("bastion.example.com", 22), ("192.0.2.1", 2022)]);
    assert!(cluster.nodes[0].login.host_key.as_ref().unwrap().ends_with("AAAA"));
}

#[test]
fn the_output_of_rke_config_is_read_as_asking_for_nothing() {
    let text = with(
        "
services:
  etcd: {image: '', extra_args: {}, win_extra_args: {}, external_urls: [], ca_cert: '', uid: 0, gid: 0, snapshot: null, retention: '', backup_config: null}
  kube-api: {service_node_port_range: '', pod_security_policy: false, secrets_encryption_config: null, audit_log: null}
authentication: {strategy: x509, sans: [], webhook: null}
addons: ''
addons_include: []
ssh_cert_path: ''
authorization: {mode: rbac, options: {}}
ignore_docker_version: null
private_registries: []
cluster_name: ''
cloud_provider: {name: ''}
prefix_path: ''
addon_job_timeout: 0
bastion_host: {address: '', port: '', user: '', ssh_key: ''}
monitoring: {provider: '', options: {}, replicas: null}
restore: {restore: false, snapshot_name: ''}
rotate_encryption_key: false
dns: null
",
    );
    insta::assert_snapshot!(said(&text), @"");
}

#[test]
fn the_dns_server_follows_the_service_range() {
    let cluster = read(&with("services: {kube-api: {service_cluster_ip_range: 10.96.0.0/12}}")).unwrap().cluster;
    assert_eq!((cluster.dns.server, cluster.network.first_service_ip), (ip("10.96.0.10"), ip("10.96.0.1")));
}

#[test]
fn every_kind_of_key_is_read() {
    let parsed = read(include_str!("full.yml")).unwrap();
    assert_eq!(parsed.warnings, []);
    insta::assert_debug_snapshot!(parsed.cluster);
}

#[test]
fn every_example_is_taken_without_a_word() {
    let examples = [
        ("one-host", include_str!("../../../examples/one-host.yml"), "host-1"),
        ("three-hosts", include_str!("../../../examples/three-hosts.yml"), "host-1 host-2 host-3"),
        (
            "split-roles",
            include_str!("../../../examples/split-roles.yml"),
            "etcd-1 etcd-2 etcd-3 cp-1 cp-2 worker-1 worker-2",
        ),
        ("bastion", include_str!("../../../examples/bastion.yml"), "host-1 host-2"),
        ("air-gap", include_str!("../../../examples/air-gap.yml"), "vault-1 vault-2 vault-3"),
    ];
    for (example, text, names) in examples {
        let parsed = read(text).unwrap_or_else(|errors| panic!("{example}: {}", super::lines(&errors.problems)));
        assert_eq!(parsed.warnings, [], "{example}");
        let read: Vec<&str> = parsed.cluster.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(read.join(" "), names, "{example}");
    }
}
