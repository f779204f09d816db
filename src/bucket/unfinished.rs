//! Uploads that nobody finished: what a command that was killed leaves in a bucket, listed nowhere and paid for.

use std::time::Duration;
use std::time::SystemTime;

use http::Method;

use crate::bucket::Bucket;
use crate::bucket::BucketError;
use crate::bucket::answer;
use crate::bucket::answer::Parts;
use crate::bucket::answer::Unfinished;
use crate::bucket::answer::Uploads;
use crate::bucket::client::Request;
use crate::model::SnapshotName;

const DOING: &str = "looking for unfinished uploads";

impl Bucket {
    /// Gives up uploads of names with this ending to which nothing was added for so long; a living one adds all the time.
    /// Returns their names.
    pub async fn sweep(&self, ending: &str, quiet: Duration) -> Result<Vec<SnapshotName>, BucketError> {
        let prefix = self.address().key("");
        let mut found = self.unfinished(&prefix).await?;
        if found.is_empty() && !prefix.is_empty() {
            // MinIO lists either one object's uploads or all of them.
            found = self.unfinished("").await?;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let before = i64::try_from(now.saturating_sub(quiet).as_secs()).unwrap_or(i64::MAX);
        let mut gone = Vec::new();
        for upload in found {
            let Some(Ok(name)) = upload.key.strip_prefix(&prefix).map(SnapshotName::new) else { continue };
            if name.as_str().ends_with(ending) && self.last_change(&upload).await?.is_some_and(|at| at <= before) {
                self.abort(&upload.key, &upload.upload_id).await?;
                gone.push(name);
            }
        }
        Ok(gone)
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, BucketError> {
        let mut found = Vec::new();
        let mut marker: Option<(String, String)> = None;
        loop {
            let mut query = vec![("prefix", prefix.to_owned()), ("uploads", String::new())];
            if let Some((key, upload)) = marker {
                query.insert(0, ("key-marker", key));
                query.insert(2, ("upload-id-marker", upload));
            }
            let answer = self.send(&Request { doing: DOING, query, ..Request::default() }).await?;
            let uploads: Uploads = answer::read(&answer.body).ok_or_else(|| self.unreadable(DOING))?;
            found.extend(uploads.upload);
            match (uploads.next_key_marker, uploads.next_upload_id_marker) {
                (Some(key), Some(upload)) if uploads.is_truncated => marker = Some((key, upload)),
                _ => return Ok(found),
            }
        }
    }

    /// When the newest part came, or else when it was begun; none where nobody can tell.
    async fn last_change(&self, upload: &Unfinished) -> Result<Option<i64>, BucketError> {
        let mut last = answer::time(&upload.initiated);
        let mut marker: Option<String> = None;
        loop {
            let mut query = vec![("uploadId", upload.upload_id.clone())];
            if let Some(number) = marker {
                query.insert(0, ("part-number-marker", number));
            }
            let request = Request { doing: DOING, key: Some(upload.key.clone()), query, ..Request::default() };
            let answer = match self.send(&request).await {
                // It ended meanwhile.
                Err(BucketError::Refused { code, .. }) if code == "NoSuchUpload" => return Ok(None),
                other => other?,
            };
            let parts: Parts = answer::read(&answer.body).ok_or_else(|| self.unreadable(DOING))?;
            for part in &parts.part {
                last = last.max(answer::time(&part.last_modified));
            }
            match parts.next_part_number_marker {
                Some(number) if parts.is_truncated => marker = Some(number),
                _ => return Ok(last),
            }
        }
    }

    /// Gives an upload up. One that is no more is no error.
    pub(super) async fn abort(&self, key: &str, upload: &str) -> Result<(), BucketError> {
        let query = vec![("uploadId", upload.to_owned())];
        let (doing, key) = ("giving an upload up", Some(key.to_owned()));
        match self.send(&Request { method: Method::DELETE, doing, key, query, ..Request::default() }).await {
            Err(BucketError::Refused { code, .. }) if code == "NoSuchUpload" => Ok(()),
            Ok(_) | Err(BucketError::NoObject { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
