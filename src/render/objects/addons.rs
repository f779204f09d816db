//! `addons` and `addons_include`: people's own YAML, read into objects. What the fields mean is the API server's to judge.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::model::Content;
use crate::model::ObjectId;
use crate::model::ObjectSet;
use crate::render::objects::OwnedObject;

/// One entry of `addons` or `addons_include` with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonText {
    /// What reports call it: `addons`, or the path or URL of its entry.
    pub name: String,
    /// YAML or JSON, any number of documents.
    pub text: Content,
}

/// Something wrong in an addon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonProblem {
    /// Which addon.
    pub addon: String,
    /// Which of its documents, from 1; 0 where the addon as a whole is meant.
    pub document: usize,
    /// Line in the addon's text, from 1, where it is known.
    pub line: Option<usize>,
    /// What, without the text itself, which may be secret.
    pub reason: String,
}

impl AddonProblem {
    /// An object that is taken already.
    pub(super) fn taken(set: &ObjectSet, id: &ObjectId) -> Self {
        let addon = match set {
            ObjectSet::Addon(name) => name.clone(),
            ObjectSet::System => "bastide".to_owned(),
        };
        let reason = format!("{id} is an object of bastide's own; give yours another name");
        Self { addon, document: 0, line: None, reason }
    }
}

impl fmt::Display for AddonProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "addon {}", self.addon)?;
        if self.document > 0 {
            write!(f, ", document {}", self.document)?;
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for AddonProblem {}

/// What makes an object one and the same, whichever version of the API it is written in: group, kind, namespace, name.
pub(super) type Identity = (String, String, String, String);

pub(super) fn identity(id: &ObjectId) -> Identity {
    let group = id.api_version.split_once('/').map_or("", |(group, _)| group);
    // Whether a kind has namespaces is not known here; `default` and none mean the same where it has.
    let namespace = id.namespace.clone().unwrap_or_else(|| "default".to_owned());
    (group.to_owned(), id.kind.clone(), namespace, id.name.clone())
}

/// The objects of every addon, each addon's in the order in which they are applied: namespaces and definitions first,
/// then as they stand in the text. All problems at once.
pub fn addons(documents: &[AddonText]) -> Result<Vec<OwnedObject>, Vec<AddonProblem>> {
    let mut problems = Vec::new();
    let mut taken: BTreeMap<Identity, String> = BTreeMap::new();
    let mut all = Vec::new();
    for addon in documents {
        let mut objects: Vec<OwnedObject> = Vec::new();
        for found in read(addon) {
            let added = found.and_then(|(place, value)| object(&place, value));
            match added {
                Ok((place, id, value)) => match taken.insert(identity(&id), addon.name.clone()) {
                    Some(other) => problems.push(place.problem(format!("{id} stands in addon {other} already"))),
                    None => objects.push((id, value, ObjectSet::Addon(addon.name.clone()))),
                },
                Err(problem) => problems.push(problem),
            }
        }
        objects.sort_by_key(|(id, ..)| !["Namespace", "CustomResourceDefinition"].contains(&id.kind.as_str()));
        all.extend(objects);
    }
    if problems.is_empty() { Ok(all) } else { Err(problems) }
}

/// Where something stands.
#[derive(Debug, Clone)]
struct Place {
    addon: String,
    document: usize,
    line: usize,
}

impl Place {
    fn problem(&self, reason: String) -> AddonProblem {
        AddonProblem { addon: self.addon.clone(), document: self.document, line: Some(self.line), reason }
    }
}

/// Every object of an addon, lists unpacked.
fn read(addon: &AddonText) -> Vec<Result<(Place, Value), AddonProblem>> {
    let whole = Place { addon: addon.name.clone(), document: 0, line: 1 };
    let Some(text) = addon.text.expose_text() else {
        return vec![Err(AddonProblem { line: None, ..whole.problem("is not UTF-8".to_owned()) })];
    };
    let mut found = Vec::new();
    for (document, (line, text)) in split(text).into_iter().enumerate() {
        let blank = text.lines().take_while(|line| !content_line(line)).count();
        let place = Place { document: document + 1, line: line + blank, ..whole.clone() };
        match parse(text) {
            Ok(Value::Null) => {}
            Ok(value) => found.extend(unpacked(value).into_iter().map(|value| Ok((place.clone(), value)))),
            Err((below, reason)) => {
                found.push(Err(Place { line: line + below.saturating_sub(1), ..place }.problem(reason)));
            }
        }
    }
    found
}

/// The documents of a text, each with its first line. `---` at the start of a line ends a document even inside a block
/// scalar (YAML 1.2.2, 9.1.2), so that lines are enough; each is parsed by itself, so that one fault does not hide others.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marker && at > start {
            documents.push((first, &text[start..at]));
            (start, first) = (at, number + 1);
        }
        at += line.len();
    }
    documents.push((first, &text[start..]));
    documents.retain(|(_, text)| text.lines().any(content_line));
    documents
}

fn content_line(line: &str) -> bool {
    let line = line.trim();
    !(line.is_empty() || line.starts_with('#') || line == "---" || line == "...")
}

/// One document, as `kubectl` reads it: booleans and octal numbers of YAML 1.1 (`defaultMode: 0644`). The snippet that the
/// parser would show is left out, since it may hold a secret.
fn parse(text: &str) -> Result<Value, (usize, String)> {
    let mut options = serde_saphyr::Options::default();
    options.legacy_octal_numbers = true;
    options.with_snippet = false;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| usize::try_from(location.line()).unwrap_or(1));
        let words = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let words = words.lines().next().unwrap_or("is not YAML");
        // The place within this document alone would mislead.
        (line, words.split(" at line ").next().unwrap_or(words).to_owned())
    })
}

/// The items of a `List` or `ConfigMapList`, the latter with the kind that only the list names.
fn unpacked(value: Value) -> Vec<Value> {
    let kind = value["kind"].as_str().unwrap_or_default();
    let Some(item_kind) = kind.strip_suffix("List").map(str::to_owned) else { return vec![value] };
    let api_version = value["apiVersion"].clone();
    let Value::Object(mut list) = value else { return vec![value] };
    let Some(Value::Array(items)) = list.remove("items") else { return vec![Value::Object(list)] };
    items
        .into_iter()
        .map(|mut item| {
            if let Some(fields) = item.as_object_mut().filter(|_| !item_kind.is_empty()) {
                fields.entry("apiVersion").or_insert_with(|| api_version.clone());
                fields.entry("kind").or_insert_with(|| Value::String(item_kind.clone()));
            }
            item
        })
        .flat_map(unpacked)
        .collect()
}

fn object(place: &Place, mut value: Value) -> Result<(Place, ObjectId, Value), AddonProblem> {
    if !value.is_object() {
        return Err(place.problem("is not an object with apiVersion, kind and metadata".to_owned()));
    }
    let text = |value: &Value, at: &str| match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(place.problem(format!("{at} is missing or is no text"))),
    };
    let api_version = text(&value["apiVersion"], "apiVersion")?;
    let kind = text(&value["kind"], "kind")?;
    let metadata = &value["metadata"];
    if metadata["name"].is_null() && !metadata["generateName"].is_null() {
        return Err(place.problem(format!("{kind}: metadata.generateName would make a new object with every run")));
    }
    let name = text(&metadata["name"], "metadata.name")?;
    let namespace = match &metadata["namespace"] {
        Value::Null => None,
        given => Some(text(given, "metadata.namespace")?),
    };
    // What people get from `kubectl get -o yaml` and paste: the server's own fields, which an apply may not carry.
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    if let Some(fields) = value["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink"] {
            fields.remove(field);
        }
    }
    Ok((place.clone(), ObjectId { api_version, kind, namespace, name }, value))
}
