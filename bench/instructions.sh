#!/bin/bash
# Instructions a packet of the in-memory cases, counted by callgrind: they repeat exactly, whatever else the machine does.
#
#   bench/instructions.sh [CASE...]      a table; also in bench/results/instructions.{txt,json}
#
# Cases: bare, hits or new, with -v4 or -v6 and a number of flows (hits-v4-1000000), or a stage (parse, lookup,
# schedule-rr, rewrite), or a forwarding method, as in way-nat-v4-1000. FULL=1 takes a million flows too: the filling of the table is emulated, which takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
RESULTS=${RESULTS:-$PWD/bench/results}
command -v valgrind >/dev/null || { echo "SKIPPED: instructions a packet: valgrind is not installed" >&2; exit 0; }
mkdir -p "$RESULTS"
if [ $# = 0 ]; then
    sizes="1000 100000"
    [ -n "${FULL:-}" ] && sizes+=" 1000000"
    for family in v4 v6; do for flows in $sizes; do set -- "$@" "bare-$family-$flows" "hits-$family-$flows"; done; done
    for family in v4 v6; do set -- "$@" "new-$family-100000"; done
    for family in v4 v6; do for way in dr nat nat_answers full_nat ipip gue gre; do set -- "$@" "way-$way-$family-1000"; done; done
    set -- "$@" parse lookup schedule-rr schedule-wrr schedule-lc schedule-wlc schedule-mh rewrite
fi
program=$(cargo bench --locked --bench micro --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\)).*/\1/p')
[ -x "$program" ] || { echo "the benchmark does not build: cargo bench --bench micro --no-run" >&2; exit 1; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

json=
{
    printf '%-18s %s\n' case "instructions a packet"
    for case in "$@"; do
        # The wildcard of the stages also matches the whole: no stage calls it.
        collect='*Rig*measured*'
        [[ $case == bare-* ]] && collect='*Bare*process*'
        valgrind --tool=callgrind --callgrind-out-file="$out/cg" --toggle-collect="$collect" "$program" --count "$case" \
            >"$out/said" 2>"$out/errors" || { tail -3 "$out/errors" >&2; exit 1; }
        packets=$(sed -n 's/^packets //p' "$out/said")
        total=$(sed -n 's/^\(summary\|totals\): //p' "$out/cg" | head -1)
        each=$(awk -v t="$total" -v p="$packets" 'BEGIN { printf "%.1f", t / p }')
        printf '%-18s %s\n' "$case" "$each"
        json+="${json:+,}{\"case\":\"$case\",\"instructions\":$each}"
    done
    echo "[$json]" >"$RESULTS/instructions.json"
} | tee "$RESULTS/instructions.txt"
