# VERB FOLDER ..: etcd's snapshots on this host. A snapshot is staged as a hidden sibling, and only a rename makes it one.
# FILE never begins with a dot; whoever calls has made sure that no argument needs quoting.
verb=$1 folder=$2
part=

leave() {
  status=$?
  trap - EXIT
  [ -z "$part" ] || rm -f "$part"
  exit "$status"
}
trap leave EXIT
trap 'exit 129' HUP INT PIPE TERM

put() { # FILE RUN: stdin is the snapshot
  [ -d "$folder" ] || mkdir -p "$folder" 2>/dev/null || fail failed "cannot make $folder"
  chmod 700 "$folder" 2>/dev/null || fail failed "cannot close $folder to others"
  # What runs that died left behind; a living one writes all the time.
  find "$folder" -maxdepth 1 -type f -name '.*.part' -mmin +60 -delete 2>/dev/null
  [ ! -e "$folder/$1" ] || fail failed "$folder/$1 is there already"
  part=$folder/.$1.$2.part
  # Its words go nowhere near a disk that may be full.
  words=$(cat 2>&1 > "$part") || fail failed "cannot write $folder/$1: $(echo "$words" | head -n 1)"
  # A connection that broke ends stdin too.
  [ "$(tail -c 16 "$part")" = bastide-snap-end ] || fail failed "the snapshot did not arrive whole"
  sync "$part" 2>/dev/null || fail failed "cannot write $folder/$1 durably"
  sum=$(sha256sum < "$part") || fail failed "cannot read what was written to $folder/$1"
  echo "landed ${sum%% *}"
  part=
  echo 'done'
}

# FILE RUN: what was put is a snapshot from here on.
commit() {
  part=$folder/.$1.$2.part
  # A link does not replace what is there, as a rename would.
  ln -T "$part" "$folder/$1" 2>/dev/null || fail failed "$folder/$1 is there already, or what was put is gone"
  rm -f "$part"
  sync "$folder"
  echo 'done'
}

# BYTES: of each file its size, the time of its last change, its name, and its first 64 and last BYTES bytes.
list() {
  [ -d "$folder" ] || { echo 'done'; return; }
  for path in "$folder"/*; do
    [ -f "$path" ] && [ ! -L "$path" ] || continue
    case ${path##*/} in *[!A-Za-z0-9._:+-]*) continue ;; esac
    # The host itself removes old ones: what is gone by the end of this was not there.
    facts=$(stat -c '%s %Y' "$path" 2>/dev/null) || continue
    first=$(head -c 64 "$path" 2>/dev/null | base64 -w0)
    end=$(tail -c "$1" "$path" 2>/dev/null | base64 -w0)
    [ -f "$path" ] || continue
    echo "file $facts ${path##*/}"
    echo "first $first"
    echo "end $end"
  done
  echo 'done'
}

# FILE OFFSET LENGTH: the bytes themselves. The block is what is read at once.
part_of() {
  [ -f "$folder/$1" ] || exit 44
  tail -c "+$(($2 + 1))" "$folder/$1" | head -c "$3"
}

case $verb in
  put) put "$3" "$4" ;;
  commit) commit "$3" "$4" ;;
  discard) rm -f "$folder/.$3.$4.part"; echo 'done' ;;
  list) list "$3" ;;
  read) part_of "$3" "$4" "$5" ;;
  delete)
    rm -f "$folder/$3" 2>/dev/null || fail failed "cannot remove $folder/$3"
    sync "$folder" 2>/dev/null
    echo 'done'
    ;;
esac
