//! `cargo xtask`: everything that is done with this project besides building it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod bundle;
mod checks;
mod demo;
mod operations;
mod phase;
mod setup;
mod snapshots;
mod soak;
mod tree;

use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

use crate::soak::Part;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests and shows bastide")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install and build what tests and demo need: system packages, root file systems, Kubernetes, the bundle
    Setup {
        /// Kubernetes minor
        #[arg(long, default_value = setup::MINOR)]
        minor: String,
    },
    /// Make a bundle from Go modules and print its folder
    Bundle {
        /// Kubernetes minor
        #[arg(long, default_value = setup::MINOR)]
        minor: String,
    },
    /// Boot three test hosts, run `bastide up` on them, show the result and leave it running
    Demo {
        /// Remove the hosts and target/demo
        #[arg(long)]
        destroy: bool,
    },
    /// Run kube-bench on the demo's hosts and print every check that is not PASS
    Judge,
    /// Measure bastide beside other tools
    #[command(subcommand)]
    Bench(Bench),
    /// Run all checks and tests, the long matrices as a sample
    Test {
        /// Draws the sample; the default is random and printed
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Run the long matrices, part by part, and write docs/faults.md
    Soak {
        /// Only this part; may be given more than once
        #[arg(long = "part", value_enum)]
        parts: Vec<Part>,
        /// Begin no case of a part after so many minutes: what is run by then was drawn by the seed
        #[arg(long)]
        minutes: Option<u64>,
        /// Gives the order of the cases; the default is random and printed
        #[arg(long)]
        seed: Option<u64>,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// A cluster from nothing, beside kubeadm: one host and three, bare and prepared
    Up {
        /// How often each is done
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// How many control planes, up to five
        #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
        hosts: Vec<usize>,
    },
    /// What is done to a running cluster of three control planes: times and channels
    Operations,
    /// Snapshots of a large database: memory and speed at both ends, sealing beside the `age` program
    Snapshot {
        /// How much is written into etcd, in MiB
        #[arg(long, default_value_t = 2048)]
        size: u32,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup { minor } => setup::all(&minor),
        Task::Bundle { minor } => {
            setup::all(&minor).and_then(|()| bundle::make(&minor)).map(|folder| println!("{}", folder.display()))
        }
        Task::Demo { destroy: false } => demo::up(),
        Task::Demo { destroy: true } => demo::destroy(),
        Task::Judge => demo::judge_hosts(),
        Task::Bench(Bench::Up { rounds, hosts }) => bench::up(rounds, &hosts),
        Task::Bench(Bench::Operations) => operations::operations(),
        Task::Bench(Bench::Snapshot { size }) => snapshots::snapshots(size),
        Task::Test { seed } => checks::all(seed),
        Task::Soak { parts, minutes, seed } => soak::soak(&parts, minutes, seed),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
