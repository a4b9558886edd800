# SPDX-License-Identifier: Apache-2.0
# Configures SOURCE in BINARY with VARIABLES (NAME=value...), builds it and runs its program.

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
