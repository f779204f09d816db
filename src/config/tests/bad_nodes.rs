//! Nodes that are refused, and the words people get.

use super::BASE;
use super::said;

#[test]
fn nodes_that_cannot_be() {
    insta::assert_snapshot!(said(&format!(
        "{BASE}nodes:
- {{}}
- {{address: 192.0.2.300, user: root, role: [worker]}}
- {{address: 192.0.2.11, user: root, role: []}}
- {{address: 192.0.2.12, user: \"ro ot\", role: [worker], port: 70000}}
- {{address: 127.0.0.1, user: root, role: [worker]}}
- {{address: 2001:db8::1, user: root, role: [worker]}}
- {{address: 192.0.2.13, user: root, role: [worker], hostname_override: a_b, internal_address: ::1}}
- {{address: 192.0.2.14, user: root, role: [worker], labels: {{\"a b\": c, d: \"e f\"}}, taints: [{{key: a, effect: Never}}, {{effect: NoSchedule}}]}}
- {{address: 192.0.2.15, user: root, role: [worker], ssh_key: nonsense, ssh_cert_path: ~bob/x}}
"
    )), @r#"
    5:3 error: nodes[0]: the user to log in as is missing
        add `user: root` or another
    5:3 error: nodes[0]: the node has no address
        add `address:` with its IP address or name
    5:3 error: nodes[0]: the node has no role
        add `role:` with one or more of controlplane, etcd, worker
    6:13 error: nodes[1].address: "192.0.2.300" is neither an IP address nor a DNS name
    7:37 error: nodes[2].role: the node has no role
        add `role:` with one or more of controlplane, etcd, worker
    8:31 error: nodes[3].user: "ro ot" is not a user name
    8:62 error: nodes[3].port: "70000" is not a whole number from 1 to 65535
    9:13 error: nodes[4].address: 127.0.0.1 is no address that other nodes can reach
        add `internal_address:` with the IPv4 address that the other nodes reach it at
    10:13 error: nodes[5].address: this address cannot be a node's name
        add `hostname_override:` with a name for the node
    10:13 error: nodes[5].address: 2001:db8::1 is IPv6, which bastide does not support yet between nodes
        add `internal_address:` with the IPv4 address that the other nodes reach it at
    11:72 error: nodes[6].hostname_override: "a_b" is not a lower-case RFC 1123 name (letters, digits, '-' and '.', at most 253 characters)
    11:95 error: nodes[6].internal_address: ::1 is IPv6, which bastide does not support yet between nodes
        add `internal_address:` with the IPv4 address that the other nodes reach it at
    12:62 error: nodes[7].labels["a b"]: "a b" is not a label key
    12:75 error: nodes[7].labels.d: "e f" is not a label value: at most 63 letters, digits, '-', '_' and '.'
    12:109 error: nodes[7].taints[0].effect: "Never" is not NoSchedule, PreferNoSchedule or NoExecute
    12:118 error: nodes[7].taints[1]: the taint has no key
    13:62 error: nodes[8].ssh_key: not a private key in PEM or OpenSSH form
        or give its place with ssh_key_path
    13:87 error: nodes[8].ssh_cert_path: "~bob/x": `~user` is not resolved, write the whole path
    13:87 error: nodes[8].ssh_cert_path: a key in the file needs its certificate in the file
        write the line as ssh_cert
    "#);
}

#[test]
fn nodes_that_are_the_same() {
    insta::assert_snapshot!(said(&format!(
        "{BASE}nodes:
- {{address: 192.0.2.11, user: root, role: [controlplane, etcd], hostname_override: A}}
- {{address: 192.0.2.11, user: root, role: [worker], hostname_override: b, internal_address: 192.0.2.12}}
- {{address: 192.0.2.12, user: root, role: [worker], hostname_override: a}}
"
    )), @r#"
    6:13 error: nodes[1].address: the node of line 5 has the address 192.0.2.11 already
    6:93 error: nodes[1].internal_address: line 5 gives the same address to another node
    7:13 error: nodes[2].address: the node of line 6 has the internal address 192.0.2.12 already
    7:72 error: nodes[2].hostname_override: the node of line 5 has the name a already
    "#);
}

#[test]
fn roles_that_nobody_has() {
    insta::assert_snapshot!(said(&format!(
        "{BASE}nodes:
- {{address: 192.0.2.11, user: root, role: [worker]}}
"
    )), @r#"
    4:1 error: nodes: no node has the role controlplane
        add controlplane to the `role:` of at least one node, better three
    4:1 error: nodes: no node has the role etcd
        add etcd to the `role:` of at least one node, better three
    "#);
}

#[test]
fn an_even_number_of_etcd_members_is_warned_about() {
    insta::assert_snapshot!(said(&format!(
        "{BASE}nodes:
- {{address: 192.0.2.11, user: root, role: [controlplane, etcd]}}
- {{address: 192.0.2.12, user: root, role: [etcd, worker]}}
"
    )), @r#"
    4:1 warning: nodes: 2 etcd members survive no more losses than 1
        give the role etcd to an odd number of nodes
    "#);
}

#[test]
fn reserved_taints_are_left_to_the_roles() {
    insta::assert_snapshot!(said(&format!(
        "{BASE}nodes:
- address: 192.0.2.11
  user: root
  role: [controlplane, etcd, worker]
  taints:
  - {{key: node-role.kubernetes.io/etcd, value: 'true', effect: NoExecute}}
  - {{key: a, effect: NoSchedule}}
  - {{key: a, value: b, effect: NoSchedule}}
"
    )), @r#"
    9:6 warning: nodes[0].taints[0]: ignored: node-role.kubernetes.io/etcd:NoExecute is set by the node's roles
        remove it
    11:6 error: nodes[0].taints[2]: a taint a:NoSchedule is there already
    "#);
}
