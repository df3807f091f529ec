#!/bin/sh
# Makes the disk of the node that `cargo xtask node` boots: Debian's packages, the files in `root`, and a kernel's modules.
#
#   build.sh FOLDER SOURCES MODULES RELEASE IMAGE OWNER
#
# FOLDER is for the tree, SOURCES the lines of apt for Debian 12, MODULES the folder with the modules of the kernel RELEASE,
# IMAGE the file that is made, and OWNER whose it is. It runs as root.
set -eu
folder=$1 sources=$2 modules=$3 release=$4 image=$5 owner=$6
here=$(dirname "$0")
rm -rf "$folder"

packages=$(sed 's/#.*//' "$here/packages" | xargs | tr ' ' ',')
# Lists that are kept as they are get out of date by their own word, and they are signed.
mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
    --aptopt='Acquire::Retries "3"' --aptopt='Acquire::http::Timeout "30"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/javascript/*' \
    bookworm "$folder" "$sources"

(cd "$here/root" && cp -r . "$folder/")
chmod 755 "$folder/usr/local/sbin/node-net" "$folder/usr/local/sbin/node-test"
mkdir -p "$folder/lib/modules"
cp -r "$modules" "$folder/lib/modules/$release"
chroot "$folder" depmod "$release"

# Not the first boot, of which systemd makes more than of others.
echo 0123456789abcdef0123456789abcdef >"$folder/etc/machine-id"
# For this test alone: the key is in an image that stays on this machine.
dd if=/dev/urandom of="$folder/etc/munge/munge.key" bs=1 count=1024 status=none
chroot "$folder" chown munge:munge /etc/munge/munge.key
chmod 400 "$folder/etc/munge/munge.key"
# Slurm makes none of its folders.
mkdir -p "$folder/var/lib/slurm/slurmctld" "$folder/var/lib/slurm/slurmd" "$folder/var/log/slurm"
chroot "$folder" chown -R slurm:slurm /var/lib/slurm /var/log/slurm /etc/slurm/slurmdbd.conf
chmod 600 "$folder/etc/slurm/slurmdbd.conf"

for user in alice:1000 bob:1001; do
    chroot "$folder" useradd --create-home --uid "${user#*:}" --shell /bin/bash "${user%:*}"
done
# As `loginctl enable-linger alice` does it: her units run without a login.
mkdir -p "$folder/var/lib/systemd/linger"
touch "$folder/var/lib/systemd/linger/alice"

chroot "$folder" systemctl --quiet enable node-net.service
# What nobody needs here, and what the test starts when it is its turn: it takes half a minute of an emulated processor.
for unit in serial-getty@ttyS0.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer fstrim.timer \
    e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer systemd-networkd-wait-online.service \
    podman-auto-update.timer prometheus-node-exporter-apt.timer prometheus-node-exporter-nvme.timer \
    prometheus-node-exporter-mdadm.timer logrotate.timer man-db.timer; do
    ln -sf /dev/null "$folder/etc/systemd/system/$unit"
done
chroot "$folder" systemctl --quiet disable docker.service docker.socket containerd.service mariadb.service \
    slurmdbd.service slurmctld.service slurmd.service prometheus.service prometheus-node-exporter.service \
    podman.service podman.socket podman-restart.service 2>/dev/null || true

# What is installed later comes with its documents.
rm -f "$folder/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
rm -rf "$folder/var/cache/apt" "$folder/var/lib/apt/lists"
truncate --size 4G "$image"
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1,root_owner=0:0 -d "$folder" "$image"
chown "$owner" "$image"
rm -rf "$folder"
