# IMAGE SIZE REVISION RUN PREFIX...: stdin is a database of SIZE bytes as etcd streams it. Restores it in a folder of its own with the
# programs of the release's etcd image, starts that etcd on sockets in the folder, and tells what it finds at REVISION (0: at
# the newest), and the names of the keys below each PREFIX. The cluster's own etcd and its ports are not touched.
image=$1 size=$2 revision=$3 run=$4
shift 4
scratch=$BASE/scratch.$run
root=$scratch/root
etcd=
find_tool ctr

clean() { # FOLDER
  # containerd keeps a layer for each mounted image, by the path, until it is told.
  [ -z "$tool" ] || timeout 60 "$tool" -n k8s.io images unmount --rm "$1/root" >/dev/null 2>&1
  ! mountpoint -q "$1/root" 2>/dev/null || umount -l "$1/root" 2>/dev/null
  rmdir "$1/root" 2>/dev/null
  # Whatever is still mounted keeps the folder.
  [ -d "$1/root" ] || rm -rf "$1"
}
leave() {
  status=$?
  trap - EXIT
  if [ -n "$etcd" ]; then kill -9 "$etcd" 2>/dev/null; wait "$etcd" 2>/dev/null; fi
  cd /
  clean "$scratch"
  exit "$status"
}
trap leave EXIT
trap 'exit 129' HUP INT PIPE TERM

# What a proof that was cut off by a power loss left behind.
for old in "$BASE"/scratch.*; do
  [ ! -d "$old" ] || [ -z "$(find "$old" -maxdepth 0 -mmin +60)" ] || clean "$old"
done
[ -n "$tool" ] || fail failed "no ctr below /opt/bastide"
{ mkdir -p "$root" && cd "$scratch"; } 2>/dev/null || fail failed "cannot make $scratch"
err=$scratch/err
timeout 60 "$tool" -n k8s.io images mount "$image" "$root" >"$err" 2>&1 || fail failed "cannot mount the image $image" "$err"
programs=$root/usr/local/bin
for name in etcd etcdctl etcdutl; do
  [ -x "$programs/$name" ] || fail failed "the image $image has no $name"
done
head -c "$size" 2>"$err" > db || fail failed "cannot write to $scratch" "$err"
[ "$(stat -c %s db)" = "$size" ] || fail failed "the database did not arrive whole"
"$programs/etcdutl" snapshot restore db --data-dir data >"$err" 2>&1 </dev/null || fail failed "etcdutl does not restore it" "$err"
rm -f db
"$programs/etcd" --data-dir data --listen-peer-urls unix://peer:0 --initial-advertise-peer-urls http://localhost:2380 \
  --listen-client-urls unix://client:0 --advertise-client-urls unix://client:0 --unsafe-no-fsync --log-level warn \
  >"$err" 2>&1 </dev/null &
etcd=$!
ask() { timeout 120 "$programs/etcdctl" --endpoints unix://client:0 --command-timeout 100s -w json "$@" 2>>"$err" </dev/null; }
left=600
until ask endpoint status >/dev/null; do
  left=$((left - 1))
  kill -0 "$etcd" 2>/dev/null && [ "$left" -gt 0 ] || fail failed "etcd does not come up with it" "$err"
  sleep 0.2
done
now=$(ask endpoint status) || fail failed "the restored etcd does not tell its status" "$err"
echo "status $now"
# One key tells the number of all; --count-only has no JSON form.
count=$(ask get '' --prefix --keys-only --limit 1 --rev "$revision") || fail failed "the restored etcd does not count its keys" "$err"
echo "count $count"
# Without a hash where etcd refuses one.
hash=$(ask endpoint hashkv --rev "$revision") && echo "hash $hash"
for prefix in "$@"; do
  timeout 120 "$programs/etcdctl" --endpoints unix://client:0 --command-timeout 100s get "$prefix" --prefix --keys-only \
    >names 2>"$err" </dev/null || fail failed "the restored etcd does not name its keys" "$err"
  sed -e '/^$/d' -e 's/^/name /' names
done
echo 'done'
