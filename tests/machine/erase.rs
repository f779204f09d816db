use std::fs;
use std::path::Path;

use bastide::host::Host as _;
use bastide::host::HostError;
use bastide::model::Access;
use bastide::model::Action;
use bastide::model::Digest;
use bastide::model::Directory;
use bastide::model::Effect;
use bastide::model::HostRecord;
use bastide::model::ImageRef;
use bastide::model::ObservedUnit;
use bastide::model::Scope;
use bastide::model::SystemUser;
use bastide::model::UnitName;
use bed::Bed;
use bed::Cache;

use crate::support::Job;
use crate::support::boot;
use crate::support::locked;
use crate::support::machine_with_bash;
use crate::support::path;
use crate::support::record;
use crate::support::within;

const CONTAINERD_UNIT: &str = "[Service]
ExecStart=/opt/bastide/containerd-v2-00000000/containerd
Environment=PATH=/opt/bastide/containerd-v2-00000000:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
Type=notify
Delegate=yes
KillMode=process
Restart=always
[Install]
WantedBy=multi-user.target
";
const CONTAINERD_CONFIG: &str = "version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = \"registry.k8s.io/pause:3.10.2\"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = \"io.containerd.runc.v2\"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    SystemdCgroup = true
";
const KUBELET_UNIT: &str = "[Unit]
After=containerd.service
[Service]
CPUAccounting=true
MemoryAccounting=true
ExecStart=/opt/bastide/kubelet-v1-00000000/kubelet --config=/var/lib/kubelet/config.yaml
Restart=always
[Install]
WantedBy=multi-user.target
";
/// A kubelet without an API server, which runs what lies in its manifest folder.
const KUBELET_CONFIG: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
staticPodPath: /etc/kubernetes/manifests
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
readOnlyPort: 0
";
const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

fn pod(name: &str, image: &str, inputs: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: kube-system\n  annotations:\n    \
         bastide.dev/inputs: \"{inputs}\"\nspec:\n  hostNetwork: true\n  containers:\n  - name: main\n    image: {image}\n    \
         imagePullPolicy: Never\n"
    )
}

fn digest(of: &str) -> Digest {
    Digest::of(of.as_bytes())
}

/// Containerd with an image, from the programs that the bed's other tests run.
fn runtime(with_manifest: Digest) -> Job {
    let cache = Cache::from_environment();
    let programs = cache.common().join("bin");
    let kubernetes = cache.kubernetes("1.37");
    let archive = fs::read(kubernetes.join("images/pause.tar")).unwrap();
    let directory = |text: &str| Action::EnsureDirectory(Directory { path: path(text), access: Access::root(0o755) });
    let mut job = Job::default()
        .then(Action::EnsureUser(SystemUser { name: "etcd".to_owned(), uid: 52034, gid: 52034 }))
        .then(directory("/etc/kubernetes/manifests"));
    let program = |mut job: Job, package: &str, file: &Path| {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        job = job.put(&format!("/opt/bastide/{package}/{name}"), fs::read(file).unwrap());
        if let Some(Action::PutFile { access, .. }) = job.actions.last_mut() {
            access.mode = 0o755;
        }
        job
    };
    for name in ["containerd", "containerd-shim-runc-v2", "ctr"] {
        job = program(job, "containerd-v2-00000000", &programs.join(name));
    }
    job = program(job, "crictl-v1-00000000", &programs.join("crictl"));
    job = program(job, "kubelet-v1-00000000", &kubernetes.join("bin/kubelet"));
    job = job
        .put("/etc/containerd/config.toml", CONTAINERD_CONFIG)
        .put("/etc/systemd/system/containerd.service", CONTAINERD_UNIT)
        .put("/etc/systemd/system/kubelet.service", KUBELET_UNIT)
        .put("/var/lib/kubelet/config.yaml", KUBELET_CONFIG)
        .then(Action::ReloadUnits)
        .then(start("containerd.service", Effect::Restart));
    let size = archive.len() as u64;
    let archive = job.store.0.insert(bastide::model::Content::new(archive));
    job.then(Action::ImportImage { image: ImageRef::new(PAUSE).unwrap(), manifest: with_manifest, archive, size })
}

fn start(name: &str, effect: Effect) -> Action {
    Action::StartUnit { name: UnitName::new(name).unwrap(), inputs: digest(name), effect, restart: false }
}

fn ours() -> HostRecord {
    let mut record = record(true, &[]);
    record.units = ["containerd.service", "kubelet.service"].map(|name| UnitName::new(name).unwrap()).into();
    record.users = ["etcd".to_owned()].into();
    record.directories = ["/etc/kubernetes", "/etc/kubernetes/manifests"].map(path).into();
    record
}

/// Everything that a person could find on the host.
fn listing(bed: &Bed) -> String {
    let script = "
        find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/log/journal -o -path /run/log \
            -o -path /run/systemd -o -path /run/user -o -path /run/sudo -o -path /var/lib/systemd \\) -prune -o -print | sort
        find /run /var -mindepth 1 \\( -path /var/log/journal -o -path /run/log -o -path /run/systemd -o -path /run/user \
            -o -path /var/lib/systemd -o -path /run/sudo -o -path /run/udev \\) -prune -o -print | sort
        sed 's/ .*//' /proc/self/mounts | sort | uniq -c; cut -d' ' -f2 /proc/self/mounts | sort
        systemctl list-unit-files --no-legend | cut -c1-60; getent passwd; getent group
        ls /sys/class/net; ip route; nft list ruleset; cat /etc/foreign";
    bed.host("h1").ssh(script).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_and_a_kubelet_come_up_and_leave_nothing_behind() {
    let bed = boot();
    let host = bed.host("h1");
    let ssh = |script: &str| host.ssh(script).unwrap();
    let machine = machine_with_bash(&bed);
    ssh("echo as it was > /etc/foreign; chmod 604 /etc/foreign; chown 7:8 /etc/foreign; nft add table inet mine;
        iptables-nft -t filter -A INPUT -s 192.0.2.1 -j DROP");
    let before = listing(&bed);

    // The digest that containerd will show is not known to this test: the first import tells it.
    let lock = locked(&machine, "r1").await;
    let unknown = Digest::of(b"unknown");
    let (result, _) = within(120, runtime(unknown).recorded(ours()).perform(&machine, "r1")).await;
    let Err(HostError::Failed { doing, reason, .. }) = &result else { panic!("{result:?}") };
    assert_eq!(doing, &format!("imports {PAUSE}"));
    let words: Vec<&str> = reason.split(' ').collect();
    let manifest: Digest = words[4].parse().unwrap_or_else(|_| panic!("{reason}"));

    // The next run goes on from there: all of it again, and the pod.
    let good = pod("web", PAUSE, &digest("good").to_string());
    let job = runtime(manifest)
        .recorded(ours())
        .put("/etc/kubernetes/manifests/web.yaml", good)
        .replace("/etc/foreign", "ours", Some(digest("as it was\n")), true)
        .then(start("systemd-sysctl.service", Effect::Rerun))
        .then(start("kubelet.service", Effect::Restart))
        .then(Action::AwaitPod { pod: "web".to_owned(), inputs: digest("good") });
    let begun = std::time::Instant::now();
    let (result, told) = within(120, job.perform(&machine, "r1")).await;
    result.unwrap();
    eprintln!("up in {:?}: {} bytes sent", begun.elapsed(), told.sent.lock().unwrap());

    let scope = Scope {
        units: ["containerd.service", "kubelet.service"].map(|name| UnitName::new(name).unwrap()).into(),
        ..Scope::default()
    };
    let begun = std::time::Instant::now();
    let seen = machine.observe(&scope).await.unwrap();
    eprintln!("observed in {:?}", begun.elapsed());
    assert_eq!(seen.images.into_iter().collect::<Vec<_>>(), [(ImageRef::new(PAUSE).unwrap(), manifest)]);
    assert_eq!(seen.pods.into_iter().collect::<Vec<_>>(), [("web".to_owned(), Some(digest("good")))]);
    for name in ["containerd.service", "kubelet.service"] {
        let unit = ObservedUnit { active: true, enabled: true, failed: false, inputs: Some(digest(name)) };
        assert_eq!(seen.units[&UnitName::new(name).unwrap()], unit, "{name}");
    }
    assert!(seen.record.is_some_and(|record| record.complete));
    let labels = ssh("/opt/bastide/*/ctr -n k8s.io images ls");
    assert!(
        labels.contains("io.cri-containerd.pinned=pinned") && labels.contains("io.cri-containerd.image=managed"),
        "{labels}"
    );
    assert!(machine.last_words("kubelet.service").await.unwrap().contains("kubelet"));

    // A pod that does not come up: the error carries what is known.
    let bad = pod("bad", "registry.k8s.io/absent:1", &digest("bad").to_string());
    let mut job = Job::default()
        .recorded(ours())
        .put("/etc/kubernetes/manifests/bad.yaml", bad)
        .then(Action::AwaitPod { pod: "bad".to_owned(), inputs: digest("bad") });
    job.health = std::time::Duration::from_secs(15);
    let mut kept = machine.observe(&Scope::default()).await.unwrap().record.unwrap();
    kept.complete = true;
    let (result, _) = within(120, job.recorded(kept.clone()).perform(&machine, "r1")).await;
    let Err(HostError::Failed { doing, reason, .. }) = &result else { panic!("{result:?}") };
    assert_eq!(doing, "waits for bad");
    assert!(reason.contains("bad-h1 did not come up within 15 s") && reason.contains("absent:1"), "{reason}");

    // What kube-proxy, flannel and CNI plugins leave in the kernel.
    ssh("iptables-nft -t nat -N KUBE-SERVICES; iptables-nft -t nat -A PREROUTING -j KUBE-SERVICES;
        iptables-nft -t filter -N KUBE-FIREWALL; iptables-nft -t filter -I INPUT -j KUBE-FIREWALL;
        iptables-nft -t nat -N CNI-abc; iptables-nft -t nat -A POSTROUTING -s 10.42.0.5 -j CNI-abc; nft add table ip kube-proxy;
        ip link add cni0 type bridge; ip link add flannel.1 type vxlan id 1 dstport 8472; mkdir -p /var/lib/etcd/member /run/flannel;
        mkdir -p /var/lib/bastide/snapshots; echo s > /var/lib/bastide/snapshots/s1");

    within(120, machine.erase("r1", false)).await.unwrap();
    assert_eq!(
        ssh("find /var/lib/bastide"),
        "/var/lib/bastide\n/var/lib/bastide/snapshots\n/var/lib/bastide/snapshots/s1\n"
    );
    within(120, machine.erase("r1", true)).await.unwrap();
    drop(lock);
    host.until("test ! -e /run/bastide", std::time::Duration::from_mins(1)).unwrap();
    let after = listing(&bed);
    let only = |one: &str, other: &str| {
        let other: std::collections::BTreeSet<_> = other.lines().collect();
        one.lines().filter(|line| !other.contains(line)).collect::<Vec<_>>().join("\n")
    };
    assert_eq!((only(&after, &before), only(&before, &after)), (String::new(), String::new()));
    assert_eq!(ssh("stat -c '%a %u %g' /etc/foreign"), "604 7 8\n");
}
