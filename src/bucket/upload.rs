//! Puts an object together from parts. It is listed only when it is whole.

use std::sync::Arc;

use http::Method;
use hyper::body::Bytes;
use sha2::Digest as _;
use tokio::task::JoinHandle;

use crate::bucket::Bucket;
use crate::bucket::BucketError;
use crate::bucket::answer;
use crate::bucket::answer::Begun;
use crate::bucket::client::Request;
use crate::model::Digest;
use crate::model::SnapshotName;

/// Size of a part. S3 takes none below 5 MiB but the last.
const PART: usize = 8 << 20;
/// S3 takes no more: 78 GiB, ten times what an etcd should grow to.
const MOST_PARTS: usize = 10_000;

const BEGINNING: &str = "beginning an upload";
const SENDING: &str = "sending a part";
const ENDING: &str = "completing an upload";

/// An object that is being sent. What is neither committed nor aborted stays in the bucket, listed nowhere, until it is swept.
pub struct Upload {
    bucket: Arc<Bucket>,
    name: SnapshotName,
    key: String,
    id: String,
    /// What the server calls each part.
    parts: Vec<String>,
    filling: Vec<u8>,
    /// One part is on its way while the next is filled: more would only cost memory.
    sending: Option<JoinHandle<Result<String, BucketError>>>,
    hash: sha2::Sha256,
    size: u64,
}

impl Bucket {
    /// Begins an object of that name, where there is none yet.
    pub async fn begin(self: &Arc<Self>, name: &SnapshotName) -> Result<Upload, BucketError> {
        self.absent(name).await?;
        let key = self.address().key(name.as_str());
        let query = vec![("uploads", String::new())];
        let request =
            Request { method: Method::POST, doing: BEGINNING, key: Some(key.clone()), query, ..Request::default() };
        let answer = self.send(&request).await?;
        let Begun { upload_id: id } = answer::read(&answer.body).ok_or_else(|| self.unreadable(BEGINNING))?;
        let (bucket, name) = (Arc::clone(self), name.clone());
        let (parts, filling, sending) = (Vec::new(), Vec::new(), None);
        Ok(Upload { bucket, name, key, id, parts, filling, sending, hash: sha2::Sha256::new(), size: 0 })
    }

    async fn absent(&self, name: &SnapshotName) -> Result<(), BucketError> {
        match self.size(name).await? {
            None => Ok(()),
            Some(_) => Err(BucketError::Exists { place: self.place(), object: name.to_string() }),
        }
    }
}

impl Upload {
    /// Takes these bytes, and waits where the part before is not there yet.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BucketError> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART - self.filling.len()));
            self.filling.extend_from_slice(now);
            bytes = later;
            if self.filling.len() == PART {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Everything was written: waits until it is there. Returns the digest of all that was written.
    pub async fn finish(&mut self) -> Result<Digest, BucketError> {
        if !self.filling.is_empty() || (self.parts.is_empty() && self.sending.is_none()) {
            self.send_part().await?;
        }
        self.settle().await?;
        Ok(Digest(self.hash.clone().finalize().into()))
    }

    /// Makes it an object, whole, after [`Upload::finish`]. One that appeared under this name meanwhile stays.
    pub async fn commit(self) -> Result<(), BucketError> {
        let outcome = self.complete().await;
        if outcome.is_err() {
            self.abort().await;
        }
        outcome
    }

    async fn complete(&self) -> Result<(), BucketError> {
        let bucket = &self.bucket;
        bucket.absent(&self.name).await?;
        let parts = self.parts.iter().enumerate().map(|(at, tag)| {
            let tag = quick_xml::escape::escape(tag);
            format!("<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", at + 1)
        });
        let body = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>());
        let request = Request {
            method: Method::POST,
            doing: ENDING,
            key: Some(self.key.clone()),
            query: vec![("uploadId", self.id.clone())],
            range: None,
            body: body.into(),
        };
        let told = bucket.send(&request).await;
        match (&told, bucket.size(&self.name).await?) {
            // The answer to the first try may have been lost: then the upload is no more, because it is an object.
            (Ok(_), Some(size)) if size == self.size => Ok(()),
            (Err(BucketError::Refused { code, .. }), Some(size)) if code == "NoSuchUpload" && size == self.size => {
                Ok(())
            }
            (Ok(_), size) => {
                let reason = format!("the server holds {} bytes of {}", size.unwrap_or_default(), self.size);
                Err(BucketError::Strange { place: bucket.place(), doing: ENDING, reason })
            }
            _ => told.map(drop),
        }
    }

    /// Gives it up. Best effort: what stays is swept later.
    pub async fn abort(mut self) {
        if let Some(sending) = self.sending.take() {
            sending.abort();
            // A part that comes after the end would stay.
            let _ = sending.await;
        }
        let _ = self.bucket.abort(&self.key, &self.id).await;
    }

    /// The error for bytes that ended before they were all.
    pub fn given_up(&self, reason: &str) -> BucketError {
        BucketError::Strange { place: self.bucket.place(), doing: SENDING, reason: reason.to_owned() }
    }

    async fn send_part(&mut self) -> Result<(), BucketError> {
        self.settle().await?;
        let number = self.parts.len() + 1;
        if number > MOST_PARTS {
            let reason = format!("more than {MOST_PARTS} parts of {} MiB", PART >> 20);
            return Err(BucketError::Strange { place: self.bucket.place(), doing: SENDING, reason });
        }
        let body = Bytes::from(std::mem::take(&mut self.filling));
        let query = vec![("partNumber", number.to_string()), ("uploadId", self.id.clone())];
        let key = Some(self.key.clone());
        let request = Request { method: Method::PUT, doing: SENDING, key, query, range: None, body };
        let bucket = Arc::clone(&self.bucket);
        self.sending = Some(tokio::spawn(async move {
            let answer = bucket.send(&request).await?;
            let tag = answer.headers.get("etag").and_then(|value| value.to_str().ok());
            tag.map(str::to_owned).ok_or_else(|| bucket.unreadable(SENDING))
        }));
        Ok(())
    }

    /// Waits for the part that is on its way.
    async fn settle(&mut self) -> Result<(), BucketError> {
        let Some(sending) = self.sending.take() else { return Ok(()) };
        let died = |_| BucketError::Strange {
            place: self.bucket.place(),
            doing: SENDING,
            reason: "the transfer died".to_owned(),
        };
        let tag = sending.await.map_err(died)??;
        self.parts.push(tag);
        Ok(())
    }
}
