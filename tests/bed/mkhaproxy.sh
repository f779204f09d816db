#!/bin/bash
# mkhaproxy.sh - unpack the distribution's haproxy package with everything it is linked to, once; `mkimg.py --root` makes the
# balancer's image out of it. Root; needs mmdebstrap.
#   env: BASTIDE_BED_CACHE (default ${XDG_CACHE_HOME:-$HOME/.cache}/bastide-bed), SUITE (default trixie)
set -euo pipefail
CACHE=${BASTIDE_BED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bastide-bed}
SUITE=${SUITE:-trixie}
OUT=$CACHE/rootfs/haproxy-$SUITE
[ ! -e "$OUT/.ready" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "mkhaproxy: must be root" >&2; exit 1; }
mkdir -p "$(dirname "$OUT")"; rm -rf "$OUT"
# extracted, not installed: enough to find libraries (ldd wants bash and coreutils) and to ask the program for its version
mmdebstrap --quiet --variant=extract --mode=root --format=directory --include=haproxy,base-files,coreutils,bash,libc-bin \
  --aptopt='Apt::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  "$SUITE" "$OUT"
chroot "$OUT" /usr/sbin/haproxy -v | sed -n 1p
touch "$OUT/.ready"
