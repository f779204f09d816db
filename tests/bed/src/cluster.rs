use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::Bed;
use crate::Cache;

/// A cluster.yml for hosts of a bed, with what these hosts need said in it.
#[derive(Debug, Clone)]
pub struct ClusterFile {
    /// `cluster_name`.
    pub name: String,
    /// Kubernetes minor whose bundle is used, such as `1.37`.
    pub minor: String,
    /// The nodes, in order.
    pub nodes: Vec<Node>,
    /// Whether metrics-server runs. It is ready only half a minute after all else, when it has read every kubelet twice.
    pub metrics: bool,
    /// Whether hosts take snapshots and look after their certificates by themselves: then they are given the program, which takes
    /// its time.
    pub recurring: bool,
    /// More top-level keys, as YAML.
    pub more: String,
    /// More keys below `bastide:`, as YAML indented by two spaces.
    pub more_options: String,
}

/// One host's place in a cluster.
#[derive(Debug, Clone)]
pub struct Node {
    /// The bed's name of the host.
    pub host: String,
    /// What the node is called: mostly the same.
    pub name: String,
    /// Roles as RKE names them.
    pub roles: Vec<&'static str>,
    /// Who logs in.
    pub user: &'static str,
}

impl Node {
    /// A host with all roles, worked on as root.
    pub fn all_roles(host: &str) -> Self {
        Self::with(host, &["controlplane", "etcd", "worker"])
    }

    /// A host with some roles, worked on as root.
    pub fn with(host: &str, roles: &[&'static str]) -> Self {
        Self { host: host.to_owned(), name: host.to_owned(), roles: roles.to_vec(), user: "root" }
    }
}

impl ClusterFile {
    /// A cluster of these nodes on the newest minor that the tests use.
    pub fn new(name: &str, nodes: Vec<Node>) -> Self {
        Self {
            name: name.to_owned(),
            minor: "1.37".to_owned(),
            nodes,
            metrics: true,
            recurring: false,
            more: String::new(),
            more_options: String::new(),
        }
    }

    /// Writes `cluster.yml` and `known_hosts` into `folder`. The hosts must have been started once.
    pub fn write(&self, bed: &Bed, folder: &Path) -> Result<()> {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.host.as_str()).collect();
        fs::write(folder.join("known_hosts"), bed.known_hosts(&names)?)?;
        Ok(fs::write(folder.join("cluster.yml"), self.text(bed, folder)?)?)
    }

    fn text(&self, bed: &Bed, folder: &Path) -> Result<String> {
        let cache = Cache::from_environment();
        let version = fs::read_to_string(cache.kubernetes(&self.minor).join("version"))?;
        let nodes: String = self
            .nodes
            .iter()
            .map(|node| {
                format!(
                    "  - address: {}\n    hostname_override: {}\n    user: {}\n    role: [{}]\n",
                    bed.host(&node.host).address(),
                    node.name,
                    node.user,
                    node.roles.join(", ")
                )
            })
            .collect();
        Ok(format!(
            "\
cluster_name: {name}
kubernetes_version: {version}
ssh_key_path: {key}
nodes:
{nodes}network:
  plugin: flannel
ingress:
  provider: none
{monitoring}{more}bastide:
  artifacts:
    bundle: {bundle}
  ssh:
    known_hosts: {known_hosts}
  # The hosts are namespaces of one machine: it has cgroup v1 alone, its connection tracking is not theirs to size, and its
  # disk, which they share, is no sign of how full a host is.
  kubelet:
    extra_config:
      failCgroupV1: false
      evictionHard:
        imagefs.available: 1%
        nodefs.available: 1%
  kube_proxy:
    extra_config:
      conntrack:
        maxPerCore: 0
{more_options}",
            name = self.name,
            version = version.trim(),
            key = bed.key().display(),
            monitoring = if self.metrics { "" } else { "monitoring:\n  provider: none\n" },
            more = if self.recurring { self.more.clone() } else { without_recurring(&self.more) },
            bundle = fs::canonicalize(cache.bundle(&self.minor))?.display(),
            known_hosts = folder.join("known_hosts").display(),
            more_options = if self.recurring { self.more_options.clone() } else { without_watch(&self.more_options) },
        ))
    }
}

/// `more` with recurring snapshots off, unless it says something of its own about them.
fn without_recurring(more: &str) -> String {
    const OFF: &str = "backup_config: {enabled: false}";
    if more.contains("backup_config") {
        return more.to_owned();
    }
    for (found, with) in [
        ("services:\n  etcd:\n", format!("services:\n  etcd:\n    {OFF}\n")),
        ("services:\n", format!("services:\n  etcd: {{{OFF}}}\n")),
        ("services: {", format!("services: {{etcd: {{{OFF}}}, ")),
    ] {
        if more.contains(found) {
            return more.replacen(found, &with, 1);
        }
    }
    format!("{more}services:\n  etcd: {{{OFF}}}\n")
}

/// The same for keys below `bastide:` and the watch over certificates.
fn without_watch(options: &str) -> String {
    const OFF: &str = "warn_days: 0";
    if options.contains(OFF) {
        return options.to_owned();
    }
    for (found, with) in [("  pki:\n", format!("  pki:\n    {OFF}\n")), ("  pki: {", format!("  pki: {{{OFF}, "))] {
        if options.contains(found) {
            return options.replacen(found, &with, 1);
        }
    }
    format!("{options}  pki: {{{OFF}}}\n")
}
