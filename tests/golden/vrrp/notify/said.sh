#!/bin/sh
# Each argument in brackets, so that spaces show; a line at once, since several run at the same time.
line=$(basename "$0")
for argument in "$@"; do
    line="$line [$argument]"
done
printf '%s\n' "$line" >> @FOLDER@/argv
