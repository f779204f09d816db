//! The machine's scripts on a real host: systemd, dash, GNU coreutils, a file system that fills up, a kill switch.
// What a test measures it prints; one boot serves many parts of a story.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::too_many_lines)]

mod erase;
mod files;
mod locking;
mod observing;
mod support;
