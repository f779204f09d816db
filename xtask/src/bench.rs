//! `cargo xtask bench up`: kubeadm and bastide by turns, on the same hosts, programs and images.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use bed::Bed;
use bed::Cache;
use bed::ClusterFile;
use bed::Keep;
use bed::Node;

use crate::phase::seconds;
use crate::setup;
use crate::tree::script;

const NAME: &str = "bench";
const NET: &str = "10.91.0";
const HOSTS: [&str; 5] = ["h1", "h2", "h3", "h4", "h5"];

/// What was on the hosts before the clock started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// A distribution with sshd and runc.
    Bare,
    /// Every program and image, and containerd running.
    Prepared,
}

/// One comparison.
struct Case {
    start: Start,
    hosts: Vec<&'static str>,
    kubeadm: Vec<Duration>,
    bastide: Vec<Duration>,
}

/// Runs every case `rounds` times, kubeadm and bastide by turns, and prints times, medians and ratios.
pub(crate) fn up(rounds: usize, sizes: &[usize]) -> Result<()> {
    setup::all(setup::MINOR)?;
    let bench = Bench { bed: Bed::named(NAME, NET, Keep::Running), program: setup::bastide()?, folder: folder()? };
    let mut cases = Vec::new();
    for hosts in sizes.iter().filter_map(|size| HOSTS.get(..*size)).map(<[_]>::to_vec) {
        for start in [Start::Bare, Start::Prepared] {
            cases.push(Case { start, hosts: hosts.clone(), kubeadm: Vec::new(), bastide: Vec::new() });
        }
    }
    for case in &mut cases {
        for round in 1..=rounds {
            println!("{} host(s), {:?}, round {round}", case.hosts.len(), case.start);
            case.kubeadm.push(bench.kubeadm(case.start, &case.hosts)?);
            println!("  kubeadm {}, load {}", seconds(case.kubeadm[round - 1]), load()?);
            case.bastide.push(bench.bastide(case.start, &case.hosts)?);
            println!("  bastide {}, load {}", seconds(case.bastide[round - 1]), load()?);
        }
    }
    bench.bed.destroy()?;
    println!("\nuntil all nodes are Ready; median of {rounds} (all of them)");
    for case in &cases {
        let (kubeadm, bastide) = (median(&case.kubeadm), median(&case.bastide));
        println!(
            "{} control plane(s), {:<9} kubeadm {} ({})   bastide {} ({})   ratio {:.2}",
            case.hosts.len(),
            format!("{:?}", case.start).to_lowercase(),
            seconds(kubeadm),
            list(&case.kubeadm),
            seconds(bastide),
            list(&case.bastide),
            bastide.as_secs_f64() / kubeadm.as_secs_f64()
        );
    }
    Ok(())
}

struct Bench {
    bed: Bed,
    program: PathBuf,
    folder: PathBuf,
}

impl Bench {
    /// The test bed's parallel push and import, then init, flannel, and the joins that kubeadm does one by one.
    fn kubeadm(&self, start: Start, hosts: &[&str]) -> Result<Duration> {
        self.fresh(hosts)?;
        let prepare = || baseline("prep-host.sh", hosts);
        let cluster = || baseline("baseline-kubeadm.sh", &[&["cluster"], hosts].concat());
        if start == Start::Prepared {
            prepare()?;
        }
        let clock = Instant::now();
        if start == Start::Bare {
            prepare()?;
        }
        cluster()?;
        Ok(clock.elapsed())
    }

    fn bastide(&self, start: Start, hosts: &[&str]) -> Result<Duration> {
        match start {
            Start::Bare => self.fresh(hosts)?,
            Start::Prepared => self.prepared(hosts)?,
        }
        let clock = Instant::now();
        self.up(hosts)?;
        let kubectl = Cache::from_environment().kubernetes(setup::MINOR).join("bin/kubectl");
        let mut wait = self.bed.command(kubectl);
        wait.env("KUBECONFIG", self.folder.join("kube_config_cluster.yml"));
        wait.args(["wait", "--for=condition=Ready", "node", "--all", "--timeout=300s"]);
        quiet(&mut wait)?;
        Ok(clock.elapsed())
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

    fn fresh(&self, hosts: &[&str]) -> Result<()> {
        self.bed.destroy()?;
        self.bed.start(hosts)
    }

    /// Hosts as a cluster leaves them once everything but its programs, images and containerd is taken away.
    fn prepared(&self, hosts: &[&str]) -> Result<()> {
        self.fresh(hosts)?;
        self.up(hosts)?;
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
        // A new boot forgets links, mounts and rules.
        for host in hosts {
            let host = self.bed.host(host);
            host.shut_down()?;
            host.power_on()?;
            host.wait()?;
            host.until("systemctl is-active -q containerd", Duration::from_secs(30))?;
        }
        Ok(())
    }
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

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn list(times: &[Duration]) -> String {
    times.iter().map(|time| seconds(*time)).collect::<Vec<_>>().join(", ")
}
