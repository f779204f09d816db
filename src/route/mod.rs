//! An intent becomes the targets to pass through.
//!
//! Enters: a target and what was seen; stored targets, what they trust, today's keys. Leaves: the way between two of them and each stop of it as a
//! target for the ordinary planner. Never does I/O, never reads a clock, runs nothing.

mod compatible;
mod encryption;
mod exchange;
mod key_rules;
mod key_walk;
mod members;
pub mod restore;
mod retarget;
mod rotate;
mod takeover;
#[cfg(test)]
mod tests;
mod walk;

pub use compatible::Clash;
pub use compatible::Point;
pub use compatible::compatible;
pub use encryption::KeyLeg;
pub use encryption::key_legs;
pub use encryption::keys_after;
pub use exchange::Exchange;
pub use exchange::ExchangeLeg;
pub use key_rules::KeyRule;
pub use key_rules::Rule;
pub use key_rules::dropped_keys;
pub use key_rules::drops_keys;
pub use key_rules::key_rules;
pub use key_rules::key_rules_fit;
pub use key_rules::keys_for;
pub use key_rules::resources_of;
pub use key_rules::unreadable;
pub use key_walk::NoWalk;
pub use key_walk::WalkLeg;
pub use key_walk::next_configuration;
pub use key_walk::plugins;
pub use members::Change;
pub use members::Member;
pub use members::guard;
pub use members::stale;
pub use retarget::Retargeted;
pub use retarget::retarget;
pub use rotate::Renewal;
pub use rotate::Service;
pub use rotate::renewed_leaves;
pub use rotate::replace_kubelet_pairs;
pub use takeover::Files;
pub use takeover::Places;
pub use takeover::taken_over;
pub use walk::Blocked;
pub use walk::Stop;
pub use walk::walk;
