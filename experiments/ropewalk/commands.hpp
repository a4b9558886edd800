// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The commands of the executable: each takes the arguments after its name and returns the exit
/// code. \throws Error, Stopped

#include <span>
#include <string>

namespace cli {

using Arguments = std::span<const std::string>;

int run_sweep(Arguments arguments);
int run_ppl(Arguments arguments);
int run_export(Arguments arguments);
int run_rope_show(Arguments arguments);
int run_rope_compare(Arguments arguments);
int run_train(Arguments arguments);
int run_generate(Arguments arguments);
int run_bench(Arguments arguments);
int run_tokenize(Arguments arguments);
int run_selftest(Arguments arguments);

}  // namespace cli
