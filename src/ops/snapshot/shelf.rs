//! The bucket that cluster.yml names, as one place of snapshots among others.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::TryStreamExt as _;
use tokio::task::JoinHandle;

use crate::bucket::Bucket;
use crate::bucket::BucketError;
use crate::bucket::Object;
use crate::bucket::Upload;
use crate::host::SnapshotFile;
use crate::model::Digest;
use crate::model::SnapshotName;
use crate::ops::Talk;
use crate::ops::snapshot::Place;
use crate::ops::snapshot::Site;
use crate::ops::snapshot::pipe::Source;
use crate::snapshot::ENDING;
use crate::snapshot::LONGEST_END;

/// Objects whose ends are read at the same time.
pub(super) const AT_ONCE: usize = 8;
/// An upload to which nothing was added for so long is nobody's any more. A living one adds a part all the time; and clocks may
/// differ by a quarter of an hour.
pub(super) const QUIET: Duration = Duration::from_hours(1);

/// The objects as a host would show its files; nothing where cluster.yml names no bucket.
pub(super) async fn look(site: &Site) -> Result<Vec<(Place, SnapshotFile)>, BucketError> {
    let Some((place, bucket)) = site.depot() else { return Ok(Vec::new()) };
    let bucket = bucket.map_err(Clone::clone)?;
    let objects = bucket.list().await?;
    let read = objects.into_iter().map(|object| async move { Ok((place.clone(), ends(bucket, object).await?)) });
    futures::stream::iter(read).buffered(AT_ONCE).try_collect().await
}

/// Both ends of an object, which tell what it is.
pub(super) async fn ends(bucket: &Bucket, object: Object) -> Result<SnapshotFile, BucketError> {
    let Object { name: file, size, changed } = object;
    let length = size.min(LONGEST_END);
    let end = bucket.read(&file, size - length, length).await?;
    let first = if size == length { end[..end.len().min(64)].to_vec() } else { bucket.read(&file, 0, 64).await? };
    Ok(SnapshotFile { file, size, changed, first, end })
}

/// An upload on its way: all of it and its digest, or why not.
pub(super) type Sending = JoinHandle<Result<(Upload, Digest), BucketError>>;

/// Begins to send what comes out of `source`. Nothing is listed before [`Upload::commit`].
pub(super) fn send(bucket: &Arc<Bucket>, file: &SnapshotName, mut source: Source) -> Sending {
    let (bucket, file) = (Arc::clone(bucket), file.clone());
    tokio::spawn(async move {
        let mut upload = bucket.begin(&file).await?;
        match through(&mut upload, &mut source).await {
            Ok(digest) => Ok((upload, digest)),
            Err(error) => {
                // Whoever waits for this place need not wait for that.
                drop(source);
                upload.abort().await;
                Err(error)
            }
        }
    })
}

async fn through(upload: &mut Upload, source: &mut Source) -> Result<Digest, BucketError> {
    loop {
        match source.next().await {
            Ok(Some(bytes)) => upload.write(&bytes).await?,
            Ok(None) => return upload.finish().await,
            Err(reason) => return Err(upload.given_up(&reason.to_string())),
        }
    }
}

/// Gives up what commands that were killed left in the bucket. Whatever goes wrong is said and stops nothing.
pub(super) async fn sweep(site: &Site, talk: &dyn Talk) {
    let Some((_, Ok(bucket))) = site.depot() else { return };
    match bucket.sweep(ENDING, QUIET).await {
        Ok(gone) => {
            for name in gone {
                talk.say(&format!("gave up an unfinished upload of {name}, which a command left that was cut off"));
            }
        }
        Err(error) => talk.warn(&format!("unfinished uploads were not looked for: {error}")),
    }
}
