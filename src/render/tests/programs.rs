//! The real programs of each minor are given what is rendered from every class of extra_args: a word, a number, a
//! fraction, a yes or no, a duration, a list, a map of feature gates, and a flag that is written several times.
#![allow(clippy::print_stderr)]

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::render::Rendered;
use crate::render::tests::support;

const CLASSES: &str = "
services:
  kube-api:
    extra_args:
      api-audiences: https://kubernetes.default.svc.cluster.local,vault
      default-not-ready-toleration-seconds: '200'
      enable-aggregator-routing: true
      event-ttl: 2h0m0s
      feature-gates: APIServerIdentity=true,OpenAPIEnums=false
      goaway-chance: 0.001
      logging-format: json
      max-requests-inflight: 500
    extra_args_array:
      strict-transport-security-directives: [max-age=31536000, includeSubDomains]
  kube-controller:
    extra_args:
      concurrent-gc-syncs: 15
      feature-gates: HPAScaleToZero=true
      kube-api-qps: 30.5
      min-resync-period: 13h
      node-monitor-period: 6s
      permit-port-sharing: true
    extra_args_array:
      vmodule: [garbagecollector=3, job_controller=2]
  scheduler:
    extra_args:
      feature-gates: SchedulerAsyncPreemption=false
      kube-api-burst: 120
      log-flush-frequency: 6s
      permit-port-sharing: yes
      pod-max-in-unschedulable-pods-duration: 6m
    extra_args_array:
      vmodule: [scheduler=3, eventhandlers=2]
  kubelet:
    extra_args:
      feature-gates: ContainerCheckpoint=true
      image-gc-high-threshold: 90
      kube-api-qps: 60
      max-pods: '111'
      runtime-request-timeout: 3m
      serialize-image-pulls: false
      system-reserved: cpu=100m,memory=200Mi
    extra_args_array:
      vmodule: [kubelet=3, volume_manager=2]
  kubeproxy:
    extra_args:
      feature-gates: ContextualLogging=true
      healthz-bind-address: 127.0.0.1
      v: 3
    extra_args_array:
      vmodule: [proxier=3, server=2]
  etcd:
    extra_args:
      auto-compaction-mode: periodic
      feature-gates: InitialCorruptCheck=true
      heartbeat-interval: 200
      election-timeout: 2000
      pre-vote: true
      snapshot-count: '10001'
      watch-progress-notify-interval: 5s
";

fn programs(minor: &str) -> [(&'static str, PathBuf); 5] {
    let cache = bed::Cache::from_environment();
    let etcd = if minor == "1.36" { "etcd-3.6" } else { "etcd-3.7" };
    let kubernetes = |name| cache.kubernetes(minor).join("bin").join(name);
    [
        ("kube-apiserver", kubernetes("kube-apiserver")),
        ("kube-controller-manager", kubernetes("kube-controller-manager")),
        ("kube-scheduler", kubernetes("kube-scheduler")),
        ("kube-proxy", kubernetes("kube-proxy")),
        ("etcd", cache.folder().join("artifacts").join(etcd).join("etcd")),
    ]
}

fn command(rendered: &Rendered, pod: &str) -> Vec<String> {
    let command = rendered.pod("h1", pod).spec.unwrap().containers[0].command.clone().unwrap();
    command[1..].to_vec()
}

/// What the unit starts, as systemd reads it.
fn kubelet(rendered: &Rendered) -> Vec<String> {
    let unit = rendered.text("h1", "/etc/systemd/system/kubelet.service");
    let start = unit.split_once("ExecStart=").unwrap().1;
    let lines = start.lines().map(|line| (line.trim_end_matches('\\').trim(), line.ends_with('\\')));
    let mut command = Vec::new();
    for (word, goes_on) in lines {
        command.push(word.trim_matches('"').to_owned());
        if !goes_on {
            break;
        }
    }
    command[1..].to_vec()
}

/// Every program reads all its flags before it says its version, and says nothing else then.
fn accepts(program: &Path, arguments: &[String]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).arg("--version").output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout))
}

#[test]
fn real_programs_take_every_class_of_extra_args() {
    let rendered = support::rendered(&format!("{}{CLASSES}", support::ONE_HOST));
    for minor in ["1.36", "1.37"] {
        let kubelet_program = bed::Cache::from_environment().kubernetes(minor).join("bin/kubelet");
        let commands = programs(minor).map(|(name, program)| (command(&rendered, name), program));
        for (arguments, program) in commands.into_iter().chain([(kubelet(&rendered), kubelet_program)]) {
            if !program.exists() {
                eprintln!("skipped: {} is not built yet", program.display());
                continue;
            }
            let name = program.display();
            accepts(&program, &arguments).unwrap_or_else(|error| panic!("{name} {arguments:#?}: {error}"));
            // Not because nothing is looked at: one wrong value among the right ones is refused.
            let wrong = if name.to_string().ends_with("etcd") { "--snapshot-count=many" } else { "--v=many" };
            let refused = accepts(&program, &[&arguments[..], &[wrong.to_owned()]].concat()).unwrap_err();
            assert!(refused.contains("many"), "{name}: {refused}");
        }
    }
}

#[test]
fn every_class_of_extra_args_reaches_its_program() {
    let rendered = support::rendered(&format!("{}{CLASSES}", support::ONE_HOST));
    let all: Vec<String> = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd"]
        .into_iter()
        .flat_map(|pod| command(&rendered, pod))
        .chain(kubelet(&rendered))
        .collect();
    for flag in [
        "--enable-aggregator-routing=true",
        "--goaway-chance=0.001",
        "--strict-transport-security-directives=max-age=31536000",
        "--strict-transport-security-directives=includeSubDomains",
        "--vmodule=garbagecollector=3",
        "--vmodule=job_controller=2",
        "--permit-port-sharing=true",
        "--vmodule=proxier=3",
        "--max-pods=111",
        "--serialize-image-pulls=false",
        "--system-reserved=cpu=100m,memory=200Mi",
        "--snapshot-count=10001",
        "--pre-vote=true",
    ] {
        assert!(all.iter().any(|given| given == flag), "{flag} is not among {all:#?}");
    }
}
