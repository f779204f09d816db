#![allow(clippy::unwrap_used)]

mod files;
mod order;
mod properties;
mod refusals;
mod revival;
mod shown;
