//! A bucket of an S3 server.

use std::fmt;

use crate::model::Content;

/// Where snapshots lie in a bucket, and whom to believe there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketAddress {
    /// The server's name or address.
    pub host: String,
    /// None is 443.
    pub port: Option<u16>,
    /// The bucket's name.
    pub bucket: String,
    /// None leaves it to the server.
    pub region: Option<String>,
    /// What stands before every object's name, without a slash at either end; empty is the bucket itself.
    pub folder: String,
    /// PEM certificates that alone are believed; none means this machine's own.
    pub authorities: Option<String>,
}

impl BucketAddress {
    /// `name` with the folder before it: the object's key.
    pub fn key(&self, name: &str) -> String {
        if self.folder.is_empty() { name.to_owned() } else { format!("{}/{name}", self.folder) }
    }
}

impl fmt::Display for BucketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.folder.is_empty() { Ok(()) } else { write!(f, "/{}", self.folder) }
    }
}

/// What opens a bucket. Shown nowhere: an access key's name tells whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketKeys {
    /// The access key's name.
    pub access: Content,
    /// The secret key.
    pub secret: Content,
    /// Of keys that last for a while only.
    pub token: Option<Content>,
}
