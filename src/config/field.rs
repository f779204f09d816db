//! Walking the tree: each accessor takes what it can and records what it cannot, so that one pass finds every problem.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use miette::NamedSource;

use crate::config::problem::Problem;
use crate::config::problem::Severity;
use crate::config::suggest::nearest;
use crate::config::tree::Entry;
use crate::config::tree::Node;
use crate::config::tree::Value;
use crate::config::tree::boolean_word;

/// Later ones are left out: they rarely are mistakes of their own, and each costs a look through the text.
const MAX_PROBLEMS: usize = 300;

/// Bytes of the lines of a snippet.
const MAX_SNIPPET: usize = 1_000;

/// Where problems are collected.
pub(super) struct Log {
    problems: RefCell<Vec<Problem>>,
    text: String,
    source: Arc<NamedSource<String>>,
}

impl Log {
    /// `text` is the file's; `shown` the same with its secrets masked.
    pub(super) fn new(file_name: &str, text: &str, shown: String) -> Self {
        let source = Arc::new(NamedSource::new(file_name, shown).with_language("yaml"));
        Self { problems: RefCell::default(), text: text.to_owned(), source }
    }

    pub(super) fn add(
        &self,
        severity: Severity,
        path: &str,
        span: Option<Range<usize>>,
        message: String,
        hint: Option<String>,
    ) {
        let (line, column) = span.as_ref().map_or((0, 0), |span| self.position(span.start));
        let span = span.filter(|span| self.can_be_shown(span)).map(|span| self.first_line(span));
        let source = Arc::clone(&self.source);
        let problem = Problem { severity, path: path.to_owned(), message, hint, line, column, span, source };
        let mut problems = self.problems.borrow_mut();
        // An anchor that is used ten times is wrong once; and nobody reads the three hundredth problem.
        if problems.len() < MAX_PROBLEMS && !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Whether the line and its neighbours are short enough for a snippet: a file may be JSON on one line.
    fn can_be_shown(&self, span: &Range<usize>) -> bool {
        let before = self.text.get(..span.start).unwrap_or_default().rsplit('\n').take(2);
        let after = self.text.get(span.start..).unwrap_or_default().split('\n').take(2);
        before.chain(after).map(str::len).sum::<usize>() <= MAX_SNIPPET
    }

    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// A block of many lines is pointed at by its first.
    fn first_line(&self, span: Range<usize>) -> Range<usize> {
        let Some(text) = self.text.get(span.clone()) else { return span.start..span.start };
        let length = text.find(['\n', '\r']).unwrap_or(text.len());
        span.start..span.start + length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// Everything found, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column, problem.severity));
        problems
    }
}

/// A value under its path.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) log: &'a Log,
    pub(super) node: &'a Node,
    pub(super) path: String,
    key: Range<usize>,
}

impl<'a> Field<'a> {
    pub(super) fn root(log: &'a Log, node: &'a Node) -> Self {
        Self { log, node, path: String::new(), key: node.span.start..node.span.start }
    }

    /// A value's own place, or its key's where the value spans lines or is absent.
    pub(super) fn span(&self) -> Range<usize> {
        match &*self.node.value {
            Value::Scalar { .. } if self.node.span.is_empty() => self.key.clone(),
            Value::Scalar { .. } => self.node.span.clone(),
            Value::Sequence(_) | Value::Mapping(_) => self.key.clone(),
        }
    }

    pub(super) fn error(&self, message: impl Into<String>) {
        self.log.add(Severity::Error, &self.path, Some(self.span()), message.into(), None);
    }

    pub(super) fn error_with(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.log.add(Severity::Error, &self.path, Some(self.span()), message.into(), Some(hint.into()));
    }

    pub(super) fn warn(&self, message: impl Into<String>) {
        self.log.add(Severity::Warning, &self.path, Some(self.span()), message.into(), None);
    }

    pub(super) fn warn_with(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.log.add(Severity::Warning, &self.path, Some(self.span()), message.into(), Some(hint.into()));
    }

    /// Error about the key rather than its value.
    pub(super) fn error_at_key(&self, message: impl Into<String>, hint: Option<String>) {
        self.log.add(Severity::Error, &self.path, Some(self.key.clone()), message.into(), hint);
    }

    /// The line it stands in, for a hint that points there.
    pub(super) fn line(&self) -> usize {
        self.log.position(self.span().start).0
    }

    /// A scalar as text, whatever it would be in YAML; none (silently) where it is null or empty.
    pub(super) fn text(&self) -> Option<String> {
        match &*self.node.value {
            Value::Scalar { text, .. } if text.is_empty() || self.node.is_null() => None,
            Value::Scalar { text, .. } => Some(text.clone()),
            Value::Sequence(_) | Value::Mapping(_) => {
                self.error(format!("expected a single value, found {}", self.node.kind()));
                None
            }
        }
    }

    /// As [`Field::text`], but an empty value is an empty text: for maps of strings, where it means something.
    pub(super) fn text_or_empty(&self) -> Option<String> {
        if matches!(&*self.node.value, Value::Scalar { .. }) {
            Some(self.text().unwrap_or_default())
        } else {
            self.text()
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let text = self.text()?;
        let value = boolean_word(&text);
        if value.is_none() {
            self.error(format!("{text:?} is not true or false"));
        }
        value
    }

    /// A text that `parse` understands; its error becomes the problem.
    pub(super) fn parsed<T, E: Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text()?;
        parse(&text).map_err(|error| self.error(error.to_string())).ok()
    }

    /// A whole number from `least` on.
    pub(super) fn number<T: FromStr + PartialOrd + Display + Copy>(&self, least: T, most: T) -> Option<T> {
        self.parsed(|text| match text.parse::<T>() {
            Ok(number) if number >= least && number <= most => Ok(number),
            _ => Err(format!("{text:?} is not a whole number from {least} to {most}")),
        })
    }

    /// The items of a list; null is an empty one.
    pub(super) fn items(&self) -> Vec<Self> {
        match &*self.node.value {
            Value::Sequence(items) => items
                .iter()
                .enumerate()
                .map(|(index, node)| Self {
                    log: self.log,
                    node,
                    path: format!("{}[{index}]", self.path),
                    key: match &*node.value {
                        Value::Mapping(entries) if !entries.is_empty() => entries[0].key_span.clone(),
                        _ => node.span.clone(),
                    },
                })
                .collect(),
            _ if self.node.is_null() => Vec::new(),
            Value::Scalar { .. } => {
                self.error_with("expected a list, found a single value", "write it in brackets: [value]");
                Vec::new()
            }
            Value::Mapping(_) => {
                self.error("expected a list, found a map");
                Vec::new()
            }
        }
    }

    /// A text that must not be empty.
    pub(super) fn required_text(&self, what: &str) -> Option<String> {
        if matches!(&*self.node.value, Value::Scalar { .. }) && self.text().is_none() {
            self.error(format!("{what} may not be empty"));
            return None;
        }
        self.text()
    }

    /// A map whose keys are the reader's to know; none where it is null.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let entries = self.entries()?;
        Some(Section { field: self.clone(), entries, seen: RefCell::default() })
    }

    /// A map that must be there. `what` says so where it is null.
    pub(super) fn required_section(&self, what: &str) -> Option<Section<'a>> {
        if self.node.is_null() {
            self.error(what);
        }
        self.section()
    }

    /// A map whose keys are the user's.
    pub(super) fn members(&self) -> Vec<(String, Self)> {
        self.entries().unwrap_or_default().iter().map(|entry| (entry.key.clone(), self.member(entry))).collect()
    }

    /// A map of texts.
    pub(super) fn text_map(&self) -> BTreeMap<String, String> {
        self.members().into_iter().filter_map(|(key, field)| Some((key, field.text_or_empty()?))).collect()
    }

    fn entries(&self) -> Option<&'a [Entry]> {
        match &*self.node.value {
            Value::Mapping(entries) => Some(entries),
            _ if self.node.is_null() => None,
            _ => {
                self.error(format!("expected a map, found {}", self.node.kind()));
                None
            }
        }
    }

    fn member(&self, entry: &'a Entry) -> Self {
        let plain = entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let path = match (self.path.is_empty(), plain) {
            (true, true) => entry.key.clone(),
            (true, false) => format!("{:?}", entry.key),
            (false, true) => format!("{}.{}", self.path, entry.key),
            (false, false) => format!("{}[{:?}]", self.path, entry.key),
        };
        Self { log: self.log, node: &entry.value, path, key: entry.key_span.clone() }
    }
}

/// A map with known keys. What is asked for is known; [`Section::finish`] refuses the rest.
pub(super) struct Section<'a> {
    pub(super) field: Field<'a>,
    entries: &'a [Entry],
    /// Every key that was asked for, and whether it is one to recommend.
    seen: RefCell<BTreeMap<&'static str, bool>>,
}

impl<'a> Section<'a> {
    /// The value of `key`; none where it is absent or null, which RKE does not tell apart.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        self.look(key, true)
    }

    fn look(&self, key: &'static str, usable: bool) -> Option<Field<'a>> {
        self.seen.borrow_mut().insert(key, usable);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!entry.value.is_null()).then(|| self.field.member(entry))
    }

    /// As [`Section::get`], none also for an empty text, list or map.
    pub(super) fn given(&self, key: &'static str) -> Option<Field<'a>> {
        self.get(key).filter(|field| !field.node.is_empty())
    }

    /// Reports that `key` is missing, unless it is there with a typing error, which [`Section::finish`] reports.
    pub(super) fn missing(&self, key: &'static str, message: &str, hint: String) {
        let misspelt = |entry: &Entry| entry.key != key && nearest(&entry.key, [key]).is_some();
        if !self.entries.iter().any(misspelt) {
            self.field.error_at_key(message, Some(hint));
        }
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.get(key)?.text()
    }

    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        self.get(key)?.section()
    }

    /// A key that RKE knows and bastide cannot honour: an error unless it asks for nothing.
    pub(super) fn unsupported(&self, key: &'static str, hint: &str) {
        let hint = if hint.is_empty() { "remove it" } else { hint };
        self.refused(key, "RKE knows this key, bastide does not support it yet", hint);
    }

    /// A key of bastide's own that is decided and not built: an error unless it asks for nothing. `hint` says what to do meanwhile.
    pub(super) fn planned(&self, key: &'static str, hint: &str) {
        self.refused(key, "bastide will know this key, and does not yet", hint);
    }

    /// A key that may not be there: an error unless it asks for nothing.
    pub(super) fn refused(&self, key: &'static str, message: &str, hint: &str) {
        if let Some(field) = self.look(key, false).filter(|field| !field.node.is_inert()) {
            field.error_at_key(message, Some(hint.to_owned()));
        }
    }

    /// A key that means nothing where there is no Docker and no RKE.
    pub(super) fn dead(&self, key: &'static str, why: &str) {
        if let Some(field) = self.look(key, false).filter(|field| !field.node.is_inert()) {
            field.log.add(
                Severity::Warning,
                &field.path,
                Some(field.key.clone()),
                format!("ignored: {why}"),
                Some("remove it".to_owned()),
            );
        }
    }

    /// Refuses every key that nobody asked for.
    pub(super) fn finish(self) {
        let seen = self.seen.borrow();
        for entry in self.entries.iter().filter(|entry| !seen.contains_key(entry.key.as_str())) {
            let usable: Vec<&str> = seen.iter().filter(|(_, usable)| **usable).map(|(key, _)| *key).collect();
            let hint = match nearest(&entry.key, seen.keys().copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("known here: {}", usable.join(", ")),
            };
            self.field.member(entry).error_at_key("unknown key", Some(hint));
        }
    }
}
