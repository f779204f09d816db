use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use bed::Bed;
use bed::Cache;
use bed::ClusterFile;
use bed::Host;
use bed::Node;
use serde_json::Value;
use tempfile::TempDir;

/// Hosts with a cluster.yml that names them, and the built program to work on them with.
pub(crate) struct Cluster {
    pub(crate) bed: Bed,
    pub(crate) file: ClusterFile,
    folder: TempDir,
    program: PathBuf,
}

/// How a run of the program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr, took } = self;
        write!(f, "exit code {code:?} after {took:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

impl Cluster {
    /// One host with all roles, and no metrics-server: that of three hosts tells what there is to tell.
    pub(crate) fn one_host() -> Result<Self> {
        let mut cluster = Self::of(vec![Node::all_roles("h1")])?;
        cluster.file.metrics = false;
        cluster.write()?;
        Ok(cluster)
    }

    /// Three hosts with all roles.
    pub(crate) fn three_all_roles() -> Result<Self> {
        Self::of(["h1", "h2", "h3"].map(Node::all_roles).to_vec())
    }

    /// A control plane, an etcd member and a worker, each on its own host.
    pub(crate) fn roles_apart() -> Result<Self> {
        Self::of(vec![Node::with("h1", &["controlplane"]), Node::with("h2", &["etcd"]), Node::with("h3", &["worker"])])
    }

    /// Boots these hosts and writes their cluster.yml.
    pub(crate) fn of(nodes: Vec<Node>) -> Result<Self> {
        let names: Vec<&str> = nodes.iter().map(|node| node.host.as_str()).collect();
        let bed = Bed::boot(&names)?;
        let program = PathBuf::from(env!("CARGO_BIN_EXE_bastide"));
        let cluster = Self { bed, file: ClusterFile::new("test", nodes), folder: tempfile::tempdir()?, program };
        cluster.write()?;
        Ok(cluster)
    }

    /// From now on with hosts that take snapshots by themselves, with a program that has no debug information: as it is built here it
    /// is twice as large as it is shipped.
    pub(crate) fn recurring(&mut self) -> Result<()> {
        let small = self.folder().join("bastide");
        let strip =
            Command::new("strip").args(["-o".as_ref(), small.as_os_str(), self.program.as_os_str()]).status()?;
        anyhow::ensure!(strip.success(), "strip: {strip}");
        self.program = small;
        self.file.recurring = true;
        self.write()
    }

    /// Writes cluster.yml again after `file` was changed.
    pub(crate) fn write(&self) -> Result<()> {
        self.file.write(&self.bed, self.folder.path())
    }

    /// Where cluster.yml, the state and the kubeconfig lie.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// cluster.yml itself.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder().join("cluster.yml")
    }

    /// A host by name.
    pub(crate) fn host(&self, name: &str) -> Host<'_> {
        self.bed.host(name)
    }

    /// Every host, in the order of the file.
    pub(crate) fn hosts(&self) -> Vec<Host<'_>> {
        self.file.nodes.iter().map(|node| self.bed.host(&node.host)).collect()
    }

    /// The program with these arguments, where the hosts can be reached, on this cluster.yml. The user's own keys and
    /// configuration are out of its sight.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bed.command(&self.program);
        command
            .args(arguments)
            .current_dir(self.folder())
            .env("BASTIDE_CONFIG", self.config())
            .env("HOME", self.folder())
            .env("XDG_CONFIG_HOME", self.folder().join("config"))
            .env("XDG_STATE_HOME", self.folder().join("state"))
            .env_remove("SSH_AUTH_SOCK");
        command
    }

    /// Runs the program to its end.
    pub(crate) fn bastide(&self, arguments: &[&str]) -> Result<Ended> {
        let start = Instant::now();
        let output = self.command(arguments).output()?;
        Ok(Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).context("stdout")?,
            stderr: String::from_utf8(output.stderr).context("stderr")?,
            took: start.elapsed(),
        })
    }

    /// Runs the program, which must end with `code`.
    #[track_caller]
    pub(crate) fn ends(&self, arguments: &[&str], code: i32) -> Ended {
        let ended = self.bastide(arguments).unwrap();
        assert_eq!(ended.code, Some(code), "bastide {arguments:?}: {ended}");
        println!("bastide {}: {:.1} s", arguments.join(" "), ended.took.as_secs_f64());
        ended
    }

    /// `bastide up`, which must succeed.
    #[track_caller]
    pub(crate) fn up(&self) -> Ended {
        self.ends(&["up", "--yes", "--no-identity-backup"], 0)
    }

    /// `bastide plan` must find nothing to do, which its exit code says: 0 nothing, 2 changes, 1 error.
    #[track_caller]
    pub(crate) fn assert_plans_nothing(&self) {
        self.ends(&["plan"], 0);
    }

    /// How many snapshots that every etcd host has are called `before`, and the time.
    pub(crate) fn snapshots_before(&self, before: &str) -> Result<usize> {
        let listed = self.bastide(&["etcd", "snapshot", "list", "--output", "json"])?;
        let seen: Value = serde_json::from_str(&listed.stdout).with_context(|| listed.to_string())?;
        let rows = seen["snapshots"].as_array().with_context(|| listed.to_string())?;
        let hosts = self.file.nodes.iter().filter(|node| node.roles.contains(&"etcd")).count();
        let is_meant = |row: &&Value| {
            let name = row["name"].as_str().and_then(|name| name.strip_prefix(before));
            let everywhere = row["places"].as_array().is_some_and(|places| places.len() == hosts);
            name.is_some_and(|rest| rest.starts_with('_')) && !row["manifest"].is_null() && everywhere
        };
        Ok(rows.iter().filter(is_meant).count())
    }

    /// kubectl with the kubeconfig that `up` wrote; returns its standard output.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.kubectl_command();
        command.args(arguments);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(
            output.status.success(),
            "kubectl {arguments:?}: {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    /// A Secret in the namespace `default` that holds this word.
    pub(crate) fn create_secret(&self, name: &str, word: &str) -> Result<()> {
        self.kubectl(&["create", "secret", "generic", name, &format!("--from-literal=word={word}")]).map(drop)
    }

    /// So many Secrets there, `s0` and on, by one call.
    pub(crate) fn create_secrets(&self, count: usize) -> Result<()> {
        let one = |n| {
            format!(
                "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s{n}, namespace: default}}\nstringData: {{a: value-{n}}}\n"
            )
        };
        let file = self.add_file("secrets.yml", &(0..count).map(one).collect::<String>())?;
        self.kubectl(&["create", "-f", &file.display().to_string()])?;
        Ok(fs::remove_file(file)?)
    }

    /// kubectl, to be given arguments and streams.
    pub(crate) fn kubectl_command(&self) -> Command {
        let program = Cache::from_environment().kubernetes(&self.file.minor).join("bin/kubectl");
        let mut command = self.bed.command(program);
        command.env("KUBECONFIG", self.folder().join("kube_config_cluster.yml")).env("HOME", self.folder());
        command
    }

    /// Repeats kubectl until it succeeds and `enough` likes its output.
    pub(crate) fn kubectl_until(
        &self,
        arguments: &[&str],
        within: Duration,
        enough: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let start = Instant::now();
        loop {
            let seen = self.kubectl(arguments);
            match seen {
                Ok(text) if enough(&text) => return Ok(text),
                seen if start.elapsed() > within => {
                    anyhow::bail!("kubectl {arguments:?}: not within {within:?}, at last: {seen:?}")
                }
                _ => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    /// Waits until every node is Ready with its host's present boot: a dead node stays Ready in the API for 40 s.
    pub(crate) fn wait_nodes_ready(&self, within: Duration) -> Result<()> {
        for host in self.hosts() {
            let want = format!("{}True", host.boot_id()?);
            let path = "jsonpath={.status.nodeInfo.bootID}{.status.conditions[?(@.type==\"Ready\")].status}";
            self.kubectl_until(&["get", "node", host.name(), "-o", path], within, |text| text == want)?;
        }
        Ok(())
    }

    /// Waits until every pod is ready.
    pub(crate) fn wait_pods_ready(&self, within: Duration) -> Result<()> {
        let ready = |text: &str| {
            text.lines().all(|line| {
                let mut words = line.split_whitespace().skip(2);
                let whole = words.next().and_then(|ready| ready.split_once('/')).is_some_and(|(up, all)| up == all);
                whole && words.next() == Some("Running")
            })
        };
        self.kubectl_until(&["get", "pods", "-A", "--no-headers"], within, ready).map(drop)
    }

    /// All revisions as `bastide history` shows them, the newest last.
    pub(crate) fn history(&self) -> Result<Vec<Value>> {
        let ended = self.bastide(&["history", "--output", "json"])?;
        let shown: Value = serde_json::from_str(&ended.stdout).with_context(|| ended.to_string())?;
        shown["revisions"].as_array().cloned().context("no revisions")
    }

    /// The newest revision.
    pub(crate) fn newest(&self) -> Result<Value> {
        self.history()?.pop().context("no revision")
    }

    /// Creates a user's file among this cluster's files and returns its path.
    pub(crate) fn add_file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.folder().join(name);
        fs::write(&path, content)?;
        Ok(path)
    }
}
