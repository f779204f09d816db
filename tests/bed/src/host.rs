use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;

use crate::Bed;

/// One host of a bed.
#[derive(Debug, Clone)]
pub struct Host<'a> {
    bed: &'a Bed,
    name: String,
}

impl<'a> Host<'a> {
    pub(crate) fn new(bed: &'a Bed, name: &str) -> Self {
        Self { bed, name: name.to_owned() }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address: `h1` is .11, `h10` is .20.
    pub fn address(&self) -> String {
        let digits = self.name.trim_start_matches(|c: char| !c.is_ascii_digit());
        format!("{}.{}", self.bed.net(), 10 + digits.parse::<u8>().unwrap_or(0))
    }

    /// Runs a shell command as root and returns its standard output; an error carries everything it printed.
    pub fn ssh(&self, script: &str) -> Result<String> {
        self.bed.control(["ssh", &self.name, script])
    }

    /// A command that will run as root on the host, with the caller's standard streams.
    pub fn command(&self, script: &str) -> Command {
        self.login("ssh", script)
    }

    /// The same as the user `ops`, who may use sudo.
    pub fn command_as_ops(&self, script: &str) -> Command {
        self.login("sshu", script)
    }

    /// Copies a file or folder to the host.
    pub fn put(&self, local: &Path, remote: &str) -> Result<()> {
        self.bed.control(["put", &self.name, &local.display().to_string(), remote]).map(drop)
    }

    /// Takes the link down.
    pub fn cut(&self) -> Result<()> {
        self.bed.control(["cut", &self.name]).map(drop)
    }

    /// Takes the link up again.
    pub fn heal(&self) -> Result<()> {
        self.bed.control(["heal", &self.name]).map(drop)
    }

    /// Stops every process where it stands.
    pub fn freeze(&self) -> Result<()> {
        self.bed.control(["freeze", &self.name]).map(drop)
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> Result<()> {
        self.bed.control(["thaw", &self.name]).map(drop)
    }

    /// Cuts the power: nothing is written any more, nothing ends in order.
    pub fn power_cut(&self) -> Result<()> {
        self.bed.control(["down", &self.name]).map(drop)
    }

    /// Starts a host that is off. See [`Host::wait`].
    pub fn power_on(&self) -> Result<()> {
        self.bed.control(["up", &self.name]).map(drop)
    }

    /// Shuts the host down in order.
    pub fn shut_down(&self) -> Result<()> {
        self.bed.control(["halt", &self.name]).map(drop)
    }

    /// Reboots in order; returns when the old boot has ended. See [`Host::wait`].
    pub fn reboot(&self) -> Result<()> {
        self.bed.control(["reboot", &self.name]).map(drop)
    }

    /// Waits until ssh answers.
    pub fn wait(&self) -> Result<()> {
        self.bed.control(["wait", &self.name]).map(drop)
    }

    /// Keeps the file systems of a host that is off under `snapshot`.
    pub fn save(&self, snapshot: &str) -> Result<()> {
        self.bed.control(["save", &self.name, snapshot]).map(drop)
    }

    /// Puts the file systems of a host that is off back.
    pub fn restore(&self, snapshot: &str) -> Result<()> {
        self.bed.control(["restore", &self.name, snapshot]).map(drop)
    }

    /// Puts the host back to how it came, off.
    pub fn wipe(&self) -> Result<()> {
        self.bed.control(["wipe", &self.name]).map(drop)
    }

    /// The id of the present boot.
    pub fn boot_id(&self) -> Result<String> {
        Ok(self.ssh("cat /proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }

    /// Repeats a shell command until it succeeds, at most for `within`, and returns its output.
    pub fn until(&self, script: &str, within: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            match self.ssh(script) {
                Ok(output) => return Ok(output),
                Err(error) if start.elapsed() > within => bail!("not within {within:?}: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    fn login(&self, verb: &str, script: &str) -> Command {
        let mut command = self.bed.script();
        command.args([verb, &self.name, script]);
        command
    }
}
