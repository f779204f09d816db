//! Which files and images, by digest, make a Kubernetes version.
//!
//! Enters: a bundle's folder, or the catalogue of upstream releases that this program was built with. Leaves: a [`Bundle`]
//! whose every file is known by digest, and the versions that are supported. Never fetches, never writes, never substitutes
//! one version for another.

mod bundle;
mod catalogue;
mod error;

pub use bundle::Bundle;
pub use bundle::BundleDocument;
pub use bundle::open_bundle;
pub use catalogue::Archive;
pub use catalogue::Upstream;
pub use catalogue::UpstreamFile;
pub use catalogue::UpstreamImage;
pub use catalogue::UpstreamPackage;
pub use catalogue::catalogue;
pub use catalogue::supported;
pub use error::BundleError;
pub use error::Flaw;
