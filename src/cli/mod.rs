//! Talks to people. The only room that prints or exits.

mod args;
mod certs;
mod console;
mod encrypt;
mod error;
mod etcd;
mod past;
mod restore;
mod run;
mod show;

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
