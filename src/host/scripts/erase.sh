# RUN PURGE: takes away everything that the record names and what ran because of it. The record goes last, so that a
# removal that was cut short is found and finished by the next one.
run=$1 purge=$2

was() { # KIND PATH: noted before the first write
  grep -qxF "$1 $2" "$BASE/found" 2>/dev/null
}

stop_pods() {
  find_tool crictl
  if [ -n "$tool" ] && [ -S $CONTAINERD ]; then
    patiently timeout 120 "$tool" rmp -f -a >/dev/null 2>"$work/err"
  fi
  # Whatever crictl did not reach: containers live in the kubelet's slices, shims below /opt/bastide.
  systemctl kill -s KILL kubepods.slice 2>/dev/null
  systemctl stop kubepods.slice 2>/dev/null
}

# With control groups of version 1 the kubelet makes its own in hierarchies that systemd does not look after.
groups() {
  find /sys/fs/cgroup -depth -type d -path '*/kubepods.slice*' -exec rmdir {} \; 2>/dev/null
}

# Ends every process whose program bastide installed, by its number.
stop_programs() {
  # shellcheck disable=SC2012 # the names are numbers
  ls -l /proc/[0-9]*/exe 2>/dev/null | sed -n 's|.* /proc/\([0-9]*\)/exe -> /opt/bastide/.*|\1|p' | xargs -r kill -9 2>/dev/null
}

unmount() {
  left=
  for round in 1 2 3; do
    left=$(sed -n 's/^[^ ]* \([^ ]*\) .*/\1/p' /proc/self/mounts |
      grep -E '^(/var/lib/(kubelet|containerd)/|/run/containerd/|/run/netns/cni-)' | sort -r)
    [ -n "$left" ] || return 0
    # The last round lets go of what is busy as soon as it is not.
    option=
    [ "$round" != 3 ] || option=-l
    # shellcheck disable=SC2086 # no option, or one
    printf '%s\n' "$left" | xargs umount $option 2>"$work/err"
  done
}

links() {
  for space in /run/netns/cni-*; do [ ! -e "$space" ] || rm -f "$space"; done
  command -v ip >/dev/null || return 0
  for link in cni0 flannel.1 flannel-v6.1 kube-ipvs0; do
    [ ! -e "/sys/class/net/$link" ] || ip link delete "$link" 2>/dev/null
  done
}

# SAVE RESTORE: each table's rules without those of kube-proxy, the kubelet and CNI plugins, put back in one transaction.
rules() {
  command -v "$1" >/dev/null && command -v "$2" >/dev/null || return 0
  "$1" > "$work/rules" 2>/dev/null
  for table in filter nat mangle raw; do
    sed -n "/^[*]$table\$/,/^COMMIT/p" "$work/rules" > "$work/table"
    grep -qE '^:(KUBE|CNI|FLANNEL)-' "$work/table" || continue
    sed -E '/(^:|-A |-j |-g )(KUBE|CNI|FLANNEL)-/d' "$work/table" > "$work/kept"
    # The restore would make every built-in chain that it is given, empty ones too.
    sed -n 's/^:\([^ ]*\) ACCEPT .*/\1/p' "$work/kept" | while read -r chain; do
      grep -q "^-A $chain " "$work/kept" || echo "/^:$chain ACCEPT /d"
    done > "$work/empty"
    sed -f "$work/empty" "$work/kept" | "$2" 2>"$work/err" ||
      fail failed "$2 refuses the rules without Kubernetes' own" "$work/err"
  done
}

packet_filter() {
  for tool in iptables-nft iptables-legacy iptables ip6tables-nft ip6tables-legacy ip6tables; do
    rules "$tool-save" "$tool-restore"
  done
  command -v nft >/dev/null || return 0
  nft list tables > "$work/tables" 2>/dev/null
  while read -r word family table; do
    case $table in
      kube-proxy | flannel-ipv4 | flannel-ipv6 | cni_hostport | cni_plugins_masquerade)
        nft delete table "$family" "$table" 2>/dev/null
        ;;
      filter | nat | mangle | raw)
        # Made by iptables for rules that are gone: it goes when it decides nothing and was not there before.
        grep -qxF "$word $family $table" "$BASE/found" && continue
        nft -s list table "$family" "$table" > "$work/table" 2>/dev/null
        grep -vqE '^#|^table |^[[:space:]]*(chain .*|type .*policy accept;|}|)$' "$work/table" ||
          nft delete table "$family" "$table" 2>/dev/null
        ;;
    esac
  done < "$work/tables"
}

data() {
  rm -f /etc/cni/net.d/10-flannel.conflist
  for trace in $DATA; do
    if was full "$trace" || [ ! -e "$trace" ]; then continue; fi
    if [ -d "$trace" ]; then
      find "$trace" -xdev -mindepth 1 -delete 2>"$work/err" || fail failed "cannot empty $trace" "$work/err"
    fi
    was found "$trace" || rm -rf --one-file-system "$trace" 2>"$work/err" || fail failed "cannot remove $trace" "$work/err"
  done
  # What restores kept aside.
  rm -rf --one-file-system /var/lib/etcd.before-* /var/lib/etcd.restoring 2>"$work/err" ||
    fail failed "cannot remove etcd's old data" "$work/err"
}

files() {
  recorded files | xargs -r rm -f 2>"$work/err" || fail failed "cannot remove a file" "$work/err"
  [ -f "$BASE/foreign/index" ] || return 0
  # What bastide wrote over comes back as it was found: the oldest copy of each path.
  while read -r digest mode uid gid path; do
    [ -e "$path" ] || install -m "$mode" -o "$uid" -g "$gid" "$BASE/foreign/$digest" "$path" 2>"$work/err" ||
      fail failed "cannot put $path back" "$work/err"
  done < "$BASE/foreign/index"
}

folders() {
  { recorded directories; cat "$BASE/made" 2>/dev/null; } | sort -ru | while read -r folder; do rmdir "$folder" 2>/dev/null; done
  for folder in $PARENTS; do was found "$folder" || rmdir "$folder" 2>/dev/null; done
}

people() {
  for name in $(recorded users); do
    if getent passwd "$name" >/dev/null; then
      userdel "$name" >"$work/err" 2>&1 || fail failed "cannot remove the user $name" "$work/err"
    fi
    if getent group "$name" >/dev/null; then groupdel "$name" 2>/dev/null; fi
  done
}

begin_work
if [ -f "$BASE/record.json" ]; then
  for unit in $(recorded units); do
    holding
    [ "$unit" = containerd.service ] || patiently timeout 120 systemctl --quiet disable --now "$unit" 2>/dev/null
  done
  stop_pods
  holding
  for unit in $(recorded units); do patiently timeout 120 systemctl --quiet disable --now "$unit" 2>/dev/null; done
  stop_programs
  groups
  unmount
  holding
  links
  packet_filter
  holding
  data
  holding
  files
  systemctl daemon-reload 2>/dev/null
  for unit in $(recorded units); do systemctl reset-failed "$unit" "${unit%.timer}.service" 2>/dev/null; done
  people
  folders
fi
holding
keep_snapshots=snapshots
[ "$purge" != 1 ] || keep_snapshots=
find "$BASE" -mindepth 1 -maxdepth 1 ! -name "${keep_snapshots:-staging}" ! -name record.json ! -name staging -exec rm -rf {} +
rm -f "$BASE/record.json"
echo 'done'
