//! How a script gets past whatever login shell an account has. Pure.
//!
//! sshd hands a command to the login shell as one string. What stands there is a fixed bootstrap, free of everything that bash,
//! dash, fish or csh treat differently inside single quotes (quote, backslash, exclamation mark, line end). Arguments and script
//! travel on stdin, where only the `sh` that the bootstrap runs in reads them; process lists and sudo's log stay short.
//!
//! The bootstrap first reads lines until the mark, a random word of this call: bytes that sudo was sent but did not read are
//! thrown away there, neither executed nor logged. The lines up to the next mark are the script; what follows is its stdin.
//! `read` takes one byte at a time from a pipe (POSIX), so nothing of the payload is swallowed.

/// A random word that stands for "here it begins".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark(String);

impl Mark {
    /// From 16 random bytes.
    pub(super) fn new(random: [u8; 16]) -> Self {
        Self(format!("bastide-{:032x}", u128::from_be_bytes(random)))
    }
    /// The line that the bootstrap writes to stdout and stderr once it runs as root.
    pub(super) fn ready_line(&self) -> String {
        format!("{}\n", self.0)
    }
    /// What sudo writes to stderr when it wants the password.
    pub(super) fn prompt(&self) -> String {
        format!("{}?", self.0)
    }
}

/// How a script becomes root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rise {
    /// It is root already.
    Root,
    /// By sudo, which may ask on stderr and is answered on stdin.
    Sudo,
}

/// The command for sshd: safe in every login shell.
pub(super) fn command(rise: Rise, mark: &Mark) -> String {
    let rise = match rise {
        Rise::Root => String::new(),
        Rise::Sudo => format!("sudo -S -p '{}' ", mark.prompt()),
    };
    format!("{rise}/bin/sh -c '{}'", bootstrap(mark))
}

fn bootstrap(mark: &Mark) -> String {
    let Mark(mark) = mark;
    [
        // Scripts parse what programs print, and need programs of the administrator.
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH; LC_ALL=C; export PATH LC_ALL",
        &format!("m={mark}"),
        // A line end, without writing one.
        "n=$(echo; echo x)",
        "n=${n%x}",
        "echo $m",
        "echo $m >&2",
        "while IFS= read -r l; do [ \"$l\" = $m ] && break; done",
        "s=",
        "while IFS= read -r l; do [ \"$l\" = $m ] && break; s=$s$l$n; done",
        // A connection that broke in the middle of the script.
        "[ \"$l\" = $m ] || exit 125",
        "eval \"$s\"",
    ]
    .join("; ")
}

/// What goes to the bootstrap's stdin before the payload. None when an argument cannot be passed to any program.
pub(super) fn prelude(mark: &Mark, script: &str, arguments: &[String]) -> Option<String> {
    let Mark(mark) = mark;
    if arguments.iter().any(|argument| argument.contains('\0')) || script.contains('\0') {
        return None;
    }
    let mut set = String::from("unset l s n m; set --");
    for argument in arguments {
        set.push(' ');
        set.push_str(&quoted(argument));
    }
    Some(format!("{mark}\n{set}\n{script}\n{mark}\n"))
}

/// One word for a POSIX shell (XCU 2.2.2): everything but the single quote is literal in single quotes.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::Mark;
    use super::Rise;
    use super::command;
    use super::prelude;
    use super::quoted;

    fn mark() -> Mark {
        Mark::new([0xab; 16])
    }

    #[test]
    fn the_command_means_the_same_in_every_login_shell() {
        for rise in [Rise::Root, Rise::Sudo] {
            let command = command(rise, &mark());
            let quoted: Vec<&str> = command.split('\'').skip(1).step_by(2).collect();
            let bare: String = command.split('\'').step_by(2).collect();
            // csh expands `!` and fish reads `\` inside single quotes; csh takes no line end there.
            assert!(quoted.iter().all(|text| !text.contains(['!', '\\', '\n'])), "{command}");
            assert!(bare.chars().all(|c| c.is_ascii_alphanumeric() || " -/".contains(c)), "{bare}");
        }
    }

    #[test]
    fn what_travels_is_the_mark_the_script_the_mark() {
        let arguments = ["a b".to_owned(), "it's".to_owned(), String::new()];
        assert_eq!(
            prelude(&mark(), "echo \"$1\"", &arguments).unwrap(),
            format!("{0}\nunset l s n m; set -- 'a b' 'it'\\''s' ''\necho \"$1\"\n{0}\n", mark().0)
        );
        assert_eq!(prelude(&mark(), "true", &["a\0b".to_owned()]), None);
    }

    #[test]
    fn quoting_leaves_nothing_for_the_shell_to_read() {
        for (word, expected) in [
            ("", "''"),
            ("plain", "'plain'"),
            ("$HOME `id` \\ \"", "'$HOME `id` \\ \"'"),
            ("'", r"''\'''"),
            ("a\nb", "'a\nb'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn marks_have_one_length_whatever_was_drawn() {
        assert_eq!(Mark::new([0; 16]).ready_line(), format!("bastide-{}\n", "0".repeat(32)));
        assert_eq!(mark().prompt(), format!("bastide-{}?", "ab".repeat(16)));
    }
}
