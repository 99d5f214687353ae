find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBCURL REQUIRED IMPORTED_TARGET libcurl)
find_library(NATS_LIBRARY
    other REQUIRED)
