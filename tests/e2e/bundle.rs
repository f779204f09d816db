//! The bundle, read by the program and imported by a real containerd.

use std::io::Read as _;

use anyhow::Context as _;
use anyhow::Result;
use bastide::release::open_bundle;
use bed::Bed;
use bed::Cache;

const CONTAINERD: &str = "systemd-run --quiet --unit containerd --property Delegate=yes --property Type=notify \
                          /usr/local/bin/containerd";

#[test]
fn containerd_shows_the_manifest_digests_that_the_bundle_gives() -> Result<()> {
    let folder = Cache::from_environment().bundle("1.37");
    let bundle = open_bundle(&folder)?;
    let release = bundle.release();
    let bed = Bed::boot(&["h1"])?;
    let host = bed.host("h1");
    for file in release.packages["containerd"].files.values() {
        host.put(&folder.join(&file.path), "/usr/local/bin/")?;
    }
    host.ssh(CONTAINERD)?;
    host.put(&folder.join("images"), "/root/")?;
    host.ssh(
        "for image in /root/images/*; do ctr -n k8s.io images import --local $image >/dev/null 2>&1 || exit 1; done",
    )?;

    let listed = host.ssh("ctr -n k8s.io images ls 2>/dev/null")?;
    for (component, image) in &release.images {
        let digest = listed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&image.reference.as_str()))
            .and_then(|words| words.get(2).map(|digest| (*digest).to_owned()))
            .with_context(|| format!("{component}: {} is not in\n{listed}", image.reference))?;
        assert_eq!(digest, format!("sha256:{}", image.manifest), "{component}");
    }
    Ok(())
}

#[test]
fn every_file_of_the_bundle_is_what_its_digest_says() -> Result<()> {
    let bundle = open_bundle(&Cache::from_environment().bundle("1.37"))?;
    let release = bundle.release();
    let programs = release.packages.values().flat_map(|package| package.files.values());
    for file in programs.chain(release.images.values().map(|image| &image.archive)) {
        let mut reader = bundle.open(&file.sha256)?;
        let mut buffer = vec![0; 1 << 20];
        let mut read = 0;
        loop {
            match reader.read(&mut buffer).with_context(|| file.path.clone())? {
                0 => break,
                count => read += count as u64,
            }
        }
        assert_eq!(read, file.size, "{}", file.path);
    }
    Ok(())
}
