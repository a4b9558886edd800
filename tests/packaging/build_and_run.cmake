# SPDX-License-Identifier: Apache-2.0
# Configures SOURCE in BINARY with VARIABLES (NAME=value...), builds it and runs its program. With
# FORBIDS, a regular expression, neither its symbols nor the libraries it loads may match.

file(REMOVE_RECURSE ${BINARY})
set(definitions "")
foreach(variable IN LISTS VARIABLES)
  list(APPEND definitions -D${variable})
endforeach()
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BINARY} -G ${GENERATOR}
    -DCMAKE_CXX_COMPILER=${COMPILER} ${definitions}
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BINARY} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${BINARY}/consumer COMMAND_ERROR_IS_FATAL ANY)

if(FORBIDS)
  execute_process(COMMAND ${NM} -C ${BINARY}/consumer OUTPUT_VARIABLE symbols
    COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${READELF} -d ${BINARY}/consumer OUTPUT_VARIABLE dynamic
    COMMAND_ERROR_IS_FATAL ANY)
  if(NOT symbols MATCHES "ropewalk::" OR NOT dynamic MATCHES "libc\\.so")
    message(FATAL_ERROR "nm or readelf showed nothing: ${symbols}${dynamic}")
  endif()
  string(REGEX MATCHALL "[^\n]*NEEDED[^\n]*" libraries "${dynamic}")
  # Code inlined from a header is not what is looked for: undefined and weak symbols are.
  string(REGEX MATCH "[^\n]* [UWVT] [^\n]*(${FORBIDS})[^\n]*" symbol "${symbols}")
  string(REGEX MATCH "[^;]*(${FORBIDS})[^;]*" library "${libraries}")
  if(symbol OR library)
    message(FATAL_ERROR "the program holds what it should not need: ${symbol} ${library}")
  endif()
endif()
