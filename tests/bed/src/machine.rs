use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::Cache;
use crate::bed::checked;

/// One stock virtual machine under full emulation (`vm.sh`): cgroup v2, a kernel of its own, nothing bent to fit, and about
/// thirty times slower than a host of a bed. Destroyed when dropped.
#[derive(Debug)]
pub struct Machine {
    name: String,
    port: u16,
}

impl Machine {
    /// Where the machine sees itself; from outside it is 127.0.0.1 and [`Machine::port`].
    pub const ADDRESS: &str = "10.0.2.15";

    /// Makes the image where it is missing, and boots a fresh machine whose sshd is at `port` of 127.0.0.1.
    pub fn boot(name: &str, port: u16) -> Result<Self> {
        let machine = Self { name: name.to_owned(), port };
        control(&["wipe", name])?;
        control(&["up", name, &port.to_string()])?;
        Ok(machine)
    }

    /// The port of 127.0.0.1 that leads to the machine's sshd.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The private key that root of the machine accepts.
    pub fn key(&self) -> PathBuf {
        Cache::from_environment().folder().join("vm/image/id")
    }

    /// Runs a shell command as root and returns its standard output.
    pub fn ssh(&self, script: &str) -> Result<String> {
        control(&["ssh", &self.name, script])
    }

    /// A command that will run as root on the machine, with the caller's standard streams.
    pub fn command(&self, script: &str) -> Command {
        let mut command = program();
        command.args(["ssh", &self.name, script]);
        command
    }

    /// The line of a `known_hosts` file, asked of the machine over its own loopback.
    pub fn known_hosts(&self) -> Result<String> {
        let key = self.ssh("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub")?;
        Ok(format!("[127.0.0.1]:{} {key}", self.port))
    }
}

fn control(arguments: &[&str]) -> Result<String> {
    let mut command = program();
    checked(command.args(arguments))
}

fn program() -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/vm.sh"));
    command.env("BASTIDE_BED_CACHE", Cache::from_environment().folder());
    command
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What is left is wiped by the next one of the same name.
        _ = control(&["wipe", &self.name]);
    }
}
