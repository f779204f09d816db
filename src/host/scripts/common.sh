# Begins every script: where things are, and how an error is told.
# Nothing here or in the scripts builds shell text from data: data are arguments and lines of fields without blanks.
set -u
umask 077
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CONTAINERD=/run/containerd/containerd.sock
CONTAINER_RUNTIME_ENDPOINT=unix://$CONTAINERD
export LC_ALL PATH CONTAINER_RUNTIME_ENDPOINT
BASE=/var/lib/bastide
RUN=/run/bastide
at=0

# KIND WORDS [FILE]: tells the error with the last lines of FILE, and ends.
fail() {
  printf 'fail %s %s %s\n' "$1" "${at:-0}" "$2"
  if [ -n "${3:-}" ] && [ -s "$3" ]; then tail -n 20 "$3" | sed 's/^/| /'; echo; fi
  echo end
  exit 1
}

# The program NAME of the newest package that bastide installed, in `tool`; empty where there is none.
find_tool() {
  tool=
  for candidate in /opt/bastide/*/"$1"; do
    [ ! -x "$candidate" ] || tool=$candidate
  done
}

# The keys of the map SECTION, or the entries of the list SECTION, of a record as bastide lays it out: one on a line.
recorded() {
  [ ! -f "$BASE/record.json" ] || sed -n '/^  "'"$1"'": [[{]$/,/^  []}]/s/^    "\([^"]*\)".*/\1/p' "$BASE/record.json"
}

# The lock's file must still be the one that its path names: whoever lets go last removes it.
same_file() { # FD PATH
  [ "$(stat -L -c %d:%i "/proc/self/fd/$1" 2>/dev/null)" = "$(stat -c %d:%i "$2" 2>/dev/null)" ]
}
