//! What the room promises, on whole targets.

mod audit;
mod benchmark;
mod injection;
mod snapshots;
mod support;
mod weakening;
