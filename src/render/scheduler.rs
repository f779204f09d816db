//! kube-scheduler: a static pod on every control-plane host.

use crate::model::Component;
use crate::render::args;
use crate::render::args::Flags;
use crate::render::draft::Draft;
use crate::render::hardening::CIPHERS;
use crate::render::hardening::STRONG_CIPHERS;
use crate::render::hardening::TLS_VERSIONS;
use crate::render::judge::Hardened;
use crate::render::judge::Rule;
use crate::render::kubeconfig::Client;
use crate::render::pod;
use crate::render::pod::Mount;
use crate::render::pod::StaticPod;
use crate::render::pod::Variable;
use crate::secrets::LeafName;

const SECTION: &str = "scheduler";
const CONFIG: &str = "/etc/kubernetes/scheduler.conf";
const CLIENT: Client = Client {
    component: Component::Scheduler,
    config: CONFIG,
    folder: "/etc/kubernetes/pki/scheduler",
    user: "system:kube-scheduler",
    leaf: LeafName::Scheduler,
};
const OWN_FILE: &str = "bastide renders this file; leave the flag out";

/// CIS section 1.4.
pub(super) const RULES: &[Hardened] = &[
    Hardened { name: "authentication-kubeconfig", rule: Rule::Owned(OWN_FILE), source: "" },
    Hardened { name: "authorization-kubeconfig", rule: Rule::Owned(OWN_FILE), source: "" },
    Hardened { name: "bind-address", rule: Rule::Is("127.0.0.1"), source: "CIS 1.4.2" },
    Hardened { name: "kubeconfig", rule: Rule::Owned(OWN_FILE), source: "" },
    Hardened { name: "profiling", rule: Rule::Is("false"), source: "CIS 1.4.1" },
    Hardened { name: "tls-cipher-suites", rule: Rule::Within(STRONG_CIPHERS), source: "the list of CIS 1.2.29" },
    Hardened { name: "tls-min-version", rule: Rule::OneOf(TLS_VERSIONS), source: "DISA STIG CNTR-K8-000160" },
];

/// Places kubeconfig and manifest.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    CLIENT.render(draft);
    let common = &draft.shop.cluster.services.scheduler;
    let mut flags = Flags::default();
    flags
        .set("bind-address", "127.0.0.1")
        .set("secure-port", "10259")
        .set("kubeconfig", CONFIG)
        .set("authentication-kubeconfig", CONFIG)
        .set("authorization-kubeconfig", CONFIG)
        .set("leader-elect", "true")
        .set("profiling", "false")
        .set("tls-min-version", "VersionTLS12")
        .set("tls-cipher-suites", CIPHERS.join(","));
    flags.overlay(SECTION, common, RULES, &mut draft.shop.judge);
    let environment = args::environment(SECTION, common, &mut draft.shop.judge);
    let binds = args::binds(SECTION, common, &mut draft.shop.judge);
    let Some(image) = draft.image("kube-scheduler") else { return };
    let pod = StaticPod {
        name: "kube-scheduler".to_owned(),
        image,
        command: flags.command("kube-scheduler"),
        environment: environment.into_iter().map(|(name, value)| Variable { name, value }).collect(),
        mounts: [Mount::folder("pki", CLIENT.folder), Mount::file("kubeconfig", CONFIG)]
            .into_iter()
            .chain(Mount::extra(binds))
            .collect(),
        user: 0,
        group: 0,
        capabilities: Vec::new(),
        read_only_root: true,
        cpu: "100m".to_owned(),
        memory: "64Mi".to_owned(),
        grace_seconds: 15,
        probes: pod::probes("127.0.0.1", 10259, "HTTPS", Some("/livez"), Some("/readyz")),
    };
    let restart = draft.digests(&CLIENT.restarts().each_ref().map(String::as_str));
    draft.pod(Component::Scheduler, pod, &restart);
}
