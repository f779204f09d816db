#!/bin/bash
# mkrootfs.sh - build the pristine root file system of the bed's hosts, once. Root; needs mmdebstrap.
#   env: BASTIDE_BED_CACHE (default ${XDG_CACHE_HOME:-$HOME/.cache}/bastide-bed), SUITE (default trixie), IMG (target folder)
# The image holds what a Kubernetes host needs from its distribution (runc, iptables, nftables, conntrack, socat, ...), but
# no containerd and no Kubernetes: installing those is the provisioner's job.
set -euo pipefail
CACHE=${BASTIDE_BED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bastide-bed}
SUITE=${SUITE:-trixie}
IMG=${IMG:-$CACHE/rootfs/$SUITE}
PKGS=systemd,systemd-sysv,dbus,openssh-server,sudo,runc,iptables,nftables,ebtables,ipset,iproute2,conntrack,ethtool,socat,kmod,curl,jq
PKGS+=,ca-certificates,iputils-ping,procps,mount,util-linux,rsync,cron,openssl,auditd${EXTRA_PKGS:+,$EXTRA_PKGS}

[ ! -e "$IMG/.ready" ] || { echo "mkrootfs: $IMG is there"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "mkrootfs: must be root" >&2; exit 1; }
command -v mmdebstrap >/dev/null || { echo "mkrootfs: needs mmdebstrap (apt-get install mmdebstrap)" >&2; exit 1; }
mkdir -p "$(dirname "$IMG")"; rm -rf "$IMG"
mmdebstrap --quiet --variant=minbase --mode=root --format=directory --include="$PKGS" \
  --aptopt='Apt::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  "$SUITE" "$IMG"

# no device manager, no consoles, nothing that reaches for the machine's hardware, clock or audit log
for u in systemd-udevd.service systemd-udev-trigger.service getty@tty1.service console-getty.service auditd.service audit-rules.service \
         systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer \
         systemd-firstboot.service sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount dev-hugepages.mount \
         proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount; do
  ln -sf /dev/null "$IMG/etc/systemd/system/$u"
done
chroot "$IMG" systemctl enable ssh.service >/dev/null 2>&1
chroot "$IMG" useradd -m -s /bin/bash ops
echo 'ops ALL=(ALL) NOPASSWD:ALL' > "$IMG/etc/sudoers.d/ops"; chmod 440 "$IMG/etc/sudoers.d/ops"
rm -f "$IMG"/etc/ssh/ssh_host_*
mkdir -p "$IMG/etc/ssh/sshd_config.d" "$IMG/etc/systemd/journald.conf.d"
printf 'UseDNS no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n' > "$IMG/etc/ssh/sshd_config.d/bed.conf"
printf '[Journal]\nReadKMsg=no\nStorage=volatile\nForwardToSyslog=no\nAudit=no\n' > "$IMG/etc/systemd/journald.conf.d/bed.conf"
# earlier on PATH than the distribution's own; says itself what it is for
install -m 755 "$(dirname "$(readlink -f "$0")")/runc" "$IMG/usr/local/sbin/runc"
: > "$IMG/etc/machine-id"; rm -f "$IMG/var/lib/dbus/machine-id" "$IMG/etc/resolv.conf"; : > "$IMG/etc/resolv.conf"; : > "$IMG/etc/fstab"
touch "$IMG/.ready"
du -sh "$IMG" | cat
