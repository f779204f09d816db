//! Objects in a bucket's folder: listed, read, removed.

use http::Method;

use crate::bucket::Bucket;
use crate::bucket::BucketError;
use crate::bucket::answer;
use crate::bucket::answer::Listing;
use crate::bucket::client::Request;
use crate::model::SnapshotName;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name in the folder.
    pub name: SnapshotName,
    /// In bytes.
    pub size: u64,
    /// Of its last change, seconds since 1970.
    pub changed: i64,
}

impl Bucket {
    /// Everything in the folder that has a snapshot's name. What is not complete is not there.
    pub async fn list(&self) -> Result<Vec<Object>, BucketError> {
        let doing = "listing the snapshots";
        let prefix = self.address().key("");
        let mut objects = Vec::new();
        let mut more: Option<String> = None;
        loop {
            let mut query =
                vec![("delimiter", "/".to_owned()), ("list-type", "2".to_owned()), ("prefix", prefix.clone())];
            if let Some(token) = more {
                query.insert(0, ("continuation-token", token));
            }
            let answer = self.send(&Request { doing, query, ..Request::default() }).await?;
            let listing: Listing = answer::read(&answer.body).ok_or_else(|| self.unreadable(doing))?;
            for entry in listing.contents {
                let name = entry.key.strip_prefix(&prefix).map(SnapshotName::new);
                // What has no name that bastide would give or take is somebody else's business.
                if let Some(Ok(name)) = name {
                    let changed = answer::time(&entry.last_modified).unwrap_or_default();
                    objects.push(Object { name, size: entry.size, changed });
                }
            }
            match listing.next_continuation_token {
                Some(token) if listing.is_truncated => more = Some(token),
                _ => return Ok(objects),
            }
        }
    }

    /// `length` bytes (keep it to a few MiB) of an object from `offset` on; an object that ends before is an error.
    pub async fn read(&self, name: &SnapshotName, offset: u64, length: u64) -> Result<Vec<u8>, BucketError> {
        if length == 0 {
            return Ok(Vec::new());
        }
        let doing = "reading a snapshot";
        let range = Some(format!("bytes={offset}-{}", offset + length - 1));
        let key = Some(self.address().key(name.as_str()));
        let answer = self.send(&Request { doing, key, range, ..Request::default() }).await?;
        if answer.body.len() as u64 != length {
            let reason = format!("{name}: {} bytes came, not {length}", answer.body.len());
            return Err(BucketError::Strange { place: self.place(), doing, reason });
        }
        Ok(answer.body.into())
    }

    /// Removes an object, where it is there. Where the bucket keeps versions, it keeps this one.
    pub async fn delete(&self, name: &SnapshotName) -> Result<(), BucketError> {
        let key = Some(self.address().key(name.as_str()));
        let request = Request { method: Method::DELETE, doing: "removing a snapshot", key, ..Request::default() };
        match self.send(&request).await {
            Ok(_) | Err(BucketError::NoObject { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// How large an object is; none where it is not there.
    pub(super) async fn size(&self, name: &SnapshotName) -> Result<Option<u64>, BucketError> {
        let doing = "looking at a snapshot";
        let key = Some(self.address().key(name.as_str()));
        match self.send(&Request { method: Method::HEAD, doing, key, ..Request::default() }).await {
            Ok(answer) => {
                let length = answer.headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
                length.map(Some).ok_or_else(|| self.unreadable(doing))
            }
            Err(BucketError::NoObject { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn unreadable(&self, doing: &'static str) -> BucketError {
        BucketError::Strange { place: self.place(), doing, reason: "the server's answer cannot be read".to_owned() }
    }
}
