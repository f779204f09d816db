//! Flags as sorted, typed data: bastide's own, then the file's `extra_args` over them.

use std::collections::BTreeMap;

use crate::config::ComponentSettings;
use crate::render::RenderError;
use crate::render::judge::Hardened;
use crate::render::judge::Judge;

/// The flags of one program, each with its values in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flags(BTreeMap<String, Vec<String>>);

impl Flags {
    /// Sets a flag.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.0.insert(name.to_owned(), vec![value.into()]);
        self
    }

    /// Lays the file's settings over these flags, each judged by `rules` first.
    pub(super) fn overlay(
        &mut self,
        section: &str,
        settings: &ComponentSettings,
        rules: &[Hardened],
        judge: &mut Judge<'_>,
    ) {
        for (name, value) in &settings.extra_args {
            let place = format!("services.{section}.extra_args.{name}");
            if let Some(value) = accepted(section, name, value, &place, rules, judge) {
                self.0.insert(name.clone(), vec![value]);
            }
        }
        for (name, values) in &settings.extra_args_array {
            let place = format!("services.{section}.extra_args_array.{name}");
            for value in values {
                if let Some(value) = accepted(section, name, value, &place, rules, judge) {
                    self.0.entry(name.clone()).or_default().push(value);
                }
            }
        }
    }

    /// `program` followed by `--name=value`, sorted by name.
    pub(super) fn command(&self, program: &str) -> Vec<String> {
        let flags =
            self.0.iter().flat_map(|(name, values)| values.iter().map(move |value| format!("--{name}={value}")));
        std::iter::once(program.to_owned()).chain(flags).collect()
    }
}

fn accepted(
    section: &str,
    name: &str,
    value: &str,
    place: &str,
    rules: &[Hardened],
    judge: &mut Judge<'_>,
) -> Option<String> {
    let valid = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.');
    if !valid {
        judge.errors.push(RenderError::Malformed {
            place: format!("services.{section}.extra_args"),
            value: name.to_owned(),
            expected: "the name of a flag without dashes in front".to_owned(),
        });
        return None;
    }
    if value.contains('\0') {
        judge.errors.push(RenderError::Malformed {
            place: place.to_owned(),
            value: value.to_owned(),
            expected: "text without zero bytes".to_owned(),
        });
        return None;
    }
    match rules.iter().find(|hardened| hardened.name == name) {
        Some(hardened) => Some(judge.value(section, hardened, place, value)),
        None => Some(value.to_owned()),
    }
}

/// `extra_env` as name and value.
pub(super) fn environment(section: &str, settings: &ComponentSettings, judge: &mut Judge<'_>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for line in &settings.extra_env {
        match line.split_once('=') {
            Some((name, value))
                if !name.is_empty()
                    && !value.contains('\0')
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && !name.starts_with(|c: char| c.is_ascii_digit()) =>
            {
                variables.push((name.to_owned(), value.to_owned()));
            }
            _ => judge.errors.push(RenderError::Malformed {
                place: format!("services.{section}.extra_env"),
                value: line.split('=').next().unwrap_or_default().to_owned(),
                expected: "of the form NAME=value".to_owned(),
            }),
        }
    }
    variables
}

/// One entry of `extra_binds`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    /// Path on the host.
    pub host: String,
    /// Path in the container.
    pub container: String,
    /// Mounted read-only.
    pub read_only: bool,
}

/// `extra_binds` as data: `host:container[:options]` with Docker's options, of which `ro` alone has a meaning here.
pub(super) fn binds(section: &str, settings: &ComponentSettings, judge: &mut Judge<'_>) -> Vec<Bind> {
    let absolute = |path: &str| path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|p| p == "..");
    let mut binds = Vec::new();
    for text in &settings.extra_binds {
        let mut parts = text.split(':');
        let read = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(host), Some(container), options, None) if absolute(host) && absolute(container) => {
                let options: Vec<&str> = options.map(|o| o.split(',').collect()).unwrap_or_default();
                let known = ["ro", "rw", "z", "Z"];
                options.iter().all(|option| known.contains(option)).then(|| Bind {
                    host: host.to_owned(),
                    container: container.to_owned(),
                    read_only: options.contains(&"ro"),
                })
            }
            _ => None,
        };
        match read {
            Some(bind) => binds.push(bind),
            None => judge.errors.push(RenderError::Malformed {
                place: format!("services.{section}.extra_binds"),
                value: text.clone(),
                expected: "of the form /host/path:/container/path or /host/path:/container/path:ro".to_owned(),
            }),
        }
    }
    binds
}
