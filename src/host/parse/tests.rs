#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::model::ClusterId;
use crate::model::Lacks;
use crate::model::RevisionId;

/// An answer as a Debian 13 host gave it, shortened.
const ANSWER: &str = r#"== facts
h1 6.12.48+deb13-amd64 x86_64
1b4e28ba-2fa1-11d2-883f-0016d3cca427
1795355000
1048576 4096
v2
0
1
2
== os
PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
VERSION_ID="13"
ID=debian
== systemd
systemd 257 (257.9-1~deb13u1)
== record

== recorded

== stat
711 0 0 41c9 /srv/d
604 7 8 8184 /srv/f
640 0 0 81a0 /srv/pair
== sha256
5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  /srv/f
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  /srv/pair
== certificate /srv/pair
-----BEGIN CERTIFICATE-----
abc
-----END CERTIFICATE-----
== units
absent.service
kubelet.service
== unit states
LoadState=not-found
ActiveState=inactive
UnitFileState=

LoadState=loaded
ActiveState=active
UnitFileState=enabled
== inputs
kubelet.service 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
== users
root:x:0:0:root:/root:/bin/bash
ops:x:1000:1001::/home/ops:/bin/bash
== images
REF                          TYPE                                       DIGEST                                                                  SIZE      PLATFORMS   LABELS
registry.k8s.io/pause:3.10.2 application/vnd.oci.image.index.v1+json    sha256:28aa3db8603e20a5a4c75dbe180c8f617c1c52f6d1c7a061c389653160302e2d 309.3 KiB linux/amd64 io.cri-containerd.image=managed
sha256:28aa3db8603e20a5a4c75 application/vnd.oci.image.index.v1+json    sha256:28aa3db8603e20a5a4c75dbe180c8f617c1c52f6d1c7a061c389653160302e2d 309.3 KiB linux/amd64 -
== pods
{
  "items": [
    {
      "id": "one",
      "metadata": {"name": "etcd-h1"},
      "createdAt": "1795355000000000001",
      "annotations": {
        "bastide.dev/inputs": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "kubernetes.io/config.source": "file"
      }
    },
    {
      "id": "old",
      "metadata": {"name": "etcd-h1"},
      "createdAt": "1795355000000000000",
      "annotations": {"kubernetes.io/config.source": "file"}
    },
    {
      "id": "two",
      "metadata": {"name": "coredns-abc"},
      "createdAt": "1795355000000000000",
      "annotations": {"kubernetes.io/config.source": "api"}
    }
  ]
}
== lock
{"run":"r1","who":"ada@desk","command":"up","since":1795354000}
== processes
kubelet
== containers
etcd
rke-log-linker
somebody-elses
== folders
/var/lib/etcd
== listeners
   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
== end
"#;

fn node() -> HostName {
    HostName::new("h1").unwrap()
}

fn path(text: &str) -> RemotePath {
    RemotePath::new(text).unwrap()
}

fn scope() -> Scope {
    let unit = |name: &str| UnitName::new(name).unwrap();
    Scope {
        files: ["/srv/f", "/srv/absent"].map(path).into(),
        seeded: ["/srv/pair"].map(path).into(),
        directories: ["/srv/d"].map(path).into(),
        units: ["absent.service", "kubelet.service"].map(unit).into(),
        users: ["ops".to_owned()].into(),
        uids: [0, 52034].into(),
        ports: [6443].into(),
    }
}

fn hello() -> Digest {
    Digest::of(b"hello\n")
}

#[test]
fn a_host_without_a_default_route_is_told_from_one_that_has_one() {
    let host = |text: &str| observed(&node(), &scope(), text.as_bytes()).unwrap().lacks.default_route;
    assert!(host(&ANSWER.replace("v2\n0\n1\n", "v2\n0\n0\n")));
    assert!(!host(ANSWER));
}

#[test]
fn a_host_without_a_name_server_is_told_from_one_that_has_some() {
    let host = |text: &str| observed(&node(), &scope(), text.as_bytes()).unwrap().lacks.name_server;
    assert!(host(&ANSWER.replace("v2\n0\n1\n2\n", "v2\n0\n1\n0\n")));
    assert!(!host(ANSWER));
}

#[test]
fn a_member_without_a_log_is_told() {
    let host = |text: &str| observed(&node(), &scope(), text.as_bytes()).unwrap().etcd_gone;
    assert!(host(&ANSWER.replace("== lock\n", "== etcd\ngone\n== lock\n")));
    assert!(!host(&ANSWER.replace("== lock\n", "== etcd\n== lock\n")));
}

#[test]
fn an_answer_becomes_a_host() {
    let pause = "28aa3db8603e20a5a4c75dbe180c8f617c1c52f6d1c7a061c389653160302e2d".parse().unwrap();
    let certificate = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n".to_owned();
    let file = |digest, access, certificate| ObservedFile { digest, access, certificate };
    let expected = ObservedHost {
        os: "debian 13".to_owned(),
        kernel: "6.12.48+deb13-amd64".to_owned(),
        architecture: "x86_64".to_owned(),
        hostname: "h1".to_owned(),
        boot_id: "1b4e28ba-2fa1-11d2-883f-0016d3cca427".to_owned(),
        clock: 1_795_355_000,
        systemd: 257,
        cgroup_v2: true,
        swap: false,
        lacks: Lacks::default(),
        free_bytes: 4 << 30,
        files: [
            (path("/srv/f"), file(hello(), Access { mode: 0o604, uid: 7, gid: 8 }, None)),
            (path("/srv/pair"), file(Digest::of(b""), Access::root(0o640), Some(certificate))),
        ]
        .into(),
        directories: [(path("/srv/d"), Access::root(0o711))].into(),
        units: [(
            UnitName::new("kubelet.service").unwrap(),
            ObservedUnit { active: true, enabled: true, failed: false, inputs: Some(hello()) },
        )]
        .into(),
        images: [(ImageRef::new("registry.k8s.io/pause:3.10.2").unwrap(), pause)].into(),
        pods: [("etcd".to_owned(), Some(hello()))].into(),
        users: [("ops".to_owned(), (1000, 1001))].into(),
        taken_uids: [(0, "root".to_owned())].into(),
        etcd_gone: false,
        record: None,
        squatters: vec![
            Squatter::Process("kubelet".to_owned()),
            Squatter::RkeContainer("etcd".to_owned()),
            Squatter::RkeContainer("rke-log-linker".to_owned()),
            Squatter::Folder(path("/var/lib/etcd")),
            Squatter::Port(6443),
        ],
        lock: Some(LockHolder {
            run: "r1".to_owned(),
            who: "ada@desk".to_owned(),
            command: "up".to_owned(),
            since: 1_795_354_000,
        }),
    };
    assert_eq!(observed(&node(), &scope(), ANSWER.as_bytes()), Ok(expected));
}

fn with_record(text: &str, recorded: &str) -> Result<ObservedHost, String> {
    let answer = ANSWER.replace("== record\n\n", &format!("== record\n{text}\n"));
    let answer = answer.replace("== recorded\n\n", &format!("== recorded\n{recorded}\n"));
    observed(&node(), &scope(), answer.as_bytes())
}

#[test]
fn a_record_is_taken_only_where_the_script_saw_every_path_of_it() {
    let record = HostRecord {
        schema: 1,
        cluster: ClusterId("c".repeat(32)),
        cluster_name: "demo".to_owned(),
        revision: RevisionId { number: 7, nonce: "0".repeat(16) },
        parent: None,
        complete: true,
        files: [(path("/srv/f"), hello())].into(),
        directories: BTreeSet::new(),
        units: BTreeSet::new(),
        users: BTreeSet::new(),
        images: BTreeMap::new(),
    };
    let text = String::from_utf8(crate::host::manifest::record_text(&record).unwrap()).unwrap();
    assert_eq!(with_record(&text, "/srv/f").unwrap().record, Some(record));
    assert_eq!(with_record(&text, "").unwrap_err(), "record.json is not laid out as bastide writes it");
    assert!(with_record("{\"schema\": 1}", "").unwrap_err().starts_with("record.json: missing field"));
}

#[test]
fn a_swapped_or_unreadable_thing_is_an_error_that_names_it() {
    let changed = |from: &str, to: &str| {
        assert!(ANSWER.contains(from));
        observed(&node(), &scope(), ANSWER.replace(from, to).as_bytes()).unwrap_err()
    };
    assert_eq!(changed("604 7 8 8184 /srv/f", "755 0 0 41ed /srv/f"), "/srv/f is a folder, not a file");
    assert_eq!(changed("711 0 0 41c9 /srv/d", "604 7 8 8184 /srv/d"), "/srv/d is a file, not a folder");
    assert_eq!(changed("604 7 8 8184 /srv/f", "604 7 8 1184 /srv/f"), "/srv/f is neither a file nor a folder");
    assert_eq!(changed("  /srv/f\n", "  /srv/other\n"), "/srv/f cannot be read");
    assert_eq!(changed("absent.service\nkubelet", "kubelet"), "2 unit states for 1 units");
    assert_eq!(changed("== end\n", ""), "it is cut off");
    assert_eq!(changed("== users", "== units"), "section \"units\" comes twice");
}

#[test]
fn every_cut_of_an_answer_is_an_error() {
    for end in 0..ANSWER.len() - 1 {
        if ANSWER.is_char_boundary(end) {
            assert!(observed(&node(), &scope(), &ANSWER.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn the_scope_is_one_line_a_value() {
    let expected = "file /srv/absent\nfile /srv/f\nseeded /srv/pair\ndirectory /srv/d\nunit absent.service\n\
                    unit kubelet.service\nuser ops\nuid 0\nuid 52034\nport 6443\nend -\n";
    assert_eq!(scope_text(&scope()), expected);
}

proptest! {
    #[test]
    fn whatever_a_host_answers_is_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = observed(&node(), &scope(), &bytes);
    }

    #[test]
    fn a_damaged_answer_is_a_value_or_an_error(at in 0..ANSWER.len(), with in any::<u8>(), drop in 0..40_usize) {
        let mut bytes = ANSWER.as_bytes().to_vec();
        bytes[at] = with;
        bytes.drain(at..(at + drop).min(bytes.len()));
        let _ = observed(&node(), &scope(), &bytes);
    }
}

#[test]
fn files_come_back_byte_by_byte_or_not_at_all() {
    let path = |text: &str| crate::model::RemotePath::new(text).unwrap();
    let output = b"file 11 /a-b\nhello\nworld\nfile 0 /empty\n\nend\n";
    let contents = super::contents(output).unwrap();
    assert_eq!(contents[&path("/a-b")].expose(), b"hello\nworld");
    assert_eq!(contents[&path("/empty")].expose(), b"");
    assert_eq!(contents.len(), 2);
    for cut in 0..output.len() {
        assert!(super::contents(&output[..cut]).is_none(), "cut at {cut}");
    }
}
