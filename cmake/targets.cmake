# How a room, a test and a fuzzer are declared. Files are listed, never globbed.

# trilane_library(NAME SOURCES a.c ... LINKS lib ...)
function(trilane_library name)
    cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC project_flags ${ARG_LINKS})
endfunction()

# trilane_unit_test(PATH LINKS lib ... [THREADED]): PATH is below tests/, without ".c".
# A test is named by its path with dots; it uses cmocka; THREADED ones run under TSan, too.
function(trilane_unit_test path)
    cmake_parse_arguments(ARG "THREADED" "TIMEOUT" "LINKS" ${ARGN})
    string(REPLACE "/" "." name ${path})
    add_executable(${name} ${PROJECT_SOURCE_DIR}/tests/${path}.c)
    target_link_libraries(${name} PRIVATE project_flags ${ARG_LINKS} PkgConfig::CMOCKA)
    set_target_properties(${name} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
    add_test(NAME ${name} COMMAND ${name})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 60)
    endif()
    set(labels unit)
    if(ARG_THREADED)
        list(APPEND labels threaded)
        add_dependencies(threaded_tests ${name})
    endif()
    math(EXPR bound "${ARG_TIMEOUT} * 5") # for a machine that does much else.
    set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT ${bound}
        COST ${ARG_TIMEOUT} ENVIRONMENT "TRILANE_SOURCE_DIR=${PROJECT_SOURCE_DIR};TRILANE_BUILD_DIR=${CMAKE_BINARY_DIR}")
endfunction()

# trilane_fuzzer(NAME LINKS lib ...): tests/fuzz/NAME_fuzz.c, corpus in tests/fuzz/corpus/NAME.
# Without TRILANE_FUZZ it is built with a plain main() and replays the corpus as a unit test.
function(trilane_fuzzer name)
    cmake_parse_arguments(ARG "" "" "LINKS" ${ARGN})
    set(target fuzz.${name})
    add_executable(${target} ${PROJECT_SOURCE_DIR}/tests/fuzz/${name}_fuzz.c)
    target_link_libraries(${target} PRIVATE project_flags ${ARG_LINKS})
    set_target_properties(${target} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/fuzz")
    add_dependencies(fuzzers ${target})
    if(TRILANE_FUZZ)
        target_link_options(${target} PRIVATE -fsanitize=fuzzer)
    else()
        target_sources(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c)
        target_link_libraries(${target} PRIVATE base)
        add_test(NAME ${target} COMMAND ${target} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
        set_tests_properties(${target} PROPERTIES LABELS "unit;fuzz" TIMEOUT 300)
    endif()
endfunction()

# trilane_python_test(PATH LABEL integration|faults|conformance [TIMEOUT seconds] [THREADED]
# [COUNTED TARGETS...]): PATH is below the project's folder, without ".py"; run by Debian's own
# python, in which its packages are found. It imports tests/support/trilane.py; exit 0 passes, 77 is
# a skip whose last line says why. It has three times the seconds: machines differ, and are shared.
# THREADED ones run with binaries under TSan, too; COUNTED ones count far with the TARGETS of preset
# counts.
function(trilane_python_test path)
    cmake_parse_arguments(ARG "THREADED" "LABEL;TIMEOUT" "COUNTED" ${ARGN})
    string(REGEX REPLACE "^tests/" "" name ${path})
    string(REPLACE "/" "." name ${name})
    add_test(NAME ${name} COMMAND /usr/bin/python3 -B ${PROJECT_SOURCE_DIR}/${path}.py)
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 120)
    endif()
    set(labels ${ARG_LABEL})
    if(ARG_THREADED)
        list(APPEND labels threaded)
        add_dependencies(threaded_tests trilane-cp trilane-dp)
    endif()
    if(ARG_COUNTED)
        list(APPEND labels counted)
        add_dependencies(counted_tests ${ARG_COUNTED})
    endif()
    math(EXPR patience "3 * ${ARG_TIMEOUT}")
    # Those that may take longest start first.
    set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT ${patience}
        COST ${ARG_TIMEOUT} SKIP_RETURN_CODE 77 ENVIRONMENT
        "TRILANE_SOURCE_DIR=${PROJECT_SOURCE_DIR};TRILANE_BUILD_DIR=${CMAKE_BINARY_DIR};PYTHONPATH=${PROJECT_SOURCE_DIR}/tests/support")
endfunction()

# trilane_proto(NAME FILES a.proto ...): messages compiled by protoc-c into library NAME.
function(trilane_proto name)
    cmake_parse_arguments(ARG "" "" "FILES" ${ARGN})
    set(outputs "")
    foreach(file ${ARG_FILES})
        string(REPLACE ".proto" "" stem ${file})
        add_custom_command(
            OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${stem}.pb-c.c
                   ${CMAKE_CURRENT_BINARY_DIR}/${stem}.pb-c.h
            COMMAND ${PROTOC_C} --c_out=${CMAKE_CURRENT_BINARY_DIR}
                    --proto_path=${CMAKE_CURRENT_SOURCE_DIR} ${file}
            DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
        list(APPEND outputs ${CMAKE_CURRENT_BINARY_DIR}/${stem}.pb-c.c)
    endforeach()
    add_library(${name} STATIC ${outputs})
    target_link_libraries(${name} PUBLIC generated_flags PkgConfig::PROTOBUF_C)
    target_include_directories(${name} SYSTEM PUBLIC ${CMAKE_CURRENT_BINARY_DIR})
endfunction()
