#!/bin/sh
# cppcheck over the compile database of preset dev; called by ./run check.
cd -- "$(dirname -- "$0")/../.." || exit 1
mkdir -p build/cppcheck
# unusedFunction and missingInclude need the whole program; the compiler and tidy judge those.
exec cppcheck --project=build/dev/compile_commands.json -i build -i tests/tidy/samples \
    --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --quiet \
    --cppcheck-build-dir=build/cppcheck -j "$(nproc)" \
    --suppress='*:*/build/*' --suppress=unknownMacro --suppress=normalCheckLevelMaxBranches
