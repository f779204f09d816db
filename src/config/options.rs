//! `bastide`: everything that RKE has no key for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use crate::config::cluster::Deadlines;
use crate::config::cluster::KeyAlgorithm;
use crate::config::cluster::Options;
use crate::config::cluster::PasswordSource;
use crate::config::cluster::Profile;
use crate::config::cluster::SshSettings;
use crate::config::encryption::at_rest;
use crate::config::field::Field;
use crate::config::field::Section;
use crate::config::login;
use crate::config::login::ClusterKeys;
use crate::config::login::login;
use crate::config::read::Context;
use crate::config::values;
use crate::model::Allowance;
use crate::model::Jump;

/// What stands under `bastide:`, and the host keys by address with their places.
pub(super) struct Own<'a> {
    pub(super) options: Options,
    pub(super) ssh: SshSettings,
    pub(super) host_keys: BTreeMap<String, (String, Field<'a>)>,
}

/// Reads `bastide:` and `bastion_host`.
pub(super) fn own<'a>(top: &Section<'a>, keys: &ClusterKeys, context: &Context) -> Own<'a> {
    let bastide = top.section("bastide");
    let open = |key| bastide.as_ref().and_then(|bastide: &Section<'a>| bastide.section(key));
    let mut options = Options {
        bundle: None,
        recipients: Vec::new(),
        passphrase: None,
        at_rest: at_rest(open("encryption")),
        profile: Profile::Default,
        allow: Vec::new(),
        endpoint: None,
        api_bind_address: None,
        dial_direct: false,
        key_algorithm: KeyAlgorithm::P256,
        leaf_lifetime: LONGEST_LEAF,
        warn_days: WARN_DAYS,
        kubelet_config: extra_config(open("kubelet")),
        proxy_config: extra_config(open("kube_proxy")),
        containerd_config: extra_config(open("containerd")),
        deadlines: deadlines(open("deadlines")),
    };
    if let Some(artifacts) = open("artifacts") {
        options.bundle = artifacts.given("bundle").and_then(|field| login::path(&field, context));
        artifacts.planned("mirror", "remove it and name a bundle under bastide.artifacts.bundle");
        artifacts.finish();
    }
    if let Some(state) = open("state") {
        let recipients = state.get("recipients").map(|field| field.items()).unwrap_or_default();
        options.recipients = recipients.iter().filter_map(|item| item.parsed(recipient)).collect();
        options.passphrase = password_source(&state, "passphrase_file", "passphrase_env", context);
        state.finish();
    }
    hardening(open("hardening"), &mut options);
    api(open("api"), &mut options);
    if let Some(pki) = open("pki") {
        let algorithm = pki.given("algorithm").and_then(|field| {
            field.parsed(|text| match text {
                "ecdsa-p256" => Ok(KeyAlgorithm::P256),
                "ecdsa-p384" => Ok(KeyAlgorithm::P384),
                "rsa-2048" => Ok(KeyAlgorithm::Rsa2048),
                _ => Err(format!("{text:?} is not an algorithm: ecdsa-p256, ecdsa-p384 or rsa-2048")),
            })
        });
        options.key_algorithm = algorithm.unwrap_or_default();
        options.leaf_lifetime = leaf_lifetime(&pki).unwrap_or(LONGEST_LEAF);
        let days = pki.given("warn_days").and_then(|field| field.number(0, 365));
        options.warn_days = days.unwrap_or(WARN_DAYS);
        pki.planned("offline_ca", "remove it: until then control-plane hosts hold the kubernetes authority's key");
        pki.finish();
    }
    let (ssh, host_keys) = ssh(top, open("ssh"), keys, context);
    if let Some(bastide) = bastide {
        bastide.finish();
    }
    Own { options, ssh, host_keys }
}

/// `up` renews from 90 days on: with 30 left nobody has run it for two months.
const WARN_DAYS: u32 = 30;
/// One year, as kubeadm's leaves.
const LONGEST_LEAF: Duration = Duration::from_hours(365 * 24);
/// Kubernetes signs nothing shorter, and leaves lie five minutes back.
const SHORTEST_LEAF: Duration = Duration::from_mins(10);
/// How long before its end `up` renews a leaf of a year: whoever runs it seldom counts on as much.
const SHORT_LEAF: Duration = Duration::from_hours(90 * 24);

fn leaf_lifetime(pki: &Section) -> Option<Duration> {
    let field = pki.given("leaf_lifetime")?;
    let lifetime = field.parsed(values::duration)?;
    if lifetime < SHORTEST_LEAF {
        field.error_with(
            "certificates would end within minutes",
            "10m is the shortest; a year (the default) the longest",
        );
        return None;
    }
    if lifetime < SHORT_LEAF {
        field.warn_with(
            "certificates that last less than 90 days end unless `bastide up` or `rotate-certs` runs often",
            "let one of them run within each third of that time, and give `certs check` limits that fit",
        );
    }
    Some(lifetime)
}

/// An age recipient or an SSH public key that age takes. ECDSA keys are none.
fn recipient(text: &str) -> Result<String, &'static str> {
    if text.starts_with("AGE-SECRET-KEY-") {
        return Err("this is a secret key: give its public half, which begins with age1, and consider it burnt");
    }
    // A plugin's name stands in its recipients: `age1yubikey1…`, `age1fido2-hmac1…`.
    let looks_right =
        text.starts_with("age1") && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b));
    if looks_right || ["ssh-ed25519 ", "ssh-rsa "].iter().any(|kind| text.starts_with(kind)) {
        Ok(text.to_owned())
    } else {
        Err("not an age recipient: age1…, ssh-ed25519 … or ssh-rsa …")
    }
}

fn extra_config(section: Option<Section>) -> Json {
    let empty = || Json::Object(serde_json::Map::new());
    let Some(section) = section else { return empty() };
    let field = section.given("extra_config");
    let value = field.filter(|field| field.section().is_some()).map(|field| field.node.json());
    section.finish();
    value.unwrap_or_else(empty)
}

fn deadlines(section: Option<Section>) -> Deadlines {
    const MINUTE: u64 = 60;
    let wait = |key, default| {
        let given = section.as_ref().and_then(|section| section.given(key)?.parsed(values::duration));
        given.unwrap_or(Duration::from_secs(default))
    };
    let deadlines = Deadlines {
        transfer: wait("transfer", 10 * MINUTE),
        health: wait("health", 5 * MINUTE),
        ready: wait("ready", 5 * MINUTE),
    };
    if let Some(section) = section {
        section.finish();
    }
    deadlines
}

fn hardening(section: Option<Section>, options: &mut Options) {
    let Some(section) = section else { return };
    if let Some(field) = section.given("profile") {
        let profile = field.parsed(|text| match text {
            "default" => Ok(Profile::Default),
            "strict" => Ok(Profile::Strict),
            _ => Err(format!("{text:?} is not a profile: default or strict")),
        });
        options.profile = profile.unwrap_or_default();
    }
    for item in section.get("allow").map(|field| field.items()).unwrap_or_default() {
        let Some(entry) = item.required_section("an allowance is a map with setting and reason") else {
            continue;
        };
        let setting = entry.given("setting").and_then(|field| field.text());
        let reason = entry.given("reason").and_then(|field| field.text());
        if entry.given("setting").is_none() {
            item.error_at_key("the allowance names no setting", Some("add `setting:`".to_owned()));
        }
        if entry.given("reason").is_none() {
            item.error_at_key("the allowance gives no reason", Some("add `reason:` in your own words".to_owned()));
        }
        entry.finish();
        if let (Some(setting), Some(reason)) = (setting, reason) {
            if options.allow.iter().any(|other| other.setting == setting) {
                item.error(format!("{setting} is allowed twice"));
            }
            options.allow.push(Allowance { setting, reason });
        }
    }
    section.finish();
}

fn api(section: Option<Section>, options: &mut Options) {
    let Some(section) = section else { return };
    options.endpoint = section.given("endpoint").and_then(|field| field.parsed(values::endpoint));
    options.api_bind_address = section.given("bind_address").and_then(|field| {
        field.parsed(|text| text.parse::<IpAddr>().map_err(|_| format!("{text:?} is not an IP address")))
    });
    if let Some(field) = section.given("dial") {
        let direct = field.parsed(|text| match text {
            "ssh" => Ok(false),
            "direct" => Ok(true),
            _ => Err(format!("{text:?} is not a way to the API server: ssh or direct")),
        });
        options.dial_direct = direct.unwrap_or(false);
    }
    section.finish();
}

/// How long one SSH handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

type HostKeys<'a> = BTreeMap<String, (String, Field<'a>)>;

fn ssh<'a>(
    top: &Section<'a>,
    section: Option<Section<'a>>,
    keys: &ClusterKeys,
    context: &Context,
) -> (SshSettings, HostKeys<'a>) {
    let mut settings = SshSettings {
        jumps: bastion(top, keys, context).into_iter().collect(),
        known_hosts: Vec::new(),
        sudo_password: None,
        connect_timeout: CONNECT_TIMEOUT,
    };
    let mut host_keys = BTreeMap::new();
    let Some(section) = section else { return (settings, host_keys) };
    if let Some(field) = section.get("jump") {
        for item in field.items() {
            let Some(entry) = item.required_section("a jump is a map with address and user") else {
                continue;
            };
            settings.jumps.extend(jump(&entry, keys, context));
            entry.finish();
        }
    }
    settings.known_hosts = known_hosts(&section, context);
    settings.sudo_password = password_source(&section, "sudo_password_file", "sudo_password_env", context);
    section.planned("config", "remove it and write address, port, user, ssh_key_path and bastide.ssh.jump here");
    if let Some(timeout) = section.given("connect_timeout").and_then(|field| field.parsed(values::duration)) {
        settings.connect_timeout = timeout;
    }
    if let Some(hosts) = section.get("hosts") {
        for (address, field) in hosts.members() {
            let Some(host) = field.required_section("a host is a map with host_key") else {
                continue;
            };
            if let Some(key) = host.given("host_key")
                && let Some(line) = key.parsed(host_key)
            {
                host_keys.insert(address, (line, field.clone()));
            }
            host.finish();
        }
    }
    section.finish();
    (settings, host_keys)
}

/// A file or an environment variable, not both, with a password.
fn password_source(
    section: &Section,
    file_key: &'static str,
    variable_key: &'static str,
    context: &Context,
) -> Option<PasswordSource> {
    let file = section.given(file_key);
    let variable = section.given(variable_key);
    if let (Some(_), Some(variable)) = (&file, &variable) {
        variable.error(format!("{file_key} is given as well: keep one of them"));
    }
    let file = file.and_then(|field| login::path(&field, context)).map(PasswordSource::File);
    let variable = variable.and_then(|field| {
        field.parsed(|text| {
            let valid = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !text.starts_with(|c: char| c.is_ascii_digit());
            // The value is not repeated: it may be the password itself.
            if valid { Ok(text.to_owned()) } else { Err("not the name of an environment variable") }
        })
    });
    file.or(variable.map(PasswordSource::Environment))
}

/// One path or a list of them.
fn known_hosts(section: &Section, context: &Context) -> Vec<PathBuf> {
    let Some(field) = section.given("known_hosts") else { return Vec::new() };
    if field.node.kind() == "a list" {
        return field.items().iter().filter_map(|item| login::path(item, context)).collect();
    }
    login::path(&field, context).into_iter().collect()
}

/// `bastion_host`. RKE's generator writes it with every value empty: that is none.
fn bastion(top: &Section, keys: &ClusterKeys, context: &Context) -> Option<Jump> {
    let field = top.get("bastion_host").filter(|field| !field.node.is_inert())?;
    let section = field.section()?;
    section.dead("ignore_proxy_env_vars", "no proxy is used on the way through a bastion");
    let jump = jump(&section, keys, context);
    section.finish();
    jump
}

fn jump(section: &Section, keys: &ClusterKeys, context: &Context) -> Option<Jump> {
    let login = login(section, keys, context);
    let address = if let Some(field) = section.given("address") {
        field.parsed(values::address)
    } else {
        section.missing("address", "the address is missing", "add `address:`".to_owned());
        None
    };
    Some(Jump { address: address?, login: login? })
}

/// An OpenSSH public key line, `ssh-ed25519 AAAA… comment`: the comment is dropped.
fn host_key(text: &str) -> Result<String, String> {
    let wrong = || "not an OpenSSH public key line such as `ssh-ed25519 AAAA…`, as `ssh-keyscan` prints after the name";
    let mut words = text.split_ascii_whitespace();
    let (Some(kind), Some(body)) = (words.next(), words.next()) else { return Err(wrong().to_owned()) };
    // RFC 4253, section 6.6: the blob begins with its algorithm as a string with a 32-bit length.
    let blob = STANDARD.decode(body).map_err(|_| wrong().to_owned())?;
    let inner = blob.get(4..4 + kind.len());
    let length = u32::try_from(kind.len()).unwrap_or(u32::MAX).to_be_bytes();
    if blob.get(..4) == Some(&length[..]) && inner == Some(kind.as_bytes()) {
        Ok(format!("{kind} {body}"))
    } else {
        Err(wrong().to_owned())
    }
}
