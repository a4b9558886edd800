// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The options of sweep and ppl that make a grid.

#include "grid.hpp"
#include "results_text.hpp"

namespace cli {

/// As given; what is not is the default.
struct GridOptions {
  ModelOptions model = {};
  DataOptions data = {};
  std::vector<std::string> rope = {"default"};
  std::vector<std::int64_t> lengths = {};
  std::vector<std::string> protocol = {"prefix"};
  std::optional<std::int64_t> stride = {};
  std::string nll_out = {};
  std::string format = "table";
  BinsOptions bins = {};
  bool dry_run = false;
};

/// `what_rope`, `what_nll`: help of the options that mean different things to sweep and ppl.
void add_grid_options(Options& options, GridOptions& out, const std::string& what_rope,
                      const std::string& what_nll);

/// Checks the options that need no file. \throws Error(usage)
void check_grid_options(const GridOptions& options);
/// \throws Error(usage), also when a file of losses would replace an input.
Grid make_grid(const GridOptions& options, const LoadedModel& model);

}  // namespace cli
