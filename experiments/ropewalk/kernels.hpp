// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The instruction sets that this executable holds kernels for, and the choice among them. All but
/// the kernels is compiled for any machine of the architecture.

#include <string>
#include <string_view>
#include <vector>

#include "isa_tables.hpp"

namespace cli {

using namespace ropewalk;

/// Tables that this machine can run, best first.
const std::vector<IsaTables>& available_kernels();

/// The tables of that name; the best for "auto". \throws Error(unsupported) naming what there is.
const IsaTables& choose_kernels(const std::string& isa);

/// Calls call(T{}) for the T of that --dtype: everything that runs a model is a template on it.
template <class Call>
decltype(auto) with_dtype(const std::string& dtype, Call&& call) {
  return dtype == "bf16" ? call(bf16{}) : call(float{});
}

/// Names of all sets compiled in, best first, those that this machine cannot run in parentheses.
std::string compiled_isas();

/// \throws Error(unsupported) when everything was compiled for a machine with more instructions
/// than this one (ROPEWALK_DISPATCH=OFF): without the check it would be killed by SIGILL.
void check_machine();

}  // namespace cli
