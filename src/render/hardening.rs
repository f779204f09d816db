//! Values that several components share, each with its source.

/// CIS 1.2.29 and 4.2.12 both accept these four; so does DISA STIG CNTR-K8-001400.
pub(super) const CIPHERS: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
];

/// What CIS 1.2.29 accepts in all; a file's own list is narrowed to these.
pub(super) const STRONG_CIPHERS: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// DISA STIG CNTR-K8-000150 to 000190: TLS 1.2 or newer.
pub(super) const TLS_VERSIONS: &[&str] = &["VersionTLS12", "VersionTLS13"];

/// Kernel modules that containerd, the bridge plugin and kube-proxy use. Containers may not load any.
pub(super) const MODULES: &[&str] = &["br_netfilter", "nf_conntrack", "overlay"];

/// A kernel setting, with whether a kernel that lacks or forbids it may go on without.
pub(super) struct Sysctl {
    /// Name.
    pub name: &'static str,
    /// Value.
    pub value: &'static str,
    /// True where the kubelet or kube-proxy would not start without it.
    pub needed: bool,
}

const fn needed(name: &'static str, value: &'static str) -> Sysctl {
    Sysctl { name, value, needed: true }
}

const fn wanted(name: &'static str, value: &'static str) -> Sysctl {
    Sysctl { name, value, needed: false }
}

/// The kubelet's six (`protectKernelDefaults`: pkg/kubelet/cm, `setupKernelTunables`), forwarding, kube-proxy's
/// conntrack settings (it has no right to write them: pkg/proxy/conntrack/sysctls.go), and host hardening.
pub(super) const SYSCTLS: &[Sysctl] = &[
    needed("kernel.keys.root_maxbytes", "25000000"),
    needed("kernel.keys.root_maxkeys", "1000000"),
    needed("kernel.panic", "10"),
    needed("kernel.panic_on_oops", "1"),
    needed("net.bridge.bridge-nf-call-ip6tables", "1"),
    needed("net.bridge.bridge-nf-call-iptables", "1"),
    needed("net.ipv4.ip_forward", "1"),
    needed("vm.overcommit_memory", "1"),
    needed("vm.panic_on_oom", "0"),
    wanted("fs.inotify.max_user_instances", "8192"),
    wanted("fs.protected_fifos", "1"),
    wanted("fs.protected_hardlinks", "1"),
    wanted("fs.protected_regular", "1"),
    wanted("fs.protected_symlinks", "1"),
    wanted("kernel.dmesg_restrict", "1"),
    wanted("kernel.kptr_restrict", "1"),
    wanted("net.ipv4.conf.all.accept_redirects", "0"),
    wanted("net.ipv4.conf.all.send_redirects", "0"),
    wanted("net.ipv4.conf.default.accept_redirects", "0"),
    wanted("net.ipv4.conf.default.send_redirects", "0"),
    wanted("net.ipv6.conf.all.accept_redirects", "0"),
    wanted("net.ipv6.conf.default.accept_redirects", "0"),
    // kube-proxy's own default on a host of 32 cores; the kernel allocates an entry only when it is used.
    wanted("net.netfilter.nf_conntrack_max", "1048576"),
    wanted("net.netfilter.nf_conntrack_tcp_timeout_close_wait", "3600"),
    wanted("net.netfilter.nf_conntrack_tcp_timeout_established", "86400"),
];

/// First minor whose clients read a changed CA file without a restart (client-go feature `ClientsAllowCARotation`).
pub(super) const FIRST_MINOR_WITH_CA_RELOAD: u16 = 36;
