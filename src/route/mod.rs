//! Changes that pass through several targets, each of which the ordinary planner reaches.
//!
//! Enters: a target and what was seen. Leaves: plans and targets in order. Never does I/O, runs nothing.

pub mod restore;
