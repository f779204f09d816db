//! bastide: a declarative provisioner of secure Kubernetes clusters.
//!
//! The data path and the rooms are drawn in ARCHITECTURE.md; `tests/architecture.rs` keeps the direction of their imports.

pub mod api;
pub mod apply;
pub mod bucket;
pub mod cli;
pub mod config;
pub mod host;
pub mod model;
pub mod ops;
pub mod plan;
pub mod release;
pub mod render;
pub mod route;
pub mod secrets;
pub mod snapshot;
pub mod store;
