//! A real etcd and a real API server, run with issued leaves.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use super::support::read;
use crate::config::KeyAlgorithm;
use crate::model::HostName;
use crate::secrets::AuthorityName;
use crate::secrets::Leaf;
use crate::secrets::LeafId;
use crate::secrets::LeafName;
use crate::secrets::Operator;
use crate::secrets::SeededEntropy;
use crate::secrets::SystemEntropy;
use crate::secrets::complete;
use crate::secrets::leaf::table;
use crate::secrets::operator_leaf;

/// Stopped when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stage {
    folder: tempfile::TempDir,
    programs: Vec<Program>,
}

impl Stage {
    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    fn pair(&self, name: &str, leaf: &Leaf) -> (String, String) {
        (
            self.file(&format!("{name}.crt"), leaf.certificate.as_bytes()),
            self.file(&format!("{name}.key"), leaf.key.expose()),
        )
    }

    fn start(&mut self, program: &Path, arguments: &[String]) {
        let log = std::fs::File::create(self.log(program)).unwrap();
        let child = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.programs.push(Program(child));
    }

    fn log(&self, program: &Path) -> PathBuf {
        self.folder.path().join(program.file_name().unwrap()).with_extension("log")
    }

    /// Status and body; status 0 where TLS already failed.
    fn curl(&self, authority: &str, leaf: Option<(&str, &Leaf)>, arguments: &[&str]) -> (u16, String) {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "--cacert", authority, "-w", "\n%{http_code}"]);
        if let Some((name, leaf)) = leaf {
            let (certificate, key) = self.pair(name, leaf);
            command.args(["--cert", &certificate, "--key", &key]);
        }
        let output = command.args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    fn until(&self, what: &Path, ready: impl Fn() -> bool) {
        let start = Instant::now();
        while !ready() {
            if start.elapsed() > Duration::from_mins(2) {
                let log = std::fs::read_to_string(self.log(what)).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(20).collect();
                panic!("{} does not answer: {tail:#?}", what.display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_real_etcd_and_api_server_take_the_leaves_for_what_the_table_says() {
    let cache = bed::Cache::from_environment();
    let etcd = cache.folder().join("artifacts/etcd-3.7/etcd");
    let apiserver = cache.kubernetes("1.37").join("bin/kube-apiserver");
    if !etcd.exists() || !apiserver.exists() {
        eprintln!("skipped: {} and {} are not built yet", etcd.display(), apiserver.display());
        return;
    }
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Rsa2048] {
        check(algorithm, &etcd, &apiserver);
    }
}

#[allow(clippy::too_many_lines)]
fn check(algorithm: KeyAlgorithm, etcd: &Path, apiserver: &Path) {
    let mut cluster = read(
        "{cluster_name: demo, kubernetes_version: v1.37.1, network: {plugin: none}, ingress: {provider: none}, nodes: \
         [{address: 192.0.2.11, hostname_override: cp1, user: root, role: [controlplane, etcd, worker]}]}",
    );
    cluster.options.key_algorithm = algorithm;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let (secrets, _) = complete(&cluster, None, now, &mut SystemEntropy).unwrap();
    let host = HostName::new("cp1").unwrap();
    let leaf = |name| &secrets.leaves[&LeafId::of(name, &host)];
    let mut stage = Stage { folder: tempfile::tempdir().unwrap(), programs: Vec::new() };
    let bundle = |name: AuthorityName| secrets.authorities[&name].trust_bundle();
    let etcd_ca = stage.file("etcd-ca.crt", bundle(AuthorityName::Etcd).as_bytes());
    let ca = stage.file("ca.crt", bundle(AuthorityName::Kubernetes).as_bytes());

    let (client_port, peer_port, api_port) = (free_port(), free_port(), free_port());
    let (server_crt, server_key) = stage.pair("server", leaf(LeafName::EtcdServer));
    let (peer_crt, peer_key) = stage.pair("peer", leaf(LeafName::EtcdPeer));
    let data = stage.folder.path().join("data").display().to_string();
    stage.start(
        etcd,
        &[
            "--name=cp1".to_owned(),
            format!("--data-dir={data}"),
            format!("--listen-client-urls=https://127.0.0.1:{client_port}"),
            format!("--advertise-client-urls=https://127.0.0.1:{client_port}"),
            format!("--listen-peer-urls=https://127.0.0.1:{peer_port}"),
            format!("--initial-advertise-peer-urls=https://127.0.0.1:{peer_port}"),
            format!("--initial-cluster=cp1=https://127.0.0.1:{peer_port}"),
            format!("--initial-cluster-token={}", secrets.etcd.token),
            format!("--cert-file={server_crt}"),
            format!("--key-file={server_key}"),
            format!("--trusted-ca-file={etcd_ca}"),
            "--client-cert-auth=true".to_owned(),
            format!("--peer-cert-file={peer_crt}"),
            format!("--peer-key-file={peer_key}"),
            format!("--peer-trusted-ca-file={etcd_ca}"),
            "--peer-client-cert-auth=true".to_owned(),
        ],
    );
    let health = format!("https://127.0.0.1:{client_port}/health");
    let probe = || stage.curl(&etcd_ca, Some(("health", leaf(LeafName::EtcdHealthcheck))), &[&health]);
    stage.until(etcd, || probe().0 == 200);
    // Nothing that the Kubernetes authority signed opens etcd.
    assert_eq!(stage.curl(&etcd_ca, Some(("admin", leaf(LeafName::Admin))), &[&health]).0, 0);
    assert_eq!(stage.curl(&etcd_ca, None, &[&health]).0, 0);

    let (etcd_crt, etcd_key) = stage.pair("etcd-client", leaf(LeafName::ApiServerEtcdClient));
    let (api_crt, api_key) = stage.pair("apiserver", leaf(LeafName::ApiServer));
    let (proxy_crt, proxy_key) = stage.pair("front-proxy", leaf(LeafName::FrontProxyClient));
    let (kubelet_crt, kubelet_key) = stage.pair("kubelet-client", leaf(LeafName::ApiServerKubeletClient));
    let proxy_ca = stage.file("front-proxy-ca.crt", bundle(AuthorityName::FrontProxy).as_bytes());
    let account = stage.file("sa.key", secrets.service_account.signing.expose());
    let accounts = stage.file("sa.pub", secrets.service_account.verifying.concat().as_bytes());
    let work = stage.folder.path().display().to_string();
    stage.start(
        apiserver,
        &[
            format!("--etcd-servers=https://127.0.0.1:{client_port}"),
            format!("--etcd-cafile={etcd_ca}"),
            format!("--etcd-certfile={etcd_crt}"),
            format!("--etcd-keyfile={etcd_key}"),
            format!("--client-ca-file={ca}"),
            format!("--tls-cert-file={api_crt}"),
            format!("--tls-private-key-file={api_key}"),
            format!("--kubelet-client-certificate={kubelet_crt}"),
            format!("--kubelet-client-key={kubelet_key}"),
            format!("--proxy-client-cert-file={proxy_crt}"),
            format!("--proxy-client-key-file={proxy_key}"),
            format!("--requestheader-client-ca-file={proxy_ca}"),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            format!("--service-account-signing-key-file={account}"),
            format!("--service-account-key-file={accounts}"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            "--service-cluster-ip-range=10.43.0.0/16".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--anonymous-auth=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={api_port}"),
            format!("--cert-dir={work}"),
        ],
    );
    // Reached by a name of the table, so that the server's certificate is checked against it.
    let resolve = format!("kubernetes.default.svc:{api_port}:127.0.0.1");
    let url = |path: &str| format!("https://kubernetes.default.svc:{api_port}{path}");
    let get = |who, path: &str| stage.curl(&ca, who, &["--resolve", &resolve, &url(path)]);
    let masters = operator_leaf(&secrets, Operator::SuperAdmin, algorithm, now, &mut SeededEntropy::new(5)).unwrap();
    let masters = Some(("masters", &masters));
    stage.until(apiserver, || get(masters, "/readyz").0 == 200);

    assert_eq!(get(None, "/livez").0, 401);
    // Signed by the other authorities: strangers to the API server.
    assert_eq!(get(Some(("stranger", leaf(LeafName::EtcdServer))), "/livez").0, 401);
    assert_eq!(get(Some(("stranger", leaf(LeafName::FrontProxyClient))), "/livez").0, 401);

    // Each client is who the table says.
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let post = |who, path: &str, body: &str, more: &[&str]| {
        let address = url(path);
        let mut arguments = vec!["--resolve", &resolve, "-H", "Content-Type: application/json", "-d", body, &address];
        arguments.extend(more);
        stage.curl(&ca, who, &arguments)
    };
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let mut checked = String::new();
    for (id, template) in table(&cluster) {
        if template.authority != AuthorityName::Kubernetes || !template.usage.client() {
            continue;
        }
        let (status, body) = post(Some(("client", &secrets.leaves[&id])), reviews, review, &[]);
        assert_eq!(status, 201, "{}: {body}", id.describe());
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let user = &body["status"]["userInfo"];
        assert_eq!(user["username"], template.common_name.as_str());
        let groups: Vec<_> = template.organization.iter().map(String::as_str).chain(["system:authenticated"]).collect();
        assert_eq!(user["groups"], serde_json::json!(groups));
        let _ = write!(checked, "{} ", id.name.as_str());
    }
    assert_eq!(checked, "apiserver-kubelet-client controller-manager scheduler admin kubelet-client proxy ");

    // Kubernetes' own bindings know the components; bastide's groups hold nothing before they are bound.
    assert_eq!(get(Some(("scheduler", leaf(LeafName::Scheduler))), "/api/v1/pods").0, 200);
    assert_eq!(get(Some(("kubelet", leaf(LeafName::KubeletClient))), "/api/v1/nodes/cp1").0, 404);
    assert_eq!(get(Some(("kubelet", leaf(LeafName::KubeletClient))), "/api/v1/secrets").0, 403);
    assert_eq!(get(Some(("admin", leaf(LeafName::Admin))), "/api/v1/nodes").0, 403);

    // A token that the service-account key signs is one that its public half accepts.
    let made = post(masters, "/api/v1/namespaces/default/serviceaccounts", r#"{"metadata":{"name":"a"}}"#, &[]);
    assert_eq!(made.0, 201, "{}", made.1);
    let token = post(
        masters,
        "/api/v1/namespaces/default/serviceaccounts/a/token",
        r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}"#,
        &[],
    );
    let token: serde_json::Value = serde_json::from_str(&token.1).unwrap();
    let bearer = format!("Authorization: Bearer {}", token["status"]["token"].as_str().unwrap());
    let (status, body) = post(None, reviews, review, &["-H", &bearer]);
    assert_eq!(status, 201, "{body}");
    assert!(body.contains("system:serviceaccount:default:a"));
}
