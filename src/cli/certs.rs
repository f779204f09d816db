//! Certificates as text, JSON, or what Prometheus' node exporter picks up.

use std::fmt::Write as _;

use crate::cli::args::CertsFormat;
use crate::cli::error;
use crate::cli::table::drawn;
use crate::cli::table::table;
use crate::model::utc as time;
use crate::ops::Certificate;
use crate::ops::Certificates;
use crate::ops::Condition;

/// Exit code for the worst certificate.
pub(super) fn code(condition: Condition) -> u8 {
    match condition {
        Condition::Ok => 0,
        Condition::Warning => error::CERTIFICATE_WARNING,
        Condition::Critical => error::CERTIFICATE_CRITICAL,
    }
}

/// In the form that was asked for.
pub(super) fn shown(all: &Certificates, format: CertsFormat) -> String {
    match format {
        CertsFormat::Json => serde_json::to_string_pretty(all).map(|text| text + "\n").unwrap_or_default(),
        CertsFormat::Text => text(all),
        CertsFormat::Prometheus => prometheus(all),
    }
}

fn text(all: &Certificates) -> String {
    let mut table = table(&["HOST", "CERTIFICATE", "SUBJECT", "ENDS", "DAYS", "SHOWN BY", "STATE"]);
    for certificate in &all.certificates {
        let ends = [certificate.not_after, certificate.shown_not_after].into_iter().flatten().min();
        let state = if certificate.remarks.is_empty() { "ok".to_owned() } else { certificate.remarks.join("\n") };
        table.add_row([
            certificate.host.as_ref().map(ToString::to_string).unwrap_or_default(),
            certificate.path.clone(),
            certificate.subject.clone().unwrap_or_default(),
            ends.map(time).unwrap_or_default(),
            certificate.days_left.map(|days| days.to_string()).unwrap_or_default(),
            certificate.server.clone().unwrap_or_default(),
            state,
        ]);
    }
    let mut out = drawn(table);
    for (host, reason) in &all.unreachable {
        let _ = writeln!(out, "{host}: does not answer: {reason}");
    }
    out
}

fn prometheus(all: &Certificates) -> String {
    let mut out = String::new();
    let labels = |certificate: &Certificate, source: &str| {
        let host = certificate.host.as_ref().map(|host| escaped(host.as_str())).unwrap_or_default();
        let path = escaped(&certificate.path);
        format!("cluster=\"{}\",host=\"{host}\",path=\"{path}\",source=\"{source}\"", escaped(&all.cluster))
    };
    out.push_str("# HELP bastide_certificate_not_after_seconds When the certificate ends, in seconds since 1970.\n");
    out.push_str("# TYPE bastide_certificate_not_after_seconds gauge\n");
    for certificate in &all.certificates {
        for (end, source) in [(certificate.not_after, "disk"), (certificate.shown_not_after, "wire")] {
            if let Some(end) = end {
                let _ = writeln!(out, "bastide_certificate_not_after_seconds{{{}}} {end}", labels(certificate, source));
            }
        }
    }
    out.push_str("# HELP bastide_certificate_condition 0 ok, 1 warning, 2 critical.\n");
    out.push_str("# TYPE bastide_certificate_condition gauge\n");
    for certificate in &all.certificates {
        let condition = certificate.condition as u8;
        let _ = writeln!(out, "bastide_certificate_condition{{{}}} {condition}", labels(certificate, "both"));
    }
    out.push_str("# HELP bastide_host_unreachable Whether the host's certificates could not be looked at.\n");
    out.push_str("# TYPE bastide_host_unreachable gauge\n");
    for host in all.unreachable.keys() {
        let (cluster, host) = (escaped(&all.cluster), escaped(host.as_str()));
        let _ = writeln!(out, "bastide_host_unreachable{{cluster=\"{cluster}\",host=\"{host}\"}} 1");
    }
    out
}

/// A label's value in Prometheus' text format.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::prometheus;
    use crate::model::HostName;
    use crate::ops::Certificate;
    use crate::ops::Certificates;
    use crate::ops::Condition;

    #[test]
    fn each_source_is_a_line_of_its_own() {
        let certificate = Certificate {
            host: HostName::new("h1").ok(),
            path: "/etc/etcd/pki/server.crt".to_owned(),
            subject: Some("h1".to_owned()),
            not_after: Some(20),
            server: Some("etcd :2379".to_owned()),
            shown_not_after: Some(10),
            days_left: Some(0),
            condition: Condition::Warning,
            remarks: Vec::new(),
        };
        let all = Certificates {
            schema: 1,
            cluster: "a\"b".to_owned(),
            condition: Condition::Warning,
            certificates: vec![certificate],
            unreachable: std::collections::BTreeMap::new(),
        };
        let text = prometheus(&all);
        let common = r#"cluster="a\"b",host="h1",path="/etc/etcd/pki/server.crt",source="#;
        for line in [
            format!("bastide_certificate_not_after_seconds{{{common}\"disk\"}} 20\n"),
            format!("bastide_certificate_not_after_seconds{{{common}\"wire\"}} 10\n"),
            format!("bastide_certificate_condition{{{common}\"both\"}} 1\n"),
        ] {
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
}
