#!/usr/bin/env python3
"""flag-table.py MINOR - the flags and feature gates that the real programs of one Kubernetes minor accept, as a table

Usage: tests/bed/flag-table.py 1.37 > src/config/flags/v1.37.txt
Reads the programs that build-artifacts.sh made (BASTIDE_BED_CACHE as there). Flags come from each program's --help;
deprecated ones that --help hides are tried on the program itself, because only its parser knows them.
"""
import os
import pathlib
import re
import subprocess
import sys

# Hidden by pflag's MarkDeprecated in the sources of 1.36 and 1.37; a name that a program does not know is left out.
HIDDEN = """admission-control allow-untagged-cloud apiserver-count audit-webhook-batch-initial-backoff
default-watch-cache-size experimental-allocatable-ignore-eviction experimental-mounter-path healthz-port
maximum-dead-containers maximum-dead-containers-per-container metrics-port minimum-container-ttl-duration
node-sync-period cloud-config cloud-provider master-service-namespace""".split()
KUBERNETES = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"]
ETCD_SERIES = {"1.36": "3.6", "1.37": "3.7"}


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.stdout


def read_help(text):
    """(flags by name with their deprecation, gates by name with their stage)"""
    flags, gates, current = {}, {}, None
    for line in text.splitlines():
        if not line.startswith(" "):
            current = None  # a heading such as "Deprecated flags:"
        flag = re.match(r"^ {2,8}(?:-\w, )?--([a-z0-9-]+)\b", line)
        gate = re.search(r"(?:kube:)?\b([A-Z]\w+)=true\|false \((\w+)", line)
        if flag:
            current = flag[1]
            flags[current] = False
        if gate:
            gates[gate[1]] = gate[2].lower()
        if current and not gate and re.search(r"DEPRECATED|\bDeprecated\b|deprecated in v", line):
            flags[current] = True
    for name in ["help", "version", "alsologtostderr"]:
        flags.pop(name, None)
    return flags, gates


def main():
    minor = sys.argv[1]
    cache = os.environ.get("BASTIDE_BED_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bastide-bed")
    artifacts = pathlib.Path(cache) / "artifacts"
    programs = {name: artifacts / f"k8s-{minor}" / "bin" / name for name in KUBERNETES}
    programs["etcd"] = artifacts / f"etcd-{ETCD_SERIES[minor]}" / "etcd"
    tables = {}
    for name, program in programs.items():
        flags, gates = read_help(run(program, "--help"))
        if name != "etcd":
            for hidden in HIDDEN:
                if hidden not in flags and "unknown flag" not in run(program, f"--{hidden}=0", "--version"):
                    flags[hidden] = True
        tables[name] = (flags, gates)
    shared = set.intersection(*(set(tables[name][1].items()) for name in KUBERNETES))
    kubernetes = run(programs["kubelet"], "--version").split()[-1]
    etcd = re.search(r"etcd Version: (\S+)", run(programs["etcd"], "--version"))[1]
    print(f"# What Kubernetes {kubernetes} and etcd {etcd} accept: flags by program, feature gates of all five")
    print("# Kubernetes programs, then those of single programs. Written by tests/bed/flag-table.py, not by hand.")
    for name, (flags, _) in tables.items():
        print(f"[{name}]")
        for flag in sorted(flags):
            print(flag + (" deprecated" if flags[flag] else ""))
    print("[gates]")
    for gate, stage in sorted(shared):
        print(gate, stage)
    for name, (_, gates) in tables.items():
        own = sorted(set(gates.items()) - shared)
        if own:
            print(f"[gates {name}]")
            for gate, stage in own:
                print(gate, stage)


if __name__ == "__main__":
    main()
