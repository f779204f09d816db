//! How one sshd is logged in to: the keys that nodes, the bastion and jumps share.

use std::path::PathBuf;

use crate::config::field::Field;
use crate::config::field::Section;
use crate::config::read::Context;
use crate::config::values::local_path;
use crate::model::Content;
use crate::model::KeySource;
use crate::model::Login;

/// RKE's `ssh_key_path` where neither the node nor the cluster gives one.
const DEFAULT_KEY: &str = "~/.ssh/id_rsa";

/// What the top level says about keys.
#[derive(Debug, Clone, Default)]
pub(super) struct ClusterKeys {
    pub(super) agent: bool,
    pub(super) path: Option<PathBuf>,
}

/// Reads the cluster-level keys.
pub(super) fn cluster_keys(top: &Section, context: &Context) -> ClusterKeys {
    if let Some(field) = top.given("ssh_cert_path") {
        field.warn_with(
            "ignored: neither RKE nor bastide applies a certificate of the top level",
            "write ssh_cert_path under each node that needs it",
        );
    }
    ClusterKeys {
        agent: top.get("ssh_agent_auth").and_then(|field| field.boolean()).unwrap_or(false),
        path: top.get("ssh_key_path").and_then(|field| path(&field, context)),
    }
}

/// The login of a node, a bastion or a jump. `user` is required.
pub(super) fn login(section: &Section, cluster: &ClusterKeys, context: &Context) -> Option<Login> {
    let port = section.given("port").and_then(|field| field.number::<u16>(1, u16::MAX));
    let keys = keys(section, cluster, context);
    let user = if let Some(field) = section.get("user") {
        field.required_text("the user").filter(|user| {
            let valid = user.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b':' | b'@' | b'/' | b'\\'))
                && !user.starts_with('-');
            if !valid {
                field.error(format!("{user:?} is not a user name"));
            }
            valid
        })
    } else {
        section.missing("user", "the user to log in as is missing", "add `user: root` or another".to_owned());
        None
    };
    Some(Login { port: port.unwrap_or(22), user: user?, keys, host_key: None })
}

/// RKE's order: the agent, else the key in the file, else the key's path. One of them, never two.
fn keys(section: &Section, cluster: &ClusterKeys, context: &Context) -> Vec<KeySource> {
    let agent = section.get("ssh_agent_auth").and_then(|field| field.boolean());
    let inline = section.get("ssh_key").and_then(|field| {
        let text = field.text()?;
        if !text.contains("PRIVATE KEY-----") {
            field.error_with("not a private key in PEM or OpenSSH form", "or give its place with ssh_key_path");
        }
        Some(text)
    });
    let own_path = section.get("ssh_key_path").and_then(|field| path(&field, context));
    let certificate = section.get("ssh_cert");
    let certificate_line = certificate.as_ref().and_then(Field::text);
    let certificate_file = section.get("ssh_cert_path");
    let certificate_path = certificate_file.as_ref().and_then(|field| path(field, context));
    if agent.unwrap_or(cluster.agent) || cluster.agent {
        return vec![KeySource::Agent];
    }
    if let Some(key) = inline {
        if let (None, Some(field)) = (&certificate_line, certificate_file.filter(|field| !field.node.is_empty())) {
            field.error_with("a key in the file needs its certificate in the file", "write the line as ssh_cert");
        }
        return vec![KeySource::Inline { key: Content::new(with_final_newline(key)), certificate: certificate_line }];
    }
    if let (None, Some(field)) = (&certificate_path, certificate.filter(|field| !field.node.is_empty())) {
        field.error_with("a key from a path needs its certificate from a path", "write the file as ssh_cert_path");
    }
    let key = own_path.or_else(|| cluster.path.clone()).unwrap_or_else(|| {
        context.home.map_or_else(|| PathBuf::from(DEFAULT_KEY), |home| home.join(DEFAULT_KEY.trim_start_matches("~/")))
    });
    vec![KeySource::Path { key, certificate: certificate_path }]
}

/// OpenSSH refuses a key whose last line is not ended, and `|-` blocks take the end away.
fn with_final_newline(mut key: String) -> String {
    if !key.ends_with('\n') {
        key.push('\n');
    }
    key
}

/// A path on the operator's machine; empty is none.
pub(super) fn path(field: &Field, context: &Context) -> Option<PathBuf> {
    field.parsed(|text| {
        // A key pasted here must not be repeated in the problem.
        if text.contains(char::is_control) {
            Err("not a path: it has several lines".to_owned())
        } else {
            local_path(text, context.home)
        }
    })
}
