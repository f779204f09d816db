//! The terminal, the pipe, and what appears on them. Data goes to stdout, the rest to stderr.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use dialoguer::Confirm;
use dialoguer::Input;
use dialoguer::Password;

use crate::cli::args::LogFormat;
use crate::cli::tree::Tree;
use crate::host::Progress;
use crate::model::Content;
use crate::model::HostName;
use crate::ops::Talk;

/// How messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// A live tree.
    Terminal,
    /// Lines with the time.
    Lines,
    /// One JSON object a line.
    Json,
}

/// stderr and stdin as one place to talk to.
pub(super) struct Console {
    manner: Manner,
    verbose: u8,
    tree: Tree,
    /// Secrets that were typed, by their question: a run that goes back by itself must not wait for somebody to type again.
    typed: Mutex<BTreeMap<String, Content>>,
    /// Whether a question was answered with Ctrl-C.
    broken_off: AtomicBool,
}

impl Console {
    /// A live tree where stderr is a terminal, lines elsewhere.
    pub(super) fn new(format: LogFormat, verbose: u8) -> Self {
        let manner = match format {
            LogFormat::Json => Manner::Json,
            LogFormat::Text if std::io::stderr().is_terminal() => Manner::Terminal,
            LogFormat::Text => Manner::Lines,
        };
        Self { manner, verbose, tree: Tree::default(), typed: Mutex::default(), broken_off: AtomicBool::new(false) }
    }

    /// Ends the live tree, so that what follows stands below it.
    pub(super) fn settle(&self) {
        self.folded(self.tree.fold(true));
    }

    /// Likewise, where what it showed did not come to its end.
    pub(super) fn break_off(&self) {
        self.folded(self.tree.fold(false));
    }

    /// What went wrong. For programs it is a line of its own level.
    pub(super) fn error(&self, text: &str) {
        if self.manner == Manner::Json { self.line("error", None, text) } else { self.show(text) }
    }

    /// Whether lines are for programs.
    pub(super) fn is_for_programs(&self) -> bool {
        self.manner == Manner::Json
    }

    /// Whether a question was answered with Ctrl-C.
    pub(super) fn was_broken_off(&self) -> bool {
        self.broken_off.load(Ordering::Relaxed)
    }

    /// An answer, as dialoguer gives it; Ctrl-C is remembered.
    fn answered<T>(&self, answer: dialoguer::Result<T>) -> Option<T> {
        if answer.is_err() {
            self.broken_off.store(true, Ordering::Relaxed);
        }
        answer.ok()
    }

    fn folded(&self, stage: Option<String>) {
        if let Some(stage) = stage {
            self.raw(&stage);
        }
    }

    fn line(&self, level: &str, host: Option<&HostName>, text: &str) {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let line = match self.manner {
            Manner::Json => serde_json::json!({
                "time": seconds, "level": level, "host": host.map(HostName::as_str), "message": text,
            })
            .to_string(),
            Manner::Lines => {
                let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
                let host = host.map(|host| format!("{host}: ")).unwrap_or_default();
                let level = if level == "info" { String::new() } else { format!("{level}: ") };
                format!("{hour:02}:{minute:02}:{second:02} {level}{host}{text}")
            }
            Manner::Terminal => {
                let host = host.map(|host| format!("{host}: ")).unwrap_or_default();
                let level = if level == "info" { String::new() } else { format!("{level}: ") };
                format!("{level}{host}{text}")
            }
        };
        self.raw(&line);
    }

    fn raw(&self, text: &str) {
        let text = if self.manner == Manner::Terminal { wrapped(text, width()) } else { text.to_owned() };
        // Nobody is left to be told when stderr is gone; the run itself goes on.
        self.tree.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        });
    }
}

impl Progress for Console {
    fn doing(&self, host: &HostName, what: &str) {
        if self.manner == Manner::Terminal {
            self.tree.doing(host.as_str(), what);
        }
        if self.manner != Manner::Terminal || self.verbose > 0 {
            self.line("info", Some(host), what);
        }
    }

    fn detail(&self, host: &HostName, what: &str) {
        if self.manner == Manner::Terminal || self.verbose > 0 {
            self.doing(host, what);
        }
    }

    fn waiting(&self, host: Option<&HostName>, what: &str) {
        if self.manner == Manner::Terminal {
            self.tree.waiting(host.map(HostName::as_str), what);
        }
        if self.manner != Manner::Terminal || self.verbose > 0 {
            match host {
                Some(host) => self.line("info", Some(host), &format!("waits for {what}")),
                None => self.cluster(&format!("waits for {what}")),
            }
        }
    }

    fn waited(&self, host: Option<&HostName>, what: &str) {
        self.tree.waited(host.map(HostName::as_str), what);
    }

    fn done(&self, host: &HostName) {
        self.tree.done(host.as_str());
    }

    fn broke(&self) {
        self.break_off();
    }

    fn sent(&self, host: &HostName, bytes: u64) {
        self.tree.sent(host.as_str(), bytes);
    }

    fn stage(&self, title: &str, hosts: &[HostName]) {
        self.settle();
        if self.manner == Manner::Terminal {
            self.tree.begin(title, hosts);
        } else {
            self.line("info", None, title);
        }
    }

    fn cluster(&self, what: &str) {
        if self.manner == Manner::Terminal {
            self.tree.cluster(what);
        }
        if self.verbose > 0 {
            self.line("info", None, what);
        }
    }
}

impl Talk for Console {
    fn busy(&self, what: &str) {
        if self.manner == Manner::Terminal {
            self.tree.busy(what);
        }
    }

    fn idle(&self) {
        self.tree.idle();
    }

    fn say(&self, text: &str) {
        self.line("info", None, text);
    }

    fn warn(&self, text: &str) {
        self.line("warning", None, text);
    }

    fn show(&self, text: &str) {
        self.tree.idle();
        if self.manner == Manner::Json {
            self.line("info", None, text.trim_end());
        } else {
            self.raw(text.trim_end());
        }
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return None;
        }
        self.tree.idle();
        let asked = || Confirm::new().with_prompt(question).default(false).interact_opt();
        // Escape is a no as well.
        Some(self.answered(self.tree.suspend(asked)).flatten().unwrap_or(false))
    }

    fn ask(&self, question: &str) -> Option<String> {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return None;
        }
        self.tree.idle();
        let asked = || Input::new().with_prompt(question).allow_empty(true).interact_text();
        self.answered(self.tree.suspend(asked))
    }

    fn forget(&self, question: &str) {
        self.typed.lock().unwrap_or_else(PoisonError::into_inner).remove(question);
    }

    fn ask_secret(&self, question: &str, twice: bool) -> Option<Content> {
        let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = typed.get(question) {
            return Some(answer.clone());
        }
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return None;
        }
        self.tree.idle();
        let answer = self.tree.suspend(|| {
            let mut prompt = Password::new().with_prompt(question);
            if twice {
                prompt = prompt.with_confirmation("Again", "They differ");
            }
            prompt.interact().map(Content::new)
        });
        let answer = self.answered(answer)?;
        typed.insert(question.to_owned(), answer.clone());
        Some(answer)
    }
}

/// Columns of the terminal.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80)
}

/// Long lines are broken between words, never inside a path or a command, and go on where they began.
fn wrapped(text: &str, width: usize) -> String {
    let lines = text.lines().map(|line| {
        let indent = &line[..line.len() - line.trim_start().len()];
        let options = textwrap::Options::new(width)
            .subsequent_indent(indent)
            .break_words(false)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        // Only what is too long: the spaces of a table are its columns.
        if textwrap::core::display_width(line) > width { textwrap::fill(line, options) } else { line.to_owned() }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Writes data to stdout. A reader that went away is a normal end.
pub(super) fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn long_lines_go_on_below_their_beginning_and_paths_stay_whole() {
        let text =
            "short  line\n  an indented line that is too long\nerror: /a/path/that/is/longer/than/the/line is missing";
        let expected = "short  line\n  an indented line that\n  is too long\nerror:\n/a/path/that/is/longer/than/the/line\nis missing";
        assert_eq!(wrapped(text, 24), expected);
    }
}
