#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# verify.sh - what a worker runs for each task. The task comes on standard input, the answer goes to standard output:
#
#   {"package":"bash","files":52,"bytes":1864123}
#   {"package":"bash","files":52,"bytes":1864123,"mismatches":0,"missing":3,"ms":17}
#
# Every file on the package's list is read and its checksum compared. A file that is not there (or may not be read)
# counts as missing, one that differs as a mismatch; both are results, not failures. `bytes` is what is there to read.
# Lists are looked for in $VERIFY_LISTS, files under $VERIFY_ROOT. If $VERIFY_NOTES names a directory, a file
# PACKAGE.started appears there, with one line for each execution: the worker and the task, as liminal names them.
set -u
export LC_ALL=C
lists=${VERIFY_LISTS:-/var/lib/dpkg/info}

IFS= read -r task || [ -n "${task:-}" ] || { echo "no task on standard input" >&2 && exit 1; }
package=${task#*\"package\":\"}
[ "$package" != "$task" ] || { echo "no package in the task: $task" >&2 && exit 1; }
package=${package%%\"*}
case $package in
*/* | '' | .*) echo "not the name of a package: $package" >&2 && exit 1 ;;
esac
list=$lists/$package.md5sums
[ -r "$list" ] || { echo "there is no list of checksums for $package: $list" >&2 && exit 1; }
[ -z "${VERIFY_NOTES:-}" ] || echo "${LIMINAL_IDENTITY:-worker} ${LIMINAL_CONVERSATION:-}" >>"$VERIFY_NOTES/$package.started"

cd "${VERIFY_ROOT:-/}" || exit 1
started=$(date +%s%N)
{
    cut -c35- "$list" | xargs -d '\n' stat -L -c '%s' 2>/dev/null
    echo checked
    md5sum -c --quiet "$list" 2>/dev/null
    echo "ended $(date +%s%N)"
    grep -c . "$list"
} | awk -v package="$package" -v started="$started" '
    ended { files = $1; next }
    /^ended [0-9]+$/ { ended = $2; next }
    checked && / FAILED open or read$/ { missing++; next }
    checked && / FAILED$/ { mismatches++; next }
    /^checked$/ { checked = 1; next }
    !checked { bytes += $1 }
    END {
        printf "{\"package\":\"%s\",\"files\":%d,\"bytes\":%.0f,\"mismatches\":%d,\"missing\":%d,\"ms\":%.0f}\n", package,
            files, bytes, mismatches, missing, (ended - started) / 1000000
    }'
