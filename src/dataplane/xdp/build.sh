#!/bin/sh
# Builds the committed XDP objects from their C sources. Needs clang and llvm-strip, no headers.
#
#   build.sh           rebuilds the objects in place
#   build.sh --check   rebuilds them elsewhere and fails when their instructions differ from the committed ones
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
objects="src/dataplane/xdp/filter src/pktgen/pktgen bench/filter/stir"
CLANG=${CLANG:-clang}
STRIP=${LLVM_STRIP:-llvm-strip}
OBJDUMP=${LLVM_OBJDUMP:-llvm-objdump}

compile() { # source, object
    # Relative paths only: line information must not depend on where the tree lies. -mcpu=v2 loads on every kernel.
    (cd "$root" && "$CLANG" -O2 -g -target bpf -mcpu=v2 -Wall -Wextra -Werror -Wno-unused-variable \
        -fdebug-prefix-map="$root=." -ffile-prefix-map="$root=." -c "$1" -o "$2")
    # DWARF goes, BTF stays: it names the maps' types.
    "$STRIP" -g "$2"
}

disassembly() { # object
    "$OBJDUMP" -d --no-show-raw-insn "$1" | sed '/file format/d'
}

case "${1:-}" in
"")
    for name in $objects; do
        [ -f "$root/$name.c" ] || continue
        compile "$name.c" "$root/$name.o"
        echo "built $name.o"
    done
    ;;
--check)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    for name in $objects; do
        [ -f "$root/$name.c" ] || continue
        compile "$name.c" "$scratch/fresh.o"
        disassembly "$scratch/fresh.o" >"$scratch/fresh"
        disassembly "$root/$name.o" >"$scratch/committed"
        if ! diff -u "$scratch/committed" "$scratch/fresh" >"$scratch/diff"; then
            echo "$name.o differs from what $name.c builds to ($("$CLANG" --version | head -n 1)):" >&2
            head -n 40 "$scratch/diff" >&2
            exit 1
        fi
        echo "same instructions: $name.o"
    done
    ;;
*)
    echo "usage: build.sh [--check]" >&2
    exit 2
    ;;
esac
