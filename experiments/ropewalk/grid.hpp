// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The grid of settings x protocols x lengths that sweep and ppl compute.

#include <string>
#include <vector>

#include "cell_row.hpp"

namespace cli {

/// What is computed: a cell for every setting, protocol and length.
struct Grid {
  std::vector<Setting> settings = {};
  std::vector<std::string> protocols = {};  ///< names
  index_t stride = 0;                       ///< of the protocols that have one; 0: theirs
  std::vector<index_t> lengths = {};        ///< in the order of the rows
  std::vector<std::string> nll_files = {};  ///< one a setting, or none

  index_t longest() const;
  std::size_t cells() const { return settings.size() * protocols.size() * lengths.size(); }
  DataNeeds needs() const;
};

/// One protocol at one length: what a cell of every setting computes.
struct Request {
  std::string protocol = {};
  index_t length = 0;
  std::size_t group = 0;  ///< in Evaluation::groups
  index_t index = 0;      ///< in its group's plans
};

/// Requests over the same ids, which can share passes.
struct RequestGroup {
  EvalText text = {};
  std::vector<WindowPlan> plans = {};
};

/// The grid's requests over the data, which must outlive it.
struct Evaluation {
  std::vector<RequestGroup> groups = {};
  std::vector<Request> requests = {};  ///< in the order of the rows

  const WindowPlan& plan(const Request& r) const {
    return groups[r.group].plans[static_cast<std::size_t>(r.index)];
  }
};

/// \throws Error(usage) for protocols that do not fit their lengths or the text
Evaluation make_evaluation(const Grid& grid, const ScoringData& data);

/// The request whose losses go into the files of losses; null without such files.
const Request* nll_request(const Grid& grid, const Evaluation& evaluation);

/// What determines the values of all cells: the configuration that resuming compares.
Row grid_configuration(const Grid& grid, const Evaluation& evaluation, const ModelOptions& options,
                       const LoadedModel& model, const ScoringData& data);
/// 16 hexadecimal digits.
std::string configuration_hash(const Row& configuration);

CellKey key_of(const Setting& setting, const Request& request);
/// Null when it is not known.
const CellRow* find_known(const KnownCells& known, const Setting& setting, const Request& request);

}  // namespace cli
