# RUN: holds the host's lock while heartbeats come in; the first line of stdin is the holder in JSON.
run=$1
IFS= read -r holder || exit 1

refuse() {
  echo refused
  cat "$RUN/holder" 2>/dev/null
  echo
  exit 1
}

# Everything goes when nothing else needs it: the host is then as it was found. Where the file is another one by now,
# another run holds it.
release() {
  trap - EXIT
  if command exec 8>>"$RUN/work" && flock -n 8 && same_file 8 "$RUN/work"; then rm -f "$RUN/work"; fi
  if same_file 9 "$RUN/lock"; then rm -f "$RUN/run" "$RUN/holder" "$RUN/lock"; fi
  rmdir "$RUN" 2>/dev/null
  exit 0
}

while :; do
  mkdir -p "$RUN"
  command exec 9>>"$RUN/lock" || { sleep 0.1; continue; }
  # A run that just ended may still be letting go.
  flock -w 3 9 || refuse
  ! same_file 9 "$RUN/lock" || break
done
trap release EXIT
trap 'exit 0' HUP INT PIPE TERM
printf '%s\n' "$holder" > "$RUN/holder"
printf '%s\n' "$run" > "$RUN/run"
echo held
# One reply for each heartbeat. `timeout` and not `read -t`, which POSIX does not have.
while beat=$(timeout 30 dd bs=512 count=1 2>/dev/null) && [ -n "$beat" ]; do
  held=
  { read -r held < "$RUN/run"; } 2>/dev/null || :
  [ "$held" = "$run" ] || exit 0
  echo beat
done
