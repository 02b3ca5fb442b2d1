# Starts a machine of its own: systemd as process 1 in namespaces, over a copy-on-write view of this machine's files.
#   machine.sh FOLDER: FOLDER/files becomes /srv/lab; FOLDER/mount is used; FOLDER/pid gets the id of process 1.
# Nothing in it may change this machine: its files, names, processes, network and control groups are its own, the kernel's settings but those of
# the network are read only, and the clock, modules and restarts are out of its reach.
set -eu
folder=$1
if [ "${2:-}" = inside ]; then
    cd "$folder/mount"
    mkdir up work root
    mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work root
    cd root
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount --bind /proc/sys/net proc/sys/net 2>/dev/null || true
    mount -t sysfs sysfs sys -o ro
    for place in run tmp dev; do mount -t tmpfs tmpfs $place -o mode=755; done
    chmod 1777 tmp
    for node in null zero full random urandom tty; do touch dev/$node && mount --bind /dev/$node dev/$node; done
    if [ -e /dev/net/tun ]; then mkdir dev/net && touch dev/net/tun && mount --bind /dev/net/tun dev/net/tun; fi
    mkdir dev/pts dev/shm
    mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
    ln -s pts/ptmx dev/ptmx
    mount -t tmpfs tmpfs dev/shm
    if [ -e "$folder/groups/unified-only" ]; then
        mount -t cgroup2 cgroup2 sys/fs/cgroup
    else
        mount -t tmpfs tmpfs sys/fs/cgroup -o mode=755
        mkdir sys/fs/cgroup/unified sys/fs/cgroup/systemd sys/fs/cgroup/devices
        mount -t cgroup2 cgroup2 sys/fs/cgroup/unified || rmdir sys/fs/cgroup/unified
        mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
        mount -t cgroup -o devices cgroup sys/fs/cgroup/devices || rmdir sys/fs/cgroup/devices
        # So that it brings no more hierarchies in.
        mount -o remount,ro sys/fs/cgroup
    fi
    rm -rf etc/systemd/system/*.wants srv/lab usr/sbin/policy-rc.d
    mkdir -p srv/lab
    cp -r "$folder/files/." srv/lab/
    chmod 755 srv srv/lab
    for unit in systemd-udevd systemd-udev-trigger systemd-sysctl systemd-modules-load systemd-timesyncd systemd-pstore \
        systemd-random-seed systemd-binfmt systemd-hwdb-update systemd-remount-fs kmod-static-nodes networking apparmor \
        systemd-networkd systemd-boot-random-seed console-setup keyboard-setup systemd-machine-id-commit; do
        ln -sf /dev/null etc/systemd/system/$unit.service
    done
    for unit in systemd-udevd-control systemd-udevd-kernel dbus; do ln -sf /dev/null etc/systemd/system/$unit.socket; done
    exec setpriv --bounding-set -sys_time,-sys_module,-sys_boot,-syslog,-sys_rawio env -i container=lxc \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --system systemd.unit=basic.target
fi

# A control group for it, in each hierarchy that it sees.
own=evenkeel-lab-$$
mkdir "$folder/groups"
mount -t tmpfs tmpfs "$folder/groups"
places=""
while IFS=: read -r _ controllers path; do
    place=$folder/groups/${controllers:-unified}
    case $controllers in
        "") mkdir "$place" && mount -t cgroup2 cgroup2 "$place" ;;
        name=systemd) mkdir "$place" && mount -t cgroup -o none,name=systemd cgroup "$place" ;;
        devices) mkdir "$place" && mount -t cgroup -o devices cgroup "$place" || continue ;;
        *) continue ;;
    esac
    places="$places $place/$path/$own"
    # Those of machines whose starter was killed.
    for old in "$place/$path"/evenkeel-lab-*; do
        [ ! -d "$old" ] || [ -e "/proc/${old##*-}" ] || find "$old" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
done < /proc/self/cgroup
[ -d "$folder/groups/name=systemd" ] || touch "$folder/groups/unified-only"
for place in $places; do mkdir "$place" && echo $$ > "$place/cgroup.procs"; done
mount -t tmpfs tmpfs "$folder/mount"
setpriv --pdeathsig KILL -- unshare --mount --pid --fork --uts --ipc --net --cgroup --kill-child bash "$0" "$folder" inside < /dev/null &
starter=$!
until init=$(grep . "/proc/$starter/task/$starter/children"); do sleep 0.01; done
echo $init > "$folder/pid.new"
mv "$folder/pid.new" "$folder/pid"
wait $starter || true
for place in $places; do
    echo $$ > "$place/../cgroup.procs" || true
    find "$place" -depth -type d -exec rmdir {} + || true
done
