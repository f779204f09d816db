//! A real API server on a real etcd, on loopback ports, with the keys and certificates that bastide makes. One for all
//! tests of this program; both processes die with it.

use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::LazyLock;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use bastide::api::Api;
use bastide::api::Credentials;
use bastide::config::Cluster;
use bastide::config::KeyAlgorithm;
use bastide::config::ParseOptions;
use bastide::config::parse;
use bastide::model::Content;
use bastide::model::HostName;
use bastide::secrets::AuthorityName;
use bastide::secrets::LeafId;
use bastide::secrets::LeafName;
use bastide::secrets::Operator;
use bastide::secrets::Secrets;
use bastide::secrets::SystemEntropy;
use bastide::secrets::complete;
use bastide::secrets::operator_leaf;

pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// The running server.
pub(crate) struct Server {
    folder: PathBuf,
    programs: PathBuf,
    pub(crate) cluster: Cluster,
    pub(crate) secrets: Secrets,
    pub(crate) port: u16,
    pub(crate) etcd_port: u16,
    pub(crate) etcd_metrics_port: u16,
}

impl Server {
    pub(crate) fn get() -> &'static Self {
        &SERVER
    }

    /// bastide's own credentials of one run.
    pub(crate) fn credentials(&self) -> Credentials {
        let leaf =
            operator_leaf(&self.secrets, Operator::SuperAdmin, KeyAlgorithm::P256, now(), &mut SystemEntropy).unwrap();
        Credentials {
            authorities: self.secrets.authorities[&AuthorityName::Kubernetes].trust_bundle(),
            certificate: leaf.certificate,
            key: leaf.key,
        }
    }

    pub(crate) fn etcd_credentials(&self) -> Credentials {
        let leaf = &self.secrets.leaves[&LeafId::of(LeafName::EtcdHealthcheck, &host())];
        Credentials {
            authorities: self.secrets.authorities[&AuthorityName::Etcd].trust_bundle(),
            certificate: leaf.certificate.clone(),
            key: leaf.key.clone(),
        }
    }

    pub(crate) fn api(&self) -> Api {
        Api::direct(LOOPBACK, self.port, &self.credentials(), PATIENCE).unwrap()
    }

    /// What kubectl prints; its failure is the test's.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let file = |name: &str| self.folder.join(name).into_os_string().into_string().unwrap();
        let output = Command::new(self.programs.join("kubectl"))
            .env("KUBECONFIG", "/dev/null")
            .env("HOME", &self.folder)
            .args([
                &format!("--server=https://127.0.0.1:{}", self.port),
                &format!("--certificate-authority={}", file("ca.crt")),
                &format!("--client-certificate={}", file("super.crt")),
                &format!("--client-key={}", file("super.key")),
            ])
            .args(arguments)
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn start() -> Self {
        let artifacts = bed::Cache::from_environment().folder().join("artifacts");
        let programs = artifacts.join("k8s-1.37/bin");
        let etcd = artifacts.join("etcd-3.7/etcd");
        assert!(
            programs.join("kube-apiserver").exists() && etcd.exists(),
            "these tests need a kube-apiserver and an etcd; `cargo xtask test` builds them"
        );
        let cluster = cluster();
        let (secrets, _) = complete(&cluster, None, now(), &mut SystemEntropy).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let [port, etcd_port, peer_port, etcd_metrics_port] = free_ports();
        let server = Self { folder, programs, cluster, secrets, port, etcd_port, etcd_metrics_port };
        server.write_keys();
        let etcd = server.etcd(&etcd, peer_port);
        let apiserver = server.apiserver();
        // The processes end when the thread that started them ends (see `spawn`), so that thread lives as long as the
        // program.
        let (started, wait) = mpsc::channel();
        thread::spawn(move || {
            let children = [spawn(etcd), spawn(apiserver)];
            started.send(()).unwrap();
            loop {
                thread::park();
                let _ = &children;
            }
        });
        wait.recv().unwrap();
        // A thread of its own: the caller's already runs a runtime.
        thread::scope(|scope| scope.spawn(|| server.await_ready()).join()).unwrap();
        server
    }

    fn await_ready(&self) {
        let end = Instant::now() + Duration::from_secs(90);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tls = bastide::api::probe::Tls::verified(&self.credentials()).unwrap();
        let last = loop {
            let answer = runtime.block_on(async {
                let stream = tokio::net::TcpStream::connect((LOOPBACK, self.port)).await.ok()?;
                let wait = Duration::from_secs(5);
                bastide::api::probe::https_get(stream, LOOPBACK, self.port, &tls, "/readyz", wait).await.ok()
            });
            if answer.as_ref().is_some_and(|answer| answer.status == 200) {
                return;
            }
            if Instant::now() > end {
                break answer;
            }
            thread::sleep(Duration::from_millis(200));
        };
        let log = fs::read_to_string(self.folder.join("kube-apiserver.log")).unwrap_or_default();
        panic!("the API server did not become ready: {last:?}\n{}", &log[log.len().saturating_sub(4000)..]);
    }

    fn write_keys(&self) {
        let write = |name: &str, text: &[u8]| fs::write(self.folder.join(name), text).unwrap();
        for (authority, name) in [
            (AuthorityName::Kubernetes, "ca.crt"),
            (AuthorityName::Etcd, "etcd-ca.crt"),
            (AuthorityName::FrontProxy, "front-proxy-ca.crt"),
        ] {
            write(name, self.secrets.authorities[&authority].trust_bundle().as_bytes());
        }
        let host = host();
        for (leaf, name) in [
            (LeafName::ApiServer, "apiserver"),
            (LeafName::ApiServerEtcdClient, "etcd-client"),
            (LeafName::FrontProxyClient, "front-proxy-client"),
            (LeafName::EtcdServer, "etcd-server"),
            (LeafName::EtcdPeer, "etcd-peer"),
        ] {
            let leaf = &self.secrets.leaves[&LeafId::of(leaf, &host)];
            write(&format!("{name}.crt"), leaf.certificate.as_bytes());
            write(&format!("{name}.key"), leaf.key.expose());
        }
        let own = self.credentials();
        write("super.crt", own.certificate.as_bytes());
        write("super.key", own.key.expose());
        write("sa.key", self.secrets.service_account.signing.expose());
        write("sa.pub", self.secrets.service_account.verifying[0].as_bytes());
    }

    fn etcd(&self, program: &Path, peer_port: u16) -> Command {
        let url = |port: u16| format!("https://127.0.0.1:{port}");
        let mut command = self.command(program, "etcd");
        command.args(["--name=h1", "--unsafe-no-fsync"]).args([
            format!("--data-dir={}", self.file("etcd")),
            format!("--listen-client-urls={}", url(self.etcd_port)),
            format!("--advertise-client-urls={}", url(self.etcd_port)),
            format!("--listen-peer-urls={}", url(peer_port)),
            format!("--initial-advertise-peer-urls={}", url(peer_port)),
            format!("--initial-cluster=h1={}", url(peer_port)),
            format!("--listen-metrics-urls=http://127.0.0.1:{}", self.etcd_metrics_port),
            format!("--cert-file={}", self.file("etcd-server.crt")),
            format!("--key-file={}", self.file("etcd-server.key")),
            format!("--trusted-ca-file={}", self.file("etcd-ca.crt")),
            "--client-cert-auth=true".to_owned(),
            format!("--peer-cert-file={}", self.file("etcd-peer.crt")),
            format!("--peer-key-file={}", self.file("etcd-peer.key")),
            format!("--peer-trusted-ca-file={}", self.file("etcd-ca.crt")),
            "--peer-client-cert-auth=true".to_owned(),
        ]);
        command
    }

    fn apiserver(&self) -> Command {
        let mut command = self.command(&self.programs.join("kube-apiserver"), "kube-apiserver");
        command.args([
            format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=192.0.2.11".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-cluster-ip-range=10.43.0.0/16".to_owned(),
            format!("--etcd-servers=https://127.0.0.1:{}", self.etcd_port),
            format!("--etcd-cafile={}", self.file("etcd-ca.crt")),
            format!("--etcd-certfile={}", self.file("etcd-client.crt")),
            format!("--etcd-keyfile={}", self.file("etcd-client.key")),
            format!("--client-ca-file={}", self.file("ca.crt")),
            format!("--tls-cert-file={}", self.file("apiserver.crt")),
            format!("--tls-private-key-file={}", self.file("apiserver.key")),
            format!("--proxy-client-cert-file={}", self.file("front-proxy-client.crt")),
            format!("--proxy-client-key-file={}", self.file("front-proxy-client.key")),
            format!("--requestheader-client-ca-file={}", self.file("front-proxy-ca.crt")),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", self.file("sa.pub")),
            format!("--service-account-signing-key-file={}", self.file("sa.key")),
        ]);
        command
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).into_os_string().into_string().unwrap()
    }

    /// `program`, which is killed when the thread that starts it ends, however that comes about.
    fn command(&self, program: &Path, name: &str) -> Command {
        let log = fs::File::create(self.folder.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }
}

fn spawn(mut command: Command) -> std::process::Child {
    command.spawn().unwrap()
}

pub(crate) fn host() -> HostName {
    HostName::new("192.0.2.11").unwrap()
}

pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn cluster() -> Cluster {
    let text = "kubernetes_version: v1.37.1\nnetwork: {plugin: flannel}\ningress: {provider: none}\nnodes:\n\
                - {address: 192.0.2.11, user: root, role: [controlplane, etcd, worker]}\n\
                - {address: 192.0.2.12, user: root, role: [worker]}\n";
    let options = ParseOptions {
        file_name: "cluster.yml".to_owned(),
        kubernetes_version: None,
        supported: vec!["v1.37.1".parse().unwrap()],
        home: None,
    };
    parse(text, &options).unwrap_or_else(|errors| panic!("{errors:?}")).cluster
}

/// Ports that nobody listens on at the moment.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((LOOPBACK, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Another cluster's authority.
pub(crate) fn foreign_authority() -> String {
    let (secrets, _) = complete(&cluster(), None, now(), &mut SystemEntropy).unwrap();
    secrets.authorities[&AuthorityName::Kubernetes].trust_bundle()
}

/// Bytes of a JSON object.
pub(crate) fn json(object: &serde_json::Value) -> Content {
    Content::new(object.to_string())
}
