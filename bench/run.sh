#!/bin/bash
# make bench: every measurement of docs/performance.md, into bench/results/ as text and JSON, with the machine's facts.
#
#   bench/run.sh [--quick] [micro|stalls|filter|checks|control|end_to_end|watched|instructions|oracle]...     all parts where none is named
#
# Takes about half an hour on two quiet cores, a few minutes with --quick. The end-to-end part needs root and works in
# network namespaces of its own; the oracle part needs the oracle's folder (ORACLE, see bench/oracle.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
export RESULTS=${RESULTS:-$PWD/bench/results}
QUICK=
PARTS=()
for word in "$@"; do
    case $word in
    --quick) QUICK=--quick ;;
    micro | stalls | filter | checks | control | end_to_end | watched | instructions | oracle) PARTS+=("$word") ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
[ ${#PARTS[@]} = 0 ] && PARTS=(micro stalls filter checks control end_to_end watched instructions oracle)
mkdir -p "$RESULTS"

version() { "$@" 2>/dev/null | head -1 || true; }
facts() {
    echo "date:     $(date -u +%Y-%m-%d)"
    echo "commit:   $(git describe --always --dirty 2>/dev/null || echo unknown)"
    echo "cpu:      $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores"
    echo "memory:   $(awk '/MemTotal/ { printf "%d MiB", $2 / 1024 }' /proc/meminfo), huge pages $(awk '/HugePages_Total/ { print $2 }' /proc/meminfo)"
    echo "kernel:   $(uname -r)"
    echo "virtual:  $(version systemd-detect-virt || true)"
    echo "rustc:    $(version rustc --version)"
    echo "peers:    $(version nft --version); $(version haproxy -v); $(nginx -v 2>&1 || true)"
    echo "load:     $(cut -d' ' -f1-3 /proc/loadavg) before the first measurement"
}
facts | tee "$RESULTS/machine.txt"
sed -e 's/"/\\"/g' -e 's/^\([a-z]*\): */"\1":"/' -e 's/$/"/' "$RESULTS/machine.txt" | paste -sd, | sed 's/^/{/; s/$/}/' >"$RESULTS/machine.json"

cargo build --release --locked --bin evenkeel --examples

failed=0
for part in "${PARTS[@]}"; do
    echo
    echo "== $part"
    case $part in
    stalls)
        cargo bench --locked --bench micro -- $QUICK --stalls --out "$RESULTS/stalls.json" | tee "$RESULTS/stalls.txt" || failed=1
        ;;
    micro)
        cargo bench --locked --bench micro -- $QUICK --out "$RESULTS/micro.json" | tee "$RESULTS/micro.txt" || failed=1
        ;;
    filter)
        if [ "$(id -u)" != 0 ]; then
            echo "SKIPPED: filter: needs root"
            continue
        fi
        cargo bench --locked --bench filter -- $QUICK --out "$RESULTS/filter.json" | tee "$RESULTS/filter.txt" || failed=1
        ;;
    control)
        cargo bench --locked --bench control -- --rounds "$([ -n "$QUICK" ] && echo 5 || echo 21)" --out "$RESULTS/control.json" |
            tee "$RESULTS/control.txt" || failed=1
        ;;
    checks)
        cargo bench --locked --bench checks -- --seconds "$([ -n "$QUICK" ] && echo 20 || echo 600)" --out "$RESULTS/checks.json" |
            tee "$RESULTS/checks.txt" || failed=1
        ;;
    end_to_end)
        if [ "$(id -u)" != 0 ]; then
            echo "SKIPPED: end to end: needs root"
            continue
        fi
        missing=
        for program in nft haproxy nginx ethtool taskset; do
            PATH=$PATH:/usr/sbin:/sbin command -v $program >/dev/null || missing+=" $program"
        done
        if [ -n "$missing" ]; then
            echo "SKIPPED: end to end: not installed:$missing"
            continue
        fi
        target/release/examples/end_to_end $QUICK --json "$RESULTS/end_to_end.json" | tee "$RESULTS/end_to_end.txt" || failed=1
        ;;
    watched)
        if [ "$(id -u)" != 0 ]; then
            echo "SKIPPED: watched: needs root"
            continue
        fi
        target/release/examples/watched --pairs "$([ -n "$QUICK" ] && echo 10 || echo 100)" --json "$RESULTS/watched.json" |
            tee "$RESULTS/watched.txt" || failed=1
        ;;
    instructions) bench/instructions.sh || failed=1 ;;
    oracle) REPS=${REPS:-$([ -n "$QUICK" ] && echo 1 || echo 1 2 3 4 5)} bench/oracle.sh || failed=1 ;;
    esac
done
echo
echo "results: $RESULTS"
exit $failed
