#!/bin/bash
# baseline-kubeadm.sh [single|reset|ha|recover|all|cluster NAME..] - what does kubeadm need on this bed? Prints one line per measurement (seconds, load average).
#   single   RUNS times (3): fresh host, `kubeadm init`, time to /readyz and to node Ready with a CNI configuration in place
#   reset    RUNS times: the same on one host, with `kubeadm reset` between the runs
#   ha       3 hosts: init + 2 x `join --control-plane` one after the other, until 3 nodes Ready
#   recover  on the cluster that `KEEP=1 baseline-kubeadm.sh ha` left: reboot and power cut of one and of all hosts
#   cluster NAME..  on hosts that prep-host.sh has prepared: init, flannel, joins; leaves them running (`cargo xtask bench up`, which looks for itself when they are Ready)
#   env: MINOR (1.37), RUNS, BED, NET, BASTIDE_BED_CACHE as in bed.sh, KEEP=1 (leave the hosts running), KUBEPROXY=iptables|nftables,
#        CNI=bridge|flannel (bridge: a file per host, no traffic between hosts; flannel: DaemonSet, checked by check-network.sh)
# Hosts are prepared (files pushed, images imported, containerd running) outside kubeadm's time; that time has its own line.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")"); B=$here/bed.sh; P=$here/prep-host.sh
export MINOR=${MINOR:-1.37} BED=${BED:-base0} NET=${NET:-10.78.0}
CACHE=${BASTIDE_BED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bastide-bed}; V=$(cat "$CACHE/artifacts/k8s-$MINOR/version"); RUNS=${RUNS:-3}
now() { date +%s%N; }
line() { printf '%-46s %7.1f s   load %s\n' "$1" "$(( ($(now) - $2) / 1000000 ))e-3" "$(cut -d' ' -f1-3 /proc/loadavg)"; }
ip_of() { echo "$NET.1${1#h}"; }
k() { "$B" ssh h1 "kubectl --kubeconfig /etc/kubernetes/admin.conf $(printf '%q ' "$@")"; }
# kubeadm's preflight asks for things that the bed cannot or need not give; see README
IGNORE=SystemVerification
conf() { # NAME: kubeadm configuration of the first control plane
  cat <<X
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: "$(ip_of "$1")"}
nodeRegistration:
  name: $1
  criSocket: unix:///run/containerd/containerd.sock
  imagePullPolicy: Never
  kubeletExtraArgs: [{name: node-ip, value: "$(ip_of "$1")"}]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $V
controlPlaneEndpoint: "$(ip_of h1):6443"
networking: {podSubnet: 10.244.0.0/16}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ${KUBEPROXY:-iptables}
conntrack: {maxPerCore: 0}
X
}
fresh() { # NAME..: pristine, prepared hosts
  local h t; t=$(now)
  "$B" destroy 2>/dev/null || true; "$B" net
  for h in "$@"; do "$B" up "$h" "$(ip_of "$h")"; done; "$B" wait "$@"; line "$# host(s) created, booted, ssh" "$t"
  t=$(now); "$P" "$@"; line "$# host(s) prepared (push, import, start)" "$t"
}
init() { "$B" ssh "$1" 'cat > /root/kubeadm.yaml' < <(conf "$1"); "$B" ssh "$1" "kubeadm init --config /root/kubeadm.yaml --ignore-preflight-errors=$IGNORE ${2:-} > /root/init.log 2>&1 || { tail -40 /root/init.log; exit 1; }"; }
wait_ready() { local n=$1 i r; for i in $(seq 1200); do r=$(k get nodes --no-headers 2>/dev/null | grep -cw Ready || true); [ "$r" -lt "$n" ] || return 0; sleep 0.2; done; k get nodes -o wide; return 1; }
wait_pods() { local i; for i in $(seq 1500); do [ "$(k get pods -A --no-headers 2>/dev/null | grep -cvE '([0-9]+)/\1 +Running' || true)" != 0 ] || return 0; sleep 0.2; done; k get pods -A -o wide; return 1; }
net_up() { # NAME..: give the nodes a pod network
  if [ "${CNI:-bridge}" = flannel ]; then "$B" ssh h1 'kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f - >/dev/null' < "$here/addons/flannel.yaml"; else "$P" cni "$@"; fi
}
once() { # LABEL
  local t; t=$(now)
  init h1; line "$1: kubeadm init" "$t"
  net_up h1; wait_ready 1; line "$1: init + CNI file -> node Ready" "$t"
  wait_pods; line "$1: ... all pods Running and ready" "$t"
}
single() { local i; for i in $(seq "$RUNS"); do fresh h1; once "single $i"; done; }
reset() {
  local i t; fresh h1
  for i in $(seq "$RUNS"); do
    once "reset $i"; t=$(now)
    "$B" ssh h1 'kubeadm reset -f >/root/reset.log 2>&1; rm -rf /etc/cni/net.d/* /root/.kube; iptables -F; iptables -t nat -F; iptables -t mangle -F; iptables -X; ip link del cni0 2>/dev/null; true'; line "reset $i: kubeadm reset" "$t"
  done
}
joins() { # NAME..: more control planes, one after the other
  local t j c h; j=$("$B" ssh h1 'kubeadm token create --print-join-command 2>/dev/null'); c=$("$B" ssh h1 'kubeadm init phase upload-certs --upload-certs 2>/dev/null | tail -1')
  for h in "$@"; do t=$(now)
    "$B" ssh "$h" "$j --control-plane --certificate-key $c --apiserver-advertise-address $(ip_of "$h") --node-name $h --ignore-preflight-errors=$IGNORE > /root/join.log 2>&1 || { tail -40 /root/join.log; exit 1; }"
    line "ha: join --control-plane $h" "$t"; done
}
ha() {
  fresh h1 h2 h3; local t; t=$(now)
  init h1 --upload-certs; line "ha: init --upload-certs" "$t"
  net_up h1 h2 h3; joins h2 h3
  line "ha: init + 2 joins" "$t"
  wait_ready 3; line "ha: -> 3 nodes Ready" "$t"
  wait_pods; line "ha: ... all pods Running and ready" "$t"
}
cluster() { # NAME..
  local first=$1; shift
  init "$first" "${1:+--upload-certs}"; net_up "$first" "$@"; [ $# = 0 ] || joins "$@"
}
booted() { # NAME..: wait until each is Ready with its present boot (a dead node stays "Ready" in the API for 40 s)
  local h id i; for h in "$@"; do id=$("$B" ssh "$h" cat /proc/sys/kernel/random/boot_id)
    for i in $(seq 1500); do [ "$(k get node "$h" -o 'jsonpath={.status.nodeInfo.bootID}{.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)" != "${id}True" ] || continue 2; sleep 0.2; done; echo "$h not Ready"; return 1; done
}
api() { local i; for i in $(seq 1500); do ! k get --raw /readyz >/dev/null 2>&1 || return 0; sleep 0.1; done; return 1; }
recover() {
  local t h
  t=$(now); [ -n "${SKIP_REBOOT:-}" ] || "$B" reboot h2; "$B" wait h2; line "recover: clean reboot of h2 -> ssh" "$t"; booted h2; line "recover: ... -> h2 Ready" "$t"
  t=$(now); "$B" down h2; until k get node h2 --no-headers | grep -q NotReady; do sleep 0.5; done; line "recover: power cut of h2 -> NotReady" "$t"
  t=$(now); "$B" up h2; "$B" wait h2; booted h2; line "recover: power back -> h2 Ready" "$t"
  t=$(now); for h in h1 h2 h3; do "$B" down "$h"; done; for h in h1 h2 h3; do "$B" up "$h"; done; "$B" wait h1 h2 h3; line "recover: all three cut and started -> ssh" "$t"
  api; line "recover: ... -> /readyz" "$t"; booted h1 h2 h3; line "recover: ... -> 3 nodes Ready" "$t"
  wait_pods; line "recover: ... -> all pods Running and ready" "$t"
  t=$(now); for h in h1 h2 h3; do "$B" reboot "$h" & done; wait; "$B" wait h1 h2 h3; line "recover: all three rebooted cleanly -> ssh" "$t"
  api; line "recover: ... -> /readyz" "$t"; booted h1 h2 h3; line "recover: ... -> 3 nodes Ready" "$t"
  wait_pods; line "recover: ... -> all pods Running and ready" "$t"
}
case ${1:-all} in cluster) shift; cluster "$@"; exit ;; single|reset|ha|recover) "$1" ;; all) single; reset; ha ;; *) sed -n 2,11p "$0"; exit 1 ;; esac
[ -n "${KEEP:-}" ] || "$B" destroy
