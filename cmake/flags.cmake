# One interface target carries every flag; each target links it and adds nothing.
set(TRILANE_SANITIZE "" CACHE STRING "value for -fsanitize=")
option(TRILANE_FUZZ "build the libFuzzer targets (clang)" OFF)
option(TRILANE_HARDEN "fortify, stack protector, full RELRO, PIE" OFF)

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# The rooms are small libraries that call each other for each request: over their borders the linker
# inlines what the compiler could not.
set(CMAKE_INTERPROCEDURAL_OPTIMIZATION_RELEASE ON)

find_program(TRILANE_CCACHE ccache)
if(TRILANE_CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER "${TRILANE_CCACHE}")
endif()

# Code that a tool generated: same sanitizers, no warnings of ours.
add_library(generated_flags INTERFACE)
target_compile_features(generated_flags INTERFACE c_std_17)
target_compile_definitions(generated_flags INTERFACE _GNU_SOURCE)
target_compile_options(generated_flags INTERFACE -fno-omit-frame-pointer -g
    "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=")
target_include_directories(generated_flags INTERFACE "${PROJECT_SOURCE_DIR}")

if(TRILANE_SANITIZE)
    target_compile_options(generated_flags INTERFACE
        -fsanitize=${TRILANE_SANITIZE} -fno-sanitize-recover=all)
    target_link_options(generated_flags INTERFACE -fsanitize=${TRILANE_SANITIZE})
endif()
if(TRILANE_FUZZ)
    target_compile_options(generated_flags INTERFACE -fsanitize=fuzzer-no-link)
    target_link_options(generated_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(TRILANE_HARDEN)
    target_compile_options(generated_flags INTERFACE
        -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection
        -fcf-protection)
    target_link_options(generated_flags INTERFACE -pie -Wl,-z,relro,-z,now)
endif()

add_library(project_flags INTERFACE)
target_link_libraries(project_flags INTERFACE generated_flags)
target_compile_options(project_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion
    -Wcast-qual -Wvla -Wimplicit-fallthrough -Wswitch-enum -Wwrite-strings -Werror
    $<$<C_COMPILER_ID:Clang>:-Wthread-safety -Wno-gnu-zero-variadic-macro-arguments>)
