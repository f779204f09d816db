//! etcd's snapshots on a host: put, listed, read, removed.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::host::Call;
use crate::host::HostError;
use crate::host::Machine;
use crate::host::Payload;
use crate::host::Wire;
use crate::model::Content;
use crate::model::Digest;
use crate::model::ImageRef;
use crate::model::RemotePath;
use crate::model::SnapshotName;

const SNAPSHOTS: &str = concat!(include_str!("scripts/common.sh"), include_str!("scripts/snapshots.sh"));
const PROVE: &str = concat!(include_str!("scripts/common.sh"), include_str!("scripts/prove_snapshot.sh"));
/// A large file is synced and digested on the host in silence.
const SILENCE: Duration = Duration::from_mins(10);

/// What an etcd that was started on a restored database says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredEtcd {
    /// Its newest revision.
    pub revision: u64,
    /// Keys at the revision that was asked for.
    pub keys: u64,
    /// Hash up to that revision, and what was compacted away; none where etcd gave none.
    pub hash: Option<(u32, i64)>,
    /// Names of the newest keys below the prefixes that were asked for.
    pub names: BTreeSet<String>,
}

/// A file in the folder of snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its name.
    pub file: SnapshotName,
    /// In bytes.
    pub size: u64,
    /// Of its last change, seconds since 1970.
    pub changed: i64,
    /// Its first bytes, 64 at most.
    pub first: Vec<u8>,
    /// Its last bytes, as many as were asked for.
    pub end: Vec<u8>,
}

impl<W: Wire> Machine<W> {
    /// Stages a snapshot in `folder` under a hidden name of its own and returns the digest of what is on the disk, durably.
    /// Nothing is listed before [`Machine::commit_snapshot`]. Refused where `file` is there already.
    pub async fn put_snapshot(
        &self,
        folder: &RemotePath,
        file: &SnapshotName,
        run: &str,
        content: Box<dyn Read + Send>,
    ) -> Result<Digest, HostError> {
        let doing = "writing a snapshot";
        let arguments = vec![file.to_string(), self.plain(doing, run)?.to_owned()];
        let output = self.snapshots("put", folder, arguments, Payload::Stream(content)).await?;
        self.told(doing, &output)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let digest = text.lines().find_map(|line| line.strip_prefix("landed ")?.parse().ok());
        digest.ok_or_else(|| self.failed(doing, "the host did not tell what arrived"))
    }

    /// Makes what was put by this run a snapshot.
    pub async fn commit_snapshot(&self, folder: &RemotePath, file: &SnapshotName, run: &str) -> Result<(), HostError> {
        self.short("commit", "keeping a snapshot", folder, vec![file.to_string(), run.to_owned()]).await
    }

    /// Takes what was put by this run away.
    pub async fn discard_snapshot(&self, folder: &RemotePath, file: &SnapshotName, run: &str) -> Result<(), HostError> {
        self.short("discard", "removing an unfinished snapshot", folder, vec![file.to_string(), run.to_owned()]).await
    }

    /// Removes a snapshot, where it is there.
    pub async fn delete_snapshot(&self, folder: &RemotePath, file: &SnapshotName) -> Result<(), HostError> {
        self.short("delete", "removing a snapshot", folder, vec![file.to_string()]).await
    }

    /// The files in `folder`, each with its last `end` bytes. None where there is no such folder.
    pub async fn list_snapshots(&self, folder: &RemotePath, end: u64) -> Result<Vec<SnapshotFile>, HostError> {
        let doing = "listing the snapshots";
        let output = self.snapshots("list", folder, vec![end.to_string()], Payload::None).await?;
        self.told(doing, &output)?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text).ok_or_else(|| self.failed(doing, "the host's answer cannot be read"))
    }

    /// At most `length` bytes (keep it to a few MiB) of a snapshot, from `offset` on.
    pub async fn read_snapshot(
        &self,
        folder: &RemotePath,
        file: &SnapshotName,
        offset: u64,
        length: u64,
    ) -> Result<Content, HostError> {
        let arguments = vec![file.to_string(), offset.to_string(), length.to_string()];
        let output = self.snapshots("read", folder, arguments, Payload::None).await?;
        match output.status {
            0 => Ok(Content::new(output.stdout)),
            44 => Err(self.failed("reading a snapshot", format!("there is no {folder}/{file}"))),
            _ => Err(self.failed("reading a snapshot", String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }

    /// Restores a database of `size` bytes, as etcd streamed it, beside the cluster's own etcd, with the programs of `image`, and
    /// asks that etcd what it holds at `revision` (0: at its newest), and which keys below `prefixes`. Nothing of it stays.
    pub async fn prove_snapshot(
        &self,
        image: &ImageRef,
        size: u64,
        revision: u64,
        run: &str,
        prefixes: &[String],
        database: Box<dyn Read + Send>,
    ) -> Result<RestoredEtcd, HostError> {
        let doing = "restoring a snapshot for proof";
        let run = self.plain(doing, run)?.to_owned();
        let mut arguments = vec![image.to_string(), size.to_string(), revision.to_string(), run];
        arguments.extend_from_slice(prefixes);
        let payload = Payload::Stream(database);
        let output = self.wire().exec(Call { script: PROVE, arguments, payload, deadline: SILENCE }).await?;
        self.told(doing, &output)?;
        let text = String::from_utf8_lossy(&output.stdout);
        restored(&text).ok_or_else(|| self.failed(doing, "the restored etcd's answers cannot be read"))
    }

    async fn short(
        &self,
        verb: &str,
        doing: &str,
        folder: &RemotePath,
        arguments: Vec<String>,
    ) -> Result<(), HostError> {
        let output = self.snapshots(verb, folder, arguments, Payload::None).await?;
        self.told(doing, &output)
    }

    async fn snapshots(
        &self,
        verb: &str,
        folder: &RemotePath,
        arguments: Vec<String>,
        payload: Payload,
    ) -> Result<crate::host::Output, HostError> {
        let arguments = [verb.to_owned(), folder.to_string()].into_iter().chain(arguments).collect();
        self.wire().exec(Call { script: SNAPSHOTS, arguments, payload, deadline: SILENCE }).await
    }
}

/// Lines `status`, `count` and `hash`, each with etcdctl's JSON.
fn restored(text: &str) -> Option<RestoredEtcd> {
    let find = |word: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(word))?;
        serde_json::from_str::<Value>(line).ok()
    };
    let hash = find("hash ").and_then(|answer| {
        let hash = &answer[0]["HashKV"];
        Some((u32::try_from(hash["hash"].as_u64()?).ok()?, hash["compact_revision"].as_i64().unwrap_or_default()))
    });
    Some(RestoredEtcd {
        revision: find("status ")?[0]["Status"]["header"]["revision"].as_u64()?,
        // Zero is left out.
        keys: find("count ")?["count"].as_u64().unwrap_or_default(),
        hash,
        names: text.lines().filter_map(|line| line.strip_prefix("name ")).map(str::to_owned).collect(),
    })
}

/// Lines `file SIZE CHANGED NAME`, each followed by `first` and `end` in base64.
fn parse(text: &str) -> Option<Vec<SnapshotFile>> {
    let mut files: Vec<SnapshotFile> = Vec::new();
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "file" => {
                let mut words = rest.splitn(3, ' ');
                let (size, changed) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                // What has no name that bastide would give or take is somebody else's business.
                let Ok(file) = SnapshotName::new(words.next()?) else { return None };
                files.push(SnapshotFile { file, size, changed, first: Vec::new(), end: Vec::new() });
            }
            "first" => files.last_mut()?.first = STANDARD.decode(rest).ok()?,
            "end" => files.last_mut()?.end = STANDARD.decode(rest).ok()?,
            _ => {}
        }
    }
    Some(files)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::parse;

    #[test]
    fn a_list_is_read_as_it_is_written() {
        let files =
            parse("file 12 1767225600 one.snapshot\nfirst YWJj\nend eHl6\nfile 0 5 two\nfirst \nend \ndone\n").unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!((files[0].file.as_str(), files[0].size, files[0].changed), ("one.snapshot", 12, 1_767_225_600));
        assert_eq!((files[0].first.as_slice(), files[0].end.as_slice()), (&b"abc"[..], &b"xyz"[..]));
        assert!(files[1].end.is_empty());
        assert_eq!(parse("file x\n"), None);
        assert_eq!(parse("done\n"), Some(Vec::new()));
    }
}
