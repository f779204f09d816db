//! Encryption at rest: `services.kube-api.secrets_encryption_config.custom_config` and `bastide.encryption`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::json;

use crate::config::cluster::AtRest;
use crate::config::cluster::AtRestProvider;
use crate::config::cluster::KmsPlugin;
use crate::config::field::Field;
use crate::config::field::Section;
use crate::config::services;
use crate::config::values;
use crate::model::Content;

/// Where plugins listen and API servers look for them.
const SOCKETS: &str = "/run/kmsplugin/";
/// How long an API server waits for a plugin's answer where the file says nothing (k8s.io/apiserver, `config.v1`).
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(3);
const API_VERSION: &str = "apiserver.config.k8s.io/v1";

/// The `EncryptionConfiguration` in `field` as API servers take it; none where anything of it is wrong, which is then said.
/// `binds` are those of the API server: a plugin that is not bastide's must be reachable through one.
pub(super) fn custom(field: &Field, binds: &[String]) -> Option<Content> {
    let top = field.section()?;
    if let Some(version) = top.get("apiVersion") {
        version.parsed(|text| match text {
            API_VERSION => Ok(()),
            _ => Err(format!("{text:?} is not read by any supported Kubernetes: write {API_VERSION}")),
        });
    } else {
        top.missing("apiVersion", "apiVersion is missing", format!("add `apiVersion: {API_VERSION}`"));
    }
    top.get("kind");
    let mut known = Known::default();
    let items = top.given("resources").map(|field| field.items()).unwrap_or_default();
    if items.is_empty() {
        top.missing("resources", "no resource is encrypted", "add `resources:` with a list of parts".to_owned());
    }
    let parts: Vec<_> = items.iter().map(|item| part(item, binds, &mut known)).collect();
    top.finish();
    let parts: Option<Vec<Value>> = parts.into_iter().collect();
    let parts = parts.filter(|parts| !parts.is_empty())?;
    let document = json!({"apiVersion": API_VERSION, "kind": "EncryptionConfiguration", "resources": parts});
    serde_json::to_vec(&document).ok().map(Content::new)
}

/// What was named so far: API servers refuse a plugin that is named twice, and tell keys by their names.
#[derive(Default)]
struct Known {
    plugins: Vec<String>,
    keys: Vec<(String, String, Content)>,
}

/// One part: resources and how they are encrypted.
fn part(item: &Field, binds: &[String], known: &mut Known) -> Option<Value> {
    let section = item.required_section("a part is a map with resources and providers")?;
    let list = |key, message: &str, hint: &str| {
        let items = section.given(key).map(|field| field.items()).unwrap_or_default();
        if items.is_empty() {
            section.missing(key, message, hint.to_owned());
        }
        items
    };
    let resources = list("resources", "the part names no resources", "add `resources: [secrets]`");
    let fields = resources;
    let resources: Vec<_> = fields.iter().map(|item| item.parsed(resource)).collect();
    for (at, field) in fields.iter().enumerate() {
        let masks = |other: &Option<String>, own: &str| other.as_ref().is_some_and(|other| overlap(other, own));
        if let Some(own) = &resources[at]
            && resources.iter().enumerate().any(|(there, other)| there < at && masks(other, own))
        {
            let hint = "write a part of its own for each, the narrower one first";
            field.error_with(format!("{own} overlaps with another resource of this part"), hint);
        }
    }
    let providers = list("providers", "the part names no providers", "add `providers:`, the one that writes first");
    let providers: Vec<_> = providers.iter().map(|item| provider(item, binds, known)).collect();
    section.finish();
    let resources: Vec<String> = resources.into_iter().collect::<Option<_>>()?;
    let providers: Vec<Value> = providers.into_iter().collect::<Option<_>>()?;
    (!resources.is_empty() && !providers.is_empty()).then(|| json!({"resources": resources, "providers": providers}))
}

/// `secrets`, `deployments.apps`, `*.apps`, `*.` or `*.*` (k8s.io/apiserver, `apiserver/validation/validation_encryption.go`).
fn resource(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let good = match text.strip_prefix("*.") {
        Some("*" | "") => true,
        Some(group) => group.chars().all(plain),
        None => text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(plain) && !text.ends_with('.'),
    };
    let group = text.split_once('.').map_or("", |(_, group)| group);
    if let "events.k8s.io" | "extensions" = group {
        return Err(format!(
            "{text:?}: API servers keep nothing of the group {group}: name the group where it is at home"
        ));
    }
    if let "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations" = text {
        return Err(format!("{text:?} is never encrypted: API servers refuse it"));
    }
    if good {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a resource such as secrets, deployments.apps, *.apps or *.*, in lower case"))
}

/// Whether both speak of the same objects, which API servers refuse within one part.
fn overlap(one: &str, other: &str) -> bool {
    let group = |text: &str| text.split_once('.').map(|(_, group)| group.to_owned()).unwrap_or_default();
    let wide = |text: &str| text.starts_with("*.");
    one == other || one == "*.*" || other == "*.*" || (group(one) == group(other) && (wide(one) || wide(other)))
}

fn provider(item: &Field, binds: &[String], known: &mut Known) -> Option<Value> {
    let members = item.members();
    let [(name, field)] = members.as_slice() else {
        let hint = "one entry of the list for each of secretbox, aescbc, aesgcm, kms, identity";
        item.error_at_key("a provider is a map with one key, its name", Some(hint.to_owned()));
        return None;
    };
    match name.as_str() {
        "identity" => {
            if !field.node.is_null()
                && let Some(section) = field.section()
            {
                section.finish();
            }
            Some(json!({"identity": {}}))
        }
        "aescbc" | "aesgcm" | "secretbox" => keys(name, field, known),
        "kms" => kms(field, binds, known),
        other => {
            let message = format!("{other:?} is no provider");
            field.error_at_key(message, Some("secretbox, aescbc, aesgcm, kms or identity".to_owned()));
            None
        }
    }
}

fn keys(provider: &str, field: &Field, known: &mut Known) -> Option<Value> {
    let section = field.required_section("a provider with keys is a map with `keys`")?;
    let items = section.given("keys").map(|field| field.items()).unwrap_or_default();
    if items.is_empty() {
        section.missing("keys", "the provider has no keys", "add `keys:` with name and secret of each".to_owned());
    }
    let keys: Vec<_> = items.iter().map(|item| key(provider, item, known)).collect();
    section.finish();
    let keys: Vec<Value> = keys.into_iter().collect::<Option<_>>()?;
    (!keys.is_empty()).then(|| json!({ provider: {"keys": keys} }))
}

fn key(provider: &str, item: &Field, known: &mut Known) -> Option<Value> {
    let section = item.required_section("a key is a map with name and secret")?;
    if section.given("name").is_none() {
        section.missing("name", "the key has no name", "add `name:`".to_owned());
    }
    if section.given("secret").is_none() {
        section.missing("secret", "the key has no secret", "add `secret:`, base64 of the key's bytes".to_owned());
    }
    let name = section.given("name").and_then(|field| field.parsed(|text| mark(text).map(|()| text.to_owned())));
    // The text is repeated in no message.
    let secret = section.given("secret").and_then(|field| {
        field.parsed(|text| {
            let length = STANDARD.decode(text).map(|bytes| bytes.len()).unwrap_or_default();
            let sizes: &[usize] = if provider == "secretbox" { &[32] } else { &[16, 24, 32] };
            if sizes.contains(&length) {
                return Ok(text.to_owned());
            }
            let sizes: Vec<_> = sizes.iter().map(ToString::to_string).collect();
            Err(format!("not base64 of {} bytes, which {provider} takes", sizes.join(", ")))
        })
    });
    section.finish();
    let (name, secret) = (name?, secret?);
    let held = Content::new(secret.as_bytes());
    let other = known.keys.iter().any(|(of, known, bytes)| of == provider && *known == name && *bytes != held);
    if other {
        item.error_at_key(format!("{provider} has another key of the name {name:?}"), Some("rename one".to_owned()));
        return None;
    }
    known.keys.push((provider.to_owned(), name.clone(), held));
    Some(json!({"name": name, "secret": secret}))
}

/// A name stands in every value that the key encrypted, between colons.
fn mark(text: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() <= 63 && text.chars().all(plain) {
        Ok(())
    } else {
        Err("a name is at most 63 letters, digits, `-`, `_`, `.`")
    }
}

fn kms(field: &Field, binds: &[String], known: &mut Known) -> Option<Value> {
    let section = field.required_section("kms is a map with apiVersion, name and endpoint")?;
    for (key, hint) in
        [("apiVersion", "add `apiVersion: v2`"), ("name", "add `name:`"), ("endpoint", "add `endpoint:`")]
    {
        if section.given(key).is_none() {
            section.missing(key, &format!("{key} is missing"), hint.to_owned());
        }
    }
    let version = section.given("apiVersion").and_then(|field| {
        field.parsed(|text| match text {
            "v2" => Ok(()),
            _ => Err(format!("{text:?}: Kubernetes has switched everything but v2 off")),
        })
    });
    let name = section.given("name").and_then(|field| field.parsed(|text| mark(text).map(|()| text.to_owned())));
    let endpoint = section.given("endpoint").and_then(|field| field.parsed(|text| endpoint(text, binds)));
    let timeout = section.given("timeout").and_then(|field| field.parsed(plugin_timeout));
    if let Some(field) = section.given("cachesize") {
        field.error_at_key("kms v2 has no cachesize", Some("remove it".to_owned()));
    }
    section.finish();
    let name = name?;
    if known.plugins.contains(&name) {
        let hint = "name all its resources in one part, or run a second plugin of another name";
        field.error_at_key(
            format!("the plugin {name:?} is named twice, which API servers refuse"),
            Some(hint.to_owned()),
        );
        return None;
    }
    known.plugins.push(name.clone());
    let endpoint = endpoint?;
    version?;
    let timeout = words(timeout.unwrap_or(PLUGIN_TIMEOUT));
    Some(json!({"kms": {"apiVersion": "v2", "name": name, "endpoint": endpoint, "timeout": timeout}}))
}

/// As Go reads it.
fn words(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn plugin_timeout(text: &str) -> Result<Duration, String> {
    let duration = values::duration(text)?;
    if duration.is_zero() || duration > Duration::from_mins(1) {
        return Err("a plugin is given between a moment and a minute".to_owned());
    }
    Ok(duration)
}

/// A socket that an API server can see: that of bastide's plugin, or one in a folder that is bound into it.
fn endpoint(text: &str, binds: &[String]) -> Result<String, String> {
    let path = text.strip_prefix("unix://").filter(|path| path.starts_with('/') && !path.contains("/../"));
    let path = path.ok_or_else(|| format!("{text:?} is not unix:// and the path of a socket"))?;
    let bound = binds.iter().filter_map(|bind| bind.split(':').nth(1));
    let seen = |folder: &str| path.strip_prefix(folder.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'));
    if path.starts_with(SOCKETS) || bound.into_iter().any(seen) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "API servers do not see {path}: declare the plugin under bastide.encryption.kms, which listens in {SOCKETS}, or bind its \
         folder with services.kube-api.extra_binds"
    ))
}

/// `bastide.encryption`.
pub(super) fn at_rest(section: Option<Section>) -> AtRest {
    let Some(section) = section else { return AtRest::default() };
    let provider = section.given("provider").and_then(|field| {
        field.parsed(|text| match text {
            "secretbox" => Ok(AtRestProvider::Secretbox),
            "aescbc" => Ok(AtRestProvider::Aescbc),
            "kms" => Ok(AtRestProvider::Kms),
            _ => Err(format!("{text:?} is not a provider: secretbox, aescbc or kms")),
        })
    });
    let kms = section.section("kms").and_then(plugin);
    if provider == Some(AtRestProvider::Kms) && section.get("kms").is_none() {
        section.missing(
            "kms",
            "provider is kms and there is no plugin",
            "add `kms:` with name, image, command".to_owned(),
        );
    }
    section.finish();
    AtRest { provider, kms }
}

fn plugin(section: Section) -> Option<KmsPlugin> {
    for (key, hint) in [
        ("name", "add `name:`, which stands in every value that it encrypts"),
        ("image", "add `image:`, the name of an image in the bundle"),
        ("command", "add `command:`, the program with its arguments"),
    ] {
        if section.given(key).is_none() {
            section.missing(key, &format!("{key} is missing"), hint.to_owned());
        }
    }
    let name = section.given("name").and_then(|field| field.parsed(|text| mark(text).map(|()| text.to_owned())));
    let image = section.given("image").and_then(|field| field.text());
    let command: Vec<String> =
        section.given("command").map(|field| field.items()).unwrap_or_default().iter().filter_map(word).collect();
    let socket = section.given("socket").and_then(|field| {
        field.parsed(|text| match text {
            "." | ".." => Err("not the name of a socket"),
            _ => mark(text).map(|()| text.to_owned()),
        })
    });
    let timeout = section.given("timeout").and_then(|field| field.parsed(plugin_timeout));
    let common = services::mounted(&section);
    section.finish();
    Some(KmsPlugin {
        name: name?,
        image: image?,
        command,
        socket: socket.unwrap_or_else(|| "socket.sock".to_owned()),
        timeout: timeout.unwrap_or(PLUGIN_TIMEOUT),
        common,
    })
}

fn word(item: &Field) -> Option<String> {
    item.required_text("a word of a command").filter(|text| {
        let good = !text.contains(char::is_control);
        if !good {
            item.error("a word of a command is one line");
        }
        good
    })
}

impl KmsPlugin {
    /// Where API servers find it.
    pub fn endpoint(&self) -> String {
        format!("unix://{SOCKETS}{}", self.socket)
    }

    /// [`KmsPlugin::timeout`] as Go reads it.
    pub fn timeout_words(&self) -> String {
        words(self.timeout)
    }
}
