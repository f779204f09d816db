//! The only door to an S3 server: snapshots in a bucket.
//!
//! Enters: a [`crate::model::BucketAddress`], keys, bytes as they come. Leaves: objects, whole or not at all, and bytes of them.
//! Speaks TLS alone, to a server whose certificate it verified; a machine's own role is asked of the machine itself. Keys sign headers (AWS Signature Version 4, the payload's
//! SHA-256 among what is signed); they stand in no URL, no error and no log. Never holds more than two parts of an upload.

mod answer;
mod client;
mod error;
mod objects;
mod role;
mod sign;
mod unfinished;
mod upload;

pub use client::Bucket;
pub use error::BucketError;
pub use objects::Object;
pub use role::Role;
pub use upload::Upload;
