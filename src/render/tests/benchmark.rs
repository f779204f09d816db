//! What kube-bench (cis-1.12, sections 1 to 4) asks of files, modes and flags, asked of the rendered target.

use std::collections::BTreeMap;

use crate::model::Access;
use crate::model::RemotePath;
use crate::render::Rendered;
use crate::render::tests::support;

pub(super) fn access(rendered: &Rendered, host: &str, path: &str) -> Access {
    let path = RemotePath::new(path).unwrap();
    let target = rendered.host(host);
    let folder = target.directories.iter().find(|folder| folder.path == path).map(|folder| folder.access);
    folder.or_else(|| target.files.get(&path).map(|file| file.access)).unwrap_or_else(|| panic!("no {path}"))
}

#[test]
fn files_belong_to_root_and_to_nobody_else() {
    let rendered = support::rendered(support::ONE_HOST);
    let items = [
        ("1.1.1", "/etc/kubernetes/manifests/kube-apiserver.yaml", 0o600),
        ("1.1.3", "/etc/kubernetes/manifests/kube-controller-manager.yaml", 0o600),
        ("1.1.5", "/etc/kubernetes/manifests/kube-scheduler.yaml", 0o600),
        ("1.1.7", "/etc/kubernetes/manifests/etcd.yaml", 0o600),
        ("1.1.9", "/var/lib/cni/networks/cbr0/lock", 0o600),
        ("1.1.9", "/etc/cni/net.d/10-flannel.conflist", 0o600),
        ("1.1.13", "/etc/kubernetes/admin.conf", 0o600),
        ("1.1.15", "/etc/kubernetes/scheduler.conf", 0o600),
        ("1.1.17", "/etc/kubernetes/controller-manager.conf", 0o600),
        ("4.1.1", "/etc/systemd/system/kubelet.service", 0o600),
        ("4.1.3", "/etc/kubernetes/proxy.conf", 0o600),
        ("4.1.5", "/etc/kubernetes/kubelet.conf", 0o600),
        ("4.1.7", "/etc/kubernetes/pki/ca.crt", 0o600),
        ("4.1.9", "/var/lib/kubelet/config.yaml", 0o600),
    ];
    for (item, path, mode) in items {
        assert_eq!(access(&rendered, "h1", path), Access::root(mode), "{item} {path}");
    }
    // 1.1.11 and 1.1.12.
    assert_eq!(access(&rendered, "h1", "/var/lib/etcd"), Access { mode: 0o700, uid: 52034, gid: 52034 });
    // 1.1.19 to 1.1.21: everything below, folders too.
    let target = rendered.host("h1");
    let below = |path: &RemotePath| path.as_str().starts_with("/etc/kubernetes/pki");
    for folder in target.directories.iter().filter(|folder| below(&folder.path)) {
        assert_eq!(folder.access, Access::root(0o700), "{}", folder.path);
    }
    for (path, file) in target.files.iter().filter(|(path, _)| below(path)) {
        assert_eq!(file.access, Access::root(0o600), "{path}");
    }
}

#[test]
fn no_key_can_be_read_by_others() {
    let rendered = support::rendered(support::SPLIT);
    for (name, host) in &rendered.desired.hosts {
        for (path, file) in &host.files {
            let Some(content) = rendered.blobs.get(&file.digest) else { continue };
            let text = String::from_utf8_lossy(content.expose());
            if text.contains("PRIVATE KEY") || text.contains("client-key-data") || text.contains("secret: ") {
                assert!(file.secret, "{name} {path} is not marked as secret");
                assert_eq!(file.access.mode, 0o600, "{name} {path}");
            }
        }
    }
}

/// `value` of a flag must be this, must list these, or must only be there.
enum Want {
    Is(&'static str),
    Lists(&'static [&'static str]),
    There,
    Absent,
}

fn check(flags: &BTreeMap<String, String>, items: &[(&str, &str, Want)]) {
    for (item, flag, want) in items {
        let value = flags.get(*flag).map(String::as_str);
        let right = match want {
            Want::Is(wanted) => value == Some(wanted),
            Want::Lists(names) => {
                names.iter().all(|name| value.is_some_and(|v| v.split(',').any(|have| have == *name)))
            }
            Want::There => value.is_some_and(|value| !value.is_empty()),
            Want::Absent => value.is_none(),
        };
        assert!(right, "CIS {item}: --{flag} is {value:?}");
    }
}

#[test]
fn api_server_flags_follow_the_benchmark() {
    use Want::Absent;
    use Want::Is;
    use Want::Lists;
    use Want::There;
    let flags = support::rendered(support::ONE_HOST).flags("h1", "kube-apiserver");
    check(
        &flags,
        &[
            ("1.2.2", "token-auth-file", Absent),
            (
                "1.2.3",
                "enable-admission-plugins",
                Lists(&["DenyServiceExternalIPs", "EventRateLimit", "NodeRestriction"]),
            ),
            ("1.2.4", "kubelet-client-certificate", There),
            ("1.2.4", "kubelet-client-key", There),
            ("1.2.5", "kubelet-certificate-authority", There),
            ("1.2.6", "authorization-mode", Is("Node,RBAC")),
            ("1.2.12", "disable-admission-plugins", Absent),
            ("1.2.15", "profiling", Is("false")),
            ("1.2.16", "audit-log-path", Is("/var/log/kubernetes/audit/audit.log")),
            ("1.2.17", "audit-log-maxage", Is("30")),
            ("1.2.18", "audit-log-maxbackup", Is("10")),
            ("1.2.19", "audit-log-maxsize", Is("100")),
            ("1.2.20", "request-timeout", Is("60s")),
            ("1.2.21", "service-account-lookup", Is("true")),
            ("1.2.22", "service-account-key-file", There),
            ("1.2.23", "etcd-certfile", There),
            ("1.2.23", "etcd-keyfile", There),
            ("1.2.24", "tls-cert-file", There),
            ("1.2.24", "tls-private-key-file", There),
            ("1.2.25", "client-ca-file", There),
            ("1.2.26", "etcd-cafile", There),
            ("1.2.27", "encryption-provider-config", Is("/etc/kubernetes/enc/encryption.yaml")),
            ("1.2.29", "tls-cipher-suites", There),
            ("1.2.30", "service-account-extend-token-expiration", Is("false")),
            ("3.1.3", "enable-bootstrap-token-auth", Absent),
            ("3.2.1", "audit-policy-file", There),
        ],
    );
    // 1.2.1: without the flag, anonymous requests reach three paths alone.
    assert_eq!(flags.get("anonymous-auth"), None);
}

#[test]
fn the_strict_profile_knows_no_anonymous_request_and_no_unasked_image() {
    let rendered = support::rendered(&format!("{}bastide: {{hardening: {{profile: strict}}}}\n", support::ONE_HOST));
    check(
        &rendered.flags("h1", "kube-apiserver"),
        &[
            ("1.2.1", "anonymous-auth", Want::Is("false")),
            ("1.2.11", "enable-admission-plugins", Want::Lists(&["AlwaysPullImages"])),
            ("1.2.1", "authentication-config", Want::Absent),
        ],
    );
    // The probes of such a server cannot be GETs without credentials.
    let pod = rendered.pod("h1", "kube-apiserver");
    let container = &pod.spec.unwrap().containers[0];
    assert!(container.liveness_probe.as_ref().unwrap().tcp_socket.is_some());
}

#[test]
fn encryption_is_read_by_kube_bench_as_secretbox() {
    let rendered = support::rendered(support::ONE_HOST);
    let text = rendered.text("h1", "/etc/kubernetes/enc/encryption.yaml");
    // 1.2.28 looks at the line after the last `providers:`.
    let after = text.lines().skip_while(|line| line.trim() != "providers:").nth(1).unwrap();
    assert_eq!(after.trim(), "- secretbox:");
    let read = rendered.yaml("h1", "/etc/kubernetes/enc/encryption.yaml");
    assert!(!text.contains("identity"), "nothing is ever written in clear, so nothing in clear is read");
    assert_eq!(read["resources"][0]["resources"][0], "secrets");
}

#[test]
fn every_other_encryption_is_read_by_kube_bench_too() {
    let after = |text: &str| {
        let line = text.lines().skip_while(|line| !line.contains("providers:")).nth(1).unwrap();
        line.trim().to_owned()
    };
    let own = "services:
  kube-api:
    secrets_encryption_config:
      enabled: true
      custom_config:
        apiVersion: apiserver.config.k8s.io/v1
        kind: EncryptionConfiguration
        resources: [{resources: [secrets], providers: [{aescbc: {keys: [{name: a, secret: AAAAAAAAAAAAAAAAAAAAAA==}]}}, {identity: {}}]}]
";
    let rendered = support::rendered(&format!("{}{own}", support::ONE_HOST));
    assert_eq!(after(rendered.text("h1", "/etc/kubernetes/enc/encryption.yaml")), "- aescbc:");
    let kms = "bastide:
  encryption:
    provider: kms
    kms: {name: vault, image: haproxy, command: [/kms, \"--a=b c\"], extra_binds: ['/etc/vault:/etc/vault:ro'], extra_env: [A=b]}
";
    let rendered = support::rendered(&format!("{}{kms}", support::ONE_HOST));
    assert_eq!(after(rendered.text("h1", "/etc/kubernetes/enc/encryption.yaml")), "- kms:");
    let read = rendered.yaml("h1", "/etc/kubernetes/enc/encryption.yaml");
    assert_eq!(read["resources"][0]["providers"][0]["kms"]["endpoint"], "unix:///run/kmsplugin/socket.sock");
    let sockets = |pod: &str| {
        let spec = rendered.pod("h1", pod).spec.unwrap();
        let mounts = spec.containers[0].volume_mounts.clone().unwrap();
        mounts.into_iter().find(|mount| mount.mount_path == "/run/kmsplugin").unwrap().read_only
    };
    assert_eq!((sockets("kube-apiserver"), sockets("kms-plugin")), (Some(true), Some(false)));
    let plugin = rendered.pod("h1", "kms-plugin").spec.unwrap().containers.remove(0);
    assert_eq!(plugin.command.unwrap(), ["/kms", "--a=b c"]);
    assert_eq!(plugin.env.unwrap()[0].name, "A");
}

#[test]
fn other_components_follow_the_benchmark() {
    use Want::Is;
    use Want::There;
    let rendered = support::rendered(support::ONE_HOST);
    check(
        &rendered.flags("h1", "kube-controller-manager"),
        &[
            ("1.3.1", "terminated-pod-gc-threshold", Is("1000")),
            ("1.3.2", "profiling", Is("false")),
            ("1.3.3", "use-service-account-credentials", Is("true")),
            ("1.3.4", "service-account-private-key-file", There),
            ("1.3.5", "root-ca-file", There),
            ("1.3.6", "feature-gates", Want::Absent),
            ("1.3.7", "bind-address", Is("127.0.0.1")),
        ],
    );
    check(
        &rendered.flags("h1", "kube-scheduler"),
        &[("1.4.1", "profiling", Is("false")), ("1.4.2", "bind-address", Is("127.0.0.1"))],
    );
    check(
        &rendered.flags("h1", "etcd"),
        &[
            ("2.1", "cert-file", There),
            ("2.1", "key-file", There),
            ("2.2", "client-cert-auth", Is("true")),
            ("2.3", "auto-tls", Is("false")),
            ("2.4", "peer-cert-file", There),
            ("2.4", "peer-key-file", There),
            ("2.5", "peer-client-cert-auth", Is("true")),
            ("2.6", "peer-auto-tls", Is("false")),
            ("2.7", "trusted-ca-file", Is("/etc/etcd/pki/ca.crt")),
        ],
    );
}

#[test]
fn the_kubelet_follows_the_benchmark() {
    let rendered = support::rendered(support::ONE_HOST);
    let config = rendered.yaml("h1", "/var/lib/kubelet/config.yaml");
    let items = [
        ("4.2.1", "/authentication/anonymous/enabled", "false"),
        ("4.2.2", "/authorization/mode", "\"Webhook\""),
        ("4.2.3", "/authentication/x509/clientCAFile", "\"/etc/kubernetes/pki/ca.crt\""),
        ("4.2.4", "/readOnlyPort", "0"),
        ("4.2.5", "/streamingConnectionIdleTimeout", "\"5m0s\""),
        ("4.2.6", "/makeIPTablesUtilChains", "true"),
        ("4.2.8", "/eventRecordQPS", "50"),
        ("4.2.9", "/tlsCertFile", "\"/etc/kubernetes/pki/kubelet-server.crt\""),
        ("4.2.9", "/tlsPrivateKeyFile", "\"/etc/kubernetes/pki/kubelet-server.key\""),
        ("4.2.10", "/rotateCertificates", "true"),
        ("4.2.13", "/podPidsLimit", "4096"),
        ("4.2.14", "/seccompDefault", "true"),
    ];
    for (item, path, wanted) in items {
        assert_eq!(config.pointer(path).map(ToString::to_string).as_deref(), Some(wanted), "CIS {item} {path}");
    }
    assert_eq!(config.pointer("/featureGates"), None, "CIS 4.2.11");
    let proxy = rendered.yaml("h1", "/var/lib/kube-proxy/config.conf");
    assert_eq!(proxy["metricsBindAddress"], "127.0.0.1:10249", "CIS 4.3.1");
}

#[test]
fn the_name_flag_stands_only_where_the_system_has_another_name() {
    // CIS 4.2.7.
    let cluster = support::cluster(support::ONE_HOST);
    let secrets = support::secrets(&cluster);
    let unit = |os_name: Option<&str>| {
        let names = cluster.nodes.iter().filter_map(|n| Some((n.name.clone(), os_name?.to_owned()))).collect();
        let rendered = crate::render::desired(
            &cluster,
            &secrets,
            &support::release(),
            &[],
            &names,
            Some(&support::signers(&cluster)),
        )
        .unwrap();
        rendered.text("h1", "/etc/systemd/system/kubelet.service").contains("--hostname-override=h1")
    };
    assert_eq!([unit(None), unit(Some("other")), unit(Some("H1")), unit(Some("h1"))], [true, true, false, false]);
}

#[test]
fn every_container_is_confined() {
    let rendered = support::rendered(support::SPLIT);
    for (name, host) in &rendered.desired.hosts {
        for pod in host.pods.keys() {
            let spec = rendered.pod(name.as_str(), pod).spec.unwrap();
            assert_eq!(spec.security_context.unwrap().seccomp_profile.unwrap().type_, "RuntimeDefault", "{pod}");
            let context = spec.containers[0].security_context.clone().unwrap();
            assert_eq!(context.privileged, Some(false), "{pod}");
            assert_eq!(context.allow_privilege_escalation, Some(false), "{pod}");
            assert_eq!(context.read_only_root_filesystem, Some(pod != "kube-proxy"), "{pod}");
            let capabilities = context.capabilities.unwrap();
            assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]), "{pod}");
            let added = (pod == "kube-proxy").then(|| vec!["NET_ADMIN".to_owned()]);
            assert_eq!(capabilities.add, added, "{pod}");
        }
    }
}

#[test]
fn every_rendered_flag_is_known_to_the_programs_of_both_minors() {
    let tables = [include_str!("../../config/flags/v1.36.txt"), include_str!("../../config/flags/v1.37.txt")];
    let rendered = support::rendered(support::ONE_HOST);
    for table in tables {
        for pod in rendered.host("h1").pods.keys() {
            let heading = format!("[{pod}]");
            let known: Vec<&str> = table
                .lines()
                .skip_while(|line| *line != heading)
                .skip(1)
                .take_while(|line| !line.starts_with('['))
                .filter_map(|line| line.split(' ').next())
                .collect();
            for flag in rendered.flags("h1", pod).keys() {
                assert!(known.contains(&flag.as_str()), "{pod} knows no --{flag}");
            }
        }
    }
}
