//! kubeconfig files, for people and for components.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::config::Cluster;
use crate::model::Content;
use crate::secrets::Leaf;

/// What a kubeconfig says. Every server becomes a cluster and a context; the first context is the current one.
#[derive(Debug, Clone, Copy)]
pub struct Kubeconfig<'a> {
    /// Never empty.
    pub servers: &'a [Server],
    /// Whom it believes.
    pub authority: Trust<'a>,
    /// Name of the user entry, such as `admin`.
    pub user: &'a str,
    /// How it proves who it is.
    pub credential: Credential<'a>,
}

/// An API server under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Of cluster and context.
    pub name: String,
    /// Such as `https://127.0.0.1:6443`.
    pub url: String,
}

/// The authorities of a kubeconfig.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// A bundle (PEM) inside the file.
    Embedded(&'a str),
    /// Path of a bundle on the host where it is read.
    File(&'a str),
}

/// A client certificate in a kubeconfig.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'a> {
    /// Certificate and key inside the file.
    Embedded(&'a Leaf),
    /// Paths on the host where it is read, so that what is exchanged there is taken up.
    Files {
        /// Certificate.
        certificate: &'a str,
        /// Key.
        key: &'a str,
    },
}

/// The servers that a person's kubeconfig names: `bastide.api.endpoint` alone where there is one, else every control
/// plane as `CLUSTER` (the first) and `CLUSTER-NODE` (the others).
pub fn servers(cluster: &Cluster) -> Vec<Server> {
    if let Some(endpoint) = &cluster.options.endpoint {
        return vec![Server { name: cluster.name.clone(), url: url(&endpoint.host, endpoint.port) }];
    }
    cluster
        .control_planes()
        .enumerate()
        .map(|(at, node)| Server {
            name: if at == 0 { cluster.name.clone() } else { format!("{}-{}", cluster.name, node.name) },
            url: url(&node.address, 6443),
        })
        .collect()
}

/// `https://host:port`, an IPv6 address in brackets.
fn url(host: &str, port: u16) -> String {
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("https://[{host}]:{port}")
    } else {
        format!("https://{host}:{port}")
    }
}

/// The file's YAML. Equal inputs give equal bytes.
pub fn kubeconfig(kubeconfig: &Kubeconfig<'_>) -> Content {
    let authority = match kubeconfig.authority {
        Trust::Embedded(bundle) => format!("certificate-authority-data: {}", STANDARD.encode(bundle)),
        Trust::File(path) => format!("certificate-authority: {}", quoted(path)),
    };
    let user = quoted(kubeconfig.user);
    // The whole size is reserved at once: growing would leave copies of the key in freed memory.
    let mut text = Zeroizing::new(String::with_capacity(64 * 1024));
    let mut contexts = String::new();
    text.push_str("apiVersion: v1\nkind: Config\n");
    if let Some(first) = kubeconfig.servers.first() {
        let _ = writeln!(text, "current-context: {}", quoted(&first.name));
    }
    text.push_str("clusters:\n");
    for server in kubeconfig.servers {
        let (name, url) = (quoted(&server.name), quoted(&server.url));
        let _ = write!(text, "- name: {name}\n  cluster:\n    server: {url}\n    {authority}\n");
        let _ = write!(contexts, "- name: {name}\n  context:\n    cluster: {name}\n    user: {user}\n");
    }
    text.push_str("contexts:\n");
    text.push_str(&contexts);
    let _ = write!(text, "users:\n- name: {user}\n  user:\n");
    match kubeconfig.credential {
        Credential::Embedded(leaf) => {
            let key = Zeroizing::new(STANDARD.encode(leaf.key.expose()));
            let certificate = STANDARD.encode(&leaf.certificate);
            let _ = write!(text, "    client-certificate-data: {certificate}\n    client-key-data: {}\n", key.as_str());
        }
        Credential::Files { certificate, key } => {
            let _ = write!(text, "    client-certificate: {}\n    client-key: {}\n", quoted(certificate), quoted(key));
        }
    }
    Content::new(text.as_bytes())
}

/// A double-quoted YAML scalar: JSON strings are a subset (YAML 1.2, 1.3).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
