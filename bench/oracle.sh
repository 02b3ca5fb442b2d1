#!/bin/bash
# Instructions a packet, everything counted (kernel and user space), of IPVS, ip_forward, the bare AF_XDP forwarder and
# Evenkeel, in one boot of the IPVS oracle: a Debian kernel with IPVS under software emulation.
#
#   bench/oracle.sh            prints a table; also in bench/results/oracle.{txt,json}
#
# ORACLE: the oracle's folder (default ../shared/ipvs-oracle beside this tree); ORACLE_WORK: where its kernel is unpacked
# (default target/oracle; needs Debian's packages once); REPS, TOTAL: see bench/oracle/cost.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
ORACLE=${ORACLE:-$PWD/../shared/ipvs-oracle}
WORK=${ORACLE_WORK:-$PWD/target/oracle}
RESULTS=${RESULTS:-$PWD/bench/results}
if [ ! -x "$ORACLE/setup.sh" ]; then
    echo "SKIPPED: instructions a packet beside IPVS: no oracle in $ORACLE (set ORACLE)" >&2
    exit 0
fi
mkdir -p "$WORK" "$RESULTS"
if [ ! -s "$WORK/build/base.cpio" ]; then
    ORACLE_WORK=$WORK "$ORACLE/setup.sh" >"$WORK/setup.log" 2>&1 || { tail -5 "$WORK/setup.log"; exit 1; }
fi
[ -s "$WORK/build/insn.so" ] || gcc -O2 -shared -fPIC -o "$WORK/build/insn.so" "$WORK/src/insn.c"

cargo build --release --locked --bin evenkeel --example forwarder
mkdir -p "$WORK/bin"
for program in target/release/evenkeel target/release/examples/forwarder; do
    strip -o "$WORK/bin/$(basename "$program")" "$program"
done
{ echo FIFO=1; echo "REPS='${REPS:-1 2 3 4 5}'"; echo "TOTAL=${TOTAL:-6400}"; } >"$WORK/bin/env"
OUT=$WORK/out PLUGIN=1 SMP=1 MODS=sch_ingress,cls_matchall,act_gact TMO=${TMO:-900} "$WORK/run.sh" bench/oracle/cost.sh \
    "$WORK/tests/costlib.sh" "$WORK/bin/evenkeel" "$WORK/bin/forwarder" "$WORK/bin/env" >"$WORK/console.txt" 2>&1 ||
    { tail -20 "$WORK/console.txt"; exit 1; }
grep -A20 FAILED "$WORK/console.txt" || true
python3 "$ORACLE/prof.py" "$WORK/out" "${TOP:-0}" >"$WORK/profile.txt"
python3 bench/oracle/table.py "$WORK/profile.txt" "$RESULTS/oracle.json" | tee "$RESULTS/oracle.txt"
