# What a script that writes does besides: it holds the host's lock, says that it lives, and stages before it writes. The
# script that follows sets `run`.
ticker=
waited=
work=

# The host's lock is still this run's.
holding() {
  held=
  { read -r held < "$RUN/run"; } 2>/dev/null || :
  [ "$held" = "$run" ] || fail lock lost
}

# Somebody who waits sees that work goes on; a dead script is silent. A script that waits for something long does not look at
# the lock: it is told.
tick() {
  while sleep 3 >/dev/null 2>&1; do
    kill -0 $$ 2>/dev/null || exit 0
    held=
    { read -r held < "$RUN/run"; } 2>/dev/null || :
    [ "$held" = "$run" ] || kill -TERM $$ 2>/dev/null
    echo tick
  done
}

# COMMAND...: runs what may take long so that a signal ends the waiting, and with the script the command. It does not hold the
# work's lock: the next run need not wait for it.
patiently() {
  "$@" 8>&- &
  one=$!
  waited="$waited $one"
  wait "$one"
  code=$?
  # Its number may be somebody else's from now on.
  waited=${waited% "$one"}
  return "$code"
}

# Only one script writes at a time, even where a run that lost its lock has not yet noticed.
begin_work() {
  trap leave EXIT
  trap 'exit 129' HUP INT PIPE
  trap 'holding; exit 129' TERM
  holding
  tick </dev/null 2>/dev/null &
  ticker=$!
  while :; do
    command exec 8>>"$RUN/work" || fail lock lost
    flock -w 120 8 || fail failed "another run's last step is still being finished on this host"
    ! same_file 8 "$RUN/work" || break
  done
  holding
  work=$BASE/staging
  if [ ! -d "$BASE" ]; then mkdir -p "$BASE" || fail failed "cannot make $BASE"; fi
  chmod 700 "$BASE"
  rm -rf "$work"
  mkdir "$work" 2>/dev/null || fail failed "cannot make $work"
  sweep
}

leave() {
  status=$?
  trap - EXIT
  for job in $ticker $waited; do kill "$job" 2>/dev/null; done
  if [ -n "$work" ]; then
    sweep
    rm -rf "$work"
    rmdir "$BASE" 2>/dev/null
  fi
  exit "$status"
}

# Hidden siblings of destinations that a killed script left behind.
sweep() {
  rm -f "$BASE/new"
  [ -f "$BASE/pending" ] || return 0
  xargs rm -f < "$BASE/pending"
  rm -f "$BASE/pending"
}

# FILE NAME: FILE's content becomes $BASE/NAME, whole and durable or not at all.
keep() {
  { cp "$1" "$BASE/new" && sync "$BASE/new"; } 2>"$work/err" || fail failed "cannot write $BASE/$2" "$work/err"
  holding
  mv -fT "$BASE/new" "$BASE/$2" 2>"$work/err" || fail failed "cannot write $BASE/$2" "$work/err"
  case $2 in */*) sync "$BASE/${2%/*}" "$BASE" ;; *) sync "$BASE" ;; esac
}

# What kubelet, containerd, CNI plugins and iptables make by themselves: DATA is emptied by `remove`, PARENTS only go when
# empty. Neither where it was there before bastide; children stand before their parents.
DATA='/run/containerd /run/flannel /run/kubelet /run/nri /run/xtables.lock /var/lib/cni /var/lib/containerd /var/lib/etcd /var/lib/kubelet
/var/log/containers /var/log/kubernetes /var/log/pods'
PARENTS='/etc/cni/net.d /etc/cni /etc/containerd /etc/kubernetes/manifests /etc/kubernetes /opt/bastide /opt/cni/bin /opt/cni
/opt/containerd/bin /opt/containerd/lib /opt/containerd /run/netns
/usr/libexec/kubernetes/kubelet-plugins/volume/exec /usr/libexec/kubernetes/kubelet-plugins/volume
/usr/libexec/kubernetes/kubelet-plugins /usr/libexec/kubernetes'

# Notes once, before the first write, what of that is there: `found PATH`, `full PATH` where it holds something, and the
# packet filter's tables.
note_found() {
  [ ! -f "$BASE/found" ] || return 0
  for trace in $DATA $PARENTS; do
    [ ! -e "$trace" ] || echo "found $trace"
    [ ! -d "$trace" ] || [ -z "$(ls -A "$trace" 2>/dev/null)" ] || echo "full $trace"
  done > "$work/found"
  if command -v nft >/dev/null; then nft list tables >> "$work/found" 2>/dev/null; fi
  keep "$work/found" found
}

# The payload is a tar archive of SIZE bytes; stdin stays open after it.
unpack() {
  # What runs beside the script is given no stdin but by name.
  exec 3<&0
  mkfifo "$work/stream" || fail failed "cannot make $work/stream"
  head -c "$1" <&3 > "$work/stream" 8>&- &
  feeding=$!
  waited=" $feeding"
  patiently tar --no-same-owner --no-same-permissions -C "$work" -xf "$work/stream" 2>"$work/err" 3<&- ||
    fail failed "cannot stage the files in $work" "$work/err"
  wait "$feeding"
  waited=
  exec 3<&-
  rm -f "$work/stream"
}
