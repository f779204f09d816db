//! A real S3 server, MinIO, over TLS with an authority of its own.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;

use crate::Cache;
use crate::bed::checked;

/// A running server, which ends when it is dropped or its thread ends.
pub struct S3 {
    child: Child,
    folder: PathBuf,
    address: String,
}

impl S3 {
    /// The access key.
    pub const ACCESS: &str = "n33dl3access";
    /// The secret key.
    pub const SECRET: &str = "n33dl3secret";
    /// A bucket that is there.
    pub const BUCKET: &str = "snapshots";
    /// No default of anybody's, so that a client that only guesses is found out.
    pub const REGION: &str = "bed-1";

    /// Starts one with its files in `folder`, on `host:port`. `command` makes the commands that run where it shall listen.
    pub fn start(folder: &Path, host: &str, port: u16, command: &dyn Fn(&str) -> Command) -> Result<Self> {
        let program = Cache::from_environment().common().join("bin/minio");
        if !program.exists() {
            bail!("the S3 server {} is missing; `cargo xtask test` builds it", program.display());
        }
        // A bucket is a folder.
        fs::create_dir_all(folder.join("data").join(Self::BUCKET))?;
        certificates(&folder.join("certs"), host)?;
        let log = fs::File::create(folder.join("log"))?;
        let address = format!("{host}:{port}");
        let child = command("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&program)
            .args(["server", "--quiet", "--certs-dir"])
            .arg(folder.join("certs"))
            .arg(format!("--address={address}"))
            .arg(folder.join("data"))
            .env("HOME", folder)
            .env("MINIO_ROOT_USER", Self::ACCESS)
            .env("MINIO_ROOT_PASSWORD", Self::SECRET)
            .env("MINIO_SITE_REGION", Self::REGION)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let server = Self { child, folder: folder.to_owned(), address };
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let ready = command("curl")
                .args(["--silent", "--fail", "--max-time", "5", "--output", "/dev/null", "--cacert"])
                .arg(server.authority())
                .arg(format!("https://{}/minio/health/ready", server.address))
                .status()?;
            if ready.success() {
                return Ok(server);
            }
            if Instant::now() > end {
                bail!("the S3 server did not come up:\n{}", fs::read_to_string(folder.join("log")).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whom to believe: a file.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("certs/ca.crt")
    }

    /// Stops every answer, as a server that hangs, until [`S3::thaw`].
    pub fn freeze(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// Goes on.
    pub fn thaw(&self) -> Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, which: &str) -> Result<()> {
        checked(Command::new("kill").arg(which).arg(self.child.id().to_string())).map(drop)
    }

    /// Where the bucket's objects lie, each as a folder.
    pub fn bucket(&self) -> PathBuf {
        self.folder.join("data").join(Self::BUCKET)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What MinIO takes as its identity, and the authority that vouches for it. A server that starts again keeps both.
fn certificates(folder: &Path, host: &str) -> Result<()> {
    if folder.join("public.crt").exists() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::write(folder.join("names"), format!("subjectAltName=IP:{host}\n"))?;
    let openssl = |arguments: &str| {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let arguments = arguments.replace("KEY", key);
        checked(Command::new("openssl").args(arguments.split(' ')).current_dir(folder)).map(drop)
    };
    openssl("req -x509 KEY -keyout ca.key -out ca.crt -subj /CN=authority -days 2")?;
    openssl("req KEY -keyout private.key -out public.csr -subj /CN=s3")?;
    openssl("x509 -req -in public.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out public.crt")
}
