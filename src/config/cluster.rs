//! `Cluster`: what a cluster.yml means. Impossible states cannot be written down.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::upgrade::Share;
use crate::model::Allowance;
use crate::model::BucketAddress;
use crate::model::BucketKeys;
use crate::model::Content;
use crate::model::HostName;
use crate::model::Jump;
use crate::model::KubeVersion;
use crate::model::Login;
use crate::model::Roles;
use crate::model::Taint;

/// A whole cluster, resolved: every default filled in, every value parsed, every cross-check passed.
///
/// Guaranteed by [`crate::config::parse`]: at least one control-plane and one etcd node; names, addresses and internal
/// addresses unique; CIDRs parsed and not overlapping; the DNS address inside the service range.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// `cluster_name`, RKE's default `local`.
    pub name: String,
    /// `kubernetes_version`, or what the command line says instead.
    pub kubernetes: KubeVersion,
    /// In the order of the file.
    pub nodes: Vec<Node>,
    /// Pod and service network.
    pub network: Network,
    /// Cluster DNS.
    pub dns: Dns,
    /// Per component settings.
    pub services: Services,
    /// `authentication.sans`: extra names and addresses of the API server's certificate.
    pub sans: Vec<String>,
    /// metrics-server: replicas, or none when `monitoring.provider: none`.
    pub metrics_server_replicas: Option<u32>,
    /// `upgrade_strategy.max_unavailable_worker`, RKE's default a tenth.
    pub max_unavailable_worker: Share,
    /// `addons` and `addons_include`, in order.
    pub addons: Vec<AddonSource>,
    /// How hosts are reached.
    pub ssh: SshSettings,
    /// What stands under `bastide:`.
    pub options: Options,
}

impl Cluster {
    /// Nodes with an API server, in the order of the file.
    pub fn control_planes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.roles.control_plane())
    }
    /// Nodes with an etcd member, in the order of the file.
    pub fn etcd_members(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.roles.etcd())
    }
    /// How many workers that are nothing else may be away at once while the cluster changes.
    pub fn workers_away_at_once(&self) -> NonZeroUsize {
        let workers = self.nodes.iter().filter(|node| !node.roles.control_plane() && !node.roles.etcd());
        self.max_unavailable_worker.of(workers.count())
    }
}

/// One machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Node name: `hostname_override`, else the address, lower-cased.
    pub name: HostName,
    /// Where SSH goes: a name or an address.
    pub address: String,
    /// `internal_address`, else `address` where that is an IP address.
    pub internal_address: IpAddr,
    /// At least one.
    pub roles: Roles,
    /// How SSH goes there.
    pub login: Login,
    /// The file's labels (bastide's role labels are added by `render/`).
    pub labels: BTreeMap<String, String>,
    /// The file's taints without reserved ones (role taints are added by `render/`).
    pub taints: Vec<Taint>,
}

/// What holds for all SSH connections.
#[derive(Debug, Clone, PartialEq)]
pub struct SshSettings {
    /// `bastion_host`, then `bastide.ssh.jump`: hops from the operator outward, often none.
    pub jumps: Vec<Jump>,
    /// `bastide.ssh.known_hosts`; empty means `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`.
    pub known_hosts: Vec<PathBuf>,
    /// `bastide.ssh.sudo_password_file` or `sudo_password_env`.
    pub sudo_password: Option<PasswordSource>,
    /// `bastide.ssh.connect_timeout`, default 15 s.
    pub connect_timeout: Duration,
}

/// Where a password comes from; it never stands in the cluster's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// First line of a file.
    File(PathBuf),
    /// An environment variable's name.
    Environment(String),
}

/// `network` and the CIDRs of `services`.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Which engine.
    pub plugin: NetworkPlugin,
    /// `services.kube-controller.cluster_cidr`, default 10.42.0.0/16.
    pub cluster_cidr: IpNet,
    /// `services.kube-api.service_cluster_ip_range`, default 10.43.0.0/16.
    pub service_cidr: IpNet,
    /// `services.kube-api.service_node_port_range`, default 30000-32767.
    pub node_ports: (u16, u16),
    /// First address of the service range: the `kubernetes` service.
    pub first_service_ip: IpAddr,
}

/// The pod network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkPlugin {
    /// flannel as a DaemonSet.
    Flannel {
        /// `flannel_iface`.
        interface: Option<String>,
        /// `vxlan` (default) or `host-gw`.
        backend: String,
        /// vxlan identifier, default 1.
        vni: u32,
        /// vxlan UDP port, default 8472.
        port: u16,
    },
    /// Somebody else brings it.
    None,
}

/// `dns` and the DNS settings of `services.kubelet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// False when `dns.provider: none`.
    pub coredns: bool,
    /// `services.kubelet.cluster_dns_server`, default 10.43.0.10.
    pub server: IpAddr,
    /// `services.kubelet.cluster_domain`, default `cluster.local`.
    pub domain: String,
    /// `dns.upstreamnameservers`; empty means the host's resolv.conf.
    pub upstream: Vec<String>,
    /// `dns.reversecidrs`, default `in-addr.arpa ip6.arpa`.
    pub reverse_cidrs: Vec<String>,
    /// `dns.stubdomains`.
    pub stub_domains: BTreeMap<String, Vec<String>>,
    /// `dns.node_selector`.
    pub node_selector: BTreeMap<String, String>,
}

/// `services`.
#[derive(Debug, Clone, PartialEq)]
pub struct Services {
    /// `services.etcd`.
    pub etcd: EtcdService,
    /// `services.kube-api`.
    pub api: ApiService,
    /// `services.kube-controller`.
    pub controller_manager: ComponentSettings,
    /// `services.scheduler`.
    pub scheduler: ComponentSettings,
    /// `services.kubelet`.
    pub kubelet: KubeletService,
    /// `services.kubeproxy`.
    pub proxy: ComponentSettings,
}

/// What every component shares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComponentSettings {
    /// `extra_args`: flag without dashes to value; overrides a default of bastide's.
    pub extra_args: BTreeMap<String, String>,
    /// `extra_args_array`: flag to values, added to a default of the same flag.
    pub extra_args_array: BTreeMap<String, Vec<String>>,
    /// `extra_binds`: `host:container[:ro]`.
    pub extra_binds: Vec<String>,
    /// `extra_env`: `NAME=value`.
    pub extra_env: Vec<String>,
}

/// `services.etcd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdService {
    /// `uid`, default 52034 (design 11.10).
    pub uid: u32,
    /// `gid`, default 52034.
    pub gid: u32,
    /// `backup_config`.
    pub backup: Backup,
    /// Common settings. RKE's own defaults (election-timeout 5000, heartbeat-interval 500) are `render/`'s.
    pub common: ComponentSettings,
}

/// `services.etcd.backup_config`, with RKE's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// `enabled`, default true: whether snapshots are asked for on a clock.
    pub enabled: bool,
    /// `interval_hours`, default 12.
    pub interval: Duration,
    /// `retention`, default 6: how many of the newest stay.
    pub retention: u32,
    /// `timeout`, default 300 s, for one on a clock.
    pub timeout: Duration,
    /// `s3backupconfig`: where snapshots go besides the hosts.
    pub bucket: Option<BackupBucket>,
}

/// `services.etcd.backup_config.s3backupconfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupBucket {
    /// Where.
    pub address: BucketAddress,
    /// `access_key` and `secret_key`; none leaves them to the environment, or to the role of whichever machine asks.
    pub keys: Option<BucketKeys>,
}

/// `services.kube-api`.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiService {
    /// Common settings.
    pub common: ComponentSettings,
    /// `audit_log`.
    pub audit: AuditLog,
    /// `event_rate_limit.configuration` as given; none means bastide's own limits.
    pub event_rate_limit: Option<serde_json::Value>,
    /// `admission_configuration` as given.
    pub admission: Option<serde_json::Value>,
    /// `pod_security_configuration`: none is bastide's default (baseline enforced).
    pub pod_security: Option<String>,
    /// `always_pull_images`.
    pub always_pull_images: bool,
    /// `secrets_encryption_config.custom_config` as given.
    pub custom_encryption: Option<Content>,
}

/// `services.kube-api.audit_log`, with bastide's defaults where the file is silent.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditLog {
    /// Days; default 30 (CIS 1.2.17).
    pub max_age: u32,
    /// Files; default 10 (CIS 1.2.18).
    pub max_backup: u32,
    /// Megabytes; default 100 (CIS 1.2.19).
    pub max_size: u32,
    /// Default `/var/log/kubernetes/audit/audit.log`.
    pub path: String,
    /// A policy of the file's own, as given.
    pub policy: Option<serde_json::Value>,
}

/// `services.kubelet`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeletService {
    /// Common settings.
    pub common: ComponentSettings,
    /// `fail_swap_on`, RKE's default false.
    pub fail_swap_on: bool,
}

/// A user's manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonSource {
    /// `addons`: YAML documents.
    Inline(Content),
    /// An entry of `addons_include`: a path, relative to cluster.yml.
    Path(PathBuf),
}

/// What stands under `bastide:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `artifacts.bundle`: a folder.
    pub bundle: Option<PathBuf>,
    /// `state.recipients`: age recipients; empty means the generated identity.
    pub recipients: Vec<String>,
    /// `state.passphrase_file` or `passphrase_env`: what protects the identity, where nobody is there to be asked.
    pub passphrase: Option<PasswordSource>,
    /// `encryption`.
    pub at_rest: AtRest,
    /// `hardening.profile`.
    pub profile: Profile,
    /// `hardening.allow`.
    pub allow: Vec<Allowance>,
    /// `api.endpoint`: `name` or `name:port` that all clients use.
    pub endpoint: Option<Endpoint>,
    /// `api.bind_address`.
    pub api_bind_address: Option<IpAddr>,
    /// `api.dial: direct` instead of through SSH.
    pub dial_direct: bool,
    /// `pki.algorithm`.
    pub key_algorithm: KeyAlgorithm,
    /// `pki.warn_days`: from how many days before a certificate's end on its host warns; 0 is never.
    pub warn_days: u32,
    /// `pki.leaf_lifetime`: how long a certificate lasts that is no authority's.
    pub leaf_lifetime: Duration,
    /// `kubelet.extra_config`, merged into KubeletConfiguration.
    pub kubelet_config: serde_json::Value,
    /// `kube_proxy.extra_config`, merged into KubeProxyConfiguration.
    pub proxy_config: serde_json::Value,
    /// `containerd.extra_config`, merged into containerd's configuration (TOML as a structure).
    pub containerd_config: serde_json::Value,
    /// `deadlines`.
    pub deadlines: Deadlines,
}

/// `bastide.encryption`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AtRest {
    /// `provider`: what encrypts Secrets; none leaves it at what it is, `secretbox` in a new cluster.
    pub provider: Option<AtRestProvider>,
    /// `kms`: a plugin that runs beside every API server, whether it is used yet or not.
    pub kms: Option<KmsPlugin>,
}

/// `bastide.encryption.provider`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtRestProvider {
    /// A key that bastide makes, for `XSalsa20` and Poly1305.
    Secretbox,
    /// A key that bastide makes, for AES-CBC, as RKE's.
    Aescbc,
    /// A key service, behind the plugin of `bastide.encryption.kms`.
    Kms,
}

/// `bastide.encryption.kms`: a plugin of Kubernetes' KMS v2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsPlugin {
    /// `name`: stands in every value that it encrypts.
    pub name: String,
    /// `image`: the name of an image in the release.
    pub image: String,
    /// `command`: program and arguments.
    pub command: Vec<String>,
    /// `socket`: the socket's name in `/run/kmsplugin`, default `socket.sock`.
    pub socket: String,
    /// `timeout`: how long an API server waits for an answer; default 3 s.
    pub timeout: Duration,
    /// `extra_binds` and `extra_env`.
    pub common: ComponentSettings,
}

/// A host and port that API clients use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// DNS name or address.
    pub host: String,
    /// Default 6443.
    pub port: u16,
}

/// `bastide.hardening.profile`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// Anonymous requests reach the health paths only.
    #[default]
    Default,
    /// `--anonymous-auth=false`, AlwaysPullImages.
    Strict,
}

/// `bastide.pki.algorithm`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256.
    #[default]
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA of 2048 bits.
    Rsa2048,
}

/// How long bastide waits. All can be set, so that a slow machine is not a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For one staging stream or activation without progress. Default 10 min.
    pub transfer: Duration,
    /// For a component to become healthy. Default 5 min.
    pub health: Duration,
    /// For a node to become Ready. Default 5 min.
    pub ready: Duration,
}
