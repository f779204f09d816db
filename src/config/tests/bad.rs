//! Files that are refused as a whole, and how a problem is drawn.

use miette::GraphicalReportHandler;
use miette::GraphicalTheme;

use super::BASE;
use super::lines;
use super::options;
use super::read;
use super::said;
use super::with;
use crate::config::ParseOptions;
use crate::config::parse;
use crate::model::KubeVersion;

/// As a terminal of 100 columns without colour shows it.
fn drawn(text: &str) -> String {
    let errors = read(text).unwrap_err();
    let mut shown = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    handler.render_report(&mut shown, &errors).unwrap();
    shown
}

#[test]
fn all_problems_are_told_at_once() {
    let text = "
kubernetes_version: v1.30.4-rancher1-1
nodes:
- adress: 192.0.2.11
  user: root
  role: [controlplane, etdc]
- address: host.example.com
  role: worker
servces: {}
";
    insta::assert_snapshot!(said(text), @r#"
    2:1 error: no network plugin is named; RKE would take canal, which bastide does not support yet
        write `network: {plugin: flannel}` (NetworkPolicies are then not enforced) or `network: {plugin: none}` and bring your own
    2:1 error: no ingress controller is named; RKE would take nginx, which bastide does not support yet
        write `ingress: {provider: none}` and install a controller of your choice with `addons_include`
    2:21 error: kubernetes_version: v1.30.4-rancher1-1 is not supported
        supported: v1.37.1
    4:3 error: nodes[0].adress: unknown key
        did you mean `address`?
    6:24 error: nodes[0].role[1]: "etdc" is not a role
        one or more of controlplane, etcd, worker
    7:3 error: nodes[1]: the user to log in as is missing
        add `user: root` or another
    7:12 error: nodes[1].address: internal_address is needed where the address is a name
        add `internal_address:` with the IPv4 address that the other nodes reach it at
    8:9 error: nodes[1].role: expected a list, found a single value
        write it in brackets: [value]
    9:1 error: servces: unknown key
        did you mean `services`?
    "#);
}

#[test]
fn a_problem_is_drawn_on_its_line() {
    insta::assert_snapshot!(drawn(&with(
        "
cluster_name: demo
services: {kubelet: {cluster_dns_sever: 10.43.0.10}}
authorization: {mode: none}
",
    )), @r#"
      × cluster.yml has 2 errors

    Error: 
      × services.kubelet.cluster_dns_sever: unknown key
       ╭─[cluster.yml:7:22]
     6 │ cluster_name: demo
     7 │ services: {kubelet: {cluster_dns_sever: 10.43.0.10}}
       ·                      ─────────────────
     8 │ authorization: {mode: none}
       ╰────
      help: did you mean `cluster_dns_server`?

    Error: 
      × authorization.mode: without authorization everybody may do everything
       ╭─[cluster.yml:8:23]
     7 │ services: {kubelet: {cluster_dns_sever: 10.43.0.10}}
     8 │ authorization: {mode: none}
       ·                       ────
       ╰────
      help: write `mode: rbac`
    "#);
}

#[test]
fn a_snippet_never_shows_a_key() {
    insta::assert_snapshot!(drawn(&format!(
        "{BASE}nodes:
- address: 192.0.2.11
  user: root
  ssh_key: |
    -----BEGIN OPENSSH PRIVATE KEY-----
    hunter2
    -----END OPENSSH PRIVATE KEY-----
  rolle: [controlplane, etcd]
  role: [controlplane, etcd, worker]
"
    )), @r#"
      × cluster.yml has 1 error

    Error: 
      × nodes[0].rolle: unknown key
        ╭─[cluster.yml:11:3]
     10 │     ******** ******* ******* ********
     11 │   rolle: [controlplane, etcd]
        ·   ─────
     12 │   role: [controlplane, etcd, worker]
        ╰────
      help: did you mean `role`?
    "#);
}

#[test]
fn broken_yaml_is_placed() {
    insta::assert_snapshot!(drawn("nodes:\n- address: 192.0.2.11\n  ssh_key: hunter2: x\n"), @r#"
      × cluster.yml has 1 error

    Error: 
      × not YAML: mapping values are not allowed in this context
       ╭─[cluster.yml:3:19]
     2 │ - address: 192.0.2.11
     3 │   ssh_key: ******** *
       ·                   ▲
       ╰────
    "#);
}

#[test]
fn what_is_no_yaml_at_all() {
    insta::assert_snapshot!(said("\u{0}"), @"1:1 error: not a text file: it has a NUL byte");
}

#[test]
fn an_empty_file() {
    insta::assert_snapshot!(said("# nothing\n"), @r#"
    1:1 error: the file is empty
        examples/one-host.yml is a small one to begin with
    "#);
}

#[test]
fn a_list_instead_of_a_map() {
    insta::assert_snapshot!(said("- a\n- b\n"), @"1:1 error: expected a map, found a list");
}

#[test]
fn a_second_document() {
    insta::assert_snapshot!(said(&(with("") + "---\na: 1\n")), @"5:1 error: a second YAML document: only one is read");
}

#[test]
fn a_key_given_twice() {
    insta::assert_snapshot!(said(&with(
        "
cluster_name: one
cluster_name: two
",
    )), @r#"
    7:1 error: the key "cluster_name" is given twice in the same map
        it stands in line 6 already; RKE silently takes the last one: keep one
    "#);
}

#[test]
fn an_export_of_rancher() {
    insta::assert_snapshot!(said("rancher_kubernetes_engine_config: {}\n"), @r#"
    1:1 error: rancher_kubernetes_engine_config: this is an export of Rancher, not a cluster.yml
        move what stands under this key to the top level and remove Rancher's other keys
    "#);
}

#[test]
fn wrong_kinds_of_value() {
    insta::assert_snapshot!(said(&with(
        "
cluster_name: [a]
services: {kubelet: [1], etcd: {uid: many}, kube-api: {extra_args: [a], extra_env: {A: b}}}
authentication: {sans: a}
monitoring: {replicas: 1.5}
ssh_agent_auth: maybe
",
    )), @r#"
    6:1 error: cluster_name: expected a single value, found a list
    7:12 error: services.kubelet: expected a map, found a list
    7:38 error: services.etcd.uid: "many" is not a whole number from 1 to 4294967294
    7:56 error: services.kube-api.extra_args: expected a map, found a list
    7:73 error: services.kube-api.extra_env: expected a list, found a map
    8:24 error: authentication.sans: expected a list, found a single value
        write it in brackets: [value]
    9:24 error: monitoring.replicas: "1.5" is not a whole number from 1 to 20
    10:17 error: ssh_agent_auth: "maybe" is not true or false
    "#);
}

#[test]
fn a_minor_without_a_table_of_flags() {
    let options = ParseOptions { supported: vec![KubeVersion { minor: 35, patch: 2 }], ..options() };
    let parsed = parse(&with("").replace("v1.37.1", "v1.35"), &options).unwrap();
    insta::assert_snapshot!(lines(&parsed.warnings), @"1:21 warning: kubernetes_version: no table of flags for v1.35: extra_args are not checked against the programs");
}

#[test]
fn a_version_on_the_command_line_is_not_placed_in_the_file() {
    let options = ParseOptions { kubernetes_version: Some("v1.20".to_owned()), ..options() };
    let errors = parse(&with(""), &options).unwrap_err();
    insta::assert_snapshot!(lines(&errors.problems), @r#"
    0:0 error: --kubernetes-version: no release of v1.20 is supported
        supported: v1.37.1
    "#);
}

#[test]
fn a_file_on_one_line_has_no_snippets() {
    let labels: Vec<String> = (0..200).map(|number| format!("label-{number}: value")).collect();
    insta::assert_snapshot!(drawn(&format!("{{servces: {{}}, nodes: [{{labels: {{{}}}}}]}}\n", labels.join(", "))), @r#"
      × cluster.yml has 7 errors

    Error: 
      × line 1, column 1: no kubernetes_version is given; RKE would take its own default
      help: add `kubernetes_version:`; supported: v1.37.1

    Error: 
      × line 1, column 1: no network plugin is named; RKE would take canal, which bastide does not
      │ support yet
      help: write `network: {plugin: flannel}` (NetworkPolicies are then not enforced) or `network:
            {plugin: none}` and bring your own

    Error: 
      × line 1, column 1: no ingress controller is named; RKE would take nginx, which bastide does not
      │ support yet
      help: write `ingress: {provider: none}` and install a controller of your choice with
            `addons_include`

    Error: 
      × line 1, column 2: servces: unknown key
      help: did you mean `services`?

    Error: 
      × line 1, column 24: nodes[0]: the user to log in as is missing
      help: add `user: root` or another

    Error: 
      × line 1, column 24: nodes[0]: the node has no address
      help: add `address:` with its IP address or name

    Error: 
      × line 1, column 24: nodes[0]: the node has no role
      help: add `role:` with one or more of controlplane, etcd, worker
    "#);
}

#[test]
fn a_key_pasted_where_its_path_belongs_is_not_repeated() {
    let text = with(
        "ssh_key_path: |\n  -----BEGIN OPENSSH PRIVATE KEY-----\n  hunter2\n  -----END OPENSSH PRIVATE KEY-----\n",
    );
    insta::assert_snapshot!(drawn(&text), @r#"
      × cluster.yml has 1 error

    Error: 
      × ssh_key_path: not a path: it has several lines
       ╭─[cluster.yml:6:3]
     5 │ ssh_key_path: |
     6 │   ********** ******* ******* ********
       ·   ───────────────────────────────────
     7 │   *******
       ╰────
    "#);
}
