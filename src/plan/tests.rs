#![allow(clippy::unwrap_used)]

mod order;
mod properties;
mod refusals;
mod revival;
mod shown;
