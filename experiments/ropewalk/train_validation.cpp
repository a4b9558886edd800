// SPDX-License-Identifier: Apache-2.0
#include "train_validation.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "ropewalk/core/hash.hpp"
#include "ropewalk/eval/compensated_sum.hpp"

#include "measure/machine_limits.hpp"
#include "progress.hpp"
#include "scoring_data.hpp"
#include "stop_signal.hpp"

namespace cli {

namespace {

constexpr double patience = 2;  // seconds of a window, above which it is said that it takes time

}  // namespace

Validation::Validation(const TrainOptions& options, const AnyTokenizer* tokenizer,
                       index_t vocab_size)
    : lengths_(options.validation_lengths),
      every_(options.validate_every.value_or(100)),
      quiet_(options.quiet) {
  if (lengths_.empty()) {
    if (!options.validation_texts.empty()) {
      fail_usage("--validate-lengths", "nothing", "lengths to score --validate-text at");
    }
    if (options.validate_every) {
      fail_usage("--validate-lengths", "nothing", "lengths to score every --validate-every steps");
    }
    return;
  }
  std::ranges::sort(lengths_);
  const index_t length = lengths_.back() + 1;
  const std::int64_t count = options.validation_windows.value_or(8);
  if (options.validation_texts.empty()) {
    if (tokenizer != nullptr) {
      fail_usage("--validate-text", "nothing", "a text to validate on, as --text is given");
    }
    const SyntheticLanguage language;
    if (language.vocab_size() > vocab_size) {
      fail_usage("--validate-text", "nothing",
                 "a text: the model has fewer ids than the synthetic language");
    }
    for (std::int64_t d = 0; d < count; ++d) {
      windows_.push_back(language.tokens(validation_seed, static_cast<std::uint32_t>(d), length));
    }
    return;
  }
  if (tokenizer == nullptr) {
    fail_usage("--validate-text", "no tokenizer", "--text, whose tokenizer it is read with");
  }
  const std::vector<TokenId> ids =
      read_train_texts(options, options.validation_texts, *tokenizer).ids;
  const std::int64_t fit = std::ssize(ids) / length;
  if (fit < 1) {
    fail_usage("--validate-text", std::to_string(ids.size()) + " tokens",
               "at least one window of " + std::to_string(length),
               "Give a longer text or shorter --validate-lengths");
  }
  for (std::int64_t d = 0; d < std::min(count, fit); ++d) {
    windows_.emplace_back(ids.begin() + d * length, ids.begin() + (d + 1) * length);
  }
}

std::vector<double> Validation::losses(const Llama<float>& model,
                                       const LengthFrequencies& frequencies,
                                       const KernelTable<float>& kernels,
                                       const Executor& executor) {
  const Runner<float> run{
      .model = &model, .kernels = &kernels, .executor = executor, .workspace = &workspace_};
  std::vector<double> out;
  for (const std::int64_t length : lengths_) {
    const FrequencyPlan plan = frequencies.plan(length);
    const auto count = static_cast<std::size_t>(length);
    std::vector<HeadResult> results(count);
    CompensatedSum sum;
    const double begin = measure::seconds_now(measure::TimeBase::wall);
    for (std::size_t w = 0; w < windows_.size(); ++w) {
      const std::span<const TokenId> ids(windows_[w]);
      score_sequence(run, plan, ids.first(count), ids.subspan(1, count), {}, results);
      for (const HeadResult& r : results) sum.add(r.nll);
      check_stop();
      const double seconds = measure::seconds_now(measure::TimeBase::wall) - begin;
      if (w == 0 && seconds > patience) {
        remark(quiet_,
               fmt::format("validation at {}: {} windows, about {}", length, windows_.size(),
                           duration_text(seconds * static_cast<double>(windows_.size()))));
      }
    }
    out.push_back(sum.value() / static_cast<double>(length * std::ssize(windows_)));
  }
  return out;
}

std::uint64_t Validation::hash() const {
  Hasher hash;
  for (const std::vector<TokenId>& window : windows_) {
    hash.bytes(std::as_bytes(std::span<const TokenId>(window)));
  }
  return hash.digest();
}

}  // namespace cli
