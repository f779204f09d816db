//! The program as a shell sees it, where no host is needed: exit codes, what goes to which stream, ways on.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::process::Output;

use bastide::model::ArtifactFile;
use bastide::model::Digest;
use bastide::model::ImageArtifact;
use bastide::model::ImageRef;
use bastide::model::Package;
use bastide::model::Release;
use bastide::release::BundleDocument;

/// The program in `folder`, with nothing of the user's own in sight.
fn bastide(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bastide"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("BASTIDE_CONFIG")
        .env("HOME", folder)
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env_remove("SSH_AUTH_SOCK")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn without_a_cluster_file_every_command_says_what_is_missing_and_how_to_name_it() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["up"][..], &["plan"], &["validate"], &["status"], &["history"], &["kubeconfig"], &["remove"]] {
        let ended = bastide(folder.path(), command);
        assert_eq!(ended.status.code(), Some(1), "{command:?}");
        assert!(ended.stdout.is_empty(), "{command:?}");
        let said = stderr(&ended);
        for word in ["there is no cluster file cluster.yml", "--config FILE", "examples/one-host.yml"] {
            assert!(said.contains(word), "{command:?} does not say {word:?}: {said}");
        }
    }
    let named = bastide(folder.path(), &["--config", "other.yml", "up"]);
    assert!(stderr(&named).contains("there is no cluster file other.yml"), "{}", stderr(&named));
}

#[test]
fn every_problem_of_a_file_is_told_at_once_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = "nodes:
  - {address: 192.0.2.11, user: root, role: [controlplane, etcd, worker]}
network: {plugin: flannel}
ingress: {provider: none}
addons_include: [https://example.org/a.yaml]
private_registries: [{url: x}]
services: {kube-api: {extra_args: {bogus: 1}}}
bastide: {pki: {offline_ca: true}, ssh: {config: ~/.ssh/config}}
";
    std::fs::write(folder.path().join("cluster.yml"), file).unwrap();
    for command in ["validate", "up"] {
        let ended = bastide(folder.path(), &[command, "--kubernetes-version", "v1.37"]);
        assert_eq!(ended.status.code(), Some(1));
        let said = stderr(&ended);
        for words in [
            "addons_include[0]: bastide does not fetch addons from URLs yet",
            "private_registries: RKE knows this key, bastide does not support it yet",
            "kube-apiserver of v1.37 has no flag --bogus",
            "bastide.pki.offline_ca",
            "bastide.ssh.config",
            "cluster.yml:5:",
            "cluster.yml:8:",
            "cluster.yml has 5 errors",
        ] {
            assert!(said.contains(words), "{command} does not say {words:?}: {said}");
        }
        assert!(!folder.path().join("cluster.bastide").exists());
    }
}

/// A bundle of small files under the names that a release has.
fn bundle(folder: &Path) {
    let artifact = |name: &str| {
        std::fs::write(folder.join(name), name).unwrap();
        ArtifactFile { sha256: Digest::of(name.as_bytes()), size: name.len() as u64, path: name.to_owned() }
    };
    let package = |names: &[&str]| Package {
        version: "v1".to_owned(),
        files: names.iter().map(|name| ((*name).to_owned(), artifact(name))).collect(),
    };
    let image = |name: &str| ImageArtifact {
        reference: ImageRef::new(format!("registry.example.com/{name}:1")).unwrap(),
        version: "1".to_owned(),
        manifest: Digest::of(name.as_bytes()),
        archive: artifact(name),
    };
    let packages = [
        ("cni", &["bridge", "flannel", "host-local", "loopback", "portmap"][..]),
        ("containerd", &["containerd", "containerd-shim-runc-v2", "ctr"]),
        ("crictl", &["crictl"]),
        ("kubelet", &["kubelet"]),
        ("runc", &["runc"]),
    ];
    let images = [
        "coredns",
        "etcd",
        "flannel-image",
        "haproxy",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-proxy",
        "kube-scheduler",
        "metrics-server",
        "pause",
    ];
    let release = Release {
        kubernetes: "v1.37.1".parse().unwrap(),
        architecture: std::env::consts::ARCH.to_owned(),
        packages: packages.map(|(name, files)| (name.to_owned(), package(files))).into(),
        images: images.map(|name| (name.trim_end_matches("-image").to_owned(), image(name))).into(),
    };
    let document = BundleDocument { schema: BundleDocument::SCHEMA, release };
    std::fs::write(folder.join("bundle.json"), serde_json::to_vec(&document).unwrap()).unwrap();
}

#[test]
fn what_up_would_refuse_without_a_look_at_a_host_is_told_by_validate() {
    let folder = tempfile::tempdir().unwrap();
    let validated = |more: &str| {
        let file = format!(
            "kubernetes_version: v1.37.1
nodes: [{{address: 192.0.2.11, user: root, role: [controlplane, etcd, worker], hostname_override: h1}}]
network: {{plugin: flannel}}
ingress: {{provider: none}}
bastide: {{artifacts: {{bundle: .}}}}
{more}"
        );
        std::fs::write(folder.path().join("cluster.yml"), file).unwrap();
        let ended = bastide(folder.path(), &["validate"]);
        (ended.status.code(), stderr(&ended))
    };
    let weak = "services: {kube-api: {extra_args: {profiling: true}}, kubelet: {extra_args: {anonymous-auth: true}}}\n";
    let (code, said) = validated(weak);
    assert!(code == Some(0) && said.contains("is checked only where the bundle is at hand"), "{said}");
    bundle(folder.path());
    assert_eq!(validated(""), (Some(0), String::new()));
    let (code, said) = validated(weak);
    assert_eq!(code, Some(1), "{said}");
    for words in ["setting: kube-api.profiling", "setting: kubelet.anonymous-auth"] {
        assert!(said.contains(words), "{words:?} is not said: {said}");
    }
    let (code, said) = validated("addons: 'kind: ConfigMap'\n");
    assert!(code == Some(1) && said.contains("addons"), "{said}");
    // A list that is weak only because it is old.
    let old = "TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    let (code, said) = validated(&format!("services: {{kube-api: {{extra_args: {{tls-cipher-suites: '{old}'}}}}}}\n"));
    assert!(
        code == Some(0) && said.contains("tls-cipher-suites is narrowed to TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        "{said}"
    );
}

#[test]
fn before_the_first_up_commands_say_what_makes_a_state() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/one-host.yml"), folder.path().join("cluster.yml"))
        .unwrap();
    for command in ["status", "kubeconfig", "history"] {
        let ended = bastide(folder.path(), &[command]);
        assert_eq!(ended.status.code(), Some(1), "{command}");
        let said = stderr(&ended);
        assert!(
            said.contains("holds no state") && said.contains("bastide state recover --host HOST"),
            "{command}: {said}"
        );
    }
}

#[test]
fn for_programs_each_problem_is_a_line_that_says_how_bad_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |arguments: &[&str]| -> Vec<(String, String)> {
        let ended = bastide(folder.path(), &[&["--log-format", "json"], arguments].concat());
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0));
        let line = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            (line["level"].as_str().unwrap().to_owned(), line["message"].as_str().unwrap().to_owned())
        };
        stderr(&ended).lines().map(line).collect()
    };
    let missing = lines(&["up"]);
    assert_eq!(missing[0], ("error".to_owned(), "error: there is no cluster file cluster.yml".to_owned()));
    assert!(missing[1..].iter().all(|(level, text)| level == "info" && text.starts_with("hint: ")), "{missing:?}");
    let file = "nodes: [{address: 192.0.2.11, user: root, role: [controlplane, etcd, worker], docker_socket: x}]
network: {plugin: flannel}
ingress: {provider: nginx}
";
    std::fs::write(folder.path().join("cluster.yml"), file).unwrap();
    let wrong = lines(&["validate", "--kubernetes-version", "v1.37"]);
    let (levels, texts): (Vec<_>, Vec<_>) = wrong.into_iter().unzip();
    assert_eq!(levels, ["warning", "error", "error"], "{texts:?}");
    assert!(texts[1].starts_with("cluster.yml:3:21: ingress.provider: RKE knows nginx"), "{texts:?}");
    assert!(texts[1].contains("; write `ingress: {provider: none}`"), "{texts:?}");
    assert_eq!(texts[2], "error: cluster.yml has 1 error");
}

#[test]
fn a_wrong_command_line_is_neither_a_failure_nor_a_change() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in [&["upp"][..], &["up", "--bogus"], &["remove", "--yes"], &[]] {
        assert_eq!(bastide(folder.path(), wrong).status.code(), Some(64), "{wrong:?}");
    }
    let help = bastide(folder.path(), &["--help"]);
    assert_eq!((help.status.code(), help.stderr.len()), (Some(0), 0));
    assert!(String::from_utf8(help.stdout).unwrap().contains("Exit codes:"));
}
