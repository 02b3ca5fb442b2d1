# Sourced by the scripts beside this one, which drive the kernel's packet generator (Documentation/networking/pktgen.rst).
#
# IFACE  interface to send on                       (required)
# DST    destination address                        (required)
# MAC    Ethernet address of the next hop           (required)
# PORT   destination UDP port                       (80)
# SIZE   bytes of a frame, without FCS              (60)
# SECONDS_LONG  how long                            (10)
# RATE   packets a second; 0 is flat out            (0)
# CPU    the thread kpktgend_CPU                    (0)
# CLONE  send each packet so many times more: veth and other virtual devices need 0   (0)
#
# On a veth whose peer runs *generic* XDP, pktgen panics some kernels (6.1: shared buffers in pskb_expand_head); native
# mode is fine.
: "${IFACE:?the interface to send on}" "${DST:?the destination address}" "${MAC:?the next hop\'s Ethernet address}"
PORT=${PORT:-80} SIZE=${SIZE:-60} SECONDS_LONG=${SECONDS_LONG:-10} RATE=${RATE:-0} CPU=${CPU:-0} CLONE=${CLONE:-0}
PROC=/proc/net/pktgen
[ -d $PROC ] || modprobe pktgen 2>/dev/null
[ -d $PROC ] || { echo "this kernel has no pktgen (or not root): use \`evenkeel pktgen\`" >&2; exit 1; }

# set FILE WORDS...: one command, with the kernel's own answer when it fails
set_() { local file=$1; shift; echo "$*" >"$PROC/$file" || { echo "pktgen refused: $*" >&2; exit 1; }; }

# begin: the thread and the settings of all cases
begin() {
    set_ "kpktgend_$CPU" rem_device_all
    set_ "kpktgend_$CPU" "add_device $IFACE"
    set_ "$IFACE" "count 0"
    set_ "$IFACE" "clone_skb $CLONE"
    set_ "$IFACE" "pkt_size $SIZE"
    set_ "$IFACE" "dst_mac $MAC"
    set_ "$IFACE" "udp_dst_min $PORT"
    set_ "$IFACE" "udp_dst_max $PORT"
    if [ "$RATE" = 0 ]; then set_ "$IFACE" "delay 0"; else set_ "$IFACE" "ratep $RATE"; fi
}

# go: sends, and prints what was sent and how fast
go() {
    (echo start >$PROC/pgctrl) &
    local started=$!
    trap 'echo stop >$PROC/pgctrl; wait $started 2>/dev/null; set_ "kpktgend_$CPU" rem_device_all; exit 130' INT TERM
    sleep "$SECONDS_LONG"
    echo stop >$PROC/pgctrl
    wait $started
    trap - INT TERM
    sed -n '/Result:/,$p' "$PROC/$IFACE"
    set_ "kpktgend_$CPU" rem_device_all
}
