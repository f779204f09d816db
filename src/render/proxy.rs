//! kube-proxy: a static pod on every host, with NET_ADMIN alone. Its kernel settings are made before (`system.rs`).

use serde_json::Value;
use serde_json::json;

use crate::model::Access;
use crate::model::Component;
use crate::render::RenderError;
use crate::render::args;
use crate::render::args::Flags;
use crate::render::draft::Draft;
use crate::render::fields;
use crate::render::judge::Hardened;
use crate::render::judge::Rule;
use crate::render::kubeconfig::Client;
use crate::render::kubelet_rules;
use crate::render::merge;
use crate::render::pod::Get;
use crate::render::pod::Mount;
use crate::render::pod::Probe;
use crate::render::pod::StaticPod;
use crate::render::pod::Variable;
use crate::render::read_back;
use crate::secrets::LeafName;

const SECTION: &str = "kubeproxy";
const FOLDER: &str = "/var/lib/kube-proxy";
const CONFIG: &str = "/var/lib/kube-proxy/config.conf";
const KUBECONFIG: &str = "/etc/kubernetes/proxy.conf";
const CLIENT: Client = Client {
    component: Component::Proxy,
    config: KUBECONFIG,
    folder: "/etc/kubernetes/pki/proxy",
    user: "system:kube-proxy",
    leaf: LeafName::Proxy,
};
/// kube-proxy's default.
const HEALTH_PORT: u16 = 10256;
const IN_CONFIG: &str = "use bastide.kube_proxy.extra_config";

/// With --config kube-proxy ignores nearly every other flag.
pub(super) const FLAGS: &[Hardened] = &[
    Hardened { name: "cluster-cidr", rule: Rule::Owned("use services.kube-controller.cluster_cidr"), source: "" },
    Hardened { name: "config", rule: Rule::Owned("bastide renders this file"), source: "" },
    Hardened { name: "hostname-override", rule: Rule::Owned("use hostname_override of the node"), source: "" },
    Hardened { name: "kubeconfig", rule: Rule::Owned("bastide renders this file"), source: "" },
    Hardened { name: "metrics-bind-address", rule: Rule::Is("127.0.0.1:10249"), source: "CIS 4.3.1" },
    Hardened { name: "profiling", rule: Rule::Is("false"), source: "profiles hold memory contents" },
];

const FIELDS: &[Hardened] = &[
    Hardened { name: "clientConnection.kubeconfig", rule: Rule::Owned("bastide renders this file"), source: "" },
    Hardened { name: "clusterCIDR", rule: Rule::Owned("use services.kube-controller.cluster_cidr"), source: "" },
    Hardened { name: "enableProfiling", rule: Rule::Is("false"), source: "profiles hold memory contents" },
    Hardened { name: "hostnameOverride", rule: Rule::Owned("use hostname_override of the node"), source: "" },
    Hardened {
        name: "iptables.localhostNodePorts",
        rule: Rule::Is("false"),
        source: "route_localnet lets other hosts reach loopback",
    },
    Hardened { name: "metricsBindAddress", rule: Rule::Is("127.0.0.1:10249"), source: "CIS 4.3.1" },
];

/// Flags that RKE files carry, as fields of the configuration, which is the only thing kube-proxy reads.
const AS_FIELDS: &[(&str, &str)] = &[
    ("proxy-mode", "mode"),
    ("metrics-bind-address", "metricsBindAddress"),
    ("healthz-bind-address", "healthzBindAddress"),
];

/// Places kubeconfig, configuration and manifest.
pub(super) fn render(draft: &mut Draft<'_, '_>) {
    CLIENT.render(draft);
    draft.directory(FOLDER, Access::root(0o700));
    let flags = configuration(draft);
    let common = &draft.shop.cluster.services.proxy;
    let environment = args::environment(SECTION, common, &mut draft.shop.judge);
    let binds = args::binds(SECTION, common, &mut draft.shop.judge);
    let Some(image) = draft.image("kube-proxy") else { return };
    let lock = Mount { kind: "FileOrCreate", ..Mount::file("xtables-lock", "/run/xtables.lock").writable() };
    let probe = |field, path: &str, period, failures| Probe {
        field,
        get: Some(Get { path: path.to_owned(), scheme: "HTTP" }),
        host: "127.0.0.1".to_owned(),
        port: HEALTH_PORT,
        period,
        timeout: 5,
        failures,
    };
    let pod = StaticPod {
        name: "kube-proxy".to_owned(),
        image,
        command: flags.command("kube-proxy"),
        environment: environment.into_iter().map(|(name, value)| Variable { name, value }).collect(),
        mounts: [
            Mount::folder("config", FOLDER),
            Mount::folder("pki", CLIENT.folder),
            Mount::file("kubeconfig", KUBECONFIG),
            lock,
        ]
        .into_iter()
        .chain(Mount::extra(binds))
        .collect(),
        user: 0,
        group: 0,
        capabilities: vec!["NET_ADMIN".to_owned()],
        // Upstream's image chooses between the two iptables at its first call and writes the choice down.
        read_only_root: false,
        cpu: "50m".to_owned(),
        memory: "64Mi".to_owned(),
        grace_seconds: 15,
        probes: vec![probe("startupProbe", "/livez", 2, 150), probe("livenessProbe", "/livez", 10, 6)],
    };
    let mut restart = draft.digests(&[CONFIG]);
    restart.extend(draft.digests(&CLIENT.restarts().each_ref().map(String::as_str)));
    draft.pod(Component::Proxy, pod, &restart);
}

/// The kubelet's probes and bastide's own question go to 127.0.0.1: elsewhere a healthy kube-proxy would be ended again and again.
fn stays_in_reach(draft: &mut Draft<'_, '_>, config: &Value, extra: &Value) {
    let text = config["healthzBindAddress"].as_str().unwrap_or_default();
    let address = text.strip_suffix(&format!(":{HEALTH_PORT}")).unwrap_or(text);
    if ["", "0.0.0.0", "127.0.0.1", "::", "[::]"].contains(&address) {
        return;
    }
    let place = if extra.get("healthzBindAddress").is_some() {
        "bastide.kube_proxy.extra_config.healthzBindAddress".to_owned()
    } else {
        format!("services.{SECTION}.extra_args.healthz-bind-address")
    };
    draft.wrong(RenderError::Impossible {
        place,
        why: format!(
            "{text}: kube-proxy's health is asked on 127.0.0.1:{HEALTH_PORT}; write 0.0.0.0 or 127.0.0.1, and no other port"
        ),
    });
}

fn configuration(draft: &mut Draft<'_, '_>) -> Flags {
    let cluster = draft.shop.cluster;
    let mut config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": KUBECONFIG},
        "clusterCIDR": cluster.network.cluster_cidr.to_string(),
        // Zero leaves the kernel's values as they are: bastide's sysctl file sets them, kube-proxy may not.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        "enableProfiling": false,
        // Load balancers outside ask this port.
        "healthzBindAddress": format!("0.0.0.0:{HEALTH_PORT}"),
        "hostnameOverride": draft.node.name,
        // Otherwise kube-proxy sets route_localnet.
        "iptables": {"localhostNodePorts": false},
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": "iptables",
    });
    let extra = &cluster.options.proxy_config;
    let mut flags = Flags::default();
    flags.set("config", CONFIG);
    let mut common = cluster.services.proxy.clone();
    for (flag, field) in AS_FIELDS {
        if let Some(value) = common.extra_args.remove(*flag) {
            let place = format!("services.{SECTION}.extra_args.{flag}");
            if let Some(hardened) = FLAGS.iter().find(|hardened| hardened.name == *flag) {
                draft.shop.judge.value(SECTION, hardened, &place, &value);
            }
            config[*field] = value.into();
        }
    }
    for name in common.extra_args.keys() {
        if !["v", "vmodule", "feature-gates"].contains(&name.as_str())
            && !FLAGS.iter().any(|hardened| hardened.name == name)
        {
            draft.wrong(RenderError::Owned {
                place: format!("services.{SECTION}.extra_args.{name}"),
                instead: format!("kube-proxy reads its configuration file alone; {IN_CONFIG}"),
            });
        }
    }
    flags.overlay(SECTION, &common, FLAGS, &mut draft.shop.judge);
    fields::check("bastide.kube_proxy.extra_config", fields::PROXY, extra, &mut draft.shop.judge);
    kubelet_rules::structure("bastide.kube_proxy.extra_config", SECTION, FIELDS, extra, &mut draft.shop.judge);
    merge::overlay(&mut config, extra);
    stays_in_reach(draft, &config, extra);
    let data = json!({"hint": "bastide.kube_proxy.extra_config", "document": config});
    match draft.shop.templates.render("config.yaml", &data) {
        Ok(text) => {
            if let Err(error) = read_back::value("config.yaml", &text, &config) {
                draft.wrong(error);
            }
            draft.file(Component::Proxy, CONFIG, Access::root(0o600), text);
        }
        Err(error) => draft.wrong(error),
    }
    flags
}
