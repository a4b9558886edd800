// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Frequencies of a few methods as one-line formulas with libm: independent of the rope policies.

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "ropewalk/rope/frequency_plan.hpp"

namespace ropewalk::oracle_test {

/// A plan for the oracle, which reads neither turns nor hash.
inline FrequencyPlan plan_of(std::vector<double> inv_freq, double attention_factor = 1) {
  FrequencyPlan plan;
  plan.inv_freq = std::move(inv_freq);
  plan.attention_factor = attention_factor;
  return plan;
}

/// theta^(-2i/d)
inline std::vector<double> base_frequencies(index_t d, double theta) {
  std::vector<double> w;
  for (index_t i = 0; i < d / 2; ++i) {
    w.push_back(std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(d)));
  }
  return w;
}

inline FrequencyPlan plain(index_t d, double theta) { return plan_of(base_frequencies(d, theta)); }

inline FrequencyPlan linear(index_t d, double theta, double factor) {
  std::vector<double> w = base_frequencies(d, theta);
  for (double& v : w) v /= factor;
  return plan_of(std::move(w));
}

inline FrequencyPlan ntk(index_t d, double theta, double factor) {
  const auto n = static_cast<double>(d);
  return plain(d, theta * std::pow(factor, n / (n - 2)));
}

/// Hugging Face's YaRN: ramp over the pair index, bounds for 32 and 1 turns rounded outwards.
inline FrequencyPlan yarn(index_t d, double theta, double factor, double trained_length) {
  const auto n = static_cast<double>(d);
  const auto pair_that_turns = [&](double turns) {
    return n * std::log(trained_length / (2 * std::numbers::pi * turns)) / (2 * std::log(theta));
  };
  const double low = std::max(std::floor(pair_that_turns(32)), 0.0);
  const double high = std::min(std::ceil(pair_that_turns(1)), n - 1);
  std::vector<double> w = base_frequencies(d, theta);
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double x = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    w[i] = w[i] / factor * x + w[i] * (1 - x);
  }
  return plan_of(std::move(w), 0.1 * std::log(factor) + 1);
}

/// Llama 3.1, low_freq_factor 1, high_freq_factor 4.
inline FrequencyPlan llama3(index_t d, double theta, double factor, double trained_length) {
  std::vector<double> w = base_frequencies(d, theta);
  for (double& v : w) {
    const double turns = trained_length * v / (2 * std::numbers::pi);
    const double keep = std::clamp((turns - 1) / (4 - 1), 0.0, 1.0);
    v = (1 - keep) * v / factor + keep * v;
  }
  return plan_of(std::move(w));
}

}  // namespace ropewalk::oracle_test
