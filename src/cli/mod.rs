//! Talks to people. The only room that prints or exits.

mod args;
mod certs;
mod console;
mod drill;
mod encrypt;
mod error;
mod etcd;
mod past;
mod restore;
mod rke;
mod run;
mod show;
mod table;
mod tree;

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap::Parser as _;

use crate::cli::args::Arguments;

/// Runs the program with this process's arguments and gives its exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to stdout and are no error; a wrong command line is 64, because 2 means "changes".
            let code = if error.use_stderr() { error::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    run::run(arguments)
}

/// The command line's definition, for completions and man pages.
fn command() -> clap::Command {
    Arguments::command()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser as _;

    use super::Arguments;
    use super::command;
    use super::error;
    use crate::cli::args::Cert;
    use crate::cli::args::Command;
    use crate::render::tests::support;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_command_has_its_man_page() {
        fn pages(command: &clap::Command, name: &str, found: &mut Vec<String>) {
            found.push(format!("{name}.1"));
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                pages(verb, &format!("{name}-{}", verb.get_name()), found);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(command(), folder.path()).unwrap();
        let mut wanted = Vec::new();
        pages(&command(), "bastide", &mut wanted);
        assert!(wanted.len() > 20, "{wanted:?}");
        for page in wanted {
            let text = std::fs::read_to_string(folder.path().join(&page)).unwrap_or_default();
            assert!(text.contains(".SH SYNOPSIS") && text.contains(".SH DESCRIPTION"), "{page}");
        }
    }

    /// The words of a shell's command line without anything but single quotes, up to a comment.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
        let mut chars = line.chars();
        while let Some(char) = chars.next() {
            match char {
                '\'' => (quoted, begun) = (!quoted, true),
                '\\' if !quoted => word.extend(chars.next()),
                '#' if !quoted && !begun => break,
                ' ' if !quoted => {
                    if begun {
                        words.push(std::mem::take(&mut word));
                    }
                    begun = false;
                }
                char => {
                    word.push(char);
                    begun = true;
                }
            }
        }
        if begun {
            words.push(word);
        }
        words
    }

    #[test]
    fn every_command_of_a_runbook_is_one() {
        let bucket = "services:\n  etcd:\n    backup_config:\n      s3backupconfig:\n        {endpoint: s3.example.com, bucket_name: nightly, region: x}\n";
        let more = [
            "",
            bucket,
            "cluster_name: prod_1.eu\n",
            "bastide: {state: {recipients: [age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa]}}\n",
        ];
        let mut seen = std::collections::BTreeSet::new();
        for hosts in [support::ONE_HOST, support::THREE_HOSTS, support::SPLIT] {
            for more in more {
                let cluster = support::cluster(&format!("{more}{hosts}"));
                let book = crate::ops::written_runbook(&cluster, "cluster.yml", "cluster.bastide");
                let inline = book.split('`').skip(1).step_by(2).filter(|code| code.starts_with("bastide "));
                let lines = book.lines().filter(|line| line.starts_with("bastide "));
                for line in lines.chain(inline) {
                    let words = words(line);
                    let parsed = Arguments::try_parse_from(&words);
                    assert!(parsed.is_ok(), "{line}\n{words:?}\n{}", parsed.unwrap_err());
                    seen.insert(words[1..words.len().min(4)].join(" "));
                }
                assert_eq!(book.matches("```").count() % 2, 0, "{book}");
            }
        }
        for verb in ["status", "up", "rollback", "certs check", "drill", "state recover"] {
            assert!(seen.iter().any(|line| line.starts_with(verb)), "{verb} is nowhere in {seen:?}");
        }
    }

    #[test]
    fn rke_s_names_for_rotations_are_understood() {
        let parsed = |words: &str| Arguments::try_parse_from(words.split(' ')).unwrap().command;
        let rotation = |words: &str| match parsed(words) {
            Command::Cert(Cert::Rotate(rotate)) | Command::RotateCerts(rotate) => (rotate.ca, rotate.services.len()),
            _ => (false, 99),
        };
        assert_eq!(rotation("bastide cert rotate"), (false, 0));
        assert_eq!(rotation("bastide cert rotate --service kubelet --service etcd"), (false, 2));
        assert_eq!(rotation("bastide cert rotate --rotate-ca"), (true, 0));
        assert!(Arguments::try_parse_from("bastide cert rotate --rotate-ca --service etcd".split(' ')).is_err());
    }

    #[test]
    fn help_names_every_exit_code() {
        let help = command().render_long_help().to_string();
        let codes = [
            0,
            error::FAILED,
            error::CHANGES,
            error::EXCEPT,
            error::DEGRADED,
            error::UNREACHABLE,
            error::BUSY,
            error::TAKEN_BACK,
            error::CERTIFICATE_WARNING,
            error::CERTIFICATE_CRITICAL,
            error::USAGE,
            error::INTERRUPTED,
        ];
        let (_, listed) = help.split_once("Exit codes:").unwrap();
        for code in codes {
            assert!(listed.lines().any(|line| line.split_whitespace().next() == Some(&code.to_string())), "{code}");
        }
    }
}
