# etcd's data on this member: exchanged for a database's, or put back. Every step can be cut off; the file `etcd-restore` in
# $BASE says how far it came: TOKEN PHASE ASIDE, the phase being `aside` (what was here is kept, what lies in its place
# is the restore's own), `done`, `returning`, or `joining` (what lies in its place came from the other members).
ETCD=/var/lib/etcd

read_restore() {
  token_here='' phase_here='' aside_here=''
  { read -r token_here phase_here aside_here < "$BASE/etcd-restore"; } 2>/dev/null || :
}

write_restore() { # TOKEN PHASE ASIDE
  echo "$1 $2 $3" > "$work/etcd-restore"
  keep "$work/etcd-restore" etcd-restore
}

# MARK: where data are put aside and made, on the file system of etcd's own folder, so that a rename is all it takes.
# Where the folder is a file system of its own, that is inside it.
places() {
  if mountpoint -q "$ETCD"; then
    aside=$ETCD/before-$1 new=$ETCD/restoring
  else
    aside=$ETCD.before-$1 new=$ETCD.restoring
  fi
}

# SECONDS: etcd itself holds a lock on its database; nothing is touched before that is free.
await_etcd_stopped() {
  [ ! -e /etc/kubernetes/manifests/etcd.yaml ] || fail failed "etcd's manifest is still among the static pods"
  [ -f "$ETCD/member/snap/db" ] || return 0
  end=$(($(date +%s) + $1))
  until flock -n "$ETCD/member/snap/db" true; do
    holding
    [ "$(date +%s)" -lt "$end" ] || fail failed "etcd still uses $ETCD/member/snap/db after $1 s"
    sleep 0.3
  done
}

# FOLDER NAME: FOLDER's `member` gets another place, durably.
move_member() {
  holding
  { mv -T "$1/member" "$2/member" && sync "$1" "$2"; } 2>"$work/err" || fail failed "cannot move $1/member" "$work/err"
}

# The container's processes of a pod whose manifest is gone. The kubelet ends them in order; an API server takes its time
# to tell balancers, which no longer matters, and a kubelet that is down ends nothing.
containers_of() { # POD
  [ -n "$tool" ] && [ -S $CONTAINERD ] || return 0
  timeout 20 "$tool" ps --state Running -q --label "io.kubernetes.pod.name=$1" 2>/dev/null
}

gone() {
  find_tool crictl
  while read -r at seconds pod; do
    echo "do $at"
    end=$(($(date +%s) + seconds))
    while :; do
      holding
      left=$(containers_of "$pod")
      [ -n "$left" ] || break
      [ "$(date +%s)" -lt "$end" ] || fail failed "the pod $pod did not end within $seconds s"
      # shellcheck disable=SC2086 # one argument an id
      timeout 60 "$tool" stop --timeout 15 $left >/dev/null 2>&1 </dev/null
      sleep 0.2
    done
    # The kubelet holds a container back the longer, up to five minutes, the more often one like it has ended lately. It judges by
    # those that it finds, and these have not failed: they were stopped.
    if [ -n "$tool" ] && [ -S $CONTAINERD ]; then
      left=$(timeout 20 "$tool" ps --state Exited -q --label "io.kubernetes.pod.name=$pod" 2>/dev/null)
      # shellcheck disable=SC2086 # one argument an id
      [ -z "$left" ] || timeout 60 "$tool" rm $left >/dev/null 2>&1 </dev/null
    fi
  done < "$work/lines"
}

# Programs of the image, so that data are made by the version that reads them; in the folder `programs`. Taken out of the image as
# files: a mount or a container would be left behind by a run that is killed.
find_programs() { # IMAGE NAME...
  image_of=$1 programs=$work/image
  shift
  all=1
  for name_of in "$@"; do [ -x "$programs/$name_of" ] || all=0; done
  [ $all = 0 ] || return 0
  find_tool ctr
  [ -n "$tool" ] || fail failed "no ctr below /opt/bastide"
  mkdir -p "$programs" && cd "$programs" || fail failed "cannot make $programs"
  # Not over containerd's transfer service: that may have ended before the last bytes are in the file.
  timeout 300 "$tool" -n k8s.io images export --local image.tar "$image_of" >"$work/err" 2>&1 </dev/null ||
    fail failed "cannot read the image $image_of" "$work/err"
  tar -xf image.tar 2>"$work/err" || fail failed "cannot read the image $image_of" "$work/err"
  rm -f image.tar
  for layer in blobs/sha256/*; do
    for name_of in "$@"; do
      for place in usr/local/bin/$name_of ./usr/local/bin/$name_of; do
        [ -x "$programs/$name_of" ] || ! tar -xf "$layer" "$place" 2>/dev/null || mv "usr/local/bin/$name_of" "$programs/"
      done
    done
  done
  rm -rf blobs
  cd / || exit 1
  for name_of in "$@"; do
    [ -x "$programs/$name_of" ] || fail failed "there is no $name_of in the image $image_of"
  done
}

# The data are those that the restore with this token put there. An etcd that finds none makes new, empty ones without a word: where a
# disk was lost since, `done` is true and nothing is there.
is_restored() { # TOKEN
  left=
  { read -r left < "$ETCD/member/restored"; } 2>/dev/null || :
  [ "$left" = "$1" ]
}

restore_etcd() {
  while read -r at seconds token mark leap uid gid peer checked name database image members; do
    echo "do $at"
    holding
    read_restore
    if [ "$token_here $phase_here" = "$token done" ] && is_restored "$token"; then continue; fi
    find_programs "$image" etcdutl
    places "$mark"
    await_etcd_stopped "$seconds"
    rm -rf --one-file-system "$new" 2>"$work/err" || fail failed "cannot remove $new" "$work/err"
    if [ "$token_here" = "$token" ]; then
      # An earlier try of this very restore: nothing of it has ever run. Or what ran since has lost its data.
      write_restore "$token" aside "$aside_here"
      aside=$aside_here
      rm -rf "$ETCD/member"
    else
      if [ -d "$ETCD/member" ]; then
        [ ! -e "$aside/member" ] || fail failed "both $ETCD/member and $aside/member are there"
        install -d -m 700 -o "$uid" -g "$gid" "$aside" 2>"$work/err" || fail failed "cannot make $aside" "$work/err"
        move_member "$ETCD" "$aside"
      fi
      write_restore "$token" aside "$aside"
    fi
    skip=
    [ "$checked" = 1 ] || skip=--skip-hash-check
    # Watchers and kubelets must never see a revision twice.
    # shellcheck disable=SC2086 # no option, or one
    "$programs/etcdutl" snapshot restore "$work/blobs/$database" $skip --name "$name" --initial-cluster "$members" \
      --initial-cluster-token "$token" --initial-advertise-peer-urls "$peer" --data-dir "$new" \
      --bump-revision "$leap" --mark-compacted >"$work/err" 2>&1 </dev/null ||
      fail failed "etcdutl cannot restore the database" "$work/err"
    echo "$token" > "$new/member/restored"
    { chown -R "$uid:$gid" "$new" && chmod 700 "$new" "$new/member" && sync -f "$new"; } 2>"$work/err" ||
      fail failed "cannot give $new to etcd" "$work/err"
    strange=$(find "$new" \( ! -uid "$uid" -o ! -gid "$gid" \) -print | head -n 1)
    [ -z "$strange" ] || fail failed "$strange does not belong to etcd"
    move_member "$new" "$ETCD"
    write_restore "$token" 'done' "$aside"
    rm -rf --one-file-system "$new"
  done < "$work/lines"
}

# Room for a member that gets everything from the others. What lies here of another cluster than the token's is kept; what an
# earlier try left, or a member that was taken out since, is no loss: the others have it.
clear_etcd() {
  while read -r at seconds token mark uid gid; do
    echo "do $at"
    holding
    read_restore
    places "$mark"
    await_etcd_stopped "$seconds"
    if [ "$token_here" = "$token" ]; then
      aside=$aside_here
      rm -rf "$ETCD/member" 2>"$work/err" || fail failed "cannot remove $ETCD/member" "$work/err"
    elif [ -d "$ETCD/member" ]; then
      [ ! -e "$aside/member" ] || fail failed "both $ETCD/member and $aside/member are there"
      install -d -m 700 -o "$uid" -g "$gid" "$aside" 2>"$work/err" || fail failed "cannot make $aside" "$work/err"
      move_member "$ETCD" "$aside"
    fi
    write_restore "$token" joining "$aside"
  done < "$work/lines"
}

return_etcd() {
  while read -r at seconds token mark; do
    echo "do $at"
    holding
    read_restore
    places "$mark"
    rm -f "$BASE/recovered/$mark.db" "$BASE/recovered/$mark.count"
    rmdir "$BASE/recovered" 2>/dev/null
    if [ "$token_here" != "$token" ]; then
      # Cut off between putting aside and saying so.
      if [ ! -d "$ETCD/member" ] && [ -d "$aside/member" ]; then
        move_member "$aside" "$ETCD"
      fi
      rmdir "$aside" 2>/dev/null
      continue
    fi
    aside=$aside_here
    await_etcd_stopped "$seconds"
    if [ "$phase_here" != returning ]; then
      if [ -d "$aside/member" ]; then
        write_restore "$token" returning "$aside"
      else
        # There was nothing before the restore.
        rm -rf "$ETCD/member"
      fi
    fi
    if [ -d "$aside/member" ]; then
      rm -rf "$ETCD/member"
      move_member "$aside" "$ETCD"
    fi
    rmdir "$aside" 2>/dev/null
    rm -rf --one-file-system "$new"
    rm -f "$BASE/etcd-restore"
    sync "$BASE"
  done < "$work/lines"
}
