//! Judges what the file says against the hardened settings: refused with the lines to write, or allowed by name.

use std::collections::BTreeSet;

use crate::model::Allowance;
use crate::render::RenderError;

/// A hardened setting and what it must be.
pub(super) struct Hardened {
    /// Flag without dashes, or dotted path of a configuration field.
    pub name: &'static str,
    /// What it must be.
    pub rule: Rule,
    /// Who says so: a CIS Kubernetes Benchmark v1.12 item, or a reason.
    pub source: &'static str,
}

/// What a hardened setting must be.
pub(super) enum Rule {
    /// This text.
    Is(&'static str),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// This number or more.
    AtLeast(u64),
    /// A length of time other than zero.
    NotZero,
    /// A comma-separated list: `required` is always in it (added where the file leaves it out), `banned` never.
    List {
        /// Always there.
        required: &'static [&'static str],
        /// Never there.
        banned: &'static [&'static str],
    },
    /// A comma-separated list of which only these remain.
    Within(&'static [&'static str]),
    /// Not set at all.
    Never,
    /// bastide's own business; the text says what to write in its place. Cannot be allowed.
    Owned(&'static str),
}

/// Collects refusals, the allowances that were needed, and notes.
pub(super) struct Judge<'a> {
    allow: &'a [Allowance],
    used: BTreeSet<String>,
    /// What was refused or found wrong.
    pub errors: Vec<RenderError>,
    /// What a person should know.
    pub notes: BTreeSet<String>,
}

impl<'a> Judge<'a> {
    /// Judges with these allowances.
    pub(super) fn new(allow: &'a [Allowance]) -> Self {
        Self { allow, used: BTreeSet::new(), errors: Vec::new(), notes: BTreeSet::new() }
    }

    /// Whether the file allows `setting`; notes that it was needed.
    pub(super) fn allows(&mut self, setting: &str) -> bool {
        let allowed = self.allow.iter().any(|allowance| allowance.setting == setting);
        if allowed {
            self.used.insert(setting.to_owned());
        }
        allowed
    }

    /// Refuses `found` at `place` unless `setting` is allowed. True where it is.
    pub(super) fn weaker(&mut self, place: &str, found: &str, rule: &str, setting: &str) -> bool {
        let allowed = self.allows(setting);
        if !allowed {
            let error = RenderError::Weakens {
                place: place.to_owned(),
                found: found.to_owned(),
                rule: rule.to_owned(),
                setting: setting.to_owned(),
            };
            self.errors.push(error);
        }
        allowed
    }

    /// Judges `value` for the setting `section.name` that stands at `place`. Returns the value to use.
    pub(super) fn value(&mut self, section: &str, hardened: &Hardened, place: &str, value: &str) -> String {
        let setting = format!("{section}.{}", hardened.name);
        let keep = value.to_owned();
        let weak = match &hardened.rule {
            Rule::Is(wanted) => (!value.eq_ignore_ascii_case(wanted)).then(|| format!("must be {wanted}")),
            Rule::OneOf(wanted) => (!wanted.contains(&value)).then(|| format!("must be one of {}", wanted.join(", "))),
            Rule::AtLeast(least) => {
                value.parse::<u64>().map_or(true, |number| number < *least).then(|| format!("must be at least {least}"))
            }
            Rule::NotZero => {
                let zero = value.bytes().all(|b| !b.is_ascii_digit() || b == b'0');
                zero.then(|| "must not be zero".to_owned())
            }
            Rule::Never => Some("must not be set".to_owned()),
            Rule::Owned(instead) => {
                self.errors.push(RenderError::Owned { place: place.to_owned(), instead: (*instead).to_owned() });
                return keep;
            }
            Rule::List { required, banned } => {
                let given: Vec<&str> = value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                if let Some(item) = given.iter().find(|item| banned.contains(item)) {
                    Some(format!("must not list {item}"))
                } else if self.allow.iter().any(|allowance| allowance.setting == setting) {
                    // Allowed: exactly what the file says.
                    self.used.insert(setting);
                    return keep;
                } else {
                    let added = required.iter().filter(|item| !given.contains(item));
                    return given.iter().chain(added).copied().collect::<Vec<_>>().join(",");
                }
            }
            Rule::Within(strong) => {
                let given: Vec<&str> = value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                let kept: Vec<&str> = given.iter().filter(|item| strong.contains(item)).copied().collect();
                if kept.len() == given.len() {
                    None
                } else if !kept.is_empty() && !self.allow.iter().any(|allowance| allowance.setting == setting) {
                    // Lists of this kind age: what was strong when the file was written is dropped, not refused.
                    self.notes.insert(format!("{place} is narrowed to {} ({})", kept.join(","), hardened.source));
                    return kept.join(",");
                } else {
                    Some(format!("must be among {}", strong.join(", ")))
                }
            }
        };
        if let Some(why) = weak {
            let found = format!("{}={value}", hardened.name);
            self.weaker(place, &found, &format!("{}: {why}", hardened.source), &setting);
        }
        keep
    }

    /// The allowances that were needed, in the order of the file; every other one is an error.
    pub(super) fn finish(mut self) -> (Vec<Allowance>, Vec<RenderError>, Vec<String>) {
        for allowance in self.allow {
            if !self.used.contains(&allowance.setting) {
                self.errors.push(RenderError::IdleAllowance(allowance.setting.clone()));
            }
        }
        // What is wrong in a section is found again for every host.
        let mut once = Vec::new();
        for error in self.errors {
            if !once.contains(&error) {
                once.push(error);
            }
        }
        let used = self.allow.iter().filter(|allowance| self.used.contains(&allowance.setting)).cloned().collect();
        (used, once, self.notes.into_iter().collect())
    }
}
