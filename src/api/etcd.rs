//! An etcd member, asked through its own host.
//!
//! Short questions go to etcd's JSON gateway, one connection each. The snapshot is streamed over gRPC: HTTP/2 is the only one of
//! etcd's ways on which a slow reader slows the sender down, and so the only one in constant memory.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::Value;
use serde_json::json;

use crate::api::Credentials;
use crate::api::connection;
use crate::api::probe;
use crate::api::probe::ProbeError;
use crate::api::probe::Tls;
use crate::host::Dial;
use crate::host::HostError;
use crate::model::protobuf::Field;
use crate::model::protobuf::Fields;

const PORT: u16 = 2379;
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
/// What etcd may send ahead of what was read. Over a line of 100 ms this is 40 MB/s.
const WINDOW: u32 = 4 << 20;
/// etcd sends 32 KiB at a time; gRPC's own limit for a message is 4 MiB.
const LONGEST_MESSAGE: usize = 5 << 20;
/// How long the stream may be silent: a large database is first committed, and disks may be slow.
const SILENCE: Duration = Duration::from_mins(2);

/// A member that can be asked.
pub struct Etcd<'a, H> {
    /// Its host.
    pub host: &'a Arc<H>,
    /// Where it listens.
    pub address: IpAddr,
    /// A client of etcd's own authority.
    pub credentials: &'a Credentials,
    /// Longest time for one short answer.
    pub deadline: Duration,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdStatus {
    /// Its number, decimal.
    pub id: String,
    /// Of etcd, such as `3.7.2`.
    pub version: String,
    /// The leader's number; `0` where there is none.
    pub leader: String,
    /// Whether it has no vote yet.
    pub learner: bool,
    /// Newest revision that it has applied.
    pub revision: u64,
    /// Term of its election.
    pub raft_term: u64,
    /// Newest entry of the log that is committed.
    pub raft_index: u64,
    /// Newest entry that it has applied.
    pub raft_applied: u64,
    /// Size of the database file in bytes.
    pub size: u64,
    /// How much of that is in use.
    pub in_use: u64,
    /// What it complains about: alarms among it.
    pub errors: Vec<String>,
}

/// etcd's hash over all keys up to a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// Up to which revision.
    pub revision: u64,
    /// What was compacted away: only hashes with the same one are comparable.
    pub compact_revision: i64,
}

/// An alarm that a member has raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// The member's number, decimal.
    pub member: String,
    /// `NOSPACE` or `CORRUPT`.
    pub name: String,
}

impl EtcdStatus {
    /// Whether this member is the one that all others follow.
    pub fn leads(&self) -> bool {
        self.leader == self.id
    }

    fn read(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            id: text(&answer["header"]["member_id"]),
            version: text(&answer["version"]),
            // Without a leader it is 0, which the gateway leaves out.
            leader: answer["leader"].as_str().unwrap_or("0").to_owned(),
            learner: answer["isLearner"] == true,
            revision: number(&answer["header"]["revision"]),
            raft_term: number(&answer["raftTerm"]),
            raft_index: number(&answer["raftIndex"]),
            raft_applied: number(&answer["raftAppliedIndex"]),
            size: number(&answer["dbSize"]),
            in_use: number(&answer["dbSizeInUse"]),
            errors: answer["errors"].as_array().into_iter().flatten().map(text).collect(),
        }
    }
}

impl<H: Dial> Etcd<'_, H> {
    /// How the member is.
    pub async fn status(&self) -> Result<EtcdStatus, ProbeError> {
        Ok(EtcdStatus::read(&self.ask("/v3/maintenance/status", &json!({})).await?))
    }

    /// The newest revision, and how many keys there are at it. Goes through the leader, so it needs quorum.
    pub async fn count(&self) -> Result<(u64, u64), ProbeError> {
        // Both ends a zero byte: all keys.
        let all = json!({ "key": "AA==", "range_end": "AA==", "count_only": true });
        let answer = self.ask("/v3/kv/range", &all).await?;
        Ok((number(&answer["header"]["revision"]), number(&answer["count"])))
    }

    /// The hash over all keys up to `revision`; an error where the member has not got there yet, or has compacted it.
    pub async fn hash(&self, revision: u64) -> Result<HashKv, ProbeError> {
        let answer = self.ask("/v3/maintenance/hashkv", &json!({ "revision": revision.to_string() })).await?;
        let compact = answer["compact_revision"].as_str().and_then(|text| text.parse().ok());
        let hash = answer["hash"].as_u64().and_then(|hash| u32::try_from(hash).ok()).unwrap_or_default();
        Ok(HashKv { hash, revision, compact_revision: compact.unwrap_or_default() })
    }

    /// Alarms of all members.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, ProbeError> {
        let answer = self.ask("/v3/maintenance/alarm", &json!({ "action": "GET" })).await?;
        let alarm = |value: &Value| Alarm {
            member: value["memberID"].as_str().unwrap_or_default().to_owned(),
            name: value["alarm"].as_str().unwrap_or_default().to_owned(),
        };
        Ok(answer["alarms"].as_array().into_iter().flatten().map(alarm).collect())
    }

    /// Takes an alarm back.
    pub async fn disarm(&self, alarm: &Alarm) -> Result<(), ProbeError> {
        let body = json!({ "action": "DEACTIVATE", "memberID": alarm.member, "alarm": alarm.name });
        self.ask("/v3/maintenance/alarm", &body).await.map(drop)
    }

    /// Gives the free pages of this member's file back. It answers nobody until it is done.
    pub async fn defragment(&self) -> Result<(), ProbeError> {
        self.ask("/v3/maintenance/defragment", &json!({})).await.map(drop)
    }

    /// Makes `member` the leader; only the leader itself can be asked for that.
    pub async fn move_leader(&self, member: &str) -> Result<(), ProbeError> {
        self.ask("/v3/maintenance/transfer-leadership", &json!({ "targetID": member })).await.map(drop)
    }

    /// `/metrics` of the member, on its own loopback.
    pub async fn metrics(&self) -> Result<String, ProbeError> {
        let loopback = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let stream = self.host.dial("127.0.0.1", 2381).await?;
        Ok(probe::http(stream, loopback, 2381, "/metrics", self.deadline).await?.body)
    }

    pub(super) async fn ask(&self, path: &str, body: &Value) -> Result<Value, ProbeError> {
        let tls = Tls::verified(self.credentials)?;
        let stream = self.host.dial(&self.address.to_string(), PORT).await?;
        let answer =
            probe::https_post(stream, self.address, PORT, &tls, path, &body.to_string(), self.deadline).await?;
        let parsed: Option<Value> = serde_json::from_str(&answer.body).ok();
        match parsed {
            Some(value) if answer.status == 200 => Ok(value),
            other => {
                let said = other.and_then(|value| value["message"].as_str().map(str::to_owned));
                let reason = said.unwrap_or_else(|| format!("{} {}", answer.status, answer.body.trim()));
                Err(self.broken(path, reason))
            }
        }
    }

    pub(super) fn broken(&self, path: &str, reason: impl Into<String>) -> ProbeError {
        let server = std::net::SocketAddr::new(self.address, PORT);
        ProbeError::Broken { url: format!("https://{server}{path}"), reason: reason.into() }
    }

    /// Begins to stream the database as it is now.
    pub async fn snapshot(&self) -> Result<SnapshotStream, ProbeError> {
        let broken = |reason: String| self.broken(SNAPSHOT, reason);
        let (host, address) = (Arc::clone(self.host), self.address);
        let dial = move || {
            let host = Arc::clone(&host);
            let broken = |error: HostError| io::Error::other(error.without_host());
            async move { host.dial(&address.to_string(), PORT).await.map_err(broken) }
        };
        let pool = connection::pool(dial, self.address, self.credentials, Some(WINDOW))?;
        let url = format!("https://{}{SNAPSHOT}", std::net::SocketAddr::new(address, PORT));
        let request = http::Request::post(url.as_str())
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            // An empty message, not compressed.
            .body(kube::client::Body::from(vec![0; 5]))
            .map_err(|error| broken(error.to_string()))?;
        let answer = tokio::time::timeout(SILENCE, pool.request(request)).await;
        let answer = answer.map_err(|_| ProbeError::Late { url: url.clone(), deadline: SILENCE })?;
        let answer = answer.map_err(|error| broken(chain(&error)))?;
        let status = grpc_status(answer.headers());
        Ok(SnapshotStream { url, status, body: answer.into_body(), messages: Messages::default() })
    }
}

/// The database as etcd streams it, with its SHA-256 as the last 32 bytes.
pub struct SnapshotStream {
    url: String,
    status: Option<(u32, String)>,
    body: hyper::body::Incoming,
    messages: Messages,
}

impl SnapshotStream {
    /// The next piece; none at the end of a stream that came whole. Until it is asked for, the member waits as well.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ProbeError> {
        let url = self.url.clone();
        let broken = |reason: String| ProbeError::Broken { url: url.clone(), reason };
        loop {
            while let Some(message) = self.messages.next().map_err(|reason| broken(reason.to_owned()))? {
                let blob = blob(&message).ok_or_else(|| broken("this is no snapshot response".to_owned()))?;
                if !blob.is_empty() {
                    return Ok(Some(blob.to_vec()));
                }
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| ProbeError::Late { url: url.clone(), deadline: SILENCE })?;
            let Some(frame) = frame else { return self.ended().map(|()| None).map_err(broken) };
            match frame.map_err(|error| broken(chain(&error)))?.into_data() {
                Ok(data) => self.messages.add(&data),
                Err(frame) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        self.status = self.status.take().or_else(|| grpc_status(trailers));
                    }
                }
            }
        }
    }

    fn ended(&self) -> Result<(), String> {
        match &self.status {
            Some((0, _)) if self.messages.is_empty() => Ok(()),
            Some((0, _)) | None => Err("the stream broke off".to_owned()),
            Some((code, words)) => Err(format!("gRPC status {code}: {words}")),
        }
    }
}

/// A number as the gateway writes it: 64 bits are a string in protobuf's JSON; zero is left out.
fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn grpc_status(headers: &http::HeaderMap) -> Option<(u32, String)> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    Some((text("grpc-status")?.parse().ok()?, text("grpc-message").unwrap_or_default().to_owned()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// gRPC's framing: a byte that says whether the message is compressed, four for its length, the message.
#[derive(Default)]
struct Messages(Vec<u8>);

impl Messages {
    fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn next(&mut self) -> Result<Option<Vec<u8>>, &'static str> {
        let Some((head, rest)) = self.0.split_first_chunk::<5>() else { return Ok(None) };
        let [compressed, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if compressed != 0 || length > LONGEST_MESSAGE {
            return Err("this is no gRPC stream");
        }
        let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.0.drain(..5 + length);
        Ok(Some(message))
    }
}

/// Field 3 of `etcdserverpb.SnapshotResponse`, the bytes; empty where the message has none.
fn blob(message: &[u8]) -> Option<&[u8]> {
    Fields::of(message).try_fold(&[][..], |found, field| match field? {
        (3, Field::Bytes(bytes)) => Some(bytes),
        _ => Some(found),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::EtcdStatus;
    use super::Messages;
    use super::blob;

    #[test]
    fn a_member_leads_where_it_names_itself() {
        let header = json!({ "cluster_id": "1", "member_id": "17", "revision": "4" });
        assert!(EtcdStatus::read(&json!({ "header": header, "leader": "17" })).leads());
        assert!(!EtcdStatus::read(&json!({ "header": header, "leader": "18" })).leads());
        assert!(!EtcdStatus::read(&json!({ "header": header })).leads());
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let stream = [&[0, 0, 0, 0, 3][..], b"one", &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 5], b"three"].concat();
        for size in 1..stream.len() {
            let mut messages = Messages::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                messages.add(piece);
                while let Some(message) = messages.next().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, [b"one".to_vec(), Vec::new(), b"three".to_vec()], "pieces of {size}");
            assert!(messages.is_empty());
        }
        let mut messages = Messages::default();
        messages.add(&[1, 0, 0, 0, 0]);
        assert!(messages.next().is_err());
    }

    #[test]
    fn the_bytes_are_found_among_the_fields() {
        // header (1, a message), remaining_bytes (2, a number), blob (3), version (4, text).
        let message = [0x0a, 2, 8, 1, 0x10, 0x80, 0x01, 0x1a, 3, b'a', b'b', b'c', 0x22, 1, b'3'];
        assert_eq!(blob(&message), Some(&b"abc"[..]));
        assert_eq!(blob(&message[..7]), Some(&b""[..]));
        for cut in [1, 3, 6, 9, 11] {
            assert_eq!(blob(&message[..cut]), None, "{cut}");
        }
    }
}
