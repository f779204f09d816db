//! Sealing beside the `age` program, by turns on the same file: `cargo xtask bench snapshot` builds and runs it.
//!
//! `--age PROGRAM FILE`. Two comparisons: sealing alone beside `age` alone, and what a snapshot goes through (SHA-256 of what enters
//! and leaves, deflate at level 1, sealing) beside `sha256sum`-less `gzip -1 | age`, which is what people build by hand. Each reads
//! the file, is sealed to one x25519 recipient and writes to /dev/null, so that no disk is measured.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::File;
use std::io::Read as _;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

use bastide::model::ClusterId;
use bastide::model::Content;
use bastide::snapshot::Writer;
use bastide::store::Identity;
use bastide::store::Recipients;

const ROUNDS: usize = 3;
/// What etcd sends at once: `snapshotSendBufferSize` in server/etcdserver/api/v3rpc/maintenance.go.
const MESSAGE: usize = 32 << 10;

fn main() {
    // cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [flag, age, file] = arguments.as_slice() else {
        println!("nothing is measured without: --age PROGRAM FILE");
        return;
    };
    assert_eq!(flag, "--age");
    let (age, file) = (PathBuf::from(age), PathBuf::from(file));
    let size = std::fs::metadata(&file).unwrap().len();
    let identity = Identity::generate(&ClusterId("a".to_owned())).unwrap();
    let recipients = Recipients::default().with(&identity).unwrap();
    let recipient = identity.recipient();

    let mut best = [f64::INFINITY; 4];
    for round in 1..=ROUNDS {
        let times = [
            timed(|| seal(&file, &recipients)),
            timed(|| run(Command::new(&age).args(["-r", &recipient, "-o", "/dev/null"]).arg(&file))),
            timed(|| snapshot(&file, &recipients)),
            timed(|| compressed(&age, &recipient, &file)),
        ];
        let rates = times.map(|seconds| rate(size, seconds));
        println!(
            "round {round}: sealing {:.0} MB/s, age {:.0} MB/s; as a snapshot {:.0} MB/s, gzip -1 | age {:.0} MB/s",
            rates[0], rates[1], rates[2], rates[3]
        );
        for (best, seconds) in best.iter_mut().zip(times) {
            *best = best.min(seconds);
        }
    }
    println!(
        "best of {ROUNDS} with {} MiB: sealing is {:.2} times as fast as age; a snapshot {:.2} times as fast as gzip -1 | age, \
         and {:.2} times as fast as age alone",
        size >> 20,
        best[1] / best[0],
        best[3] / best[2],
        best[1] / best[2],
    );
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

#[allow(clippy::cast_precision_loss)]
fn rate(size: u64, seconds: f64) -> f64 {
    size as f64 / 1e6 / seconds
}

fn nowhere() -> File {
    File::options().write(true).open("/dev/null").unwrap()
}

/// In the pieces in which etcd sends it.
fn feed(file: &Path, output: &mut impl Write) {
    let (mut input, mut piece) = (File::open(file).unwrap(), vec![0; MESSAGE]);
    loop {
        let count = input.read(&mut piece).unwrap();
        if count == 0 {
            return;
        }
        output.write_all(&piece[..count]).unwrap();
    }
}

fn seal(file: &Path, recipients: &Recipients) {
    let mut sealed = recipients.sealing(nowhere()).unwrap();
    feed(file, &mut sealed);
    sealed.finish().unwrap();
}

/// All but the manifest at its end.
fn snapshot(file: &Path, recipients: &Recipients) {
    let mut writer = Writer::begin(nowhere(), &Content::new("state"), recipients).unwrap();
    feed(file, &mut writer);
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

fn compressed(age: &Path, recipient: &str, file: &Path) {
    let mut gzip = Command::new("gzip").args(["-1", "-c"]).arg(file).stdout(Stdio::piped()).spawn().unwrap();
    let packed = gzip.stdout.take().unwrap();
    run(Command::new(age).args(["-r", recipient, "-o", "/dev/null"]).stdin(packed));
    assert!(gzip.wait().unwrap().success());
}
