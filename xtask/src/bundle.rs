//! Makes a bundle, the folder that `bastide.artifacts.bundle` names, out of what `build-artifacts.sh` built.

use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use bed::Cache;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;

use crate::tree::read;
use crate::tree::root;
use crate::tree::script;

/// Programs of the hosts' own file system that kube-proxy and flannel call.
const FIREWALL: &[&str] =
    &["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore", "nft"];

/// An image to be packed.
struct Image {
    component: &'static str,
    reference: String,
    version: String,
    entrypoint: &'static str,
    /// `SOURCE=DESTINATION`, as mkimg.py takes it.
    files: Vec<String>,
    /// Programs to take out of a root file system, with their libraries.
    from: Option<(PathBuf, Vec<&'static str>)>,
}

/// A program to be installed as it is.
struct Program {
    package: &'static str,
    version: String,
    name: String,
    source: PathBuf,
}

/// Makes the bundle of a minor such as `1.37`, or finds it made already from the same inputs, and returns its folder.
pub(crate) fn make(minor: &str) -> Result<PathBuf> {
    let cache = Cache::from_environment();
    let kubernetes = fs::read_to_string(cache.kubernetes(minor).join("version")).context("not built yet")?;
    let images = images(&cache, minor, kubernetes.trim())?;
    let programs = programs(&cache, minor, kubernetes.trim())?;

    let fingerprint = fingerprint(&images, &programs)?;
    let current = cache.bundle(minor);
    if fs::read_to_string(current.join(".inputs")).is_ok_and(|inputs| inputs == fingerprint) {
        return Ok(fs::canonicalize(current)?);
    }
    let all = cache.folder().join("bundles");
    fs::create_dir_all(&all)?;
    let folder = all.join(format!(".new-{}", std::process::id()));
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("images"))?;
    let release = json!({
        "kubernetes": kubernetes.trim(),
        "architecture": std::env::consts::ARCH,
        "packages": add_programs(&folder, &programs)?,
        "images": add_images(&folder, &images)?,
    });
    let document = serde_json::to_vec_pretty(&json!({"schema": 1, "release": release}))?;
    fs::write(folder.join("bundle.json"), &document)?;
    fs::write(folder.join(".inputs"), &fingerprint)?;

    let kept = all.join(format!("{}-{}", kubernetes.trim(), &hex(&Sha256::digest(&document))[..12]));
    if kept.exists() {
        fs::write(kept.join(".inputs"), &fingerprint)?;
        fs::remove_dir_all(&folder)?;
    } else {
        fs::rename(&folder, &kept)?;
    }
    let link = all.join(format!(".link-{}", std::process::id()));
    _ = fs::remove_file(&link);
    symlink(kept.file_name().context("no name")?, &link)?;
    fs::rename(&link, &current)?;
    Ok(kept)
}

fn images(cache: &Cache, minor: &str, kubernetes: &str) -> Result<Vec<Image>> {
    let common = cache.common().join("bin");
    let own = cache.kubernetes(minor).join("bin");
    let series = etcd_series(minor);
    let etcd = cache.folder().join(format!("artifacts/etcd-{series}"));
    let rootfs = cache.rootfs("trixie");
    let haproxy = cache.rootfs("haproxy-trixie");
    let version = |module: &str, of: &str| module_version(module, of);
    let component = |name: &'static str, entrypoint: &'static str| Image {
        component: name,
        reference: format!("registry.k8s.io/{name}:{kubernetes}"),
        version: kubernetes.to_owned(),
        entrypoint,
        files: vec![file(&own.join(name), entrypoint)],
        from: None,
    };
    let etcd_version = version(&format!("etcd-{series}"), "go.etcd.io/etcd/server/v3")?;
    let coredns_version = version("coredns", "github.com/coredns/coredns")?;
    let flannel_version = version("flannel", "github.com/flannel-io/flannel")?;
    let metrics_version = version("metrics-server", "sigs.k8s.io/metrics-server")?;
    let haproxy_version = haproxy_version(&haproxy)?;
    let helper = common.join("bedhelper");
    let firewall = FIREWALL.to_vec();
    Ok(vec![
        Image {
            component: "etcd",
            reference: format!("registry.k8s.io/etcd:{}-0", etcd_version.trim_start_matches('v')),
            version: etcd_version,
            entrypoint: "/usr/local/bin/etcd",
            files: ["etcd", "etcdctl", "etcdutl"]
                .map(|name| file(&etcd.join(name), &format!("/usr/local/bin/{name}")))
                .to_vec(),
            from: None,
        },
        component("kube-apiserver", "/usr/local/bin/kube-apiserver"),
        component("kube-controller-manager", "/usr/local/bin/kube-controller-manager"),
        component("kube-scheduler", "/usr/local/bin/kube-scheduler"),
        Image {
            from: Some((rootfs.clone(), [firewall.clone(), vec!["conntrack"]].concat())),
            ..component("kube-proxy", "/usr/local/bin/kube-proxy")
        },
        Image {
            component: "coredns",
            reference: format!("registry.k8s.io/coredns/coredns:{coredns_version}"),
            version: coredns_version,
            entrypoint: "/coredns",
            files: vec![file(&common.join("coredns"), "/coredns")],
            from: None,
        },
        Image {
            component: "pause",
            reference: "registry.k8s.io/pause:3.10.2".to_owned(),
            version: "3.10.2".to_owned(),
            entrypoint: "/pause pause",
            files: vec![file(&helper, "/pause")],
            from: None,
        },
        Image {
            component: "flannel",
            reference: format!("ghcr.io/flannel-io/flannel:{flannel_version}"),
            version: flannel_version,
            entrypoint: "/opt/bin/flanneld",
            files: vec![file(&common.join("flanneld"), "/opt/bin/flanneld")],
            from: Some((rootfs, firewall)),
        },
        Image {
            component: "haproxy",
            reference: format!("docker.io/library/haproxy:{haproxy_version}"),
            version: haproxy_version,
            entrypoint: "/usr/local/sbin/haproxy",
            files: vec!["->/usr/sbin/haproxy=/usr/local/sbin/haproxy".to_owned()],
            from: Some((haproxy, vec!["haproxy"])),
        },
        Image {
            component: "metrics-server",
            reference: format!("registry.k8s.io/metrics-server/metrics-server:{metrics_version}"),
            version: metrics_version,
            entrypoint: "/metrics-server",
            files: vec![file(&common.join("metrics-server"), "/metrics-server")],
            from: None,
        },
        Image {
            component: "kms",
            reference: "bed.local/kms:1".to_owned(),
            version: "1".to_owned(),
            entrypoint: "/kms",
            files: vec![file(&common.join("kms"), "/kms")],
            from: None,
        },
        Image {
            component: "toolbox",
            reference: "bed.local/toolbox:1".to_owned(),
            version: "1".to_owned(),
            entrypoint: "/bin/bedhelper serve",
            files: vec![file(&helper, "/bin/bedhelper")],
            from: None,
        },
    ])
}

fn programs(cache: &Cache, minor: &str, kubernetes: &str) -> Result<Vec<Program>> {
    let bin = cache.common().join("bin");
    let containerd = module_version("containerd", "github.com/containerd/containerd/v2")?;
    let cni = module_version("cni", "github.com/containernetworking/plugins")?;
    let crictl = module_version("crictl", "sigs.k8s.io/cri-tools")?;
    let runc = read(Command::new("chroot").arg(cache.rootfs("trixie")).args(["/usr/sbin/runc", "--version"]))?;
    let runc = runc.split_whitespace().nth(2).context("runc --version")?.trim_end_matches("+ds1").to_owned();
    let program = |package, version: &str, name: &str, source| Program {
        package,
        version: version.to_owned(),
        name: name.to_owned(),
        source,
    };
    let mut programs = vec![
        program("runc", &format!("v{runc}"), "runc", script("runc")),
        program("kubelet", kubernetes, "kubelet", cache.kubernetes(minor).join("bin/kubelet")),
        program("crictl", &crictl, "crictl", bin.join("crictl")),
    ];
    for name in ["containerd", "containerd-shim-runc-v2", "ctr"] {
        programs.push(program("containerd", &containerd, name, bin.join(name)));
    }
    let mut plugins: Vec<PathBuf> =
        fs::read_dir(cache.common().join("cni"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    plugins.sort();
    for plugin in plugins {
        let name = plugin.file_name().and_then(|name| name.to_str()).context("plugin's name")?.to_owned();
        programs.push(program("cni", &cni, &name, plugin));
    }
    Ok(programs)
}

fn add_programs(folder: &Path, programs: &[Program]) -> Result<Value> {
    let mut packages = Map::new();
    for program in programs {
        let path = format!("{}/{}", program.package, program.name);
        let target = folder.join(&path);
        fs::create_dir_all(folder.join(program.package))?;
        if fs::hard_link(&program.source, &target).is_err() {
            fs::copy(&program.source, &target).with_context(|| program.source.display().to_string())?;
        }
        let package =
            packages.entry(program.package).or_insert_with(|| json!({"version": program.version, "files": {}}));
        package["files"][&program.name] = artifact(folder, &path)?;
    }
    Ok(Value::Object(packages))
}

fn add_images(folder: &Path, images: &[Image]) -> Result<Value> {
    let mut described = Map::new();
    for image in images {
        let path = format!("images/{}.tar", image.component);
        let mut command = Command::new("python3");
        command.arg(script("mkimg.py")).arg(folder.join(&path));
        command.args([&image.reference, image.entrypoint]).args(&image.files);
        if let Some((rootfs, programs)) = &image.from {
            command.arg("--root").arg(rootfs).args(programs);
        }
        let manifest = read(&mut command)?;
        described.insert(
            image.component.to_owned(),
            json!({
                "reference": image.reference,
                "version": image.version,
                "manifest": manifest.trim(),
                "archive": artifact(folder, &path)?,
            }),
        );
    }
    Ok(Value::Object(described))
}

fn artifact(folder: &Path, path: &str) -> Result<Value> {
    let file = folder.join(path);
    Ok(json!({"sha256": digest(&file)?, "size": fs::metadata(&file)?.len(), "path": path}))
}

fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

/// Changes when an input or the way of packing it changes. Sizes and times stand for contents: reading a gigabyte at every
/// start would cost more than the rest.
fn fingerprint(images: &[Image], programs: &[Program]) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(include_bytes!("bundle.rs"));
    hash.update(fs::read(script("mkimg.py"))?);
    let sources = programs.iter().map(|program| program.source.clone());
    let packed = images.iter().flat_map(|image| {
        let files = image.files.iter().filter_map(|file| Some(PathBuf::from(file.split_once('=')?.0)));
        let roots = image.from.iter().map(|(rootfs, _)| rootfs.join(".ready"));
        files.filter(|file| file.is_absolute()).chain(roots).collect::<Vec<_>>()
    });
    for path in sources.chain(packed) {
        let metadata = fs::metadata(&path).with_context(|| path.display().to_string())?;
        // Scripts of a checkout are small and get a new time with each clone; programs are large and do not.
        if metadata.len() < 1 << 16 {
            hash.update(fs::read(&path)?);
        } else {
            hash.update(format!("{}:{}:{}\n", path.display(), metadata.len(), metadata.mtime_nsec()));
        }
    }
    for image in images {
        hash.update(format!("{} {} {:?}\n", image.reference, image.entrypoint, image.files.len()));
    }
    Ok(hex(&hash.finalize()))
}

/// The version of a module that `tests/bed/go/COMPONENT/go.mod` asks for.
fn module_version(component: &str, module: &str) -> Result<String> {
    let path = root().join("tests/bed/go").join(component).join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let version = text.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next()).flatten().filter(|word| word.starts_with('v'))
    });
    version.map(str::to_owned).with_context(|| format!("{}: no version of {module}", path.display()))
}

fn haproxy_version(rootfs: &Path) -> Result<String> {
    let text = read(Command::new("chroot").arg(rootfs).args(["/usr/sbin/haproxy", "-v"]))?;
    let Some(version) = text.strip_prefix("HAProxy version ").and_then(|rest| rest.split(['-', ' ']).next()) else {
        bail!("haproxy -v: {text}")
    };
    Ok(version.to_owned())
}

/// The series that the release of this minor asks for.
fn etcd_series(minor: &str) -> &'static str {
    if matches!(minor, "1.34" | "1.35" | "1.36") { "3.6" } else { "3.7" }
}

fn file(source: &Path, destination: &str) -> String {
    format!("{}={destination}", source.display())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
