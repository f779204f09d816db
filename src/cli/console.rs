//! The terminal, the pipe, and what appears on them. Data goes to stdout, the rest to stderr.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use dialoguer::Confirm;
use dialoguer::Input;
use dialoguer::Password;
use indicatif::MultiProgress;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::cli::args::LogFormat;
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
    tree: MultiProgress,
    bars: Mutex<BTreeMap<HostName, (ProgressBar, u64)>>,
}

impl Console {
    /// A live tree where stderr is a terminal, lines elsewhere.
    pub(super) fn new(format: LogFormat, verbose: u8) -> Self {
        let manner = match format {
            LogFormat::Json => Manner::Json,
            LogFormat::Text if std::io::stderr().is_terminal() => Manner::Terminal,
            LogFormat::Text => Manner::Lines,
        };
        Self { manner, verbose, tree: MultiProgress::new(), bars: Mutex::default() }
    }

    /// Ends the live tree, so that what follows stands below it.
    pub(super) fn settle(&self) {
        for (_, (bar, _)) in std::mem::take(&mut *self.lock()) {
            bar.finish_and_clear();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<HostName, (ProgressBar, u64)>> {
        // A panic elsewhere must not take the messages away: what the guard holds is only bars.
        self.bars.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
        // Nobody is left to be told when stderr is gone; the run itself goes on.
        self.tree.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        });
    }
}

impl Progress for Console {
    fn doing(&self, host: &HostName, what: &str) {
        match self.manner {
            Manner::Terminal => {
                if let Some((bar, _)) = self.lock().get(host) {
                    bar.set_message(what.to_owned());
                }
                if self.verbose > 0 {
                    self.line("info", Some(host), what);
                }
            }
            Manner::Lines | Manner::Json => self.line("info", Some(host), what),
        }
    }

    fn detail(&self, host: &HostName, what: &str) {
        if self.manner == Manner::Terminal || self.verbose > 0 {
            self.doing(host, what);
        }
    }

    fn sent(&self, host: &HostName, bytes: u64) {
        if self.manner == Manner::Terminal
            && let Some((bar, total)) = self.lock().get_mut(host)
        {
            *total += bytes;
            bar.set_message(format!("sending, {} MB so far", *total / 1_000_000));
        }
    }

    fn stage(&self, title: &str, hosts: &[HostName]) {
        self.settle();
        self.line("info", None, title);
        if self.manner != Manner::Terminal {
            return;
        }
        let width = hosts.iter().map(|host| host.as_str().len()).max().unwrap_or(0);
        let mut bars = self.lock();
        for host in hosts {
            let bar = self.tree.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("  {prefix} {spinner} {elapsed:>4} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(format!("{:width$}", host.as_str()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bars.insert(host.clone(), (bar, 0));
        }
    }

    fn cluster(&self, what: &str) {
        if self.verbose > 0 {
            self.line("info", None, what);
        }
    }
}

impl Talk for Console {
    fn say(&self, text: &str) {
        self.line("info", None, text);
    }

    fn warn(&self, text: &str) {
        self.line("warning", None, text);
    }

    fn show(&self, text: &str) {
        if self.manner == Manner::Json {
            self.line("info", None, text);
        } else {
            self.raw(text.trim_end());
        }
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return None;
        }
        self.tree.suspend(|| Confirm::new().with_prompt(question).default(false).interact_opt().ok().flatten())
    }

    fn ask(&self, question: &str) -> Option<String> {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return None;
        }
        self.tree.suspend(|| Input::new().with_prompt(question).allow_empty(true).interact_text().ok())
    }

    fn ask_secret(&self, question: &str, twice: bool) -> Option<Content> {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return None;
        }
        self.tree.suspend(|| {
            let mut prompt = Password::new().with_prompt(question);
            if twice {
                prompt = prompt.with_confirmation("Again", "They differ");
            }
            prompt.interact().ok().map(Content::new)
        })
    }
}

/// Writes data to stdout. A reader that went away is a normal end.
pub(super) fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
