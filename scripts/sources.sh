#!/bin/sh
# sources.sh sources|tests|headers FOLDER - what the build compiles: C and C++ files under src/FOLDER, found by name.
# A file x_test.c is a test, src/server/main.c is a program, everything else belongs to the folder's library.
cd "$(dirname "$0")/.." || exit 1
case $1 in
sources) find "src/$2" -name '*.c' -o -name '*.cc' | grep -v -e '_test\.c$' -e '/main\.c$' | LC_ALL=C sort ;;
tests) find "src/$2" -name '*_test.c' | LC_ALL=C sort | sed 's|^src/\.\./||' ;;
headers) find include/liminal -name '*.h' | LC_ALL=C sort ;;
esac
exit 0
