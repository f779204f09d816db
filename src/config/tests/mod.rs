//! Files good and bad, and the text that people see.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines)]

mod backup;
mod bad;
mod bad_nodes;
mod bad_services;
mod encryption;
mod good;
mod robust;

use std::fmt::Write;
use std::path::PathBuf;

use crate::config::ConfigErrors;
use crate::config::ParseOptions;
use crate::config::Parsed;
use crate::config::Problem;
use crate::config::Severity;
use crate::config::parse;
use crate::model::KubeVersion;

fn options() -> ParseOptions {
    ParseOptions {
        file_name: "cluster.yml".to_owned(),
        kubernetes_version: None,
        supported: vec![KubeVersion { minor: 37, patch: 1 }],
        home: Some(PathBuf::from("/home/ann")),
    }
}

fn read(text: &str) -> Result<Parsed, ConfigErrors> {
    parse(text, &options())
}

/// What every file needs beside its nodes.
const BASE: &str = "kubernetes_version: v1.37.1\nnetwork: {plugin: flannel}\ningress: {provider: none}\n";

/// One all-role node and [`BASE`], then `more`.
fn with(more: &str) -> String {
    format!("{BASE}nodes: [{{address: 192.0.2.11, user: root, role: [controlplane, etcd, worker]}}]\n{more}")
}

/// Problems as lines: place, severity, text, hint.
fn lines(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        let mark = if problem.severity == Severity::Error { "error" } else { "warning" };
        writeln!(text, "{}:{} {mark}: {problem}", problem.line, problem.column).unwrap();
        if let Some(hint) = &problem.hint {
            writeln!(text, "    {hint}").unwrap();
        }
    }
    text
}

/// What is said about `text`, errors or only warnings.
fn said(text: &str) -> String {
    match read(text) {
        Ok(parsed) => lines(&parsed.warnings),
        Err(errors) => lines(&errors.problems),
    }
}
