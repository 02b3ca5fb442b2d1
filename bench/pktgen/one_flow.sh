#!/bin/bash
# One UDP flow over IPv4, from SRC (198.18.0.1) and port SPORT (1024). Settings: see lib.sh.
#   IFACE=eth0 DST=192.0.2.10 MAC=02:00:00:00:00:01 bench/pktgen/one_flow.sh
. "$(dirname "$0")/lib.sh"
SRC=${SRC:-198.18.0.1} SPORT=${SPORT:-1024}
begin
set_ "$IFACE" "dst $DST"
set_ "$IFACE" "src_min $SRC"
set_ "$IFACE" "src_max $SRC"
set_ "$IFACE" "udp_src_min $SPORT"
set_ "$IFACE" "udp_src_max $SPORT"
go
