//! `cargo xtask bench up`: kubeadm and bastide by turns, on the same hosts, programs and images.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use bed::Bed;
use bed::Cache;
use bed::ClusterFile;
use bed::Keep;
use bed::Node;

use crate::phase::phase;
use crate::phase::seconds;
use crate::setup;
use crate::tree::script;

const NAME: &str = "bench";
const NET: &str = "10.91.0";
const HOSTS: [&str; 5] = ["h1", "h2", "h3", "h4", "h5"];

/// How often the nodes are looked at, and for how long.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_mins(10);
/// Prints the credential that kubeadm and bastide alike leave there and that may list nodes, whole: bastide's names files of the host.
const CREDENTIAL: &str = r#"
set -e
while IFS= read -r line; do
  case $line in
    *'certificate-authority: "'* | *'client-certificate: "'* | *'client-key: "'*)
      path=${line#*: \"}
      content=$(base64 -w0 "${path%\"}")
      echo "${line%%: *}-data: $content" ;;
    *) echo "$line" ;;
  esac
done < /etc/kubernetes/controller-manager.conf
"#;

/// What was on the hosts before the clock started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// A distribution with sshd and runc.
    Bare,
    /// Every program and image, and containerd running.
    Prepared,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Kubeadm,
    Bastide,
}

/// How long one run took, from its first command.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Until every node was Ready, as seen from outside.
    ready: Duration,
    /// Until the last command had ended: the last `kubeadm join`, or `bastide up`, which also waits for DNS and metrics.
    ended: Duration,
}

/// One comparison.
struct Case {
    start: Start,
    hosts: Vec<&'static str>,
    kubeadm: Vec<Times>,
    bastide: Vec<Times>,
}

/// Runs every case `rounds` times, kubeadm and bastide by turns, and prints times, medians and ratios.
pub(crate) fn up(rounds: usize, sizes: &[usize]) -> Result<()> {
    setup::all(setup::MINOR)?;
    let program = setup::bastide_released()?;
    let bench = Bench { bed: Bed::named(NAME, NET, Keep::Running), program, folder: folder()? };
    let mut cases = Vec::new();
    for hosts in sizes.iter().filter_map(|size| HOSTS.get(..*size)).map(<[_]>::to_vec) {
        phase(&format!("{} host(s), bare and prepared", hosts.len()), || bench.prepare(&hosts))?;
        for start in [Start::Bare, Start::Prepared] {
            let mut case = Case { start, hosts: hosts.clone(), kubeadm: Vec::new(), bastide: Vec::new() };
            for round in 1..=rounds {
                println!("{}, round {round}", case.title());
                case.kubeadm.push(bench.measured(Tool::Kubeadm, start, &hosts)?);
                case.bastide.push(bench.measured(Tool::Bastide, start, &hosts)?);
            }
            cases.push(case);
        }
    }
    bench.bed.destroy()?;
    println!("\n{rounds} round(s); median (smallest to largest), ratio of the medians");
    for case in &cases {
        case.print("all nodes Ready", |times| times.ready);
        case.print("last command ended", |times| times.ended);
    }
    Ok(())
}

impl Case {
    fn title(&self) -> String {
        format!("{} control plane(s), {}", self.hosts.len(), format!("{:?}", self.start).to_lowercase())
    }

    fn print(&self, what: &str, which: fn(&Times) -> Duration) {
        let of = |times: &[Times]| Spread::of(times.iter().map(which).collect());
        let (kubeadm, bastide) = (of(&self.kubeadm), of(&self.bastide));
        println!(
            "{:<28} {what:<18} kubeadm {kubeadm}   bastide {bastide}   ratio {:.2}",
            self.title(),
            bastide.median.as_secs_f64() / kubeadm.median.as_secs_f64()
        );
    }
}

/// What several measurements amount to.
struct Spread {
    median: Duration,
    smallest: Duration,
    largest: Duration,
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        Self { median: at(times.len() / 2), smallest: at(0), largest: at(times.len().saturating_sub(1)) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} to {})", seconds(self.median), seconds(self.smallest), seconds(self.largest))
    }
}

struct Bench {
    bed: Bed,
    program: PathBuf,
    folder: PathBuf,
}

impl Bench {
    /// Keeps the hosts' file systems as each run will find them: bare, and prepared in the way of either tool.
    fn prepare(&self, hosts: &[&str]) -> Result<()> {
        self.bed.destroy()?;
        self.bed.start(hosts)?;
        self.keep(hosts, &snapshot(Tool::Kubeadm, Start::Bare))?;
        self.boot(hosts, &snapshot(Tool::Kubeadm, Start::Bare))?;
        baseline("prep-host.sh", hosts)?;
        self.keep(hosts, &snapshot(Tool::Kubeadm, Start::Prepared))?;
        self.boot(hosts, &snapshot(Tool::Bastide, Start::Bare))?;
        self.up(hosts)?;
        self.strip(hosts)?;
        self.keep(hosts, &snapshot(Tool::Bastide, Start::Prepared))
    }

    fn measured(&self, tool: Tool, start: Start, hosts: &[&str]) -> Result<Times> {
        self.boot(hosts, &snapshot(tool, start))?;
        if start == Start::Prepared {
            for host in hosts {
                self.bed.host(host).until("systemctl is-active -q containerd", Duration::from_mins(1))?;
            }
        }
        let before = load()?;
        let times = match tool {
            // The test bed's parallel push and import, then init, flannel, and the joins that kubeadm does one by one.
            Tool::Kubeadm => self.timed(hosts, || {
                if start == Start::Bare {
                    baseline("prep-host.sh", hosts)?;
                }
                baseline("baseline-kubeadm.sh", &[&["cluster"], hosts].concat())
            }),
            Tool::Bastide => self.timed(hosts, || self.up(hosts)),
        }?;
        println!(
            "  {tool:?}: Ready after {}, ended after {}, load {before} before and {} after",
            seconds(times.ready),
            seconds(times.ended),
            load()?
        );
        Ok(times)
    }

    /// Does `work` while the nodes are looked at from outside.
    fn timed(&self, hosts: &[&str], work: impl FnOnce() -> Result<()>) -> Result<Times> {
        let clock = Instant::now();
        let failed = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = scope.spawn(|| self.ready(hosts, clock, &failed));
            let ended = work().map(|()| clock.elapsed());
            failed.store(ended.is_err(), Ordering::Relaxed);
            let ready = watch.join().map_err(|_| anyhow!("the watch panicked"))?;
            Ok(Times { ended: ended?, ready: ready? })
        })
    }

    /// When the first API server showed every node as Ready.
    fn ready(&self, hosts: &[&str], clock: Instant, failed: &AtomicBool) -> Result<Duration> {
        let first = self.bed.host(hosts.first().copied().unwrap_or_default());
        let kubectl = Cache::from_environment().kubernetes(setup::MINOR).join("bin/kubectl");
        let credential = self.folder.with_extension("conf");
        let mut known = false;
        while clock.elapsed() < PATIENCE && !failed.load(Ordering::Relaxed) {
            if known {
                let mut look = self.bed.command(&kubectl);
                look.arg("--kubeconfig").arg(&credential);
                look.args(["--server", &format!("https://{}:6443", first.address()), "--request-timeout=2s"]);
                let answer = look.args(["get", "--raw", "/api/v1/nodes"]).output()?;
                if answer.status.success() && ready_nodes(&answer.stdout)? == hosts.len() {
                    return Ok(clock.elapsed());
                }
            } else if let Ok(text) = first.ssh(CREDENTIAL) {
                fs::write(&credential, text)?;
                known = true;
            }
            thread::sleep(LOOK_EVERY);
        }
        bail!("the nodes are not Ready after {}", seconds(clock.elapsed()))
    }

    fn up(&self, hosts: &[&str]) -> Result<()> {
        fs::remove_dir_all(&self.folder)?;
        fs::create_dir_all(&self.folder)?;
        let nodes = hosts.iter().map(|host| Node::all_roles(host)).collect();
        ClusterFile::new(NAME, nodes).write(&self.bed, &self.folder)?;
        let mut up = self.bed.command(&self.program);
        up.args(["up", "--yes", "--no-identity-backup"])
            .env("BASTIDE_CONFIG", self.folder.join("cluster.yml"))
            .env("XDG_CONFIG_HOME", self.folder.join("config"))
            .env("XDG_STATE_HOME", self.folder.join("state"));
        quiet(&mut up)
    }

    /// Takes away everything of a cluster but its programs, its images and containerd.
    fn strip(&self, hosts: &[&str]) -> Result<()> {
        for host in hosts {
            self.bed.host(host).ssh(
                "for folder in /opt/bastide/*/; do PATH=$PATH:$folder; done
                 systemctl disable -q --now kubelet
                 crictl rmp -fa >/dev/null 2>&1
                 rm -rf /etc/kubernetes /etc/etcd /var/lib/etcd /var/lib/bastide /var/lib/cni /etc/cni/net.d
                 rm -rf --one-file-system /var/lib/kubelet 2>/dev/null
                 test -z \"$(ctr -n k8s.io containers ls -q)\"",
            )?;
        }
        Ok(())
    }

    /// Shuts the hosts down and keeps their file systems.
    fn keep(&self, hosts: &[&str], snapshot: &str) -> Result<()> {
        for host in hosts {
            let host = self.bed.host(host);
            host.shut_down()?;
            host.save(snapshot)?;
        }
        Ok(())
    }

    /// Boots the hosts from what was kept, and lets the machine's disk come to rest.
    fn boot(&self, hosts: &[&str], snapshot: &str) -> Result<()> {
        for host in hosts {
            let host = self.bed.host(host);
            host.power_cut()?;
            host.restore(snapshot)?;
        }
        quiet(&mut Command::new("sync"))?;
        self.bed.start(hosts)
    }
}

/// The name under which hosts are kept. Bare hosts are the same for both.
fn snapshot(tool: Tool, start: Start) -> String {
    match start {
        Start::Bare => "bare".to_owned(),
        Start::Prepared => format!("{tool:?}").to_lowercase(),
    }
}

/// How many nodes of a list are Ready.
fn ready_nodes(list: &[u8]) -> Result<usize> {
    let list: serde_json::Value = serde_json::from_slice(list)?;
    let is_ready = |node: &&serde_json::Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    Ok(list["items"].as_array().map_or(0, |nodes| nodes.iter().filter(is_ready).count()))
}

/// Runs a script of kubeadm's side on the bench's hosts.
fn baseline(name: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(script(name));
    command.args(arguments).envs([("BED", NAME), ("NET", NET), ("CNI", "flannel"), ("MINOR", setup::MINOR)]);
    quiet(&mut command)
}

/// Runs a command whose output is of interest only when it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        bail!("{command:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(())
}

fn folder() -> Result<PathBuf> {
    let folder = crate::tree::root().join("target/bench");
    fs::create_dir_all(&folder)?;
    Ok(fs::canonicalize(folder)?)
}

fn load() -> Result<String> {
    Ok(fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned())
}
