// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Decoder: what comes after a sequence that grows, with a KV cache and a named rule for methods
/// whose frequencies follow the length.

#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ropewalk/attention/masks.hpp"
#include "ropewalk/model/layer_plan.hpp"
#include "ropewalk/model/length_frequencies.hpp"
#include "ropewalk/model/llama.hpp"
#include "ropewalk/rope/position_map.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What decoding does where frequencies follow the length of the sequence (Dynamic NTK, LongRoPE);
/// for other methods all four give the same bits.
enum class DecodeMode {
  /// Token t is predicted with the frequencies of length t for its query and for all keys, which
  /// are cached unrotated. The hidden states behind the keys stay those of their own step, so this
  /// equals `recompute` in the first layer only.
  consistent_decode,
  /// Every step is a fresh pass over the whole sequence with the frequencies of its length: what a
  /// perplexity measured at that length sees. Quadratic in the tokens generated.
  recompute,
  /// Keys stay as the step that made them rotated them: what transformers does.
  hf_cache,
  /// The frequencies of the longest sequence there can be (the capacity), from the first token on.
  fixed,
};

/// Name of a mode, as in options and results.
constexpr const char* decode_mode_name(DecodeMode mode) {
  switch (mode) {
    case DecodeMode::consistent_decode:
      return "consistent_decode";
    case DecodeMode::recompute:
      return "recompute";
    case DecodeMode::hf_cache:
      return "hf_cache";
    case DecodeMode::fixed:
      return "fixed";
  }
  return "unknown";
}

struct DecoderConfig {
  std::int64_t capacity = 0;  ///< longest sequence, tokens
  DecodeMode mode = DecodeMode::consistent_decode;
  /// Tokens of a pass while a prompt is read: bounds the memory besides the cache, changes no bit.
  index_t chunk = 512;
  AnglePrecision precision = AnglePrecision::exact;
};

/// The model at the end of one sequence. Refers to the model and the executor's pool.
///
/// Bits of the predictions depend on the sequence, the frequencies and the mode alone; not on
/// chunks, threads, or how the sequence was cut among the calls (hf_cache and consistent_decode
/// with varying frequencies: the calls decide at which lengths keys and hidden states are made).
template <class T>
class Decoder {
 public:
  /// \throws Error(usage) for capacity or chunk below 1; Error(resource) when the cache does not
  /// fit
  Decoder(const Llama<T>& model, LengthFrequencies frequencies, const KernelTable<T>& kernels,
          const Executor& executor, const DecoderConfig& config)
      : model_(model),
        frequencies_(std::move(frequencies)),
        kernels_(kernels),
        executor_(executor),
        config_(config) {
    require(config.capacity >= 1, "a capacity of at least one token");
    require(config.chunk >= 1, "chunks of at least one token");
    varies_ = config.mode != DecodeMode::fixed && frequencies_.vary_up_to(config.capacity);
    const KeyStorage storage =
        !varies_                                       ? KeyStorage::rotated
        : config.mode == DecodeMode::consistent_decode ? KeyStorage::unrotated
        : config.mode == DecodeMode::hf_cache          ? KeyStorage::rotated_as_written
                                                       : KeyStorage::rotated;
    cache_ = make_kv_cache<T>(model.config, static_cast<index_t>(config.capacity), storage);
  }

  /// Tokens of the sequence that are in the cache.
  index_t length() const { return cache_.length; }
  /// Whether frequencies differ among the lengths up to the capacity, so that the mode matters.
  bool varies() const { return varies_; }
  const KvCache<T>& cache() const { return cache_; }
  /// Largest number of bytes that passes have used besides the cache.
  std::size_t workspace_bytes() const { return workspace_.peak_bytes(); }
  /// Forgets the sequence.
  void restart() { cache_.length = 0; }

  /// What follows `sequence`, which must start with what earlier calls since restart() were given:
  /// the most probable token (the lowest id of equals).
  /// \param sequence more than length() tokens, at most the capacity
  /// \param logits (V) or empty; natural units
  /// \param on_chunk called with length() after each pass; may throw to stop: the decoder stays
  /// usable
  /// \throws Error(usage) for ids outside the vocabulary; Error(numeric) when the logits are not
  /// finite
  template <class OnChunk>
  TokenId next(std::span<const TokenId> sequence, std::span<double> logits, OnChunk&& on_chunk) {
    if (config_.mode == DecodeMode::recompute) restart();
    const auto total = static_cast<index_t>(sequence.size());
    require(total > cache_.length, "a sequence longer than what is in the cache");
    require(total <= config_.capacity, "a sequence of at most `capacity` tokens");
    use_frequencies_of(config_.mode == DecodeMode::fixed ? config_.capacity : total);
    HeadResult last;
    while (cache_.length < total) {
      const index_t count = std::min(config_.chunk, total - cache_.length);
      const bool ends = cache_.length + count == total;
      const HeadResult result = pass(sequence.subspan(static_cast<std::size_t>(cache_.length),
                                                      static_cast<std::size_t>(count)),
                                     ends, ends ? logits : std::span<double>());
      if (ends) last = result;
      on_chunk(cache_.length);
    }
    if (std::isnan(last.nll)) {
      fail({.kind = ErrorClass::numeric,
            .where = "position " + std::to_string(total - 1),
            .field = "logits",
            .found = "values that are not finite",
            .expected = "finite logits"});
    }
    return last.argmax;
  }
  TokenId next(std::span<const TokenId> sequence, std::span<double> logits = {}) {
    return next(sequence, logits, [](index_t) {});
  }

 private:
  void use_frequencies_of(std::int64_t length) {
    const std::int64_t key = frequencies_.key(length);
    if (plan_ && key == key_) return;
    plan_ = frequencies_.plan(length);
    key_ = key;
    key_rows_ = {};
  }

  /// One pass over the next tokens of the sequence; the result is that of the last one.
  HeadResult pass(std::span<const TokenId> tokens, bool predict, std::span<double> logits) {
    const auto n = static_cast<index_t>(tokens.size());
    const std::vector<std::int64_t> positions = batch_positions(Identity{cache_.length}, n);
    TokenRotations rotations;
    append_tokens(rotations, *plan_, positions, config_.precision);
    const RotaryRows* keys = nullptr;
    if (cache_.storage == KeyStorage::unrotated) {
      const auto have = static_cast<index_t>(key_rows_.row.size());
      const index_t need = cache_.length + n;
      if (have > need) key_rows_ = {};
      const index_t from = have > need ? 0 : have;
      append_rotary_rows(key_rows_, *plan_, batch_positions(Identity{from}, need - from),
                         config_.precision);
      keys = &key_rows_;
    }
    const BlockPlan blocks = make_block_plan(Causal{}, n, {}, cache_.length);
    const LayerPlan layer = make_layer_plan(rotations, blocks, keys);
    targets_.assign(tokens.size(), not_scored);
    // Some target: its loss is NaN when the logits are not finite.
    if (predict) targets_.back() = 0;
    results_.resize(tokens.size());
    const index_t last = n - 1;
    LogitsRequest request;
    if (!logits.empty()) {
      request = {.tokens = {&last, 1},
                 .logits = {logits.data(), {1, static_cast<index_t>(logits.size())}}};
    }
    forward(model_, std::span(&layer, 1),
            {.tokens = tokens, .targets = targets_, .positions = positions}, &cache_, kernels_,
            executor_, workspace_, results_, request);
    return results_.back();
  }

  const Llama<T>& model_;
  LengthFrequencies frequencies_;
  KernelTable<T> kernels_;
  Executor executor_;
  DecoderConfig config_;
  bool varies_ = false;
  KvCache<T> cache_;
  std::optional<FrequencyPlan> plan_;
  std::int64_t key_ = 0;
  RotaryRows key_rows_;  // of all keys, where they are cached unrotated
  Workspace workspace_;
  std::vector<TokenId> targets_;
  std::vector<HeadResult> results_;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
