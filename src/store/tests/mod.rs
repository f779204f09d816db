#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod copy;
mod damage;
mod examine;
mod folder;
mod identity;
mod journal;
mod kill;
mod prune;
mod support;
mod takeover;
