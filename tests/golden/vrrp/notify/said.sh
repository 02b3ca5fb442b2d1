#!/bin/sh
# One line for each argument, so that spaces show.
{ printf '%s' "$(basename "$0")"; for a in "$@"; do printf ' [%s]' "$a"; done; printf '\n'; } >> @FOLDER@/argv
