#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod carry;
mod certificates;
mod complete;
mod custom;
mod documents;
mod exchange;
mod external;
mod hands;
mod misfits;
mod servers;
mod support;
