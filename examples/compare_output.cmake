# SPDX-License-Identifier: Apache-2.0
# Runs PROGRAM and fails unless it prints the text of the file EXPECTED, to the last digit: results
# have the same bits on every instruction set. With `update` as last argument writes EXPECTED.

execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE found RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${PROGRAM} exited ${result}")
endif()
math(EXPR last "${CMAKE_ARGC} - 1")
if("${CMAKE_ARGV${last}}" STREQUAL "update")
  file(WRITE ${EXPECTED} "${found}")
  return()
endif()
file(READ ${EXPECTED} expected)
if(NOT found STREQUAL expected)
  message(FATAL_ERROR "${PROGRAM} printed\n${found}\nand not what ${EXPECTED} says:\n${expected}")
endif()
