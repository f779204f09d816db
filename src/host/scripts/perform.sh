# RUN SIZE CLUSTER: stdin is a tar archive of SIZE bytes: `manifest` (one action on a line, see manifest.rs), the records
# `before` and `after`, and `blobs/DIGEST`. Every action is idempotent; each file is replaced whole or not at all.
run=$1 size=$2 cluster=$3

# A record of another cluster appeared since the plan was made: nothing is written.
foreign_ground() {
  [ -f "$BASE/record.json" ] || return 0
  grep -qx "  \"cluster\": \"$cluster\"," "$BASE/record.json" || fail failed "this host belongs to another cluster"
}

verify_blobs() {
  [ -d "$work/blobs" ] || return 0
  cd "$work/blobs" || fail failed "cannot enter $work"
  for blob in *; do printf '%s  %s\n' "$blob" "$blob"; done | sha256sum -c --quiet > "$work/err" 2>&1 ||
    fail failed "what arrived is not what was sent" "$work/err"
  cd / || exit 1
}

# FILE with lines AT NEW OLD PATH REST: refuses where a file is neither OLD nor NEW (`-`: absent). Keeps the lines of
# those that are not NEW yet in $work/differs, with their present digest in front, and the others in $work/same.
check_drift() {
  while read -r at new old path rest; do [ ! -e "$path" ] || echo "$path"; done < "$1" > "$work/paths"
  xargs -r sha256sum < "$work/paths" > "$work/sums" 2>"$work/err"
  exec 4<"$work/sums" 5>"$work/differs" 6>"$work/same"
  while read -r at new old path rest; do
    now=-
    if [ -e "$path" ]; then
      read -r now name <&4 || name=
      [ "$name" = "$path" ] || fail failed "cannot read $path" "$work/err"
    fi
    case $now in
      "$new") echo "$at $new $old $path $rest" >&6 ;;
      "$old") echo "$now $at $new $old $path $rest" >&5 ;;
      *) fail drift "$path" ;;
    esac
  done < "$1"
  exec 4<&- 5>&- 6>&-
}

# NAME UID GID: refused where the name has other numbers or a number another name.
check_user() {
  if present=$(getent passwd "$1"); then
    case $present in
      "$1":*:"$2":"$3":*) return 0 ;;
      *) fail failed "user $1 exists with other numbers than $2:$3" ;;
    esac
  fi
  ! other=$(getent passwd "$2") || fail failed "user number $2 belongs to ${other%%:*}"
  if present=$(getent group "$1"); then
    case $present in "$1":*:"$3":*) ;; *) fail failed "group $1 exists with another number than $3" ;; esac
  else
    ! other=$(getent group "$3") || fail failed "group number $3 belongs to ${other%%:*}"
  fi
}

# Everything that can be refused is refused before the first write.
check_all() {
  while read -r at verb rest; do
    case $verb in
      put | remove) echo "$at $rest" ;;
    esac
  done < "$work/manifest" > "$work/checked"
  check_drift "$work/checked"
  while read -r at verb name uid gid; do
    [ "$verb" != user ] || check_user "$name" "$uid" "$gid"
  done < "$work/manifest"
  at=0
}

# Makes every folder of the list on stdin and those above it. Each is noted first, so that `remove` knows whose it is.
make_folders() {
  while read -r folder; do
    while [ -n "$folder" ] && [ ! -d "$folder" ]; do
      echo "$folder"
      folder=${folder%/*}
    done
  done | sort -u > "$work/missing"
  [ -s "$work/missing" ] || return 0
  cat "$BASE/made" "$work/missing" > "$work/made" 2>/dev/null
  keep "$work/made" made
  xargs mkdir -m 755 < "$work/missing" 2>"$work/err" || fail failed "cannot make a folder" "$work/err"
}

user() {
  while read -r at name uid gid; do
    echo "do $at"
    holding
    getent group "$name" >/dev/null || groupadd -r -g "$gid" "$name" >"$work/err" 2>&1 ||
      fail failed "cannot make the group $name" "$work/err"
    shell=/bin/false
    for candidate in /usr/sbin/nologin /sbin/nologin; do [ ! -x $candidate ] || shell=$candidate; done
    getent passwd "$name" >/dev/null ||
      useradd -r -M -N -u "$uid" -g "$gid" -d /nonexistent -s "$shell" "$name" >"$work/err" 2>&1 ||
      fail failed "cannot make the user $name" "$work/err"
  done < "$work/lines"
}

directory() {
  while read -r at mode uid gid path; do echo "$path"; done < "$work/lines" > "$work/folders"
  make_folders < "$work/folders"
  while read -r at mode uid gid path; do
    echo "do $at"
    holding
    install -d -m "$mode" -o "$uid" -g "$gid" "$path" 2>"$work/err" ||
      fail failed "cannot set the access of $path" "$work/err"
    echo "${path%/*}/" >> "$work/folders"
  done < "$work/lines"
  flush_folders
}

# The list on stdin, side by side: the file system's journal then writes many at once.
flush() {
  xargs -r -n 16 -P 8 sync 2>"$work/err" || fail failed "cannot flush what was written" "$work/err"
}

flush_folders() {
  sort -u "$work/folders" > "$work/flushed"
  flush < "$work/flushed"
}

# A foreign file is kept by its digest, with where it was and how, before it is replaced.
keep_foreign() { # DIGEST PATH
  mkdir -p "$BASE/foreign"
  cp "$2" "$work/foreign" 2>"$work/err" || fail failed "cannot keep a copy of $2" "$work/err"
  keep "$work/foreign" "foreign/$1"
  cat "$BASE/foreign/index" 2>/dev/null > "$work/index"
  stat -L -c "$1 %a %u %g %n" "$2" >> "$work/index"
  keep "$work/index" foreign/index
}

put() {
  check_drift "$work/lines"
  while read -r now at new old path rest; do echo "${path%/*}"; done < "$work/differs" > "$work/folders"
  make_folders < "$work/folders"
  # Hidden, beside the destination, hence on its file system: the rename below never copies. (The kubelet ignores hidden
  # files among its manifests.)
  while read -r now at new old path rest; do echo "${path%/*}/.${path##*/}.bastide"; done < "$work/differs" \
    > "$work/siblings"
  [ ! -s "$work/siblings" ] || keep "$work/siblings" pending
  while read -r now at new old path mode uid gid foreign; do
    echo "do $at"
    if [ "$foreign" = 1 ] && [ "$now" != - ]; then keep_foreign "$now" "$path"; fi
    holding
    install -m "$mode" -o "$uid" -g "$gid" "$work/blobs/$new" "${path%/*}/.${path##*/}.bastide" 2>"$work/err" ||
      fail failed "cannot write $path" "$work/err"
  done < "$work/differs"
  flush < "$work/siblings"
  while read -r now at new old path rest; do
    holding
    mv -fT "${path%/*}/.${path##*/}.bastide" "$path" 2>"$work/err" || fail failed "cannot write $path" "$work/err"
    echo "${path%/*}/" >> "$work/folders"
  done < "$work/differs"
  flush_folders
  rm -f "$BASE/pending"
  while read -r at new old path mode uid gid foreign; do set_access; done < "$work/same"
}

set_access() {
  echo "do $at"
  holding
  { chown "$uid:$gid" "$path" && chmod "$mode" "$path" && sync "$path"; } 2>"$work/err" ||
    fail failed "cannot set the access of $path" "$work/err"
}

access() {
  while read -r at mode uid gid path; do set_access; done < "$work/lines"
}

remove() {
  check_drift "$work/lines"
  : > "$work/folders"
  while read -r now at new old path; do
    echo "do $at"
    holding
    rm -f "$path" 2>"$work/err" || fail failed "cannot remove $path" "$work/err"
    echo "${path%/*}/" >> "$work/folders"
  done < "$work/differs"
  flush_folders
}

reload() {
  while read -r at rest; do
    echo "do $at"
    holding
    systemctl daemon-reload 2>"$work/err" || fail failed "systemctl daemon-reload" "$work/err"
  done < "$work/lines"
}

unit_failed() { # NAME WORDS
  journalctl --no-pager -q -o cat -n 20 -u "$1" > "$work/journal" 2>/dev/null
  cat "$work/journal" >> "$work/err"
  fail failed "$2" "$work/err"
}

start() {
  while read -r at inputs effect restart seconds name; do
    echo "do $at"
    holding
    verb=start
    [ "$restart" = 0 ] || verb=restart
    if [ "$effect" = rerun ]; then
      verb=restart
    else
      systemctl --quiet enable "$name" 2>"$work/err" || fail failed "cannot enable $name" "$work/err"
    fi
    # A unit that gave up earlier starts again.
    systemctl reset-failed "$name" 2>/dev/null
    patiently timeout "$seconds" systemctl "$verb" "$name" 2>"$work/err" || unit_failed "$name" "$name does not start"
    if [ "$effect" != rerun ]; then
      systemctl is-active --quiet "$name" || unit_failed "$name" "$name ended after its start"
    fi
    # Only now: a run that dies before this restarts the unit again.
    mkdir -p "$BASE/units"
    echo "$inputs" > "$work/inputs"
    keep "$work/inputs" "units/$name"
  done < "$work/lines"
}

stop() {
  while read -r at name; do
    echo "do $at"
    holding
    rm -f "$BASE/units/$name"
    if [ "$(systemctl show -p LoadState "$name")" != LoadState=not-found ]; then
      systemctl --quiet disable --now "$name" 2>"$work/err" || unit_failed "$name" "$name does not stop"
      # What a timer started may have failed, and would be listed as that for ever.
      case $name in *.timer) systemctl reset-failed "${name%.timer}.service" 2>/dev/null ;; esac
    fi
  done < "$work/lines"
}

# The script that a machine's shutdown uses knows how; hosts without a control plane have none. A member that cannot be
# asked is restarted as it is: that may be its cure.
yield() {
  while read -r at rest; do
    echo "do $at"
    holding
    if [ -x /opt/bastide/ordered-shutdown ]; then
      timeout 20 /opt/bastide/ordered-shutdown yield >/dev/null 2>&1 </dev/null || :
    fi
  done < "$work/lines"
}

await_containerd() { # SECONDS
  find_tool ctr
  [ -n "$tool" ] || fail failed "no ctr below /opt/bastide"
  left=$(($1 * 5))
  until [ -S $CONTAINERD ] && timeout 5 "$tool" version >/dev/null 2>"$work/err"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || unit_failed containerd.service "containerd does not answer"
    sleep 0.2
  done
}

# Imports run side by side, as many as there are processors, at most four.
image() {
  read -r at manifest archive seconds reference < "$work/lines"
  await_containerd "$seconds"
  width=$(nproc)
  [ "$width" -le 4 ] || width=4
  rm -f "$work"/import.*
  running=0
  while read -r at manifest archive seconds reference; do
    echo "do $at"
    holding
    (
      trap - EXIT
      # Unpacked layers are flushed before containerd calls the image complete: after a power cut it is whole or absent.
      timeout "$seconds" "$tool" -n k8s.io images import --local --sync-fs --label io.cri-containerd.pinned=pinned \
        "$work/blobs/$archive" > "$work/import.$at" 2>&1 </dev/null &
      trap "kill $! 2>/dev/null" TERM
      wait $! && rm -f "$work/import.$at"
    ) 8>&- &
    imports="$imports $!"
    waited="$waited $!"
    running=$((running + 1))
    if [ "$running" -ge "$width" ]; then
      wait_imports
      running=0
    fi
  done < "$work/lines"
  wait_imports
  timeout 60 "$tool" -n k8s.io images ls > "$work/images" 2>"$work/err" || fail failed "cannot list the images" "$work/err"
  while read -r at manifest archive seconds reference; do
    shown=
    while read -r name _ digest _; do
      [ "$name" != "$reference" ] || shown=$digest
    done < "$work/images"
    [ -n "$shown" ] || fail failed "the archive does not hold the image $reference"
    [ "$shown" = "sha256:$manifest" ] || fail failed "$reference has the manifest $shown after its import, not sha256:$manifest"
  done < "$work/lines"
}

wait_imports() {
  # The ticker is a child too: waiting for all would never end.
  for job in $imports; do wait "$job"; done
  imports= waited=
  while read -r at manifest archive seconds reference; do
    [ -e "$work/import.$at" ] || continue
    # ctr repeats containerd's warnings about the host before the error.
    grep -v DEPRECATION "$work/import.$at" > "$work/err"
    fail failed "cannot import $reference" "$work/err"
  done < "$work/lines"
}

# Pairs of pod name and inputs of every sandbox that is ready, from crictl's JSON (an item ends with `    }`).
ready_pods() {
  timeout 20 "$tool" pods --state Ready -o json 2>"$work/err" | sed -n \
    -e 's/^      *"bastide.dev\/inputs": *"\([0-9a-f]*\)".*/inputs \1/p' \
    -e 's/^      *"io.kubernetes.pod.name": *"\([^"]*\)".*/name \1/p' \
    -e 's/^    },*$/end/p' |
    while read -r key value; do
      case $key in
        inputs) inputs=$value ;;
        name) name=$value ;;
        end)
          echo "${name:-} ${inputs:-}"
          inputs=''
          name=''
          ;;
      esac
    done
}

running_pods() {
  timeout 20 "$tool" ps --state Running -o json 2>"$work/err" |
    sed -n 's/^      *"io.kubernetes.pod.name": *"\([^"]*\)".*/\1/p'
}

# Each of these leaves the first pod that is not so far in `missing`.
all_logged() {
  while read -r at inputs seconds pod; do
    set -- /var/log/pods/*_"$pod"_*/*/*.log
    [ -e "$1" ] || { missing=$pod && break; }
  done < "$work/lines"
}

all_ready() {
  ready_pods > "$work/ready"
  while read -r at inputs seconds pod; do
    grep -qxF "$pod $inputs" "$work/ready" || { missing=$pod && break; }
  done < "$work/lines"
}

all_running() {
  running_pods > "$work/running"
  while read -r at inputs seconds pod; do
    grep -qxF "$pod" "$work/running" || { missing=$pod && break; }
  done < "$work/lines"
}

await() {
  while read -r at inputs seconds pod; do echo "do $at"; done < "$work/lines"
  read -r at inputs seconds pod < "$work/lines"
  limit=$seconds
  await_containerd "$limit"
  find_tool crictl
  [ -n "$tool" ] || fail failed "no crictl below /opt/bastide"
  end=$(($(date +%s) + limit))
  polls=0
  while :; do
    holding
    missing=
    polls=$((polls + 1))
    # Asking containerd costs more than looking for logs, and a host that is starting has no processor to spare. Now and
    # then it is asked anyway: logs may lie elsewhere.
    if [ $((polls % 10)) -ne 0 ]; then all_logged; fi
    if [ -z "$missing" ]; then all_ready; fi
    if [ -z "$missing" ]; then all_running; fi
    [ -n "$missing" ] || return 0
    [ "$(date +%s)" -lt "$end" ] || break
    sleep 0.3
  done
  last_words "$missing" > "$work/err" 2>&1
  fail failed "the pod $missing did not come up within $limit s" "$work/err"
}

begin_work
unpack "$size"
foreign_ground
verify_blobs
check_all
note_found
keep "$work/before" record.json
imports=
group=
: > "$work/lines"
while read -r next verb_of_next fields <&3; do
  if [ "$verb_of_next" != "$group" ] && [ -n "$group" ]; then
    "$group"
    : > "$work/lines"
  fi
  group=$verb_of_next
  echo "$next $fields" >> "$work/lines"
done 3< "$work/manifest"
[ -z "$group" ] || "$group"
keep "$work/after" record.json
echo 'done'
