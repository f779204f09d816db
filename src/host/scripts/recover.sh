# VERB RUN TOKEN MARK ..: what a member that survived alone holds, as a database. Its own data are only read; the copy that an etcd
# of its own runs on lies in the staging folder, and what comes of it stays in $BASE/recovered until the restore with
# TOKEN has come to its end.
verb=$1 run=$2 token=$3 mark=$4
shift 4
kept=$BASE/recovered
etcd=

# The member's data, wherever an earlier try has put them.
find_source() { # SECONDS
  await_etcd_stopped "$1"
  read_restore
  source=$ETCD/member
  [ "$token_here" != "$token" ] || source=$aside_here/member
  [ -f "$source/snap/db" ] || fail failed "there is no database of etcd in $source"
}

# One of the files of the log, NUMBER counting from its end, from OFFSET on.
log() { # SECONDS NUMBER OFFSET
  find_source "$1"
  find "$source/wal" -name '*.wal' | sort -r > "$work/files"
  file=$(sed -n "$2p" "$work/files")
  if [ -n "$file" ]; then
    sum=$(sha256sum < "$file") && size=$(stat -c %s "$file") || fail failed "cannot read $file"
    echo "file ${file##*/} $size ${sum%% *}"
    echo "log $(tail -c "+$(($3 + 1))" "$file" | head -c 16777216 | gzip -1 -c | base64 -w0)"
  fi
  echo 'done'
}

# KIND WORDS [FILE]
give_up() {
  stop_etcd
  fail "$@"
}

stop_etcd() {
  [ -n "$etcd" ] || return 0
  kill -9 "$etcd" 2>/dev/null
  wait "$etcd" 2>/dev/null
  waited=
  etcd=
}

ask() {
  timeout 120 "$programs/etcdctl" --endpoints unix://client:0 --command-timeout 100s -w json "$@" 2>>"$work/err" </dev/null
}

told() {
  sum=$(sha256sum < "$kept/$mark.db") && size=$(stat -c %s "$kept/$mark.db") || fail failed "cannot read $kept/$mark.db"
  echo "database $size ${sum%% *}"
  echo "count $(cat "$kept/$mark.count")"
  echo 'done'
}

# FILE of the log has DIGEST; it is cut at OFFSET and RECORD (base64; `-`: none) put there.
gather() { # SECONDS IMAGE FILE DIGEST OFFSET RECORD
  if [ -f "$kept/$mark.db" ]; then
    told
    return
  fi
  find_source "$1"
  find_programs "$2" etcd etcdctl etcdutl
  mkdir -p "$work/alone/data" && cd "$work/alone" || fail failed "cannot make $work/alone"
  patiently cp -a --reflink=auto "$source" data/member 2>"$work/err" || fail failed "cannot copy $source" "$work/err"
  copy=data/member/wal/$3
  if [ "$6" != - ]; then
    sum=$(sha256sum < "$copy") || fail failed "cannot read $copy"
    [ "${sum%% *}" = "$4" ] || fail failed "$source/wal/$3 has changed since it was read"
    { truncate -s "$5" "$copy" && echo "$6" | base64 -d >> "$copy"; } 2>"$work/err" ||
      fail failed "cannot write to the copy of $3" "$work/err"
  fi
  holding
  # With its parent it ends too, where the host knows how to see to that.
  with=
  ! command -v setpriv >/dev/null || with='setpriv --pdeathsig KILL'
  # shellcheck disable=SC2086 # no words, or three
  $with "$programs/etcd" --data-dir data --force-new-cluster --listen-peer-urls unix://peer:0 \
    --initial-advertise-peer-urls http://localhost:2380 --listen-client-urls unix://client:0 \
    --advertise-client-urls unix://client:0 --unsafe-no-fsync --log-level warn >"$work/err" 2>&1 </dev/null 8>&- &
  etcd=$!
  waited=" $etcd"
  end=$(($(date +%s) + $1))
  # A read that goes through the log: everything in it has been applied by then.
  until count=$(ask get '' --prefix --keys-only --limit 1); do
    holding
    kill -0 "$etcd" 2>/dev/null || give_up failed "an etcd of its own does not start with the member's data" "$work/err"
    [ "$(date +%s)" -lt "$end" ] || give_up failed "an etcd of its own does not serve the member's data within $1 s" "$work/err"
    sleep 0.3
  done
  timeout 3600 "$programs/etcdctl" --endpoints unix://client:0 snapshot save db >"$work/err" 2>&1 </dev/null ||
    give_up failed "the member's data cannot be saved as a snapshot" "$work/err"
  stop_etcd
  "$programs/etcdutl" snapshot status db >"$work/err" 2>&1 </dev/null || fail failed "what was saved is not whole" "$work/err"
  mkdir -p "$kept" && chmod 700 "$kept" || fail failed "cannot make $kept"
  holding
  { echo "$count" > "$kept/$mark.count" && sync "$kept/$mark.count" db && mv -T db "$kept/$mark.db" && sync "$kept"; } \
    2>"$work/err" || fail failed "cannot keep $kept/$mark.db" "$work/err"
  told
}

forget() {
  rm -f "$kept/$mark.db" "$kept/$mark.count"
  rmdir "$kept" 2>/dev/null
  echo 'done'
}

# What an earlier try has made, if anything: nothing of etcd is touched.
look() {
  if [ -f "$kept/$mark.db" ]; then told; else echo 'done'; fi
}

case $verb in
  look | forget) "$verb" ;;
  log | gather)
    begin_work
    "$verb" "$@"
    ;;
esac
