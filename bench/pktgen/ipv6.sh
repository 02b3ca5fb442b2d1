#!/bin/bash
# UDP over IPv6 from one address, SRC (2001:db8:18::1), and PORTS source ports (10000) in random order: pktgen has no
# ranges of IPv6 addresses to choose from at random. Settings: see lib.sh; SIZE is at least 62 here.
#   IFACE=eth0 DST=2001:db8::10 MAC=02:00:00:00:00:01 bench/pktgen/ipv6.sh
SIZE=${SIZE:-78}
. "$(dirname "$0")/lib.sh"
SRC=${SRC:-2001:db8:18::1} PORTS=${PORTS:-10000}
begin
set_ "$IFACE" "dst6 $DST"
set_ "$IFACE" "src6 $SRC"
set_ "$IFACE" "udp_src_min 1024"
set_ "$IFACE" "udp_src_max $((1024 + PORTS))"
set_ "$IFACE" "flag UDPSRC_RND"
# Checksums are obligatory over IPv6, and verified for packets that would create a flow. A virtual interface that offers to
# compute them leaves them undone: `ethtool -K $IFACE tx off` first.
set_ "$IFACE" "flag UDPCSUM"
go
