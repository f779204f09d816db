//! Text to [`Cluster`]: the sections of the file in turn, then the checks over all of them.

use std::path::Path;
use std::path::PathBuf;

use crate::config::checks;
use crate::config::cluster::AddonSource;
use crate::config::cluster::Cluster;
use crate::config::dns;
use crate::config::events;
use crate::config::field::Field;
use crate::config::field::Log;
use crate::config::field::Section;
use crate::config::flags::FlagTable;
use crate::config::legacy;
use crate::config::login;
use crate::config::network;
use crate::config::nodes;
use crate::config::options;
use crate::config::problem::ConfigErrors;
use crate::config::problem::Problem;
use crate::config::problem::Severity;
use crate::config::redact;
use crate::config::services;
use crate::config::tree::Node;
use crate::config::upgrade;
use crate::config::values;
use crate::config::version;
use crate::model::Content;
use crate::model::KubeVersion;

/// What a reading needs beside the text.
#[derive(Debug, Clone, Default)]
pub struct ParseOptions {
    /// Shown in problems: `cluster.yml`.
    pub file_name: String,
    /// `--kubernetes-version`: wins over the file.
    pub kubernetes_version: Option<String>,
    /// What the bundle or catalogue has.
    pub supported: Vec<KubeVersion>,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
}

/// A file that can be used, and what should be known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What it means.
    pub cluster: Cluster,
    /// In the order of the file.
    pub warnings: Vec<Problem>,
}

const EMPTY: &str = "examples/one-host.yml is a small one to begin with";

/// What readers of sections need to know.
pub(super) struct Context<'c> {
    pub(super) home: Option<&'c Path>,
}

/// Reads a cluster.yml. Every problem of the file is reported at once, each with its place.
///
/// Pure: `addons_include` and keys are named, not read. Never panics, whatever `text` is.
pub fn parse(text: &str, options: &ParseOptions) -> Result<Parsed, ConfigErrors> {
    let (root, faults) = events::read(text);
    let mut shown = redact::mask_lines(text);
    if let Some(root) = &root {
        redact::mask_tree(root, &mut shown);
    }
    let log = Log::new(&options.file_name, text, shown);
    for fault in faults {
        let hint = fault.first.map(|first| {
            let line = log.position(first.start).0;
            format!("it stands in line {line} already; RKE silently takes the last one: keep one")
        });
        log.add(Severity::Error, "", Some(fault.span), fault.message, hint);
    }
    if root.is_none() && log.is_empty() {
        log.add(Severity::Error, "", Some(0..0), "the file is empty".to_owned(), Some(EMPTY.to_owned()));
    }
    let cluster = root.and_then(|root| read(&log, &root, options));
    let problems = log.into_problems();
    match cluster {
        Some(cluster) if problems.iter().all(|problem| problem.severity == Severity::Warning) => {
            Ok(Parsed { cluster, warnings: problems })
        }
        _ => Err(ConfigErrors { problems, file_name: options.file_name.clone() }),
    }
}

fn read(log: &Log, root: &Node, options: &ParseOptions) -> Option<Cluster> {
    let field = Field::root(log, root);
    if root.is_null() {
        field.error_with("the file is empty", EMPTY);
        return None;
    }
    let top = field.section()?;
    if let Some(wrapped) = top.get("rancher_kubernetes_engine_config") {
        wrapped.error_at_key(
            "this is an export of Rancher, not a cluster.yml",
            Some("move what stands under this key to the top level and remove Rancher's other keys".to_owned()),
        );
        return None;
    }
    let context = Context { home: options.home.as_deref() };
    let kubernetes = kubernetes(&top, options);
    let name = name(&top);
    let keys = login::cluster_keys(&top, &context);
    let mut own = options::own(&top, &keys, &context);
    let mut placed = nodes::nodes(&top, &keys, &context);
    let plugin = network::plugin(&top);
    network::ingress(&top);
    let service_sections = top.section("services");
    let sections = services::open(service_sections.as_ref());
    let ranges = services::networks(plugin, &sections);
    let dns = dns::dns(&top, sections.kubelet.as_ref(), &ranges.network);
    let table = kubernetes.and_then(|version| flag_table(&top, version));
    let services = services::services(service_sections, sections, table.as_ref());
    let metrics_server_replicas = dns::metrics_server(&top);
    let sans = authentication(&top);
    authorization(&top);
    let addons = addons(&top);
    let max_unavailable_worker = upgrade::max_unavailable_worker(&top);
    legacy::top(&top);

    let written = top.get("nodes").map_or(0, |field| field.items().len());
    checks::nodes(&top, &placed, placed.len() == written);
    let mask_given = services.controller_manager.extra_args.keys().any(|flag| flag.starts_with("node-cidr-mask-size"));
    checks::networks(&top, &ranges, &placed, mask_given);
    checks::host_keys(own.host_keys, &mut placed, &mut own.ssh);
    top.finish();
    Some(Cluster {
        name,
        kubernetes: kubernetes?,
        nodes: placed.into_iter().map(|placed| placed.node).collect(),
        network: ranges.network,
        dns,
        services,
        sans,
        metrics_server_replicas,
        max_unavailable_worker,
        addons,
        ssh: own.ssh,
        options: own.options,
    })
}

fn kubernetes(top: &Section, options: &ParseOptions) -> Option<KubeVersion> {
    let field = top.given("kubernetes_version");
    let hint = version::list(&options.supported);
    if let Some(text) = &options.kubernetes_version {
        return version::resolve(text, &options.supported)
            .map_err(|error| {
                top.field.log.add(Severity::Error, "--kubernetes-version", None, error, Some(hint));
            })
            .ok();
    }
    let Some(field) = field else {
        let hint = format!("add `kubernetes_version:`; {hint}");
        top.missing("kubernetes_version", "no kubernetes_version is given; RKE would take its own default", hint);
        return None;
    };
    let text = field.text()?;
    version::resolve(&text, &options.supported).map_err(|error| field.error_with(error, hint)).ok()
}

/// The flags of that minor. Without a table nothing is checked, and that is said.
fn flag_table(top: &Section, version: KubeVersion) -> Option<FlagTable> {
    let table = FlagTable::of(version.minor);
    if table.is_none() {
        let at = top.get("kubernetes_version").unwrap_or_else(|| top.field.clone());
        at.warn(format!("no table of flags for v1.{}: extra_args are not checked against the programs", version.minor));
    }
    table
}

/// The name stands in file names and in the kubeconfig.
fn name(top: &Section) -> String {
    let name = top.given("cluster_name").and_then(|field| {
        field.parsed(|text| {
            if values::is_label_text(text) {
                Ok(text.to_owned())
            } else {
                Err(format!("{text:?} is not a cluster's name: at most 63 letters, digits, '-', '_' and '.'"))
            }
        })
    });
    name.unwrap_or_else(|| "local".to_owned())
}

fn authentication(top: &Section) -> Vec<String> {
    let Some(section) = top.section("authentication") else { return Vec::new() };
    if let Some(field) = section.given("strategy")
        && let Some(text) = field.text()
    {
        for part in text.split('|').map(str::trim) {
            match part.to_ascii_lowercase().as_str() {
                "x509" => {}
                "webhook" => field.error_with(
                    "RKE knows the strategy webhook, bastide does not support it yet",
                    "write `strategy: x509`",
                ),
                _ => field.error_with(format!("{part:?} is not an authentication strategy"), "write `strategy: x509`"),
            }
        }
    }
    section.unsupported("webhook", "");
    section.dead("options", "RKE does not use it either");
    let sans = section.get("sans").map(|field| field.items()).unwrap_or_default();
    let sans = sans.iter().filter_map(|item| item.parsed(values::alternative_name)).collect();
    section.finish();
    sans
}

fn authorization(top: &Section) {
    let Some(section) = top.section("authorization") else { return };
    if let Some(field) = section.given("mode") {
        match field.text().as_deref() {
            Some("rbac") | None => {}
            Some("none") => field.error_with("without authorization everybody may do everything", "write `mode: rbac`"),
            // RKE takes any other word for `none`.
            Some(other) => field.error_with(format!("{other:?} is not an authorization mode"), "write `mode: rbac`"),
        }
    }
    section.dead("options", "RKE does not use it either");
    section.finish();
}

fn addons(top: &Section) -> Vec<AddonSource> {
    let mut addons = Vec::new();
    if let Some(text) = top.given("addons").and_then(|field| field.text()) {
        addons.push(AddonSource::Inline(Content::new(text)));
    }
    for item in top.get("addons_include").map(|field| field.items()).unwrap_or_default() {
        let Some(text) = item.required_text("an addon") else { continue };
        if text.starts_with("http://") || text.starts_with("https://") {
            item.error_with("bastide does not fetch addons from URLs yet", "download it and name the file");
        } else {
            addons.push(AddonSource::Path(PathBuf::from(text)));
        }
    }
    addons
}
