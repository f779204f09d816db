//! Text to [`Node`] tree. Goes on after what can be gone on after, so that several faults are seen at once.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use granit_parser::Event;
use granit_parser::Options;
use granit_parser::Parser;
use granit_parser::ScalarStyle;

use crate::config::tree::Entry;
use crate::config::tree::Node;
use crate::config::tree::Value;

/// Longest text that is looked at. The longest real file known has 40 kB; `addons` may hold some manifests more.
const MAX_BYTES: usize = 4 << 20;
/// Most values with all aliases written out: stops alias bombs.
const MAX_VALUES: usize = 200_000;
/// Most keys of one map, and with [`MAX_MERGED`] the bound on looking for duplicates.
const MAX_KEYS: usize = 2_000;
/// Most keys that all merge keys together bring in.
const MAX_MERGED: usize = 20_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;

/// A fault of the YAML itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    /// For a key given twice: where it stands first.
    pub(super) first: Option<Range<usize>>,
}

impl Fault {
    fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), first: None }
    }
}

/// The only document of `text`, and every fault met on the way. No tree where the rest could not be understood.
pub(super) fn read(text: &str) -> (Option<Node>, Vec<Fault>) {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than the {MAX_BYTES} that are read", text.len());
        return (None, vec![Fault::new(0..0, message)]);
    }
    if let Some(at) = text.find('\0') {
        return (None, vec![Fault::new(at..at + 1, "not a text file: it has a NUL byte")]);
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut builder = Builder::default();
    for next in Parser::new_from_str_with_options(text, options) {
        match next {
            Ok((event, span)) => {
                let span = span.byte_range().unwrap_or(0..0);
                if let Err(fault) = builder.take(event, span) {
                    builder.faults.push(fault);
                    return (None, builder.faults);
                }
            }
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(0).min(text.len());
                builder.faults.push(Fault::new(at..at, format!("not YAML: {}", error.info())));
                return (None, builder.faults);
            }
        }
    }
    (builder.root, builder.faults)
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    values: usize,
    merged: usize,
    faults: Vec<Fault>,
}

/// A list or map that has not ended.
struct Open {
    anchor: usize,
    start: usize,
    collection: Collection,
}

enum Collection {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, merges: Vec<Node>, key: Option<Key> },
}

enum Key {
    Name(String, Range<usize>),
    Merge,
    /// A list or map as a key: its value is read and dropped.
    Unusable,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), Fault> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Fault::new(span, format!("more than {MAX_VALUES} values")));
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Fault::new(span, "a second YAML document: only one is read"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = Value::Scalar { text: text.into_owned(), plain };
                self.finish(Node { value: Rc::new(value), span, size: 1 }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(anchor, &span, Collection::Sequence(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.open(anchor, &span, Collection::Mapping { entries: Vec::new(), merges: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Err(Fault::new(span, "a list or map ends that was never begun"));
                };
                let whole = open.start..span.end.max(open.start);
                let node = match open.collection {
                    Collection::Sequence(items) => {
                        let size = total(&items);
                        Node { value: Rc::new(Value::Sequence(items)), span: whole, size }
                    }
                    Collection::Mapping { entries, merges, .. } => self.mapping(entries, &merges, whole)?,
                };
                self.finish(node, open.anchor)
            }
            Event::Alias(id) => match self.anchors.get(&id) {
                Some(node) => {
                    let node = node.clone();
                    self.finish(node, 0)
                }
                None => Err(Fault::new(span, "an alias that stands inside its own anchor")),
            },
            _ => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, span: &Range<usize>, collection: Collection) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Fault::new(span.clone(), format!("nested more than {MAX_DEPTH} levels deep")));
        }
        self.open.push(Open { anchor, start: span.start, collection });
        Ok(())
    }

    /// A complete value arrives: it is the document, an item, a key, or a key's value.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if node.size > MAX_VALUES {
            let message = format!("more than {MAX_VALUES} values once its aliases are written out");
            return Err(Fault::new(node.span, message));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.collection {
            Collection::Sequence(items) => items.push(node),
            Collection::Mapping { entries, merges, key } => match key.take() {
                None => *key = Some(read_key(&node, &mut self.faults)),
                Some(Key::Merge) => merges.push(node),
                Some(Key::Unusable) => {}
                Some(Key::Name(name, key_span)) => {
                    if let Some(first) = entries.iter().find(|entry| entry.key == name) {
                        let message = format!("the key {name:?} is given twice in the same map");
                        self.faults.push(Fault { span: key_span, message, first: Some(first.key_span.clone()) });
                    } else if entries.len() >= MAX_KEYS {
                        return Err(Fault::new(key_span, format!("more than {MAX_KEYS} keys in one map")));
                    } else {
                        entries.push(Entry { key: name, key_span, value: node });
                    }
                }
            },
        }
        Ok(())
    }

    /// Merge keys: what the map itself says wins, then the first of the merged maps.
    fn mapping(&mut self, mut entries: Vec<Entry>, merges: &[Node], span: Range<usize>) -> Result<Node, Fault> {
        for merge in merges {
            let sources = match &*merge.value {
                Value::Sequence(items) => items.clone(),
                _ => vec![merge.clone()],
            };
            for source in sources {
                match &*source.value {
                    Value::Mapping(merged) => {
                        self.merged = self.merged.saturating_add(merged.len());
                        if self.merged > MAX_MERGED {
                            return Err(Fault::new(span, format!("merge keys bring in more than {MAX_MERGED} keys")));
                        }
                        for entry in merged {
                            if !entries.iter().any(|own| own.key == entry.key) {
                                entries.push(entry.clone());
                            }
                        }
                    }
                    _ if source.is_null() => {}
                    _ => self.faults.push(Fault::new(source.span, "a merge key `<<` needs a map or a list of maps")),
                }
            }
        }
        let size = entries.iter().fold(1_usize, |sum, entry| sum.saturating_add(entry.value.size).saturating_add(1));
        Ok(Node { value: Rc::new(Value::Mapping(entries)), span, size })
    }
}

fn read_key(node: &Node, faults: &mut Vec<Fault>) -> Key {
    match &*node.value {
        Value::Scalar { text, plain: true } if text == "<<" => Key::Merge,
        Value::Scalar { text, .. } => Key::Name(text.clone(), node.span.clone()),
        Value::Sequence(_) | Value::Mapping(_) => {
            faults.push(Fault::new(node.span.clone(), format!("{} cannot be a key here", node.kind())));
            Key::Unusable
        }
    }
}

fn total(items: &[Node]) -> usize {
    items.iter().fold(1_usize, |sum, item| sum.saturating_add(item.size))
}
