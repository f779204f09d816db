//! What the room promises, on whole targets.

mod audit;
mod benchmark;
mod injection;
mod members;
mod patience;
mod pods;
mod programs;
mod snapshots;
pub(crate) mod support;
mod weakening;
