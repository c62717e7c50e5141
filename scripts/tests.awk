# tests.awk TESTLOG - reads Meson's test log, shows what failed, ends with "N passed, N failed".
# What is counted are test functions (cmocka's OK and FAILED lines), not programs. A program that ends badly without
# naming a failed function (a crash, a timeout, a sanitizer's report) counts as one failure; one that names none and
# ends well counts as one pass. Fails when anything failed and when nothing ran.
function finish(    name) {
    if (program == "")
        return
    bad = result != "exit status 0" && result != "exit status 77"
    n = 0
    for (name in failures) {
        n++
        delete failures[name]
    }
    if (bad && n == 0)
        n = 1
    failed += n
    passed += oks + (!bad && oks == 0 && n == 0 && result != "exit status 77")
    programs++
    if (bad || n > 0) {
        printf "---- %s: %s%s\n", program, result, running != "" ? " in " running : ""
        for (i = (lines > 80 ? lines - 80 : 0); i < lines; i++)
            print "  " line[i]
    }
    program = ""
}
/^test:  +/ { finish(); program = $2; result = running = ""; oks = lines = 0; next }
program == "" { next }
/^result:  +/ && result == "" { result = $0; sub(/^result: +/, "", result); next }
/^(start time|duration|command): / { next }
/^=+( [0-9]+\/[0-9]+ =+)?$/ { finish(); next }
/^\[ RUN      \] / { running = $0; sub(/^\[ RUN      \] /, "", running); next }
/^$/ || /^-+ (stdout|stderr) -+$/ || /^\[==========\]/ || /^\[  PASSED  \]/ { next }
/\[       OK \] / { oks++; running = ""; next }
/\[  FAILED  \] [A-Za-z_]/ { name = $0; sub(/.*\[  FAILED  \] /, "", name); failures[name] = 1; running = "" }
{ line[lines++] = $0 }
END {
    finish()
    if (programs == 0)
        print "no test ran"
    printf "%d passed, %d failed\n", passed, failed
    exit !(failed == 0 && passed > 0)
}
