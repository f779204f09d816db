#!/bin/bash
# build-artifacts.sh [MINOR..] - build every binary and image tar that a cluster on the bed needs, from source. Default: 1.37
#   MINOR-next: the same sources under the next patch's version, for tests of a change of versions: programs alone, no kubeadm images
#   env: BASTIDE_BED_CACHE (default ${XDG_CACHE_HOME:-$HOME/.cache}/bastide-bed), ONLY="containerd etcd" (limit the components)
# Needs: go (version named in go/*/go.mod), python3, git not needed. Idempotent: a component whose stamp
# (go.mod, go.sum, go version, this script's recipe) is unchanged is skipped.
# Result under $CACHE/artifacts: common/{bin,cni,kube-bench/cfg}  etcd-SERIES/  k8s-MINOR/{bin,images,images.txt,version}
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
CACHE=${BASTIDE_BED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bastide-bed}
ART=$CACHE/artifacts; COM=$ART/common; WORK=$CACHE/build
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -trimpath" GOTOOLCHAIN=${GOTOOLCHAIN:-local}
mkdir -p "$COM/bin" "$COM/cni" "$WORK" "$ART/.stamps"
say() { printf '%-34s %s\n' "$1" "$2"; }
want() { [ -z "${ONLY:-}" ] || [[ " $ONLY " == *" $1 "* ]]; }
ver() { awk -v m="$2" '$1==m{print $2} $1=="require"&&$2==m{print $3}' "$here/go/$1/go.mod" | head -1; }   # component module

# once STAMPNAME RECIPE-WORDS...: runs the function do_NAME unless its stamp is current
once() {
  local n=$1 fn=$2 key s; shift 2
  key=$({ go version; cat "$here/go/$n/go.mod" "$here/go/$n/go.sum" "$here/go/$n"/*.go 2>/dev/null; declare -f "$fn" gobuild; echo "$@"; } | sha256sum)
  if [ -e "$ART/.stamps/$n" ] && [ "$(cat "$ART/.stamps/$n")" = "$key" ]; then say "$n" "cached"; return 0; fi
  s=$(date +%s); "$fn" "$@"; echo "$key" > "$ART/.stamps/$n"; say "$n" "$(( $(date +%s)-s )) s"
}
gobuild() { # COMPONENT PACKAGE OUT [-X flags..]
  local c=$1 p=$2 o=$3 ld="-s -w" x; shift 3; for x in "$@"; do ld+=" -X $x"; done
  ( cd "$here/go/$c"; go build -ldflags "$ld" -o "$o.new" "$p" ); mv "$o.new" "$o"
}
do_containerd() {
  local m=github.com/containerd/containerd/v2 b; local v; v=$(ver containerd $m)
  for b in containerd containerd-shim-runc-v2 ctr; do gobuild containerd $m/cmd/$b "$COM/bin/$b" $m/version.Version="$v" $m/version.Package=$m; done
}
do_etcd() { # SERIES
  local d=$ART/etcd-$1; mkdir -p "$d"
  gobuild "etcd-$1" go.etcd.io/etcd/server/v3 "$d/etcd"; gobuild "etcd-$1" go.etcd.io/etcd/etcdctl/v3 "$d/etcdctl"; gobuild "etcd-$1" go.etcd.io/etcd/etcdutl/v3 "$d/etcdutl"
}
etcd_for() { case $1 in 1.3[456]) echo 3.6 ;; *) echo 3.7 ;; esac; }      # the series that kubeadm of this minor asks for
do_cni() { local p; for p in main/bridge main/loopback main/host-device main/ptp ipam/host-local meta/portmap meta/bandwidth meta/firewall meta/tuning; do
  gobuild cni github.com/containernetworking/plugins/plugins/$p "$COM/cni/${p#*/}"; done; }
do_coredns() { gobuild coredns github.com/coredns/coredns "$COM/bin/coredns"; }
do_metrics_server() { gobuild metrics-server sigs.k8s.io/metrics-server/cmd/metrics-server "$COM/bin/metrics-server" k8s.io/client-go/pkg/version.gitVersion="$(ver metrics-server sigs.k8s.io/metrics-server)"; }
do_crictl() { gobuild crictl sigs.k8s.io/cri-tools/cmd/crictl "$COM/bin/crictl" sigs.k8s.io/cri-tools/pkg/version.Version="$(ver crictl sigs.k8s.io/cri-tools)"; }
do_minio() { gobuild minio github.com/minio/minio "$COM/bin/minio"; }      # the S3 server of the tests; AGPL: run here, part of nothing
do_age() { gobuild age filippo.io/age/cmd/age "$COM/bin/age"; }            # what sealing is measured beside
do_load() { gobuild load . "$COM/bin/load"; }
do_kms() { gobuild kms . "$COM/bin/kms"; }                                 # a plugin of KMS v2 with its key in a file
do_kwok() { gobuild kwok sigs.k8s.io/kwok/cmd/kwok "$COM/bin/kwok"; }
do_kubebench() {
  local m=github.com/aquasecurity/kube-bench v; v=$(ver kube-bench $m)
  gobuild kube-bench $m "$COM/bin/kube-bench" $m/cmd.KubeBenchVersion="$v"
  rm -rf "$COM/kube-bench"; mkdir -p "$COM/kube-bench"        # the checks are not embedded in the binary
  cp -r "$(cd "$here/go/kube-bench" && go list -m -f '{{.Dir}}' $m)/cfg" "$COM/kube-bench/cfg"; chmod -R u+w "$COM/kube-bench"
}
do_flannel() { # cgo for its udp back end, linked statically; the tencent-vpc back end's SDK is a stub of ours (go/flannel-stub)
  local m=github.com/flannel-io/flannel v; v=$(ver flannel $m)
  ( cd "$here/go/flannel"; CGO_ENABLED=1 go build -tags netgo,osusergo -ldflags "-s -w -extldflags -static -X $m/pkg/version.Version=$v" -o "$COM/bin/flanneld.new" $m ); mv "$COM/bin/flanneld.new" "$COM/bin/flanneld"
}
do_helper() { gobuild helper . "$COM/bin/bedhelper"; cp "$COM/bin/bedhelper" "$COM/cni/flannel"; }   # acts as CNI plugin when called "flannel"
do_kubernetes() { # MINOR
  local d=$ART/k8s-$1 v b x f=(); v=$(ver "kubernetes-$1" k8s.io/kubernetes); mkdir -p "$d/bin"
  for x in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    f+=("$x.gitVersion=$v" "$x.gitMajor=1" "$x.gitMinor=${1#1.}" "$x.gitTreeState=clean" "$x.gitCommit=unknown" "$x.buildDate=1970-01-01T00:00:00Z"); done
  for b in kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl kubeadm; do
    gobuild "kubernetes-$1" k8s.io/kubernetes/cmd/$b "$d/bin/$b" "${f[@]}"; done
  echo "$v" > "$d/version"
}
do_next() { # MINOR: the same sources under the next patch's version
  local d=$ART/k8s-$1-next v b f=(); v=$(ver "kubernetes-$1" k8s.io/kubernetes); v=${v%.*}.$((${v##*.} + 1)); mkdir -p "$d/bin"
  for b in k8s.io/component-base/version k8s.io/client-go/pkg/version; do f+=("$b.gitVersion=$v" "$b.gitMajor=1" "$b.gitMinor=${1#1.}"); done
  for b in kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl; do
    gobuild "kubernetes-$1" k8s.io/kubernetes/cmd/$b "$d/bin/$b" "${f[@]}"; done
  echo "$v" > "$d/version"
}
images() { # MINOR: image tars under the very names that this kubeadm asks for (the bundle packs its own, see xtask)
  local d=$ART/k8s-$1 E v n r e key; v=$(cat "$d/version"); E=$ART/etcd-$(etcd_for "$1")
  key=$(sha256sum "$d"/bin/* "$E"/* "$COM"/bin/{coredns,flanneld,bedhelper} "$here/mkimg.py" 2>/dev/null | sha256sum || true)
  [ "$(cat "$d/images.stamp" 2>/dev/null)" != "$key" ] || { say "images-$1" cached; return 0; }
  local s; s=$(date +%s); rm -rf "$d/images" "$d/images.stamp"; mkdir -p "$d/images"
  "$d/bin/kubeadm" config images list --kubernetes-version "$v" 2>/dev/null > "$d/images.txt"
  while read -r r; do
    n=${r##*/}; n=${n%%:*}; e=/usr/local/bin/$n
    case $n in
      pause)   python3 "$here/mkimg.py" "$d/images/pause.tar" "$r" "/pause pause" "$COM/bin/bedhelper=/pause" ;;
      etcd)    python3 "$here/mkimg.py" "$d/images/etcd.tar" "$r" "$e" "$E/etcd=$e" "$E/etcdctl=/usr/local/bin/etcdctl" "$E/etcdutl=/usr/local/bin/etcdutl" ;;
      coredns) python3 "$here/mkimg.py" "$d/images/coredns.tar" "$r" /coredns "$COM/bin/coredns=/coredns" ;;
      kube-proxy) # needs iptables, nft, conntrack: taken from the hosts' own root file system, with their libraries
        python3 "$here/mkimg.py" "$d/images/kube-proxy.tar" "$r" "$e" "$d/bin/kube-proxy=$e" --root "${IMG:-$CACHE/rootfs/${SUITE:-trixie}}" iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore nft conntrack ;;
      *)       python3 "$here/mkimg.py" "$d/images/$n.tar" "$r" "$e" "$d/bin/$n=$e" ;;
    esac
  done < "$d/images.txt" > /dev/null
  # two of our own: flannel (flanneld + iptables) and a toolbox for tests
  [ ! -e "$COM/bin/flanneld" ] || python3 "$here/mkimg.py" "$d/images/flannel.tar" bed.local/flannel:1 /opt/bin/flanneld "$COM/bin/flanneld=/opt/bin/flanneld" "$COM/cni/flannel=/flannel" "$COM/bin/bedhelper=/bin/bedhelper" \
      --root "${IMG:-$CACHE/rootfs/${SUITE:-trixie}}" iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore nft > /dev/null
  python3 "$here/mkimg.py" "$d/images/toolbox.tar" bed.local/toolbox:1 "/bin/bedhelper serve" "$COM/bin/bedhelper=/bin/bedhelper" > /dev/null
  printf '%s\n' bed.local/flannel:1 bed.local/toolbox:1 >> "$d/images.txt"
  echo "$key" > "$d/images.stamp"; say "images-$1" "$(( $(date +%s)-s )) s, $(du -sh "$d/images" | cut -f1)"
}
t=$(date +%s)
! want helper     || once helper do_helper
! want containerd || once containerd do_containerd
! want cni        || once cni do_cni
! want coredns    || once coredns do_coredns
! want flannel    || once flannel do_flannel
! want metrics-server || once metrics-server do_metrics_server
! want kube-bench || once kube-bench do_kubebench
! want crictl     || once crictl do_crictl
! want minio      || once minio do_minio
! want kms        || once kms do_kms
[[ " ${ONLY:-} " != *" kwok "* ]] || once kwok do_kwok          # only when asked for: nothing else here needs it
[[ " ${ONLY:-} " != *" age "* ]] || once age do_age             # likewise: the benchmark of snapshots
[[ " ${ONLY:-} " != *" load "* ]] || once load do_load          # likewise: the soak's part of that name
for m in "${@:-1.37}"; do
  ! want etcd       || once "etcd-$(etcd_for "$m")" do_etcd "$(etcd_for "$m")"
  if [ "$m" != "${m%-next}" ]; then
    once "kubernetes-$m" do_next "${m%-next}" "$(cat "$here/go/kubernetes-${m%-next}"/go.{mod,sum} | sha256sum)"
    continue
  fi
  ! want kubernetes || once "kubernetes-$m" do_kubernetes "$m"
  ! want images     || images "$m"
done
say total "$(( $(date +%s)-t )) s"
