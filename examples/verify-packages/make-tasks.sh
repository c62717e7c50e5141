#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make-tasks.sh [DIRECTORY] - the work: one JSON object a line, {"package":NAME,"files":N,"bytes":N}.
#
# Without DIRECTORY: every installed Debian package that has a list of checksums, /var/lib/dpkg/info/NAME.md5sums. With
# one (which a machine without dpkg needs): its files, one task for each subdirectory; the lists are then made first,
# into $VERIFY_LISTS. Packages are taken in the order of their names until 2 GiB or 30,000 files are reached; one that
# does not fit is left out, smaller ones after it may still be taken. What was left out is said on stderr.
set -eu
export LC_ALL=C
files_max=${VERIFY_FILES_MAX:-30000}
bytes_max=${VERIFY_BYTES_MAX:-2147483648}

if [ $# -gt 1 ]; then
    echo "make-tasks.sh: one directory at most" >&2
    exit 2
elif [ $# -eq 1 ]; then
    root=$(cd "$1" && pwd)
    lists=${VERIFY_LISTS:?make-tasks.sh: set VERIFY_LISTS to a directory for the lists}
    mkdir -p "$lists"
    # One list for each directory directly under the root, and "top" for the files beside them.
    (cd "$root" && find . -type f ! -name '*["\\]*' -printf '%s %P\n') | sort -k 2 |
        awk -v lists="$lists" -v files_max="$files_max" -v bytes_max="$bytes_max" '
            { path = substr($0, index($0, " ") + 1) }
            files + 1 > files_max || bytes + $1 > bytes_max { left++; next }
            { files++; bytes += $1 }
            { name = index(path, "/") ? substr(path, 1, index(path, "/") - 1) : "top"; gsub(/[^A-Za-z0-9+.:-]/, "_", name) }
            name != last { if (last != "") close(out); last = name; out = lists "/" name ".paths" }
            { print path >>out }
            END { if (left > 0) print "left out: " left " files, over the limit" >"/dev/stderr" }'
    for paths in "$lists"/*.paths; do
        [ -e "$paths" ] || { echo "make-tasks.sh: no files under $root" >&2 && exit 1; }
        (cd "$root" && xargs -d '\n' md5sum -- <"$paths") >"${paths%.paths}.md5sums" 2>/dev/null || :
        rm "$paths"
    done
else
    root=/
    lists=${VERIFY_LISTS:-/var/lib/dpkg/info}
    ls "$lists"/*.md5sums >/dev/null 2>&1 || {
        echo "make-tasks.sh: no checksum lists in $lists (no dpkg here?): name a directory to verify instead" >&2
        exit 1
    }
fi

# Sizes of all files that are there, as "size path", then package by package.
cd "$root"
sizes=$(mktemp)
trap 'rm -f "$sizes"' EXIT
cut -c35- "$lists"/*.md5sums | xargs -d '\n' stat -L -c '%s %n' >"$sizes" 2>/dev/null || :
awk -v files_max="$files_max" -v bytes_max="$bytes_max" '
    function take() {
        if (package == "")
            return
        if (files_taken + files > files_max || bytes_taken + bytes > bytes_max) {
            left++
            left_files += files
            left_bytes += bytes
        } else if (files > 0) {
            files_taken += files
            bytes_taken += bytes
            printf "{\"package\":\"%s\",\"files\":%d,\"bytes\":%.0f}\n", package, files, bytes
        }
    }
    FILENAME == ARGV[1] { size[substr($0, index($0, " ") + 1)] = $1; next }
    FNR == 1 {
        take()
        package = FILENAME
        sub(/^.*\//, "", package)
        sub(/\.md5sums$/, "", package)
        files = bytes = 0
    }
    { files++; bytes += size[substr($0, 35)] }
    END {
        take()
        if (left > 0)
            printf "left out: %d packages with %d files and %.1f GiB, over the limit of %.1f GiB or %d files\n", left,
                left_files, left_bytes / 1073741824, bytes_max / 1073741824, files_max >"/dev/stderr"
    }' "$sizes" "$lists"/*.md5sums
