#!/bin/sh
# Runs a command with its temporary files in memory, if 10 GB are free there. Tests sync many small files, for each of
# which a disk makes them wait.
set -eu
free_kb=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
if [ -w /dev/shm ] && [ "${free_kb:-0}" -gt 10000000 ]; then
    TMPDIR=$(mktemp -d /dev/shm/pile-tools-XXXXXX)
    export TMPDIR
    trap 'rm -rf "$TMPDIR"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
fi
"$@"
