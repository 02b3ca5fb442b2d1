#!/bin/sh
# Makes the Debian package: packaging/deb/build.sh BINARY [FOLDER]. Needs dpkg-deb and strip, and no network. The same inputs and
# SOURCE_DATE_EPOCH (without it: the last commit's time) make the same bytes. DEB_COMPRESSION is dpkg-deb's -Z.
set -eu
binary=$(realpath "${1:?usage: packaging/deb/build.sh BINARY [FOLDER]}")
mkdir -p "${2:-target/deb}"
out=$(realpath "${2:-target/deb}")
cd "$(dirname "$0")/../.."
umask 022
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
arch=$(dpkg --print-architecture)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
root=$tree/root
doc=$root/usr/share/doc/evenkeel

install -D -m 755 "$binary" "$root/usr/bin/evenkeel"
strip --strip-unneeded "$root/usr/bin/evenkeel"
# For scripts that call ipvsadm: put this folder first in their PATH. The name itself is left to the package ipvsadm.
install -d "$root/usr/lib/evenkeel"
ln -s ../../bin/evenkeel "$root/usr/lib/evenkeel/ipvsadm"
install -D -m 644 packaging/evenkeel.service "$root/lib/systemd/system/evenkeel.service"
install -D -m 644 packaging/deb/evenkeel.toml "$root/etc/evenkeel/evenkeel.toml"
install -d "$doc/examples" "$root/usr/share/man/man1"
install -m 644 configs/*.toml "$doc/examples/"
install -m 644 README.md docs/*.md "$doc/"
gzip -9n < CHANGELOG.md > "$doc/changelog.gz"
{
    printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: evenkeel\n\n'
    printf 'Files: *\nCopyright: the Evenkeel authors\nLicense: MIT or Apache-2.0\n\nLicense: MIT or Apache-2.0\n'
    sed 's/^$/./; s/^/ /' LICENSE-MIT
    printf ' .\n On Debian systems the text of Apache-2.0 is in /usr/share/common-licenses/Apache-2.0.\n'
} > "$doc/copyright"
for folder in grafana packaging/grafana packaging/prometheus; do
    [ -d "$folder" ] && cp -r "$folder" "$doc/examples/"
done
"$binary" man "$root/usr/share/man/man1" > /dev/null
gzip -9n "$root"/usr/share/man/man1/*
for place in bash:usr/share/bash-completion/completions/evenkeel zsh:usr/share/zsh/vendor-completions/_evenkeel \
    fish:usr/share/fish/vendor_completions.d/evenkeel.fish; do
    mkdir -p "$root/$(dirname "${place#*:}")"
    "$binary" completion "${place%%:*}" > "$root/${place#*:}"
done

mkdir "$root/DEBIAN"
install -m 755 packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm "$root/DEBIAN/"
echo /etc/evenkeel/evenkeel.toml > "$root/DEBIAN/conffiles"
cat > "$root/DEBIAN/control" <<END
Package: evenkeel
Version: $version
Architecture: $arch
Maintainer: The Evenkeel authors <evenkeel@localhost>
Installed-Size: $(du -sk "$root" | cut -f1)
Depends: libc6, libgcc-s1
Recommends: util-linux
Suggests: prometheus, grafana
Section: net
Priority: optional
Description: userspace L4 load balancer on AF_XDP
 Forwards TCP, UDP and SCTP to real servers by direct routing, NAT, full NAT and
 tunnels, checks them, and shares addresses by VRRP: in the place of keepalived
 and LVS, in one program and one configuration file.
END
find "$root" -type d -exec chmod 755 {} +
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) > "$tree/md5sums"
mv "$tree/md5sums" "$root/DEBIAN/md5sums"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group "-Z${DEB_COMPRESSION:-xz}" --build "$root" "$out/evenkeel_${version}_$arch.deb"
