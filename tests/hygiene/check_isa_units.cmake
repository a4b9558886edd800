# SPDX-License-Identifier: Apache-2.0
# Fails if an OBJECT compiled for one instruction set offers the linker a function or a variable
# that carries no ABI tag of its own (isa_<name>, with its length, as names are mangled): code
# compiled for any machine could be linked to it, and run instructions that a machine lacks.
# The unit's getter, named GETTER, is the one exception.

string(REGEX REPLACE "^ropewalk_" "" tag ${GETTER})
string(LENGTH ${tag} length)
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only --extern-only ${object}
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  if(NOT symbols MATCHES "[ \t]${GETTER}\n" OR NOT symbols MATCHES "8ropewalk${length}${tag}")
    message(FATAL_ERROR "${object}: neither ${GETTER} nor kernels of tag ${tag} are among its symbols")
  endif()
  string(REGEX MATCHALL "[^\n]+" lines "${symbols}")
  # DW.ref.* hold the address of what they are called after, the same in every unit.
  list(FILTER lines EXCLUDE REGEX
    " ${GETTER}$|8ropewalk${length}${tag}|N${length}${tag}| DW\\.ref\\.[A-Za-z0-9_]+$")
  if(lines)
    list(JOIN lines "\n  " found)
    message(FATAL_ERROR "${object}: symbols that other units could be linked to:\n  ${found}\n"
      "Keep them out of kernels: inline them (always_inline), or do without what defines them.")
  endif()
endforeach()
