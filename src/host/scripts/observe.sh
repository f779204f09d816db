# Prints what is at the scope (stdin: KIND VALUE lines) and at every path of the host's record. Writes nothing.
# $1: seconds that containerd has to list what it holds.
files='' seeded='' directories='' units='' users='' uids='' ports=''
newline='
'
while read -r kind value; do
  case $kind in
    file) files=$files$newline$value ;;
    seeded) seeded=$seeded$newline$value ;;
    directory) directories=$directories$newline$value ;;
    unit) units=$units$newline$value ;;
    user) users=$users$newline$value ;;
    uid) uids=$uids$newline$value ;;
    port) ports=$ports$newline$value ;;
    end) break ;;
  esac
done

echo '== facts'
uname -nrm
IFS= read -r boot < /proc/sys/kernel/random/boot_id && echo "$boot"
date +%s
stat -f -c '%a %S' /var/lib
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo v2; else echo v1; fi
grep -c ^/ /proc/swaps
routes=0
while read -r interface destination rest; do
  [ "$destination" != 00000000 ] || routes=$((routes + 1))
done < /proc/net/route
echo "$routes"
# The file that kubelet-prepare gives to pods.
servers=/run/systemd/resolve/resolv.conf
[ -s "$servers" ] || servers=/etc/resolv.conf
grep -c '^nameserver' "$servers" 2>/dev/null || [ -e "$servers" ] || echo 0
echo '== os'
cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release 2>/dev/null
echo '== systemd'
systemctl --version 2>/dev/null | head -n 1

echo '== record'
cat "$BASE/record.json" 2>/dev/null
record_files=$(recorded files)
record_directories=$(recorded directories)
record_units=$(recorded units)
record_users=$(recorded users)
printf '\n== recorded\n%s\n' "$record_files"

# A record may name thousands of paths: they go through xargs, not onto one command line.
list() { printf '%s\n' "$@" | sed '/^$/d' | sort -u; }
echo '== stat'
list "$files" "$seeded" "$directories" "$record_files" "$record_directories" | xargs -r stat -L -c '%a %u %g %f %n' 2>/dev/null
# Programs are large: side by side. Four lines are written at once, hence whole.
echo '== sha256'
list "$files" "$seeded" "$record_files" | xargs -r -n 4 -P 4 sha256sum 2>/dev/null
for path in $seeded; do
  [ -f "$path" ] || continue
  echo "== certificate $path"
  sed -n '/^-----BEGIN CERTIFICATE-----/,/^-----END CERTIFICATE-----/{p;/^-----END/q}' "$path"
done

echo '== units'
# In one call, one block for each, in the order of the names.
names=$(list "$units" "$record_units")
echo "$names"
echo '== unit states'
# shellcheck disable=SC2086 # one argument a name
[ -z "$names" ] || systemctl show -p LoadState -p ActiveState -p UnitFileState $names 2>/dev/null
echo '== inputs'
for marker in "$BASE"/units/*; do
  [ -f "$marker" ] && read -r inputs < "$marker" && echo "${marker##*/} $inputs"
done

echo '== users'
names=$(list "$users" "$record_users" "$uids")
# shellcheck disable=SC2086 # one argument a name or number
[ -z "$names" ] || getent passwd $names

patience=$1
# asked WHAT ARGUMENT...: what containerd answers; nothing where it is down. One that hangs is not one that has nothing.
asked() {
  what=$1
  shift
  [ -n "$tool" ] && [ -S $CONTAINERD ] || return 0
  timeout "$patience" "$tool" "$@" 2>/dev/null
  [ $? -ne 124 ] || { echo "containerd did not list its $what within $patience s" >&2; exit 1; }
}
find_tool ctr
echo '== images'
asked images -n k8s.io images ls
find_tool crictl
echo '== pods'
asked pods pods --state Ready -o json

echo '== etcd'
# Whoever has ever been a member has a log. A start that failed on an empty folder leaves a database alone. A log that somebody
# put elsewhere is not looked for.
case $record_files in
  */etc/kubernetes/manifests/etcd.yaml*)
    ls /var/lib/etcd/member/wal/*.wal >/dev/null 2>&1 ||
      grep -qs wal-dir /etc/kubernetes/manifests/etcd.yaml || echo gone ;;
esac

echo '== lock'
# A holder that was killed leaves its file, not its flock.
if [ -f "$RUN/holder" ] && [ -f "$RUN/lock" ] && ! { flock -n 7; } 7<"$RUN/lock"; then cat "$RUN/holder"; fi

if [ ! -f "$BASE/record.json" ]; then
  echo '== processes'
  grep -hsxE 'kubelet|etcd|kube-apiserver' /proc/[0-9]*/comm | sort -u
  echo '== containers'
  if command -v docker >/dev/null; then timeout 10 docker ps -a --format '{{.Names}}' 2>/dev/null; fi
  echo '== folders'
  for folder in /var/lib/etcd /etc/kubernetes; do
    [ -z "$(ls -A "$folder" 2>/dev/null)" ] || echo "$folder"
  done
  echo '== listeners'
  [ -z "$ports" ] || grep -hs ' 0A ' /proc/net/tcp /proc/net/tcp6
fi
echo '== end'
