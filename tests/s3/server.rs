//! A real S3 server, and a line to it that can be cut.

use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use bastide::bucket::Bucket;
use bastide::model::BucketAddress;
use bastide::model::BucketKeys;
use bastide::model::Content;
use bed::S3;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::KeyPair;

/// Where its objects lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Large,
    /// 48 MiB.
    Small,
}

/// The running server. It dies with the test.
pub(crate) struct Server {
    s3: S3,
    folder: PathBuf,
    disk: Disk,
    pub(crate) port: u16,
    /// One server at a time: each takes a hundred megabytes, and a test that measures must be alone.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Server {
    pub(crate) fn start(name: &str) -> Self {
        Self::on(name, Disk::Large)
    }

    pub(crate) fn on(name: &str, disk: Disk) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("s3").join(name);
        unmount(&folder);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("data")).unwrap();
        if disk == Disk::Small {
            let data = folder.join("data");
            let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "none"]).arg(data).status();
            assert!(mounted.unwrap().success(), "this test mounts a small disk, and needs root for that");
        }
        let port = free_port();
        let s3 = S3::start(&folder, "127.0.0.1", port, &|program| Command::new(program)).unwrap();
        Self { s3, folder, disk, port, _turn: turn }
    }

    /// What curl prints; none where it fails.
    fn curl(&self, arguments: &[&str], path: &str) -> Option<String> {
        let output = Command::new("curl")
            .args(["--silent", "--max-time", "20", "--cacert"])
            .arg(self.s3.authority())
            .args(arguments)
            .arg(format!("https://127.0.0.1:{}{path}", self.port))
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Keys for a quarter of an hour, by the server's own token service, for which `policy` is the most.
    pub(crate) fn passing_keys(&self, policy: &str) -> BucketKeys {
        let login = format!("{}:{}", S3::ACCESS, S3::SECRET);
        let signer = format!("aws:amz:{}:sts", S3::REGION);
        let policy = format!("Policy={policy}");
        let mut arguments = vec!["--aws-sigv4", &signer, "--user", &login];
        for part in ["Action=AssumeRole", "Version=2011-06-15", "DurationSeconds=900", &policy] {
            arguments.extend(["--data-urlencode", part]);
        }
        let answer = self.curl(&arguments, "/").unwrap();
        let part = |name: &str| {
            let (_, rest) = answer.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{answer}"));
            Content::new(rest.split('<').next().unwrap())
        };
        BucketKeys { access: part("AccessKeyId"), secret: part("SecretAccessKey"), token: Some(part("SessionToken")) }
    }

    pub(crate) fn address(&self) -> BucketAddress {
        BucketAddress {
            host: "127.0.0.1".to_owned(),
            port: Some(self.port),
            bucket: S3::BUCKET.to_owned(),
            region: None,
            folder: "clusters/a b".to_owned(),
            authorities: Some(fs::read_to_string(self.s3.authority()).unwrap()),
        }
    }

    pub(crate) fn bucket(&self) -> Arc<Bucket> {
        open(self.address(), keys())
    }

    /// Where the server keeps an object: a folder.
    fn place(&self, object: &str) -> PathBuf {
        self.s3.bucket().join(self.address().key(object))
    }

    /// One more object like the first, behind the server's back: that is what a thousand of them cost least.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        fs::create_dir(self.place(to)).unwrap();
        fs::copy(self.place(from).join("xl.meta"), self.place(to).join("xl.meta")).unwrap();
    }

    /// The same through a line that breaks.
    pub(crate) fn bucket_through(&self, line: &Line) -> Arc<Bucket> {
        open(BucketAddress { port: Some(line.port), ..self.address() }, keys())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.disk == Disk::Small {
            unmount(&self.folder);
        }
    }
}

fn unmount(folder: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(folder.join("data")).stderr(Stdio::null()).status();
}

pub(crate) fn keys() -> BucketKeys {
    BucketKeys { access: Content::new(S3::ACCESS), secret: Content::new(S3::SECRET), token: None }
}

pub(crate) fn open(address: BucketAddress, keys: BucketKeys) -> Arc<Bucket> {
    Arc::new(Bucket::open(address, keys).unwrap())
}

/// A machine's metadata service in its second version, as Amazon's documentation describes it: who has no token of it is told nothing.
/// The keys that it gives are a real server's.
pub(crate) struct Metadata {
    pub(crate) url: String,
    asked: Arc<AtomicUsize>,
}

impl Metadata {
    /// With none the machine has no role.
    pub(crate) fn of(keys: Option<BucketKeys>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let metadata = Self { url, asked: Arc::clone(&count) };
        thread::spawn(move || {
            for mut line in listener.incoming().flatten() {
                let (keys, count) = (keys.clone(), Arc::clone(&count));
                thread::spawn(move || {
                    while let Some(request) = head(&mut line) {
                        let (status, body) = Self::answer(&request, keys.as_ref(), &count);
                        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        if line.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        metadata
    }

    fn answer(request: &str, keys: Option<&BucketKeys>, count: &AtomicUsize) -> (&'static str, String) {
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let says = |name: &str| {
            let lines = request.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
        };
        let line = request.lines().next().unwrap_or_default();
        if line.starts_with("PUT /latest/api/token ") && says("x-aws-ec2-metadata-token-ttl-seconds").is_some() {
            return ("200 OK", "t0ken==".to_owned());
        }
        if says("x-aws-ec2-metadata-token").as_deref() != Some("t0ken==") {
            return ("401 Unauthorized", String::new());
        }
        let text = |content: &Content| content.expose_text().unwrap().to_owned();
        match (line.split(' ').nth(1), keys) {
            (Some(ROLES), Some(_)) => ("200 OK", "snapshots\n".to_owned()),
            (Some(path), Some(keys)) if path == format!("{ROLES}snapshots") => {
                count.fetch_add(1, Ordering::SeqCst);
                let token = keys.token.as_ref().map(text);
                let (access, secret) = (text(&keys.access), text(&keys.secret));
                let body = format!(
                    r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{access}","SecretAccessKey":"{secret}","Token":"{}","Expiration":"2026-11-27T12:00:00Z"}}"#,
                    token.unwrap_or_default()
                );
                ("200 OK", body)
            }
            _ => ("404 Not Found", String::new()),
        }
    }

    /// How often keys were given.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A request without a body; none where the line ends.
fn head(line: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        line.read_exact(&mut byte).ok()?;
        text.push(byte[0]);
    }
    String::from_utf8(text).ok()
}

/// Another authority.
pub(crate) fn authority() -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// When a line to a server breaks.
enum Break {
    /// After so many bytes on their way there, so many times.
    After(usize, AtomicUsize),
    /// Once, with the first answer that comes when this is there.
    Answer(PathBuf, AtomicUsize),
}

impl Break {
    fn left(&self) -> &AtomicUsize {
        match self {
            Self::After(_, left) | Self::Answer(_, left) => left,
        }
    }

    fn is_due(&self, sent: usize, answered: bool) -> bool {
        let due = match self {
            Self::After(most, _) => !answered && sent > *most,
            Self::Answer(path, _) => answered && path.exists(),
        };
        let cut = |left: usize| left.checked_sub(1);
        due && self.left().fetch_update(Ordering::SeqCst, Ordering::SeqCst, cut).is_ok()
    }
}

/// A line to a server that breaks.
pub(crate) struct Line {
    pub(crate) port: u16,
    breaks: Arc<Break>,
}

impl Line {
    pub(crate) fn cut_after(server: &Server, bytes: usize, times: usize) -> Self {
        Self::to(server, Break::After(bytes, AtomicUsize::new(times)))
    }

    /// Loses the answer to the request that makes this object.
    pub(crate) fn losing_the_answer(server: &Server, object: &str) -> Self {
        Self::to(server, Break::Answer(server.place(object), AtomicUsize::new(1)))
    }

    fn to(server: &Server, breaks: Break) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let line = Self { port: listener.local_addr().unwrap().port(), breaks: Arc::new(breaks) };
        let (breaks, to) = (Arc::clone(&line.breaks), server.port);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { return };
                let (near_back, far_back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let (there, back) = (Arc::clone(&breaks), Arc::clone(&breaks));
                thread::spawn(move || carry(near, far, |sent| there.is_due(sent, false)));
                thread::spawn(move || carry(far_back, near_back, |_| back.is_due(0, true)));
            }
        });
        line
    }

    /// How many cuts were not made.
    pub(crate) fn left(&self) -> usize {
        self.breaks.left().load(Ordering::SeqCst)
    }
}

/// Until either end is closed, or the line breaks.
fn carry(mut from: TcpStream, mut to: TcpStream, breaks: impl Fn(usize) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    let mut carried = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        carried += count;
        if breaks(carried) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
