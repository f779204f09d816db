#![allow(clippy::unwrap_used, clippy::panic)]

mod faults;
mod locks;
mod runs;
mod world;
