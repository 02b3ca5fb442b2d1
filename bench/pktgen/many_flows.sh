#!/bin/bash
# Many UDP flows over IPv4 in random order: addresses SRC_MIN to SRC_MAX (198.18.0.1 to 198.18.3.232, a thousand) times
# PORTS source ports (100) from 1024 on: 100000 flows. Settings: see lib.sh.
#   IFACE=eth0 DST=192.0.2.10 MAC=02:00:00:00:00:01 bench/pktgen/many_flows.sh
. "$(dirname "$0")/lib.sh"
SRC_MIN=${SRC_MIN:-198.18.0.1} SRC_MAX=${SRC_MAX:-198.18.3.232} PORTS=${PORTS:-100}
begin
set_ "$IFACE" "dst $DST"
set_ "$IFACE" "src_min $SRC_MIN"
set_ "$IFACE" "src_max $SRC_MAX"
set_ "$IFACE" "udp_src_min 1024"
set_ "$IFACE" "udp_src_max $((1024 + PORTS))"
set_ "$IFACE" "flag IPSRC_RND"
set_ "$IFACE" "flag UDPSRC_RND"
go
