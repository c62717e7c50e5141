#!/bin/sh
# sources.sh sources|tests|headers|all [FOLDER] - what the build compiles: C and C++ files under src/FOLDER, by name.
# A file x_test.c is a test, main.c is a program, everything else belongs to the folder's library. FOLDER may be
# ../tests (but tests/functions, which are objects that tests load) or ../fuzz. "all" lists every file whose coming or going means that the build must be configured again.
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C
found() { find "src/$1" \( -name '*.c' -o -name '*.cc' \) ! -path '*/functions/*' | sed 's|^src/\.\./||' | sort; }
case $1 in
sources) found "$2" | grep -v -e '_test\.c$' -e '/main\.c$' ;;
tests) found "$2" | grep -e '_test\.c$' ;;
headers) find include/liminal -name '*.h' | sort ;;
all)
    find src tests bench fuzz examples include \( -name '*.c' -o -name '*.cc' -o -name '*.h' -o -name meson.build \) |
        sort
    ;;
esac
exit 0
