//! Three control planes and two workers under a steady load: each operation and its way back, failures counted by kind.

use std::io::Read as _;
use std::process::Child;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use bed::Cache;
use bed::Node;
use serde_json::Value;

use crate::soak::Place;
use crate::soak::Record;
use crate::support::Cluster;
use crate::support::network;

const SECRETS: usize = 1000;
const BALANCER: &str = "https://127.0.0.1:6443";
const PATIENCE: Duration = Duration::from_mins(5);

/// What an operation may cost those who use the cluster meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    /// No API server is restarted: nothing fails anywhere, and no stream ends.
    Nothing,
    /// API servers and kubelets are restarted one by one: who asks just one of them waits or fails, streams through it end once.
    Restarts,
    /// The same, and every pod is started anew, as was asked for.
    Pods,
}

/// An operation and what it is allowed to do.
struct Operation {
    what: &'static str,
    arguments: &'static [&'static str],
    code: i32,
    cost: Cost,
}

const fn operation(what: &'static str, arguments: &'static [&'static str], code: i32, cost: Cost) -> Operation {
    Operation { what, arguments, code, cost }
}

/// In this order, each on what the one before left. Whoever holds the old authority goes on until the last leg, which waits for pods.
const OPERATIONS: [Operation; 10] = [
    operation("rotate-key", &["encrypt", "rotate-key", "--yes"], 0, Cost::Nothing),
    operation("rotate-key taken back", &["rollback", "--to", "1", "--yes"], 0, Cost::Nothing),
    operation("rotate-certs", &["rotate-certs", "--yes"], 0, Cost::Restarts),
    operation("rotate-certs taken back", &["rollback", "--yes"], 0, Cost::Restarts),
    operation("extra_args", &["up", "--yes"], 0, Cost::Restarts),
    operation("extra_args taken back", &["rollback", "--yes"], 0, Cost::Restarts),
    operation("extra_args once more", &["up", "--yes"], 0, Cost::Restarts),
    operation("authorities, two legs", &["rotate-certs", "--ca", "--yes"], 1, Cost::Restarts),
    operation("authorities, the last leg", &["rotate-certs", "--ca", "--restart-pods", "--yes"], 0, Cost::Pods),
    operation("authorities taken back", &["rollback", "--yes"], 0, Cost::Pods),
];

/// One program that asks one server, or a worker's balancer.
struct Load {
    name: String,
    child: Child,
}

impl Load {
    /// Ends it and returns what it counted.
    fn end(mut self) -> Result<Value> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.child.stdout.take().context("no output")?.read_to_string(&mut text)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the load {} ended with {status}: {text}", self.name);
        serde_json::from_str(&text).context(self.name)
    }
}

fn begin(cluster: &Cluster) -> Result<Vec<Load>> {
    let program = Cache::from_environment().common().join("bin/load");
    let kubeconfig = cluster.folder().join("kube_config_cluster.yml");
    let path = "jsonpath={.items[0].metadata.name}";
    let pod = cluster.kubectl(&["get", "pods", "-l", "app=web", "--field-selector=spec.nodeName=h5", "-o", path])?;
    let mut loads = Vec::new();
    for host in cluster.hosts() {
        let balanced = ["h4", "h5"].contains(&host.name());
        let name = format!("{}-{}", if balanced { "balancer" } else { "server" }, host.name());
        let mut command = if balanced {
            host.put(&program, "/root/load")?;
            host.put(&kubeconfig, "/root/load.conf")?;
            host.command(&format!("/root/load -kubeconfig /root/load.conf -name {name} -server {BALANCER} -exec {pod}"))
        } else {
            let mut command = cluster.bed.command(&program);
            let server = format!("https://{}:6443", host.address());
            command.arg("-kubeconfig").arg(&kubeconfig).args(["-name", &name, "-server", &server, "-exec", &pod]);
            command
        };
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        loads.push(Load { name, child });
    }
    // Long enough for every verb to have come once.
    std::thread::sleep(Duration::from_secs(6));
    Ok(loads)
}

/// Containers of all pods that the API server made, with when they were started; static pods are bastide's own.
fn containers(cluster: &Cluster) -> Result<Vec<String>> {
    let seen: Value = serde_json::from_str(&cluster.kubectl(&["get", "pods", "-A", "-o", "json"])?)?;
    let pods = seen["items"].as_array().context("no pods")?;
    let ours = |pod: &&Value| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null();
    let mut all: Vec<String> = pods
        .iter()
        .filter(ours)
        .flat_map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let each = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
            each.into_iter().map(move |one| format!("{name} {} {}", one["containerID"], one["state"]["running"]))
        })
        .collect();
    all.sort();
    Ok(all)
}

fn sum(counts: &Value) -> u64 {
    counts.as_object().map_or(0, |counts| counts.values().filter_map(Value::as_u64).sum())
}

/// Everything that a load counted and that the operation's cost does not cover.
fn broken(report: &Value, cost: Cost) -> Vec<String> {
    let name = report["name"].as_str().unwrap_or_default();
    let balanced = name.starts_with("balancer");
    let mut broken = Vec::new();
    let unary = report["unary"].as_object().cloned().unwrap_or_default();
    for verb in ["get", "list", "create", "delete", "update"] {
        let count = unary.get(verb).cloned().unwrap_or_default();
        if count["done"].as_u64().unwrap_or(0) == 0 {
            broken.push(format!("{name}: no {verb} was ever answered"));
        }
        if sum(&count["failed"]) > 0 && (cost == Cost::Nothing || balanced) {
            broken.push(format!("{name}: {verb} failed: {}", count["failed"]));
        }
    }
    let watch = &report["watch"];
    // A server that was restarted remembers nothing of before: only who may ask another one can go on where it was.
    if (cost == Cost::Nothing || balanced) && (watch["missed"] != 0 || watch["lost"] != 0) {
        broken.push(format!("{name}: the watch: {watch}"));
    }
    if cost == Cost::Nothing && sum(&report["exec"]["ended"]) > 0 {
        broken.push(format!("{name}: the stream ended: {}", report["exec"]["ended"]));
    }
    broken
}

fn shown(report: &Value) -> String {
    let unary = report["unary"].as_object().cloned().unwrap_or_default();
    let total = |of: &dyn Fn(&Value) -> u64| unary.values().map(of).sum::<u64>();
    let slowest = unary.values().filter_map(|count| count["slowest_ms"].as_u64()).max().unwrap_or(0);
    let (done, failed) = (total(&|count| count["done"].as_u64().unwrap_or(0)), total(&|count| sum(&count["failed"])));
    let (watch, exec) = (&report["watch"], &report["exec"]);
    format!(
        "  {}: {done} requests answered, {failed} failed, slowest {slowest} ms; watch {} of {} writes seen, resumed {}, begun anew {}; \
         stream opened {}, ended {}{}",
        report["name"].as_str().unwrap_or_default(),
        watch["seen"],
        watch["written"],
        watch["resumed"],
        watch["lost"],
        exec["opened"],
        sum(&exec["ended"]),
        report["examples"].as_array().map_or(String::new(), |all| all
            .iter()
            .map(|line| format!("\n      {}", line.as_str().unwrap_or_default()))
            .collect()),
    )
}

fn under_load(cluster: &Cluster, operation: &Operation) -> Result<()> {
    let before = containers(cluster)?;
    let loads = begin(cluster)?;
    let ended = cluster.bastide(operation.arguments)?;
    std::thread::sleep(Duration::from_secs(3));
    let reports = loads.into_iter().map(Load::end).collect::<Result<Vec<_>>>()?;
    println!("{}: {:.1} s", operation.what, ended.took.as_secs_f64());
    for report in &reports {
        println!("{}", shown(report));
    }
    ensure!(ended.code == Some(operation.code), "{ended}");
    let mut broken: Vec<String> = reports.iter().flat_map(|report| broken(report, operation.cost)).collect();
    if operation.cost != Cost::Pods && containers(cluster)? != before {
        broken.push(format!("containers: {before:#?} became {:#?}", containers(cluster)?));
    }
    cluster.wait_pods_ready(PATIENCE)?;
    ensure!(broken.is_empty(), "{}", broken.join("; "));
    Ok(())
}

#[test]
#[ignore = "a part of the soak"]
fn operations_under_a_steady_load() -> Result<()> {
    let server = |host: &str| Node::with(host, &["controlplane", "etcd"]);
    let worker = |host: &str| Node::with(host, &["worker"]);
    let mut cluster = Cluster::of(vec![server("h1"), server("h2"), server("h3"), worker("h4"), worker("h5")])?;
    cluster.file.metrics = false;
    cluster.write()?;
    cluster.up();
    cluster.wait_nodes_ready(PATIENCE)?;
    network::runs_a_web_server_on_each(&cluster)?;
    cluster.create_secrets(SECRETS)?;
    cluster.wait_pods_ready(PATIENCE)?;

    let mut record = Record::open()?;
    record.exist(OPERATIONS.len(), &format!("three control planes, two workers, {SECRETS} Secrets, five loads"))?;
    for operation in &OPERATIONS {
        if record.time_is_up() {
            break;
        }
        if operation.arguments.first() == Some(&"up") {
            "services:\n  kube-api:\n    extra_args:\n      max-requests-inflight: \"500\"\n"
                .clone_into(&mut cluster.file.more);
            cluster.write()?;
        }
        let place = Place { kind: operation.what.to_owned(), host: "under load".to_owned() };
        record.case(&place, &operation.arguments.join(" "), || under_load(&cluster, operation))?;
    }
    record.end()
}
