# Helpers for the folders' own lists.

# thimble_library(NAME SOURCES... [PUBLIC libs...] [PRIVATE libs...]): a static library thimble_NAME.
function(thimble_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(thimble_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(thimble_${name} PUBLIC thimble_flags ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
endfunction()

# thimble_test(NAME SOURCES... [LIBS...] [LABELS...]): a GoogleTest program, one ctest entry a TEST.
function(thimble_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE thimble_flags ${ARG_LIBS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE THIMBLE_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                                             THIMBLE_BINARY_DIR="${CMAKE_BINARY_DIR}")
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()
