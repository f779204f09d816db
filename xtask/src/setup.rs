//! What tests and demo need on this machine, installed and built when missing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use anyhow::bail;

use crate::bundle;
use crate::phase::phase;
use crate::tree::root;
use crate::tree::run;
use crate::tree::script;

/// The Kubernetes minor that the tests use where nothing else is said.
pub(crate) const MINOR: &str = "1.37";

/// The same sources as the next patch of it, for `soak`.
pub(crate) const NEXT_PATCH: &str = "1.37-next";

/// The minor before it, for `soak`.
pub(crate) const OLDER_MINOR: &str = "1.36";

/// A program and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("python3", "python3"),
    ("ip", "iproute2"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("ssh-agent", "openssh-client"),
    ("sshd", "openssh-server"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("g++", "build-essential"),
    ("cmake", "cmake"),
    ("git", "git"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("sysctl", "procps"),
    ("strace", "strace"),
    ("sudo", "sudo"),
    ("fish", "fish"),
    ("csh", "csh"),
];

/// Everything, in order. Each part is skipped where it is there already.
pub(crate) fn all(minor: &str) -> Result<()> {
    phase("system packages", packages)?;
    phase("root file system", || {
        run(&mut Command::new(script("mkrootfs.sh")))?;
        run(&mut Command::new(script("mkhaproxy.sh")))
    })?;
    phase("programs from Go modules", || run(Command::new(script("build-artifacts.sh")).arg(minor)))?;
    phase("bundle", || bundle::make(minor).map(drop))
}

/// The program that makes a steady load.
pub(crate) fn load() -> Result<()> {
    phase("the steady load", || run(Command::new(script("build-artifacts.sh")).env("ONLY", "load")))
}

/// The `age` program, beside which sealing is measured.
pub(crate) fn age() -> Result<PathBuf> {
    phase("the age program", || run(Command::new(script("build-artifacts.sh")).env("ONLY", "age")))?;
    Ok(bed::Cache::from_environment().common().join("bin/age"))
}

/// Builds the program and says where it is.
pub(crate) fn bastide() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo).current_dir(root()).args(["build", "--locked", "--bin", "bastide"]))?;
    Ok(fs::canonicalize(root().join("target/debug/bastide"))?)
}

/// Builds the program as it is shipped, for measurements.
pub(crate) fn bastide_released() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo).current_dir(root()).args(["build", "--locked", "--release", "--bin", "bastide"]))?;
    Ok(fs::canonicalize(root().join("target/release/bastide"))?)
}

fn packages() -> Result<()> {
    if !running_as_root()? {
        bail!("must be root: test hosts are made of namespaces and mounts");
    }
    install(PROGRAMS)?;
    if !on_path("go") {
        bail!("the Go tool chain is missing (version: see tests/bed/go/*/go.mod)");
    }
    // Each systemd takes a dozen inotify instances, and Linux gives a user 128. Where the machine forbids it, nine hosts fit.
    _ = Command::new("sysctl").args(["-qw", "fs.inotify.max_user_instances=8192"]).output();
    Ok(())
}

/// Installs the packages of those programs that are missing.
pub(crate) fn install(programs: &[(&str, &str)]) -> Result<()> {
    let mut missing: Vec<&str> =
        programs.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    run(Command::new("apt-get").args(["-qq", "update"]))?;
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-qq", "install", "-y", "--no-install-recommends"])
        .args(&missing))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

fn running_as_root() -> Result<bool> {
    Ok(crate::tree::read(Command::new("id").arg("-u"))?.trim() == "0")
}
