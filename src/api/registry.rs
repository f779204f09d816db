//! What lies in etcd under the API server's prefix, and which key encrypted each value. No value ever leaves etcd: it is asked
//! whether they begin with a key's mark.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::json;

use crate::api::etcd::Etcd;
use crate::api::probe::ProbeError;
use crate::host::Dial;

/// Names of one answer. A name has 500 bytes at most, in base64 a third more, and an answer may have 1 MiB.
const PAGE: usize = 1000;
/// Comparisons of one transaction: etcd takes 128 (`--max-txn-ops`), counted along each branch of a nested one.
const COMPARED: usize = 100;

impl<H: Dial> Etcd<'_, H> {
    /// Every name that begins with `prefix`, in order.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, ProbeError> {
        const PATH: &str = "/v3/kv/range";
        let mut names: Vec<String> = Vec::new();
        let mut from = prefix.as_bytes().to_vec();
        loop {
            let body = json!({
                "key": STANDARD.encode(&from), "range_end": STANDARD.encode(after(prefix.as_bytes())),
                "keys_only": true, "limit": PAGE,
            });
            let answer = self.ask(PATH, &body).await?;
            let page = answer["kvs"].as_array().map_or(&[][..], Vec::as_slice);
            for entry in page {
                let name = entry["key"].as_str().and_then(|text| STANDARD.decode(text).ok());
                let name = name.and_then(|bytes| String::from_utf8(bytes).ok());
                names.push(name.ok_or_else(|| self.broken(PATH, "a key that is no text"))?);
            }
            if answer["more"] != true || page.is_empty() {
                return Ok(names);
            }
            // The next name is this one with a byte more, or a later one.
            from = names.last().map(|name| [name.as_bytes(), &[0]].concat()).unwrap_or_default();
        }
    }

    /// For each of these names the first of `marks` that its value begins with; none too where the name is gone. All marks are
    /// looked for at the same moment: a value that is being written anew lies under one of them.
    pub async fn begin_with(&self, names: &[&str], marks: &[String]) -> Result<Vec<Option<usize>>, ProbeError> {
        const PATH: &str = "/v3/kv/txn";
        let mut found = Vec::with_capacity(names.len());
        let width = marks.len().max(1);
        for names in names.chunks((COMPARED / width).max(1)) {
            let questions = names.iter().flat_map(|name| marks.iter().map(|mark| question(name, mark)));
            let questions: Vec<Value> = questions.collect();
            let answer = self.ask(PATH, &json!({ "success": questions })).await?;
            let answers = answer["responses"].as_array().map_or(&[][..], Vec::as_slice);
            if answers.len() != questions.len() {
                let reason = format!("{} answers to {} questions", answers.len(), questions.len());
                return Err(self.broken(PATH, reason));
            }
            // protobuf's JSON leaves out what is false.
            let begins = |answer: &Value| answer["response_txn"]["succeeded"] == true;
            found.extend(answers.chunks(width).map(|of_name| of_name.iter().position(begins)));
        }
        Ok(found)
    }
}

/// A transaction that succeeds where the value lies between `mark` and all that begins with it, and does nothing.
fn question(name: &str, mark: &str) -> Value {
    let compare = |result: &str, value: &[u8]| json!({"key": STANDARD.encode(name), "target": "VALUE", "result": result, "value": STANDARD.encode(value)});
    // What is encrypted is longer than its mark.
    let compares = [compare("GREATER", mark.as_bytes()), compare("LESS", &after(mark.as_bytes()))];
    json!({ "request_txn": { "compare": compares } })
}

/// The first text behind all that begin with `prefix`.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Nothing is behind them: etcd takes one zero byte for no end.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::after;

    #[test]
    fn a_range_ends_behind_all_that_begin_with_its_prefix() {
        assert_eq!(after(b"/registry/secrets/"), b"/registry/secrets0");
        assert_eq!(after(b"a\xff"), b"b");
        assert_eq!(after(b"\xff"), b"\0");
    }
}
