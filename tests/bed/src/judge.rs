use std::fmt;

use anyhow::Context as _;
use anyhow::Result;
use serde_json::Value;

use crate::Cache;
use crate::Host;

/// Sections 1 to 4 of the benchmark.
const TARGETS: &str = "master,controlplane,etcd,node";
const BENCHMARK: &str = "cis-1.12";

/// What kube-bench says about one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Checks that hold.
    pub pass: u64,
    /// Scored checks that do not.
    pub fail: u64,
    /// Checks that are manual, or not scored and do not hold.
    pub warn: u64,
    /// Checks that were left out.
    pub info: u64,
    /// Every check that is not PASS, in order.
    pub open: Vec<Check>,
}

/// A check that is not PASS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Such as `1.2.5`.
    pub number: String,
    /// `FAIL`, `WARN` or `INFO`.
    pub status: String,
    /// What it wants.
    pub text: String,
    /// Why it is not PASS, where kube-bench says so.
    pub reason: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:<7} {}", self.status, self.number, self.text)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

/// Runs kube-bench, sections 1 to 4, on a host that has every role.
pub fn judge(host: &Host) -> Result<Verdict> {
    if host.ssh("test -x /opt/kube-bench/kube-bench && test -d /opt/kube-bench/cfg").is_err() {
        let common = Cache::from_environment().common();
        host.ssh("mkdir -p /opt/kube-bench")?;
        host.put(&common.join("bin/kube-bench"), "/opt/kube-bench/")?;
        host.put(&common.join("kube-bench/cfg"), "/opt/kube-bench/")?;
    }
    judge_by(|script| host.ssh(script)).with_context(|| host.name().to_owned())
}

/// Runs kube-bench where `shell` runs a script as root. The program and its `cfg` lie in `/opt/kube-bench` there.
pub fn judge_by(shell: impl FnOnce(&str) -> Result<String>) -> Result<Verdict> {
    // An empty working folder, because some checks let the shell expand '*etcd*' there.
    let report = shell(&format!(
        "set -e; d=$(mktemp -d); cd $d; /opt/kube-bench/kube-bench run --targets {TARGETS} --benchmark {BENCHMARK} \
         --config-dir /opt/kube-bench/cfg --config /opt/kube-bench/cfg/config.yaml \
         --json --outputfile $d/o.json >$d/log 2>&1 || {{ cat $d/log >&2; exit 1; }}; cat $d/o.json; rm -rf $d"
    ))?;
    read(&report).context("kube-bench's report")
}

fn read(report: &str) -> Result<Verdict> {
    let report: Value = serde_json::from_str(report)?;
    let total = |name: &str| report["Totals"][name].as_u64().with_context(|| format!("no {name}"));
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().trim().to_owned();
    let mut open: Vec<Check> = list(&report, "Controls")
        .iter()
        .flat_map(|control| list(control, "tests"))
        .flat_map(|test| list(&test, "results"))
        .filter(|result| result["status"] != "PASS")
        .map(|result| Check {
            number: text(&result, "test_number"),
            status: text(&result, "status"),
            text: text(&result, "test_desc"),
            reason: text(&result, "reason"),
        })
        .collect();
    open.sort_by_key(|check| check.number.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>());
    Ok(Verdict {
        pass: total("total_pass")?,
        fail: total("total_fail")?,
        warn: total("total_warn")?,
        info: total("total_info")?,
        open,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Check;
    use super::Verdict;
    use super::read;

    #[test]
    fn a_report_becomes_totals_and_the_open_checks_in_order() {
        let report = r#"{"Controls":[
            {"tests":[{"results":[{"test_number":"1.2.10","status":"WARN","test_desc":"b","reason":"manual "},
                                  {"test_number":"1.1.1","status":"PASS","test_desc":"x","reason":""}]}]},
            {"tests":[{"results":[{"test_number":"1.2.9","status":"FAIL","test_desc":"a","reason":""}]}]}],
            "Totals":{"total_pass":1,"total_fail":1,"total_warn":1,"total_info":0}}"#;
        let check = |number: &str, status: &str, text: &str, reason: &str| Check {
            number: number.into(),
            status: status.into(),
            text: text.into(),
            reason: reason.into(),
        };
        let open = vec![check("1.2.9", "FAIL", "a", ""), check("1.2.10", "WARN", "b", "manual")];
        assert_eq!(read(report).unwrap(), Verdict { pass: 1, fail: 1, warn: 1, info: 0, open });
        assert!(read("{}").is_err());
    }
}
