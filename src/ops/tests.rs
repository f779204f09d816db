//! Use cases without hosts.
#![allow(clippy::unwrap_used, clippy::panic)]

mod older;
