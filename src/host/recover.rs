//! A member that survived alone: the end of its log, and its data as a database.

use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::host::Call;
use crate::host::HostError;
use crate::host::Machine;
use crate::host::Payload;
use crate::host::Wire;
use crate::model::Content;
use crate::model::Digest;
use crate::model::EtcdRestore;
use crate::model::ImageRef;

const RECOVER: &str = concat!(
    include_str!("scripts/common.sh"),
    include_str!("scripts/work.sh"),
    include_str!("scripts/etcd.sh"),
    include_str!("scripts/recover.sh")
);
/// A log's file never holds more: etcd begins the next one at 64 MB, after the entry that crosses that.
const LONGEST_LOG: u64 = 256 << 20;
/// A script that works tells every three seconds that it lives.
const SILENCE: Duration = Duration::from_mins(10);

/// Whose data, and for which restore.
#[derive(Debug, Clone, Copy)]
pub struct Survivor<'a> {
    /// The run that holds the host's lock.
    pub run: &'a str,
    /// The restore's token.
    pub token: &'a str,
    /// How long etcd may take to end or to start.
    pub health: Duration,
}

/// A file of a member's log.
#[derive(Debug, Clone)]
pub struct LogFile {
    /// Its name.
    pub name: String,
    /// Of its bytes.
    pub digest: Digest,
    /// All of them: keys and values of the cluster are among them.
    pub bytes: Content,
}

/// What is to be done to a copy of the log before an etcd runs on it.
#[derive(Debug, Clone)]
pub struct LogChange {
    /// Which file, and what it must be.
    pub file: String,
    /// Digest of the file as it was read.
    pub digest: Digest,
    /// Where it is cut.
    pub offset: u64,
    /// What is put there; holds no data of the cluster's.
    pub record: Vec<u8>,
}

/// The database that was made, on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Its newest revision.
    pub revision: u64,
    /// Keys at that.
    pub keys: u64,
}

impl<W: Wire> Machine<W> {
    /// The `number`th file of the log from its end (the last one is 1); none where there are fewer.
    pub async fn etcd_log(&self, survivor: Survivor<'_>, number: usize) -> Result<Option<LogFile>, HostError> {
        let doing = "reading the log of etcd";
        let mut bytes = Vec::new();
        loop {
            let fields = vec![number.to_string(), bytes.len().to_string()];
            let text = self.recover(doing, "log", survivor, fields).await?;
            let Some(part) = part(&text) else {
                return if bytes.is_empty() && !text.contains("\nfile ") && !text.starts_with("file ") {
                    Ok(None)
                } else {
                    Err(self.failed(doing, "the host's answer cannot be read"))
                };
            };
            if part.size > LONGEST_LOG {
                return Err(self.failed(doing, format!("{} is longer than a log of etcd can be", part.name)));
            }
            let empty = part.bytes.is_empty();
            bytes.extend_from_slice(&part.bytes);
            if bytes.len() as u64 >= part.size {
                let (name, digest) = (part.name, part.digest);
                if Digest::of(&bytes) != digest {
                    return Err(self.failed(doing, format!("{name} has changed while it was read")));
                }
                return Ok(Some(LogFile { name, digest, bytes: Content::new(bytes) }));
            }
            if empty {
                return Err(self.failed(doing, "the file has become shorter"));
            }
        }
    }

    /// Starts an etcd of its own, as the only member, on a copy of the member's data, and saves what it holds. What was made by
    /// an earlier try is taken as it is.
    pub async fn recover_etcd(
        &self,
        survivor: Survivor<'_>,
        image: &ImageRef,
        change: Option<&LogChange>,
    ) -> Result<Recovered, HostError> {
        let doing = "making a database of the member's data";
        let mut fields = vec![image.to_string()];
        match change {
            Some(change) => {
                let plain = change.file.bytes().all(|b| b.is_ascii_hexdigit() || b"-.wl".contains(&b));
                if !plain {
                    return Err(self.failed(doing, format!("{:?} is no file of a log", change.file)));
                }
                let record = STANDARD.encode(&change.record);
                fields.extend([change.file.clone(), change.digest.to_string(), change.offset.to_string(), record]);
            }
            None => fields.extend(["-", "-", "0", "-"].map(str::to_owned)),
        }
        let text = self.recover(doing, "gather", survivor, fields).await?;
        recovered(&text).ok_or_else(|| self.failed(doing, "the host's answer cannot be read"))
    }

    /// What an earlier try of [`Machine::recover_etcd`] for this restore has made. Needs no lock.
    pub async fn recovered_etcd(&self, survivor: Survivor<'_>) -> Result<Option<Recovered>, HostError> {
        let text = self.recover("looking for the recovered database", "look", survivor, Vec::new()).await?;
        Ok(recovered(&text))
    }

    /// Removes what [`Machine::recover_etcd`] made.
    pub async fn forget_recovered(&self, survivor: Survivor<'_>) -> Result<(), HostError> {
        self.recover("removing the recovered database", "forget", survivor, Vec::new()).await.map(drop)
    }

    async fn recover(
        &self,
        doing: &str,
        verb: &str,
        survivor: Survivor<'_>,
        fields: Vec<String>,
    ) -> Result<String, HostError> {
        let run = self.plain(doing, survivor.run)?.to_owned();
        let token = self.plain(doing, survivor.token)?.to_owned();
        let mark = EtcdRestore::mark(&token).to_owned();
        let seconds = survivor.health.as_secs().max(1).to_string();
        let arguments = [verb.to_owned(), run, token, mark, seconds].into_iter().chain(fields).collect();
        let call = Call { script: RECOVER, arguments, payload: Payload::None, deadline: SILENCE };
        let output = self.wire().exec(call).await?;
        self.told(doing, &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

struct Part {
    name: String,
    size: u64,
    digest: Digest,
    bytes: Vec<u8>,
}

/// Lines `file NAME SIZE DIGEST` and `log`, whose rest is gzipped and in base64.
fn part(text: &str) -> Option<Part> {
    let find = |word: &str| text.lines().find_map(|line| line.strip_prefix(word));
    let mut words = find("file ")?.split(' ');
    let (name, size, digest) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let zipped = STANDARD.decode(find("log ")?).ok()?;
    let mut bytes = Vec::new();
    GzDecoder::new(zipped.as_slice()).take(LONGEST_LOG).read_to_end(&mut bytes).ok()?;
    Some(Part { name: name.to_owned(), size, digest, bytes })
}

/// Lines `database SIZE DIGEST` and `count`, whose rest is etcdctl's JSON.
fn recovered(text: &str) -> Option<Recovered> {
    let find = |word: &str| text.lines().find_map(|line| line.strip_prefix(word));
    let (size, digest) = find("database ")?.split_once(' ')?;
    let count: Value = serde_json::from_str(find("count ")?).ok()?;
    Some(Recovered {
        digest: digest.parse().ok()?,
        size: size.parse().ok()?,
        revision: count["header"]["revision"].as_u64()?,
        // Zero is left out.
        keys: count["count"].as_u64().unwrap_or_default(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::part;
    use super::recovered;
    use crate::model::Digest;

    #[test]
    fn answers_are_read_as_they_are_written() {
        let digest = Digest::of(b"bytes");
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(b"bytes").unwrap();
        let zipped = STANDARD.encode(zip.finish().unwrap());
        let found = part(&format!("tick\nfile 0-1.wal 5 {digest}\nlog {zipped}\ndone\n")).unwrap();
        assert_eq!((found.name.as_str(), found.size, found.digest), ("0-1.wal", 5, digest));
        assert_eq!(found.bytes, b"bytes");
        assert!(part("done\n").is_none());
        let text = format!("database 4128 {digest}\ncount {{\"header\":{{\"revision\":7}},\"count\":3}}\ndone\n");
        let found = recovered(&text).unwrap();
        assert_eq!((found.size, found.digest, found.revision, found.keys), (4128, digest, 7, 3));
        assert!(recovered("database 4128\n").is_none());
    }
}
