//! Whole targets as people would read them on a host.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::DesiredHost;
use crate::render;
use crate::render::Rendered;
use crate::render::tests::support;

/// Folders, files with their access, units, images, labels and taints.
fn outline(target: &DesiredHost) -> String {
    let mut out = String::new();
    for folder in &target.directories {
        let a = folder.access;
        writeln!(out, "d {:04o} {}:{} {}", a.mode, a.uid, a.gid, folder.path).unwrap();
    }
    for (path, file) in &target.files {
        let a = file.access;
        let secret = if file.secret { " secret" } else { "" };
        writeln!(out, "f {:04o} {}:{} {path} ({}{secret})", a.mode, a.uid, a.gid, file.component.as_str()).unwrap();
    }
    for unit in &target.units {
        writeln!(out, "u {} {:?} ({})", unit.name, unit.effect, unit.component.as_str()).unwrap();
    }
    for image in target.images.keys() {
        writeln!(out, "i {image}").unwrap();
    }
    for (key, value) in &target.labels {
        writeln!(out, "label {key}={value}").unwrap();
    }
    for taint in &target.taints {
        writeln!(out, "taint {}={}:{}", taint.key, taint.value, taint.effect).unwrap();
    }
    out
}

/// The outline, then the content of the files that are the same for every seed; keys and certificates are named only.
fn shown(rendered: &Rendered, host: &str) -> String {
    let target = rendered.host(host);
    let mut out = outline(target);
    for (path, file) in &target.files {
        let Some(content) = rendered.blobs.get(&file.digest) else { continue };
        let text = content.expose_text().unwrap();
        if file.secret || text.contains("-----BEGIN") || text.is_empty() {
            continue;
        }
        // Signatures differ with every run, and with them what covers or repeats them.
        let text: String = text
            .lines()
            .map(|line| match line.split_once("\"bastide.dev/inputs\": ") {
                Some((indent, _)) => format!("{indent}\"bastide.dev/inputs\": …\n"),
                None if line.contains("certificate-authority-data:") => {
                    "    certificate-authority-data: …\n".to_owned()
                }
                None if line.contains("initial-cluster-token") => {
                    "        - \"--initial-cluster-token=…\"\n".to_owned()
                }
                None => format!("{line}\n"),
            })
            .collect();
        write!(out, "\n=== {path}\n{text}").unwrap();
    }
    out
}

#[test]
fn one_host_with_all_roles() {
    insta::assert_snapshot!(shown(&support::rendered(support::ONE_HOST), "h1"));
}

#[test]
fn one_of_three_hosts() {
    insta::assert_snapshot!(shown(&support::rendered(support::THREE_HOSTS), "h2"));
}

#[test]
fn split_roles() {
    let rendered = support::rendered(support::SPLIT);
    for host in ["c1", "e1", "w1"] {
        insta::assert_snapshot!(format!("split_roles_{host}"), shown(&rendered, host));
    }
}

#[test]
fn split_roles_in_the_strict_profile() {
    let rendered = support::rendered(&format!("{}bastide: {{hardening: {{profile: strict}}}}\n", support::SPLIT));
    for host in ["c1", "w1"] {
        insta::assert_snapshot!(format!("strict_{host}"), shown(&rendered, host));
    }
}

/// Each host of each example, and what its API server is told.
#[test]
fn the_examples() {
    let examples = [
        ("one_host", include_str!("../../../examples/one-host.yml")),
        ("three_hosts", include_str!("../../../examples/three-hosts.yml")),
        ("split_roles", include_str!("../../../examples/split-roles.yml")),
        ("bastion", include_str!("../../../examples/bastion.yml")),
        ("air_gap", include_str!("../../../examples/air-gap.yml")),
    ];
    for (example, text) in examples {
        let rendered = support::rendered_file(text);
        let mut out = String::new();
        for (name, host) in &rendered.desired.hosts {
            write!(out, "== {name}\n{}", outline(host)).unwrap();
            if host.pods.contains_key("kube-apiserver") {
                for (flag, value) in rendered.flags(name.as_str(), "kube-apiserver") {
                    writeln!(out, "--{flag}={value}").unwrap();
                }
            }
        }
        insta::assert_snapshot!(format!("example_{example}"), out);
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let cluster = support::cluster(support::SPLIT);
    let secrets = support::secrets(&cluster);
    let once = || {
        render::desired(
            &cluster,
            &secrets,
            &support::release(),
            &[],
            &BTreeMap::new(),
            Some(&support::signers(&cluster)),
        )
        .unwrap()
    };
    // No assert_eq: it would print everything.
    assert!(once() == once());
}
