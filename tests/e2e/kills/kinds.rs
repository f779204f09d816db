//! What a run does at a point where it can be killed.

use std::fmt;

/// What a run says that it begins: before each step and inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    User,
    Folder,
    File,
    Reload,
    Unit,
    Image,
    Pod,
    Gate,
    Object,
    Removal,
    Stop,
    Data,
    Stream,
}

impl Kind {
    /// What a fresh `up` has.
    pub(crate) const ALL: [Self; 9] = [
        Self::User,
        Self::Folder,
        Self::File,
        Self::Reload,
        Self::Unit,
        Self::Image,
        Self::Pod,
        Self::Gate,
        Self::Object,
    ];

    pub(crate) fn of(message: &str) -> Option<Self> {
        let begins = |words: &str| message.starts_with(words);
        match () {
            () if begins("makes the user ") => Some(Self::User),
            () if begins("makes the folder ") => Some(Self::Folder),
            () if begins("writes /") => Some(Self::File),
            () if begins("reloads systemd") => Some(Self::Reload),
            () if begins("starts ") || begins("restarts ") => Some(Self::Unit),
            () if begins("imports ") => Some(Self::Image),
            () if begins("removes ") => Some(Self::Removal),
            () if begins("waits until ") => Some(Self::Stop),
            () if begins("restores etcd's data") || begins("puts ") => Some(Self::Data),
            () if begins("taking snapshot ") || begins("verifying ") => Some(Self::Stream),
            () if begins("waits for ") && (message.contains(": ") || message.contains("workloads")) => Some(Self::Gate),
            () if begins("waits for ") => Some(Self::Pod),
            () if begins("applies ") || begins("labels node ") => Some(Self::Object),
            () => None,
        }
    }
}

/// The local files whose durable writes are points of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Local {
    Identity,
    Lock,
    Manifest,
    Pack,
    Journal,
    Kubeconfig,
    Snapshot,
}

impl Local {
    /// What a fresh `up` has.
    pub(crate) const ALL: [Self; 6] =
        [Self::Identity, Self::Lock, Self::Manifest, Self::Pack, Self::Journal, Self::Kubeconfig];

    /// `call` is a line of strace.
    pub(crate) fn of(call: &str) -> Option<Self> {
        match () {
            () if call.contains("/config/") => Some(Self::Identity),
            () if call.contains("/kept-here") => Some(Self::Snapshot),
            () if call.contains("kube_config_") => Some(Self::Kubeconfig),
            () if call.contains("journal") => Some(Self::Journal),
            () if call.contains("/sealed") => Some(Self::Pack),
            () if call.contains("cluster.bastide/lock") => Some(Self::Lock),
            () if call.contains("cluster.bastide/") => Some(Self::Manifest),
            () => None,
        }
    }
}

/// What a script on a host is about to do, in the middle of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Inside {
    Lock,
    Staging,
    Seal,
    Record,
    User,
    Folder,
    File,
    Reload,
    Unit,
    Image,
    Snapshot,
    Data,
}

impl Inside {
    /// The programs by which they are done.
    pub(crate) const PROGRAMS: [&str; 14] = [
        "chmod",
        "chown",
        "cp",
        "groupadd",
        "install",
        "ln",
        "mkdir",
        "mv",
        "rm",
        "sync",
        "systemctl",
        "tar",
        "timeout",
        "useradd",
    ];

    /// What every run does of this kind that has it still to do, as a pattern of the shell. In the order of [`Self::ALL`]
    /// each comes although the runs before were killed at the ones before it.
    pub(crate) fn first(self) -> &'static str {
        match self {
            Self::Lock => "mkdir *run/bastide*",
            Self::Seal => "mv */var/lib/bastide/state.age",
            Self::Record => "mv */var/lib/bastide/record.json",
            Self::Staging => "tar *staging*",
            Self::User => "useradd *",
            Self::Folder => "install *-d *",
            Self::File => "install *.bastide",
            Self::Reload => "systemctl daemon-reload",
            Self::Unit => "timeout *systemctl *",
            Self::Image => "timeout *images import*",
            Self::Snapshot => "ln */snapshots/*",
            Self::Data => "mv */var/lib/etcd*",
        }
    }

    /// All that a fresh `up` has, as one run comes by them.
    pub(crate) const ALL: [Self; 10] = [
        Self::Lock,
        Self::Seal,
        Self::Record,
        Self::Staging,
        Self::User,
        Self::Folder,
        Self::File,
        Self::Reload,
        Self::Unit,
        Self::Image,
    ];

    /// `call` is a program with its arguments.
    pub(crate) fn of(call: &str) -> Option<Self> {
        let (program, arguments) = call.split_once(' ').unwrap_or((call, ""));
        let names = |words: &str| arguments.contains(words);
        match program {
            _ if names("/snapshots/.") => Some(Self::Snapshot),
            "sync" if names("/var/lib/bastide/snapshots") => Some(Self::Snapshot),
            _ if names("/var/lib/etcd.") || names("/var/lib/etcd/member") || names("etcd-restore") => Some(Self::Data),
            "mkdir" if names("/run/bastide") => Some(Self::Lock),
            "useradd" | "groupadd" => Some(Self::User),
            "systemctl" if names("daemon-reload") => Some(Self::Reload),
            "systemctl" if ["enable", "start", "restart"].iter().any(|verb| names(verb)) => Some(Self::Unit),
            "timeout" if names("images import") => Some(Self::Image),
            "timeout" if names("systemctl") => Some(Self::Unit),
            "systemctl" | "timeout" => None,
            _ if names("state.age") || names("staging/state ") => Some(Self::Seal),
            "install" if names(" -d ") || arguments.starts_with("-d ") => Some(Self::Folder),
            "mkdir" if arguments.starts_with("-m ") => Some(Self::Folder),
            _ if names(".bastide") => Some(Self::File),
            "cp" | "mv" if names("/var/lib/bastide/new") => Some(Self::Record),
            "tar" | "mkdir" | "rm" if names("/var/lib/bastide/staging") => Some(Self::Staging),
            "sync" if names("/var/lib/bastide") => Some(Self::Record),
            "sync" | "chmod" | "chown" if names("/") => Some(Self::File),
            _ => None,
        }
    }
}

/// In words, for docs/faults.md.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "a user is made",
            Self::Folder => "a folder is made",
            Self::File => "a file is written",
            Self::Reload => "systemd is reloaded",
            Self::Unit => "a unit is started",
            Self::Image => "an image is imported",
            Self::Pod => "a pod is waited for",
            Self::Gate => "a component's health is waited for",
            Self::Object => "an object is applied",
            Self::Removal => "a file is removed",
            Self::Stop => "a pod's end is waited for",
            Self::Data => "etcd's data are exchanged",
            Self::Stream => "a snapshot is streamed",
        })
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "write of the identity",
            Self::Lock => "lock of the state folder",
            Self::Manifest => "write of the state's manifest",
            Self::Pack => "write of the sealed pack",
            Self::Journal => "write of the journal",
            Self::Kubeconfig => "write of the kubeconfig",
            Self::Snapshot => "write of the local snapshot",
        })
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "inside: the host's lock",
            Self::Staging => "inside: files are staged",
            Self::Seal => "inside: the sealed copy",
            Self::Record => "inside: the host's record",
            Self::User => "inside: a user",
            Self::Folder => "inside: a folder",
            Self::File => "inside: a file",
            Self::Reload => "inside: systemd's reload",
            Self::Unit => "inside: a unit's start",
            Self::Image => "inside: an image's import",
            Self::Snapshot => "inside: a snapshot's file",
            Self::Data => "inside: etcd's data",
        })
    }
}
