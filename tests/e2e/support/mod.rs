//! What the tests on hosts share.
#![allow(dead_code, unused_imports)]

mod cluster;
pub(crate) mod network;

pub(crate) use cluster::Cluster;
pub(crate) use cluster::Ended;

/// Whether the long matrices are run whole (`cargo xtask soak`).
pub(crate) fn whole() -> bool {
    std::env::var_os("BASTIDE_TEST_WHOLE").is_some()
}

/// The seed by which samples are drawn: `cargo xtask test` prints and sets it.
pub(crate) fn seed() -> u64 {
    std::env::var("BASTIDE_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
