//! Tests on hosts: real systemd, sshd, containerd, Kubernetes, and real kill switches. Root only.
//!
//! They use what `cargo xtask setup` built. A test's hosts are destroyed at its start and at its end; `KEEP_BED=1` leaves
//! them for a look.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod authorities;
mod away;
mod bucket;
mod bundle;
mod checks;
mod encryption;
mod external;
mod faults;
mod hosts;
mod identity;
mod ill;
mod interrupts;
mod kills;
mod layouts;
mod load;
mod losses;
mod older;
mod recurring;
mod rejoin;
mod restore;
mod revival;
mod rollback;
mod saved;
mod secrecy;
mod snapshots;
mod soak;
mod story;
mod strict;
mod support;
mod three_hosts;
mod versions;
mod wrong;
