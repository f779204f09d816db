use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::thread;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;

use crate::Cache;
use crate::Host;

/// How many beds may stand side by side.
const SLOTS: u8 = 16;

/// What happens to the hosts when a [`Bed`] is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// They are destroyed, unless `KEEP_BED` is set in the environment.
    UntilDropped,
    /// They go on.
    Running,
}

/// Hosts on a private network.
#[derive(Debug)]
pub struct Bed {
    name: String,
    net: String,
    cache: Cache,
    keep: Keep,
    /// Held as long as the bed is ours.
    _slot: Option<File>,
}

impl Bed {
    /// Boots hosts called `names` on a free slot, with the addresses .11, .12 and so on, and waits until each answers by ssh.
    pub fn boot(names: &[&str]) -> Result<Self> {
        let cache = Cache::from_environment();
        let (slot, lock) = free_slot(&cache)?;
        let bed = Self {
            name: format!("slot{slot}"),
            net: format!("10.11{}.{}", slot / 10, slot % 10 + 100),
            cache,
            keep: Keep::UntilDropped,
            _slot: Some(lock),
        };
        bed.destroy()?;
        bed.start(names)?;
        Ok(bed)
    }

    /// The bed of this name, whether it stands or not. The caller sees to it that nobody else uses it.
    pub fn named(name: &str, net: &str, keep: Keep) -> Self {
        Self { name: name.to_owned(), net: net.to_owned(), cache: Cache::from_environment(), keep, _slot: None }
    }

    /// Starts hosts, all at once, and waits until each answers by ssh.
    pub fn start(&self, names: &[&str]) -> Result<()> {
        self.control(["net"])?;
        thread::scope(|scope| {
            let starts: Vec<_> = names
                .iter()
                .map(|name| {
                    scope.spawn(move || {
                        let host = self.host(name);
                        self.control(["up", name, &host.address()])?;
                        self.control(["wait", name])
                    })
                })
                .collect();
            starts.into_iter().try_for_each(|start| match start.join() {
                Ok(result) => result.map(drop),
                Err(_) => bail!("starting a host panicked"),
            })
        })
    }

    /// A host by name. Its address follows from the number at the end of the name: `h1` is .11, `h10` is .20.
    pub fn host(&self, name: &str) -> Host<'_> {
        Host::new(self, name)
    }

    /// The subnet without its last byte.
    pub fn net(&self) -> &str {
        &self.net
    }

    /// Where the bed keeps its hosts' file systems.
    pub fn folder(&self) -> PathBuf {
        self.cache.folder().join("beds").join(&self.name)
    }

    /// The private key that root and the sudo user `ops` of every host accept.
    pub fn key(&self) -> PathBuf {
        self.folder().join("id")
    }

    /// The lines that a `known_hosts` file needs for these hosts, read from the hosts' own file systems.
    pub fn known_hosts(&self, names: &[&str]) -> Result<String> {
        names
            .iter()
            .map(|name| {
                let path = self.folder().join(name).join("upper/etc/ssh/ssh_host_ed25519_key.pub");
                let key = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let mut words = key.split_whitespace();
                let (Some(kind), Some(bytes)) = (words.next(), words.next()) else {
                    bail!("{}: not a public key", path.display())
                };
                Ok(format!("{} {kind} {bytes}\n", self.host(name).address()))
            })
            .collect()
    }

    /// A command that will run inside the bed's network, where the hosts can be reached.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.script();
        command.arg("run").arg(program);
        command
    }

    /// Drops every frame between two hosts until [`Bed::unite`].
    pub fn partition(&self, one: &str, other: &str) -> Result<()> {
        self.control(["part", one, other]).map(drop)
    }

    /// Ends all partitions.
    pub fn unite(&self) -> Result<()> {
        self.control(["unpart"]).map(drop)
    }

    /// Removes the hosts and everything that the bed made.
    pub fn destroy(&self) -> Result<()> {
        self.control(["destroy"]).map(drop)
    }

    /// Runs `bed.sh` for this bed and returns what it printed.
    pub(crate) fn control<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        let mut command = self.script();
        command.args(arguments);
        checked(&mut command)
    }

    pub(crate) fn script(&self) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bed.sh"));
        command.env("BED", &self.name).env("NET", &self.net).env("BASTIDE_BED_CACHE", self.cache.folder());
        // Tests run beside builds and other beds: patience is not what they measure.
        command.env("BED_CONNECT", "15");
        // A bed that is gone with its test is nothing to keep on a disk; what the disk costs is for the benchmark to say.
        command.env("BED_MEMORY", if self.keep == Keep::UntilDropped { "1" } else { "0" });
        command
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.keep == Keep::UntilDropped && std::env::var_os("KEEP_BED").is_none() {
            // What is left is destroyed by the slot's next user.
            _ = self.destroy();
        }
    }
}

/// Runs a command to its end; an error carries everything it printed.
pub(crate) fn checked(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("{command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !status.success() {
        bail!("{command:?}: {status}\n{}{}", text(&stdout), text(&stderr));
    }
    Ok(text(&stdout))
}

fn free_slot(cache: &Cache) -> Result<(u8, File)> {
    let folder = cache.folder().join("slots");
    fs::create_dir_all(&folder)?;
    for slot in 0..SLOTS {
        let file = File::create(folder.join(slot.to_string()))?;
        match file.try_lock() {
            Ok(()) => return Ok((slot, file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    bail!("all {SLOTS} beds are in use")
}
