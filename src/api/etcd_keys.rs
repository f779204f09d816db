//! Keys of bastide's own in etcd, outside of the API server's prefix: whose turn something is, told by transactions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::json;

use crate::api::etcd::Etcd;
use crate::api::probe::ProbeError;
use crate::host::Dial;

const TXN: &str = "/v3/kv/txn";

/// How a claim ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is held until its lease ends or is given back.
    Held {
        /// The lease's number, as etcd writes it.
        lease: String,
    },
    /// Somebody else holds it.
    Taken {
        /// What stands in it.
        by: String,
    },
}

impl<H: Dial> Etcd<'_, H> {
    /// What `key` holds. Goes through the leader, so it needs quorum.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ProbeError> {
        let answer = self.ask("/v3/kv/range", &json!({ "key": STANDARD.encode(key) })).await?;
        Ok(value(&answer["kvs"]))
    }

    /// Writes `holder` into `key`, which must not be there yet, for `seconds` at most.
    pub async fn claim(&self, key: &str, holder: &str, seconds: u64) -> Result<Claim, ProbeError> {
        let granted = self.ask("/v3/lease/grant", &json!({ "TTL": seconds.to_string() })).await?;
        let lease = granted["ID"].as_str().unwrap_or_default().to_owned();
        if lease.is_empty() {
            return Err(self.broken("/v3/lease/grant", "no lease was granted"));
        }
        let name = STANDARD.encode(key);
        let put = json!({ "key": name, "value": STANDARD.encode(holder), "lease": lease });
        let body = json!({
            "compare": [{ "target": "CREATE", "key": name, "create_revision": "0" }],
            "success": [{ "request_put": put }],
            "failure": [{ "request_range": { "key": name } }],
        });
        let answer = self.ask(TXN, &body).await;
        match answer {
            Ok(answer) if answer["succeeded"] == true => Ok(Claim::Held { lease }),
            Ok(answer) => {
                self.give_back(&lease).await?;
                let by = value(&answer["responses"][0]["response_range"]["kvs"]).unwrap_or_default();
                Ok(Claim::Taken { by: String::from_utf8_lossy(&by).into_owned() })
            }
            Err(error) => {
                // Whether it was written is not known: without its lease it is not.
                let _ = self.give_back(&lease).await;
                Err(error)
            }
        }
    }

    /// Ends a claim.
    pub async fn give_back(&self, lease: &str) -> Result<(), ProbeError> {
        self.ask("/v3/lease/revoke", &json!({ "ID": lease })).await.map(drop)
    }

    /// Writes `value` into `key` where `holder` still holds `claim`. False where it does not.
    pub async fn put_holding(
        &self,
        (claim, holder): (&str, &str),
        key: &str,
        value: &[u8],
    ) -> Result<bool, ProbeError> {
        let body = json!({
            "compare": [{ "target": "VALUE", "key": STANDARD.encode(claim), "value": STANDARD.encode(holder) }],
            "success": [{ "request_put": { "key": STANDARD.encode(key), "value": STANDARD.encode(value) } }],
        });
        Ok(self.ask(TXN, &body).await?["succeeded"] == true)
    }
}

/// The first value of a range.
fn value(kvs: &Value) -> Option<Vec<u8>> {
    let first = kvs.as_array()?.first()?;
    // An empty value is left out.
    Some(STANDARD.decode(first["value"].as_str().unwrap_or_default()).unwrap_or_default())
}
