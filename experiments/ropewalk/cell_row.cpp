// SPDX-License-Identifier: Apache-2.0
#include "cell_row.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "ropewalk/eval/bootstrap.hpp"
#include "ropewalk/eval/summary.hpp"

#include "build_facts.hpp"

namespace cli {

namespace {

Value real(double value) { return std::isfinite(value) ? Value(value) : Value(); }

/// Standard error of nll, and how it was found: from the scatter of windows (or documents) where
/// these are independent, else by resampling blocks of neighbours.
std::pair<double, std::string> standard_error(const WindowPlan& plan, const ScoredLosses& losses,
                                              const ProtocolSummary& s) {
  const bool overlapping = ropewalk::overlapping_windows(plan.protocol) > 1;
  if (std::isfinite(s.se) && !overlapping) {
    const Aggregation a = plan.protocol.aggregation;
    const bool documents = a == Aggregation::document_mean || a == Aggregation::mean_ppl;
    return {s.se, documents ? "documents" : "windows"};
  }
  const ResampleUnit unit = overlapping ? ResampleUnit::automatic : ResampleUnit::token;
  if (s.nonfinite_window >= 0 || s.tokens < 8 || (overlapping && s.windows < 2)) return {s.se, ""};
  const BootstrapEstimate e = bootstrap_token_nll(plan, losses, unit);
  return {e.se, fmt::format("bootstrap({})", e.block_length)};
}

}  // namespace

Row CellRow::whole() const {
  Row row = results;
  row.insert(row.end(), origin.begin(), origin.end());
  return row;
}

bool CellRow::finite() const { return value_of(results, "status") == Value(std::string("ok")); }

const Value& value_of(const Row& row, std::string_view key) {
  static const Value none;
  for (const auto& [name, value] : row) {
    if (name == key) return value;
  }
  return none;
}

double number_of(const Value& value) {
  if (const auto* real = std::get_if<double>(&value)) return *real;
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
  return std::numeric_limits<double>::quiet_NaN();
}

Row row_origin(const ModelOptions& options, const LoadedModel& model, const ScoringData& data,
               const std::string& config_hash) {
  return {{"schema", row_schema},
          {"version", version_text()},
          {"git_revision", std::string(ropewalk_build::git_revision)},
          {"compiler", std::string(ropewalk_build::compiler)},
          {"build", fmt::format("{} {}", ropewalk_build::build_type, ropewalk_build::flags)},
          {"isa", std::string(model.isa())},
          {"numerics_id", std::string(model.numerics())},
          {"dtype", options.dtype},
          {"angles", options.angles},
          {"pair_layout", std::string(pair_layout_name(model.config().pair_layout))},
          {"seed", options.seed},
          {"model", model.path},
          {"weights_hash", hash_text(model.weights_hash)},
          {"data_hash", hash_text(data.hash)},
          {"window_tokens", std::int64_t{data.window_tokens}},
          {"config_hash", config_hash}};
}

CellRow make_cell(const CellSource& source, const Row& origin) {
  const WindowPlan& plan = source.plan;
  const ProtocolSummary s = summarize(plan, source.text, source.losses);
  const bool finite = s.nonfinite_window < 0;
  const auto [se, se_method] = standard_error(plan, source.losses, s);
  double delta = ProtocolSummary::unknown, delta_se = ProtocolSummary::unknown;
  if (source.first != nullptr && finite) {
    if (s.tokens >= 8) {
      const BootstrapEstimate e = compare(plan, *source.first, source.losses).difference;
      delta = e.mean, delta_se = e.se;
    }
  }
  const auto same_length = [&](const ScoredWindow& w) {
    return w.seq_len == plan.windows.front().seq_len;
  };
  const std::string mode = !source.setting.depends_on_length ? "static"
                           : std::all_of(plan.windows.begin(), plan.windows.end(), same_length)
                               ? fmt::format("prefill({})", plan.windows.front().seq_len)
                               : std::string("prefill");
  const auto if_finite = [&](double value) { return finite ? real(value) : Value(); };
  CellRow cell;
  cell.results = {{"rope", source.setting.canonical},
                  {"rope_arg", source.setting.arg},
                  {"length", std::int64_t{source.length}},
                  {"windows", std::int64_t{s.windows}},
                  {"tokens", s.tokens},
                  {"nll", if_finite(s.nll)},
                  {"ppl", if_finite(s.ppl)},
                  {"top1", if_finite(s.top1)},
                  {"se", if_finite(se)},
                  {"bpb", if_finite(s.bits_per_byte)},
                  {"protocol", source.protocol},
                  {"mode", mode},
                  {"rope_hash", hash_text(source.frequencies.rope_hash)},
                  {"nll_sum", if_finite(s.nll_sum)},
                  {"word_ppl", if_finite(s.word_ppl)},
                  {"last_quarter", if_finite(s.last_quarter_nll)},
                  {"delta_nll", if_finite(delta)},
                  {"delta_se", if_finite(delta_se)},
                  {"se_method", se_method.empty() ? Value() : Value(se_method)},
                  {"protocol_hash", hash_text(s.protocol_hash)},
                  {"status", std::string(finite ? "ok" : "nonfinite")}};
  const KnownFigures known = known_figures(source.protocol == "prefix" ? source.known : KnownText{},
                                           source.losses, source.length);
  cell.results.insert(cell.results.end() - 1, known.results.begin(), known.results.end());
  cell.origin = origin;
  cell.origin.emplace_back("protocol_text", s.protocol_text);
  std::vector<std::int64_t> contexts, counts;
  std::vector<double> means;
  for (const PositionBin& bin : s.bins) {
    if (bin.tokens == 0) continue;
    contexts.push_back(bin.context), counts.push_back(bin.tokens), means.push_back(bin.nll);
  }
  cell.origin.emplace_back("bin_context", contexts);
  cell.origin.emplace_back("bin_tokens", counts);
  cell.origin.emplace_back("bin_nll", means);
  cell.origin.insert(cell.origin.end(), known.bins.begin(), known.bins.end());
  if (!finite) {
    cell.origin.emplace_back("nonfinite_window", std::int64_t{s.nonfinite_window});
    // Counted from 0 among the window's predictions: token j is predicted at position j - 1.
    cell.origin.emplace_back("nonfinite_position", std::int64_t{s.nonfinite_token - 1});
  }
  return cell;
}

}  // namespace cli
