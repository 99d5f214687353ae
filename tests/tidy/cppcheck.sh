#!/bin/sh
# cppcheck over the compile database of preset dev; called by ./run check.
cd -- "$(dirname -- "$0")/../.." || exit 1
mkdir -p build/cppcheck
# Suppressed: it does not parse some of C17 (syntaxError, internalAstError: compilers judge syntax),
# does not follow cleanup attributes (memleak: LeakSanitizer's), takes a returned struct for a pointer
# (returnDanglingLifetime), and does not see what a callee fills (uninitStructMember: the compilers').
exec cppcheck --project=build/dev/compile_commands.json -i build -i tests/tidy/samples \
    --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --quiet \
    --cppcheck-build-dir=build/cppcheck -j "$(nproc)" \
    --suppress='*:*/build/*' --suppress=unknownMacro --suppress=syntaxError \
    --suppress=internalAstError --suppress=memleak --suppress=returnDanglingLifetime \
    --suppress=uninitStructMember --suppress=nullPointerRedundantCheck --suppress=normalCheckLevelMaxBranches
