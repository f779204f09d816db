#!/bin/bash
# bed.sh - throw-away Linux hosts (systemd as PID 1) on one machine, no container engine. Root only.
#   bed.sh net                   make the bed's own network namespace + bridge
#   bed.sh up   NAME [IP]        start a host (creates it on first use; then IP is needed)
#   bed.sh wait NAME..           wait until ssh answers
#   bed.sh ssh  NAME [CMD..]     ssh as root;   sshu NAME [CMD..] as the sudo user "ops"
#   bed.sh run  CMD..            run CMD inside the bed's network (how a provisioner under test reaches the hosts)
#   bed.sh put  NAME SRC.. DEST  copy files to a host
#   bed.sh ls                    hosts: name, address, running or stopped, memory in use
#   bed.sh down NAME             kill -9 the host's PID 1 (power cut);  halt NAME = clean stop;  reboot NAME = clean reboot
#   bed.sh freeze|thaw NAME      stop / continue every process of a host (a hang)
#   bed.sh cut|heal NAME         take the host's link down / up
#   bed.sh part A B | unpart     drop all frames between two hosts' addresses / drop no more
#   bed.sh save NAME SNAP | restore NAME SNAP    file-system snapshot of a stopped host
#   bed.sh wipe NAME             stop it and put it back to the pristine image
#   bed.sh destroy               remove everything this bed made
# env: BASTIDE_BED_CACHE  ${XDG_CACHE_HOME:-$HOME/.cache}/bastide-bed
#      BED  name of the bed, unique per test run (bed0);  NET  its private /24 without the last byte (10.77.0; the bridge is .1)
#      TB   state of this bed ($BASTIDE_BED_CACHE/beds/$BED);  IMG  pristine root file system, from mkrootfs.sh
#      BED_CONNECT  seconds that ssh waits for a host's greeting (2; a busy machine needs more)
#      BED_MEMORY  =1: the bed's hosts live in memory where 12 GiB of it are free; what they write then waits for no disk
#      LEGACY=1  boot systemd >= 256 with SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE (not needed for 257)
set -euo pipefail
CACHE=${BASTIDE_BED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bastide-bed}
BED=${BED:-bed0}
NET=${NET:-10.77.0}
TB=${TB:-$CACHE/beds/$BED}
IMG=${IMG:-$CACHE/rootfs/${SUITE:-trixie}}
export BED NET TB IMG
SELF=$(readlink -f "$0")

die() { echo "bed: $*" >&2; exit 1; }

in_memory() {
  [ "${BED_MEMORY:-0}" = 1 ] && [ -z "$(ls -A "$TB")" ] || return 0
  [ "$(awk '$1=="MemAvailable:"{print $2}' /proc/meminfo)" -ge $((12 << 20)) ] || return 0
  mount -t tmpfs -o size=10g,mode=755 "bed-$BED" "$TB"
}

net() {
  [ -e "$IMG/.ready" ] || die "no root file system at $IMG: run mkrootfs.sh"
  mkdir -p "$TB"
  in_memory
  [ -e "/run/netns/$BED" ] || ip netns add "$BED"
  ip -n "$BED" link set lo up
  ip -n "$BED" link show br0 >/dev/null 2>&1 || ip -n "$BED" link add br0 type bridge
  ip -n "$BED" addr replace "$NET.1/24" dev br0; ip -n "$BED" link set br0 up
  # there is no way out of this namespace: say so at once (ICMP) instead of letting callers time out
  ip -n "$BED" route replace unreachable default metric 4278198272
  ip netns exec "$BED" sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=0
  [ -e "$TB/id" ] || ssh-keygen -q -t ed25519 -N '' -f "$TB/id"
}

# "ctrl dir" per cgroup hierarchy; our cgroups are children of the one this shell is in
hierarchies() {
  local n c p
  while IFS=: read -r n c p; do
    case "$c" in
      '') [ -d /sys/fs/cgroup/unified ] && echo "unified /sys/fs/cgroup/unified${p%/}" || echo "v2 /sys/fs/cgroup${p%/}" ;;
      name=*) echo "$c /sys/fs/cgroup/${c#name=}${p%/}" ;;
      *) echo "$c /sys/fs/cgroup/$c${p%/}" ;;
    esac
  done < /proc/self/cgroup
}

create() { # NAME IP
  local h=$1 ip=$2 R=$TB/$1 k
  mkdir -p "$R"/{upper,work,root,var}
  cp -a --reflink=auto "$IMG/var/." "$R/var/"
  local e=$R/upper/etc; mkdir -p "$e/ssh" "$R/upper/root/.ssh" "$R/upper/home/ops/.ssh"
  chmod 755 "$R/upper" "$e" "$e/ssh" "$R/upper/home"; chmod 700 "$R/upper/root" "$R/upper/root/.ssh" "$R/upper/home/ops/.ssh"
  echo "$h" > "$e/hostname"; printf '127.0.0.1 localhost\n::1 localhost\n%s %s\n' "$ip" "$h" > "$e/hosts"
  echo "nameserver $NET.1" > "$e/resolv.conf"          # refuses at once; CoreDNS will not start without any nameserver
  ssh-keygen -q -t ed25519 -N '' -f "$e/ssh/ssh_host_ed25519_key" -C "root@$h"
  for k in root home/ops; do cp "$TB/id.pub" "$R/upper/$k/.ssh/authorized_keys"; chmod 600 "$R/upper/$k/.ssh/authorized_keys"; done
  chown -R "$(chroot "$IMG" id -u ops):$(chroot "$IMG" id -g ops)" "$R/upper/home/ops"
  # let `modprobe overlay` and friends succeed: all of it is built into this kernel (ip_vs is not)
  local m=$R/upper/lib; [ -L "$IMG/lib" ] && m=$R/upper/usr/lib
  m=$m/modules/$(uname -r); mkdir -p "$m"
  for k in fs/overlayfs/overlay net/bridge/bridge net/bridge/br_netfilter net/netfilter/nf_conntrack drivers/net/vxlan/vxlan \
           net/netfilter/x_tables net/ipv4/netfilter/ip_tables net/netfilter/nf_tables; do
    echo "kernel/$k.ko"; done > "$m/modules.builtin"
  : > "$m/modules.order"
  echo "$ip" > "$R/ip"
}

netns_up() { # NAME IP: a fresh network namespace per boot, as a real reboot forgets addresses, rules and links
  local h=$1 ip=$2 ns=$BED-$1
  ip -n "$BED" link del "v-$h" 2>/dev/null || true
  [ ! -e "/run/netns/$ns" ] || ip netns del "$ns"
  ip netns add "$ns"; ip -n "$ns" link set lo up
  ip -n "$BED" link add "v-$h" type veth peer name eth0 netns "$ns"
  ip -n "$BED" link set "v-$h" master br0; [ -e "$TB/$h/cut" ] || ip -n "$BED" link set "v-$h" up
  ip -n "$ns" addr add "$ip/24" dev eth0; ip -n "$ns" link set eth0 up; ip -n "$ns" route add default via "$NET.1"
}

mkcg() { # the host's own cgroup in every hierarchy, empty at each boot
  local c d x y
  rmcg "$1"
  while read -r c d; do
    mkdir -p "$d"
    [ "$c" != cpuset ] || for x in "$(dirname "$d")" "$d"; do for y in cpus mems; do
      [ -n "$(tr -d '[:space:]' < "$x/cpuset.$y")" ] || cat "$(dirname "$x")/cpuset.$y" > "$x/cpuset.$y"; done; done
  done < "$TB/$1/cgroups"
}

up() { # NAME IP
  local h=$1 ip=${2:-} R=$TB/$1 c d
  [ -d "$R/upper" ] || create "$h" "${ip:?ip}"
  ip=$(cat "$R/ip")
  alive "$h" && die "$h already runs"
  while read -r c d; do echo "$c $d/$BED/$h"; done < <(hierarchies) > "$R/cgroups"
  rm -f "$R/pid"
  setsid "$SELF" __sup "$h" >> "$R/console" 2>&1 < /dev/null &
  for _ in $(seq 1500); do [ -s "$R/pid" ] && break; sleep 0.02; done
  [ -s "$R/pid" ] || die "$h did not start: $(tail -5 "$R/console")"
}

__sup() { # supervisor: outlives the host's PID 1, restarts it on reboot(2)
  local h=$1 R=$TB/$1 rc d c
  while :; do
    rc=0; netns_up "$h" "$(cat "$R/ip")"; mkcg "$h"
    ( while read -r c d; do echo "$BASHPID" > "$d/cgroup.procs"; done < "$R/cgroups"
      exec nsenter --net="/run/netns/$BED-$h" \
        unshare --mount --propagation private --uts --ipc --pid --fork --kill-child=KILL --cgroup "$SELF" __init "$h" ) &
    local u=$! i k
    for i in $(seq 3000); do k=$(cat "/proc/$u/task/$u/children" 2>/dev/null || true); [ -n "$k" ] && { echo ${k%% *} > "$R/pid"; break; }; sleep 0.01; done
    echo "$u" > "$R/unshare.pid"
    wait "$u" 2>/dev/null || rc=$?
    echo "-- $h ended rc=$rc $(date +%T)"; rm -f "$R/pid"
    # unshare passes the child's death on: SIGHUP (129) = reboot, SIGINT (130) = power off
    [ $rc = 129 ] || break
    sleep 0.3
  done
}

__init() { # PID 1 of the host, before systemd
  local h=$1 R=$TB/$1 N c d f
  N=$R/root
  mount -t overlay "bed-$h" -o "lowerdir=$IMG,upperdir=$R/upper,workdir=$R/work" "$N"
  mount --bind "$R/var" "$N/var"                       # plain ext4: overlayfs snapshotter, etcd, kubelet live here
  mount -t proc -o nosuid,noexec,nodev proc "$N/proc"
  mount -t sysfs -o nosuid,noexec,nodev sysfs "$N/sys"
  mount -t tmpfs -o mode=755 tmpfs "$N/sys/fs/cgroup"
  while read -r c d; do
    case $c in
      unified) mkdir "$N/sys/fs/cgroup/unified"; mount -t cgroup2 cgroup2 "$N/sys/fs/cgroup/unified" ;;
      name=*)  mkdir "$N/sys/fs/cgroup/${c#name=}"; mount -t cgroup -o "none,$c" cgroup "$N/sys/fs/cgroup/${c#name=}" ;;
      v2)      mount -t cgroup2 cgroup2 "$N/sys/fs/cgroup" ;;
      *)       mkdir "$N/sys/fs/cgroup/$c"; mount -t cgroup -o "$c" cgroup "$N/sys/fs/cgroup/$c" ;;
    esac
  done < "$R/cgroups"
  mount -t tmpfs -o mode=755,nosuid tmpfs "$N/dev"
  mknod -m 666 "$N/dev/null" c 1 3; mknod -m 666 "$N/dev/zero" c 1 5; mknod -m 666 "$N/dev/full" c 1 7
  mknod -m 666 "$N/dev/random" c 1 8; mknod -m 666 "$N/dev/urandom" c 1 9; mknod -m 666 "$N/dev/tty" c 5 0
  mknod -m 640 "$N/dev/kmsg" c 1 11; mknod -m 600 "$N/dev/fuse" c 10 229; mkdir "$N/dev/net"; mknod -m 666 "$N/dev/net/tun" c 10 200
  mkdir "$N/dev/pts" "$N/dev/shm" "$N/dev/mqueue"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$N/dev/pts"; ln -s pts/ptmx "$N/dev/ptmx"
  mount -t tmpfs -o mode=1777 tmpfs "$N/dev/shm"; mount -t mqueue mqueue "$N/dev/mqueue"
  for f in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do ln -s "${f#*:}" "$N/dev/${f%%:*}"; done
  : > "$N/dev/console"
  mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$N/run"; mount -t tmpfs -o mode=1777 tmpfs "$N/tmp"
  # /proc/sys/{kernel,vm,fs} are the machine's: give the host writable stand-ins, keep /proc/sys/net (per netns)
  mkdir -p "$N/run/.bedsys"; mount -t tmpfs -o mode=755 tmpfs "$N/run/.bedsys"
  for d in kernel vm fs; do cp -r --no-preserve=all "/proc/sys/$d" "$N/run/.bedsys/" 2>/dev/null || true; done
  for d in kernel vm fs; do
    mount --bind "$N/run/.bedsys/$d" "$N/proc/sys/$d"
  done
  mount -t proc proc "$N/mnt"
  for f in kernel/hostname kernel/domainname kernel/random; do mount --bind "$N/mnt/sys/$f" "$N/proc/sys/$f"; done
  cat /proc/sys/kernel/random/uuid > "$N/run/.bedsys/boot_id"; mount --bind "$N/run/.bedsys/boot_id" "$N/proc/sys/kernel/random/boot_id"
  umount -l "$N/mnt"
  # keep systemd from creating cgroup v1 hierarchies the machine does not have
  awk 'NR==FNR{split($1,a,",");for(i in a)ok[a[i]]=1;next} /^#/{print;next} {if(!($1 in ok))$4=0; print $1"\t"$2"\t"$3"\t"$4}' \
    "$R/cgroups" /proc/cgroups > "$N/run/.bedsys/cgroups"; mount --bind "$N/run/.bedsys/cgroups" "$N/proc/cgroups"
  [ -e "$N/proc/sysrq-trigger" ] && mount --bind "$N/dev/null" "$N/proc/sysrq-trigger"
  umount -l "$N/run/.bedsys"; rmdir "$N/run/.bedsys"
  hostname "$h"
  [ -e "$N/lib/modules/$(uname -r)/modules.builtin.bin" ] || chroot "$N" depmod 2>/dev/null || true
  cd "$N"; pivot_root . mnt; umount -l /mnt
  mount --make-rshared /
  # the machine's clock, modules and ports are not the host's to change
  exec setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio --inh-caps=-all \
    /usr/bin/env -i container=bed PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb ${LEGACY:+SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1} \
    /lib/systemd/systemd --show-status=no < /dev/null
}

# the recorded pid counts only while it still sits in this host's own cgroup (pids get reused)
alive() { local p; p=$(cat "$TB/$1/pid" 2>/dev/null) && [ -n "$p" ] && grep -qE "/$BED/$1(/|$)" "/proc/$p/cgroup" 2>/dev/null; }
SSHO=(-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout="${BED_CONNECT:-2}")
sshx() { local u=$1 h=$2; shift 2; ip netns exec "$BED" ssh -i "$TB/id" "${SSHO[@]}" "$u@$(cat "$TB/$h/ip")" "$@"; }
wait_() { local i; for i in $(seq 1200); do sshx root "$1" true 2>/dev/null && return 0; sleep 0.1; done; tail -5 "$TB/$1/console" >&2 || true; die "$1: no ssh"; }
gone() { local i; for i in $(seq 2400); do alive "$1" || { [ -e "$TB/$1/pid" ] || return 0; }; sleep 0.05; done; die "$1 still there"; }
down() { alive "$1" && { kill -KILL "$(cat "$TB/$1/pid")"; fz "$1" THAWED; } || true; gone "$1"; }   # v1: a frozen task dies only when thawed
halt() { kill -s RTMIN+4 "$(cat "$TB/$1/pid")"; gone "$1"; }
fz() { local d; d=$(awk '$1=="freezer"{print $2}' "$TB/$1/cgroups"); echo "$2" > "$d/freezer.state"; }
rmcg() { local c d; [ -e "$TB/$1/cgroups" ] || return 0; while read -r c d; do find "$d" -depth -type d -exec rmdir {} \; 2>/dev/null || true; done < "$TB/$1/cgroups"; }
save() { alive "$1" && die "stop $1 first"; rm -rf "$TB/$1/snap-$2"; mkdir "$TB/$1/snap-$2"; cp -a --reflink=auto "$TB/$1/upper" "$TB/$1/var" "$TB/$1/snap-$2/"; }
restore() { alive "$1" && die "stop $1 first"; rm -rf "$TB/$1/upper" "$TB/$1/var" "$TB/$1/work"; mkdir "$TB/$1/work"; cp -a --reflink=auto "$TB/$1/snap-$2/." "$TB/$1/"; }
wipe() { alive "$1" && down "$1"; local ip; ip=$(cat "$TB/$1/ip"); rm -rf "$TB/$1"; create "$1" "$ip"; }
destroy() {
  local h c d
  for h in "$TB"/*/; do h=$(basename "$h"); [ -e "$TB/$h/ip" ] || continue; alive "$h" && down "$h"; rmcg "$h"
    ip netns del "$BED-$h" 2>/dev/null || true
    [ ! -e "$TB/$h/cgroups" ] || while read -r c d; do rmdir "$(dirname "$d")" 2>/dev/null || true; done < "$TB/$h/cgroups"; done
  ip netns del "$BED" 2>/dev/null || true
  ! mountpoint -q "$TB" || umount -l "$TB"
  rm -rf "$TB"
}
ls_() {
  local h n m s
  for h in "$TB"/*/ip; do
    [ -e "$h" ] || continue
    n=$(basename "$(dirname "$h")"); s=stopped; m=-
    if alive "$n"; then s=running
      m=$(awk '$1=="memory"{print $2}' "$TB/$n/cgroups"); m=$(awk '$1=="total_rss"{printf "%d MiB", $2/1048576}' "$m/memory.stat" 2>/dev/null || echo -); fi
    printf '%-12s %-15s %-8s %s\n' "$n" "$(cat "$h")" "$s" "$m"
  done
}
put() { local h=$1 d a; shift; d=${*: -1}; a=("${@:1:$#-1}"); ip netns exec "$BED" scp -q -r -i "$TB/id" "${SSHO[@]}" "${a[@]}" "root@$(cat "$TB/$h/ip"):$d"; }
reboot() { # clean reboot; returns when the old boot is gone
  local p; p=$(cat "$TB/$1/pid"); kill -s RTMIN+5 "$p"
  local i; for i in $(seq 4000); do [ -e "/proc/$p" ] || return 0; sleep 0.05; done; die "$1 does not go down"
}

cmd=${1:?see the head of this file}; shift
case $cmd in
  net|up|down|halt|reboot|save|restore|wipe|destroy|put|__sup|__init) "$cmd" "$@" ;;
  ls) ls_ ;;
  run) exec ip netns exec "$BED" "$@" ;;
  wait) for h in "$@"; do wait_ "$h"; done ;;
  ssh) sshx root "$@" ;; sshu) sshx ops "$@" ;;
  alive) alive "$1" ;;
  freeze) fz "$1" FROZEN ;; thaw) fz "$1" THAWED ;;
  cut) touch "$TB/$1/cut"; ip -n "$BED" link set "v-$1" down ;;
  heal) rm -f "$TB/$1/cut"; ip -n "$BED" link set "v-$1" up ;;
  part) a=$(cat "$TB/$1/ip") b=$(cat "$TB/$2/ip")
    ip netns exec "$BED" chroot "$IMG" nft -f - <<<"table bridge bed {
      chain f { type filter hook forward priority 0; ip saddr $a ip daddr $b drop; ip saddr $b ip daddr $a drop; }
    }" ;;
  unpart) ip netns exec "$BED" chroot "$IMG" nft delete table bridge bed ;;
  *) die "unknown: $cmd" ;;
esac
