//! Networks, services and options that are refused, and the words people get.

use super::BASE;
use super::said;
use super::with;

#[test]
fn networks_that_overlap() {
    insta::assert_snapshot!(said(&with(
        "
services:
  kube-controller: {cluster_cidr: 192.0.0.0/8, service_cluster_ip_range: 10.43.0.0/16}
  kube-api: {service_cluster_ip_range: 192.0.128.0/17}
  kubelet: {cluster_dns_server: 10.43.0.10}
",
    )), @r#"
    4:19 error: nodes[0].address: 192.0.2.11 lies inside the pod network 192.0.0.0/8
    7:35 error: services.kube-controller.cluster_cidr: the pod network 192.0.0.0/8 and the service range 192.0.128.0/17 overlap
    7:74 error: services.kube-controller.service_cluster_ip_range: 10.43.0.0/16 is not the API server's service range 192.0.128.0/17
        give services.kube-api.service_cluster_ip_range the same value
    9:33 error: services.kubelet.cluster_dns_server: 10.43.0.10 is not inside the service range 192.0.128.0/17
    "#);
}

#[test]
fn networks_that_are_none() {
    insta::assert_snapshot!(said(&with(
        "
services:
  kube-controller: {cluster_cidr: '10.42.0.0/16,fd00::/56'}
  kube-api: {service_cluster_ip_range: 10.43.0.0/30, service_node_port_range: 30000}
  kubelet: {cluster_dns_server: dns, cluster_domain: 'a b'}
",
    )), @r#"
    7:35 error: services.kube-controller.cluster_cidr: "10.42.0.0/16,fd00::/56" is dual stack, which bastide does not support yet: give one IPv4 network
    8:40 error: services.kube-api.service_cluster_ip_range: the API server takes service ranges from /12 to /29 only
    8:79 error: services.kube-api.service_node_port_range: "30000" is not a range of ports such as 30000-32767
    9:33 error: services.kubelet.cluster_dns_server: "dns" is not an IP address
    9:54 error: services.kubelet.cluster_domain: "a b" is not a DNS domain such as cluster.local
    "#);
}

#[test]
fn a_pod_network_too_small_for_its_nodes() {
    insta::assert_snapshot!(said(&format!(
        "{BASE}nodes:
- {{address: 192.0.2.11, user: root, role: [controlplane, etcd]}}
- {{address: 192.0.2.12, user: root, role: [worker]}}
- {{address: 192.0.2.13, user: root, role: [worker]}}
services: {{kube-controller: {{cluster_cidr: 10.42.0.7/23}}}}
"
    )), @r#"
    8:44 error: services.kube-controller.cluster_cidr: 10.42.0.0/23 has no room for 3 nodes with a /24 each
    8:44 warning: services.kube-controller.cluster_cidr: 10.42.0.7/23 names an address inside a network; the network is 10.42.0.0/23
        write 10.42.0.0/23
    "#);
}

#[test]
fn what_rke_would_fill_in_silently_is_asked_for() {
    insta::assert_snapshot!(said("kubernetes_version: v1.37\nnodes: [{address: 192.0.2.11, user: root, role: [controlplane, etcd, worker]}]\n"), @r#"
    1:1 error: no network plugin is named; RKE would take canal, which bastide does not support yet
        write `network: {plugin: flannel}` (NetworkPolicies are then not enforced) or `network: {plugin: none}` and bring your own
    1:1 error: no ingress controller is named; RKE would take nginx, which bastide does not support yet
        write `ingress: {provider: none}` and install a controller of your choice with `addons_include`
    "#);
}

#[test]
fn engines_that_bastide_has_not() {
    insta::assert_snapshot!(said(&with("").replace("flannel", "calico").replace("provider: none", "provider: nginx")), @r#"
    2:19 error: network.plugin: RKE knows calico, bastide does not support it yet
        write `network: {plugin: flannel}` (NetworkPolicies are then not enforced) or `network: {plugin: none}` and bring your own
    3:21 error: ingress.provider: RKE knows nginx, bastide does not support it yet
        write `ingress: {provider: none}` and install a controller of your choice with `addons_include`
    "#);
}

#[test]
fn orders_of_rke_name_the_command_that_carries_them_out() {
    let asked = |order: &str| said(&with(&format!("\n{order}\n")));
    insta::assert_snapshot!(
        ["rotate_certificates: {}", "rotate_certificates: {services: [kubelet, etcd]}", "rotate_encryption_key: true"].map(asked).concat(), @r#"
    6:1 error: rotate_certificates: is an order, not a setting
        remove it and run `bastide rotate-certs --service kubelet --service etcd`
    6:1 error: rotate_encryption_key: is an order, not a setting
        remove it and run `bastide encrypt rotate-key`
    "#);
}

#[test]
fn keys_of_rke_that_are_not_supported_yet() {
    insta::assert_snapshot!(said(&with(
        "
private_registries: [{url: registry.example.com, password: hunter2}]
system_images: {etcd: a/b:c}
cloud_provider: {name: aws}
restore: {restore: true}
rotate_certificates: {cacertificates: true}
dns: {provider: kube-dns, nodelocal: {ip_address: 169.254.20.10}}
monitoring: {tolerations: [{key: a}]}
authentication: {strategy: 'x509|webhook'}
prefix_path: /opt/rke
services:
  etcd: {external_urls: ['https://192.0.2.9:2379']}
  kubelet: {win_extra_args: {a: b}}
  kube-api: {pod_security_policy: true}
  kube_api: {}
",
    )), @r#"
    6:1 error: private_registries: RKE knows this key, bastide does not support it yet
        remove it and name a bundle under bastide.artifacts.bundle
    7:1 error: system_images: RKE knows this key, bastide does not support it yet
        remove it: kubernetes_version alone chooses every image
    8:1 error: cloud_provider: RKE knows this key, bastide does not support it yet
        remove it and install an external cloud provider with addons_include
    9:1 error: restore: is an order, not a setting
        remove it and run `bastide etcd snapshot restore`
    10:1 error: rotate_certificates: is an order, not a setting
        remove it and run `bastide rotate-certs --ca`
    11:17 error: dns.provider: kube-dns has no image for any supported Kubernetes
        write `provider: coredns`
    11:27 error: dns.nodelocal: RKE knows this key, bastide does not support it yet
        remove it
    12:14 error: monitoring.tolerations: RKE knows this key, bastide does not support it yet
        remove it
    13:28 error: authentication.strategy: RKE knows the strategy webhook, bastide does not support it yet
        write `strategy: x509`
    14:14 error: prefix_path: RKE knows this key, bastide does not support it yet
        remove it: paths are kubeadm's
    16:10 error: services.etcd.external_urls: RKE knows this key, bastide does not support it yet
        an etcd outside the cluster cannot be used: remove it and give hosts the role etcd
    17:13 error: services.kubelet.win_extra_args: RKE knows this key, bastide does not support it yet
        remove it: there are no Windows nodes
    18:35 error: services.kube-api.pod_security_policy: PodSecurityPolicy was removed from Kubernetes 1.25
        remove it: Pod Security admission enforces `baseline`; `pod_security_configuration: restricted` is stricter
    19:3 error: services.kube_api: RKE does not know this key and ignores it
        write `kube-api:`
    "#);
}

#[test]
fn keys_that_died_with_docker_are_warned_about() {
    insta::assert_snapshot!(said(&with(
        "
ignore_docker_version: true
enable_cri_dockerd: true
prefix_path: /
addon_job_timeout: 45
services: {etcd: {image: a/b:c}, kubelet: {infra_container_image: pause}}
",
    )), @r#"
    6:1 warning: ignore_docker_version: ignored: bastide runs containerd, not Docker
        remove it
    7:1 warning: enable_cri_dockerd: ignored: bastide runs containerd, not Docker
        remove it
    8:14 warning: prefix_path: ignored: it is the root folder anyhow
        remove it
    9:1 warning: addon_job_timeout: ignored: bastide applies addons itself, without Jobs; see bastide.deadlines
        remove it
    10:19 warning: services.etcd.image: ignored: images come from the release (RKE overwrites it as well)
        remove it
    10:44 warning: services.kubelet.infra_container_image: ignored: the pause image comes from the release and is set in containerd
        remove it
    "#);
}

#[test]
fn what_has_no_effect_is_never_silent() {
    insta::assert_snapshot!(said(&with(
        "
services:
  etcd: {backup_config: {s3backupconfig: {secret_key: hunter2, bucket: x}}}
  kube-api:
    audit_log: {enabled: false}
    event_rate_limit: {enabled: false}
    secrets_encryption_config: {enabled: false}
  kubelet: {extra_binds: ['/data:/data']}
upgrade_strategy: {max_unavailable_worker: 10%, drain: yes}
addons_include: ['https://example.com/a.yml']
",
    )), @r#"
    7:26 error: services.etcd.backup_config.s3backupconfig: the S3 server is missing
        add `endpoint: s3.eu-central-1.amazonaws.com`
    7:26 error: services.etcd.backup_config.s3backupconfig: the bucket is missing
        add `bucket_name: my-snapshots`
    7:43 error: services.etcd.backup_config.s3backupconfig.secret_key: there is no access_key beside it
        add `access_key:`, or write neither, and give both as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    7:64 error: services.etcd.backup_config.s3backupconfig.bucket: unknown key
        known here: access_key, bucket_name, custom_ca, endpoint, folder, region, secret_key
    9:26 warning: services.kube-api.audit_log.enabled: ignored: the audit log stays on
        remove it
    10:33 warning: services.kube-api.event_rate_limit.enabled: ignored: bastide's own limits stay on
        remove it
    11:42 warning: services.kube-api.secrets_encryption_config.enabled: ignored: secrets are always encrypted at rest
        remove it
    12:27 warning: services.kubelet.extra_binds[0]: not needed: the kubelet runs on the host itself and sees this path
        remove it
    13:56 warning: upgrade_strategy.drain: ignored: bastide drains no node yet
        drain nodes yourself before a change that restarts them
    14:18 error: addons_include[0]: bastide does not fetch addons from URLs yet
        download it and name the file
    "#);
}

#[test]
fn upgrade_settings_are_checked() {
    insta::assert_snapshot!(said(&with(
        "
upgrade_strategy:
  max_unavailable_worker: 0
  max_unavailable_controlplane: 101%
  node_drain_input: {grace_period: -1 // as the pod says, timeout: 60}
",
    )), @r#"
    7:27 error: upgrade_strategy.max_unavailable_worker: "0" is not a number of nodes or a percentage above 0
    8:33 error: upgrade_strategy.max_unavailable_controlplane: "101%" is not a number of nodes or a percentage above 0
    9:36 error: upgrade_strategy.node_drain_input.grace_period: "-1 // as the pod says" is not a whole number from -1 to 86400
    "#);
}

#[test]
fn flags_that_the_programs_do_not_have() {
    insta::assert_snapshot!(said(&with(
        "
services:
  etcd: {extra_args: {experimental-corrupt-check-time: 1h, snapshot-cout: 5}}
  kube-api:
    extra_args: {anonymous-auth: false, authentication-config: /a, oidc-issuer-url: 'https://a', apiserver-count: 3, --profiling: false, insecure-port: 0}
    extra_args_array: {anonymous-auth: [x], no-such-thing-at-all: [b]}
  kube-controller: {extra_args: {pod-eviction-timeout: 1m, feature-gates: 'RotateKubeletServerCertificate=true,VolumeSnapshotDataSource=true'}}
  kubelet: {extra_args: {max-pod: 250, pod-infra-container-image: a, feature-gates: 'MemoryQos=true,GenericWorkload'}}
  kubeproxy: {extra_args: {log-file: /a, v: \"a\\nb\"}}
",
    )), @r#"
    7:23 error: services.etcd.extra_args.experimental-corrupt-check-time: etcd of v1.37 no longer has the flag --experimental-corrupt-check-time
        write corrupt-check-time
    7:60 error: services.etcd.extra_args.snapshot-cout: etcd of v1.37 has no flag --snapshot-cout
        did you mean `snapshot-count`?
    9:64 error: services.kube-api.extra_args.authentication-config: bastide renders the AuthenticationConfiguration itself
        remove it: oidc-* and anonymous-auth become part of bastide's; a configuration of your own is not supported yet
    9:115 warning: services.kube-api.extra_args.apiserver-count: kube-apiserver of v1.37 calls this flag deprecated
    9:118 error: services.kube-api.extra_args.--profiling: a flag is written without its dashes
        write `profiling:`
    9:138 error: services.kube-api.extra_args.insecure-port: kube-apiserver of v1.37 no longer has the flag --insecure-port
        remove it: only the secure port exists
    10:24 error: services.kube-api.extra_args_array.anonymous-auth: anonymous-auth is under extra_args as well
        keep one of them
    10:24 error: services.kube-api.extra_args_array.anonymous-auth: it takes one value
        write it under extra_args
    10:45 error: services.kube-api.extra_args_array.no-such-thing-at-all: kube-apiserver of v1.37 has no flag --no-such-thing-at-all
        remove it: the program would not start with it
    11:34 error: services.kube-controller.extra_args.pod-eviction-timeout: kube-controller-manager of v1.37 no longer has the flag --pod-eviction-timeout
        use tolerationSeconds, or kube-apiserver's default-not-ready-toleration-seconds and default-unreachable-toleration-seconds
    11:75 error: services.kube-controller.extra_args.feature-gates: kube-controller-manager of v1.37 has no feature gate VolumeSnapshotDataSource that can be set
        remove it: what has become a fixed part of Kubernetes needs no gate
    12:26 error: services.kubelet.extra_args.max-pod: kubelet of v1.37 has no flag --max-pod
        did you mean `max-pods`?
    12:40 error: services.kubelet.extra_args.pod-infra-container-image: kubelet of v1.37 no longer has the flag --pod-infra-container-image
        remove it: the pause image comes from the release and is set in containerd
    12:85 error: services.kubelet.extra_args.feature-gates: kubelet of v1.37 has no feature gate MemoryQos that can be set
        did you mean `MemoryQoS`?
    12:85 error: services.kubelet.extra_args.feature-gates: "GenericWorkload" is not a feature gate with its value
        write GenericWorkload=true
    13:28 error: services.kubeproxy.extra_args.log-file: kube-proxy of v1.37 no longer has the flag --log-file
        remove it: programs log to standard error, and journald or the kubelet keep it
    13:45 error: services.kubeproxy.extra_args.v: the value of a flag is one line
    "#);
}

#[test]
fn objects_of_the_wrong_kind() {
    insta::assert_snapshot!(said(&with(
        "
services:
  kube-api:
    audit_log: {enabled: true, configuration: {max_age: -1, path: audit.log, format: legacy, policy: {kind: Polcy}}}
    admission_configuration: {apiVersion: apiserver.config.k8s.io/v1}
    secrets_encryption_config: {custom_config: {kind: EncryptionConfiguration}}
    pod_security_configuration: strict
",
    )), @r#"
    8:57 error: services.kube-api.audit_log.configuration.max_age: "-1" is not a whole number from 0 to 100000
    8:67 error: services.kube-api.audit_log.configuration.path: "audit.log" is not an absolute path to a file
    8:86 error: services.kube-api.audit_log.configuration.format: "legacy" is not a format of the audit log that can be read back: json
    8:94 error: services.kube-api.audit_log.configuration.policy: kind is "Polcy"
        write `kind: Policy`
    9:5 error: services.kube-api.admission_configuration: kind is missing
        add `kind: AdmissionConfiguration` and its apiVersion
    10:33 error: services.kube-api.secrets_encryption_config.custom_config: an encryption configuration without `enabled: true`
        write `enabled: true` beside it, or remove it to let bastide make the key
    11:33 error: services.kube-api.pod_security_configuration: "strict" is not privileged, baseline or restricted
    "#);
}

#[test]
fn bastide_s_own_key() {
    insta::assert_snapshot!(said(&with(
        "
bastide:
  artefacts: {}
  artifacts: {bundle: ~bob/bundle}
  state: {recipients: [AGE-SECRET-KEY-1QQQ, alice]}
  ssh:
    connect_timeout: 15
    sudo_password_file: a
    sudo_password_env: hunter 2
    jump: [{address: 192.0.2.1}]
    hosts: {192.0.2.99: {host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA}, 192.0.2.11: {host_key: abc}}
  hardening: {profile: paranoid, allow: [{setting: a}, b]}
  api: {endpoint: 'https://api:6443', bind_address: all, dial: telnet}
  pki: {algorithm: ed25519, offline_ca: true}
  kubelet: {extra_config: [a]}
  deadlines: {ready: 5}
",
    )), @r#"
    7:3 error: bastide.artefacts: unknown key
        did you mean `artifacts`?
    8:23 error: bastide.artifacts.bundle: "~bob/bundle": `~user` is not resolved, write the whole path
    9:24 error: bastide.state.recipients[0]: this is a secret key: give its public half, which begins with age1, and consider it burnt
    9:45 error: bastide.state.recipients[1]: not an age recipient: age1…, ssh-ed25519 … or ssh-rsa …
    11:22 error: bastide.ssh.connect_timeout: "15" is not a duration such as 90s, 10m or 1h30m
    13:24 error: bastide.ssh.sudo_password_env: sudo_password_file is given as well: keep one of them
    13:24 error: bastide.ssh.sudo_password_env: not the name of an environment variable
    14:13 error: bastide.ssh.jump[0]: the user to log in as is missing
        add `user: root` or another
    15:13 error: bastide.ssh.hosts["192.0.2.99"]: no node, bastion or jump has the address "192.0.2.99"
        addresses of nodes: 192.0.2.11
    15:142 error: bastide.ssh.hosts["192.0.2.11"].host_key: not an OpenSSH public key line such as `ssh-ed25519 AAAA…`, as `ssh-keyscan` prints after the name
    16:24 error: bastide.hardening.profile: "paranoid" is not a profile: default or strict
    16:43 error: bastide.hardening.allow[0]: the allowance gives no reason
        add `reason:` in your own words
    16:56 error: bastide.hardening.allow[1]: expected a map, found a single value
    17:19 error: bastide.api.endpoint: "https://api:6443" is not a name or address with an optional port, such as api.example.com:6443: write it without scheme and path
    17:53 error: bastide.api.bind_address: "all" is not an IP address
    17:64 error: bastide.api.dial: "telnet" is not a way to the API server: ssh or direct
    18:20 error: bastide.pki.algorithm: "ed25519" is not an algorithm: ecdsa-p256, ecdsa-p384 or rsa-2048
    18:29 error: bastide.pki.offline_ca: bastide will know this key, and does not yet
        remove it: until then control-plane hosts hold the kubernetes authority's key
    19:13 error: bastide.kubelet.extra_config: expected a map, found a list
    20:22 error: bastide.deadlines.ready: "5" is not a duration such as 90s, 10m or 1h30m
    "#);
}

#[test]
fn certificates_that_hardly_last_are_refused_or_warned_about() {
    insta::assert_snapshot!(said(&with("bastide: {pki: {leaf_lifetime: 9m59s}}\n")), @r"
    5:32 error: bastide.pki.leaf_lifetime: certificates would end within minutes
        10m is the shortest; a year (the default) the longest
    ");
    insta::assert_snapshot!(said(&with("bastide: {pki: {leaf_lifetime: 10m}}\n")), @r"
    5:32 warning: bastide.pki.leaf_lifetime: certificates that last less than 90 days end unless `bastide up` or `rotate-certs` runs often
        let one of them run within each third of that time, and give `certs check` limits that fit
    ");
    insta::assert_snapshot!(said(&with("bastide: {pki: {leaf_lifetime: 9000h}}\n")), @r#"5:32 error: bastide.pki.leaf_lifetime: "9000h" is not a duration such as 90s, 10m or 1h30m"#);
    assert_eq!(said(&with("bastide: {pki: {leaf_lifetime: 2160h}}\n")), "");
}

#[test]
fn binds_and_environment_are_checked() {
    insta::assert_snapshot!(said(&with(
        "
services:
  kube-api: {extra_binds: ['/a', 'b:/c', '/a:/b:exec', '/a:/b:ro,z'], extra_env: [A, '1=b', 'PASSWORD hunter2']}
  kubelet: {extra_binds: ['/:/host:rslave']}
",
    )), @r#"
    7:28 error: services.kube-api.extra_binds[0]: "/a" is not a bind of the form /host/path:/container/path[:ro]
    7:34 error: services.kube-api.extra_binds[1]: "b:/c" is not a bind of the form /host/path:/container/path[:ro]
    7:42 error: services.kube-api.extra_binds[2]: "/a:/b:exec" is not a bind of the form /host/path:/container/path[:ro]
    7:83 error: services.kube-api.extra_env[0]: expected NAME=value on one line
    7:86 error: services.kube-api.extra_env[1]: expected NAME=value on one line
    7:93 error: services.kube-api.extra_env[2]: expected NAME=value on one line
    8:27 error: services.kubelet.extra_binds[0]: the kubelet runs on the host itself, where no path has a second name
        remove it, and name the host's own path where the second one was used
    "#);
}

#[test]
fn a_service_range_too_small_for_dns() {
    insta::assert_snapshot!(said(&with("services: {kube-api: {service_cluster_ip_range: 10.43.0.0/29}}\n")), @r#"
    1:1 error: the service range 10.43.0.0/29 has no tenth address for DNS
        add services.kubelet.cluster_dns_server with an address of the range, not the first
    "#);
}
