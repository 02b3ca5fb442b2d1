#!/bin/sh
# Runs the fuzzers.
#
#   fuzz/run.sh                    a minute each
#   fuzz/run.sh SECONDS [TARGET...]
#
# Needs a C++ compiler (libFuzzer is built from source) and stable Rust; cargo-fuzz is not needed. The address sanitizer
# is an unstable option of rustc: it is asked for with RUSTC_BOOTSTRAP=1, and done without where that does not work.
# Crashing inputs go to fuzz/artifacts/TARGET/; those worth keeping belong in fuzz/kept/TARGET/, which every run tries
# first.
set -eu

cd "$(dirname "$0")"
seconds=${1:-60}
[ $# -gt 0 ] && shift
targets=${*:-parse pipeline config replay request vrrp checks import http}
cargo=${CARGO:-cargo}
triple=$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')

coverage="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares"

build() { # folder, flags
    # --target keeps the flags away from build scripts.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="$coverage $2" "$cargo" build --quiet --locked --release --target "$triple" \
        --target-dir "$1" --bins
}

# SANITIZER=none leaves the sanitizer out: more runs a second, and what there is to find in safe code is panics.
mode="libFuzzer with the address sanitizer"
folder=target/asan
log=$(mktemp)
if [ "${SANITIZER:-address}" = none ] || ! build "$folder" -Zsanitizer=address 2>"$log"; then
    [ -s "$log" ] && { echo "no address sanitizer:"; tail -n 3 "$log"; }
    mode="libFuzzer without a sanitizer"
    folder=target/plain
    build "$folder" ""
fi
rm -f "$log"
bin=$folder/$triple/release
echo "$mode, $seconds s each: $targets"
"$bin/corpus" -runs=0 2>/dev/null

scratch=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=""
for target in $targets; do
    mkdir -p "corpus/$target" "kept/$target" "artifacts/$target"
    log=artifacts/$target.log
    if TMPDIR=$scratch "$bin/$target" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
        -rss_limit_mb=4096 -verbosity=1 -print_final_stats=1 "-artifact_prefix=artifacts/$target/" \
        "corpus/$target" "kept/$target" >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        edges=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2)
        echo "$target: $runs runs, $edges edges covered, nothing found"
    else
        echo "$target: FAILED, see fuzz/$log"
        grep -E 'panicked at|SUMMARY|ERROR|Test unit written' -A 1 "$log" | head -n 12 || true
        failed="$failed $target"
    fi
done
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
