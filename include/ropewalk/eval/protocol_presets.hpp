// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The peers' protocols by name. Where a peer's way is odd it is kept; docs/protocols.md says
/// which.

#include <algorithm>
#include <array>
#include <iterator>
#include <string>
#include <string_view>

#include "ropewalk/core/text_match.hpp"
#include "ropewalk/eval/protocol.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The presets, each a function of the length (and of the stride where the peer has one).
namespace protocols {

/// ropewalk's own curve: disjoint windows of `window_tokens` ids (default length + 1), the first
/// `length` predictions of each, every token alike. One pass at the longest length serves all.
inline Protocol prefix(index_t length, index_t window_tokens = 0) {
  if (window_tokens == 0) window_tokens = length + 1;
  require(window_tokens > length, "window_tokens above the length");
  return {.name = "prefix",
          .window = length,
          .stride = window_tokens,
          .scored = length,
          .tail = TextTail::drop,
          .predicts_beyond = true,
          .spare = window_tokens - length - 1};
}

/// fairseq-eval-lm as the ALiBi repository calls it: context-window 0 (stride = length, default)
/// or length - 1 (stride 1). The text begins with EOS; every token is scored once.
inline Protocol press(index_t length, index_t stride = 0) {
  return {.name = "press",
          .window = length,
          .stride = stride == 0 ? length : stride,
          .prefix = PrefixToken::first,
          .predicts_beyond = true,
          .growing = true,
          .needs_prefix = true};
}

/// Hugging Face's page "Perplexity of fixed-length models"; its stride is 512.
inline Protocol hf(index_t length, index_t stride = 0) {
  return {.name = "hf",
          .window = length,
          .stride = stride == 0 ? std::min<index_t>(512, length) : stride,
          .weight = WindowWeight::labels_less_one};
}

/// jquesnelle/yarn eval/perplexity.py with --sliding-window (256).
inline Protocol yarn(index_t length, index_t stride = 0, index_t min_document_tokens = 0) {
  return {.name = "yarn",
          .window = length,
          .stride = stride == 0 ? 256 : stride,
          .aggregation = Aggregation::window_mean,
          .prefix = PrefixToken::every,
          .text = TextUnit::document,
          .min_text_tokens = min_document_tokens};
}

/// The same with --truncate: one window a document, of those that have `min_document_tokens`
/// (default: length; a curve over lengths takes the longest, so that all read the same documents).
inline Protocol yarn_truncate(index_t length, index_t min_document_tokens = 0) {
  return {.name = "yarn_truncate",
          .window = length,
          .stride = length,
          .aggregation = Aggregation::window_mean,
          .prefix = PrefixToken::every,
          .text = TextUnit::document,
          .max_windows = 1,
          .min_text_tokens = min_document_tokens == 0 ? length : min_document_tokens};
}

/// dvlab-research/LongLoRA eval.py; its batch is 32 unless told otherwise.
inline Protocol longlora(index_t length, index_t stride = 0, index_t batch = 32) {
  return {.name = "longlora",
          .window = length,
          .stride = stride == 0 ? 256 : stride,
          .scored = length,
          .aggregation = Aggregation::window_mean,
          .tail = TextTail::drop,
          .spare = 1,
          .skipped_windows = 1,
          .windows_per_mean = batch,
          .exponential_base = 2.71828};
}

/// llama.cpp's llama-perplexity: the second half of disjoint chunks.
inline Protocol llamacpp(index_t length) {
  require(length >= 3, "a length of at least 3: shorter windows score nothing");
  return {.name = "llamacpp",
          .window = length,
          .stride = length,
          .scored = length - length / 2 - 1,
          .prefix = PrefixToken::replace,
          .tail = TextTail::drop,
          .min_text_tokens = 2 * length};
}

/// The same with --ppl-stride (off unless given; here length / 2 by default), which adds half a
/// stride to the window and writes BOS too late to matter.
inline Protocol llamacpp_stride(index_t length, index_t stride = 0) {
  if (stride == 0) stride = length / 2;
  const index_t window = length + stride / 2;
  require(stride >= 1 && stride < window, "1 <= stride < length + stride / 2");
  return {.name = "llamacpp_stride",
          .window = window,
          .stride = stride,
          .scored = stride,
          .prefix = PrefixToken::first,
          .tail = TextTail::drop,
          .spare = 1,
          .min_text_tokens = 2 * window};
}

/// lm-evaluation-harness' loglikelihood_rolling: disjoint, the last window reaches back.
inline Protocol lmeval(index_t length) {
  return {.name = "lmeval",
          .window = length,
          .stride = length,
          .prefix = PrefixToken::first,
          .text = TextUnit::document,
          .tail = TextTail::reach_back,
          .predicts_beyond = true,
          .needs_prefix = true,
          .needs_full_window = false};
}

/// The `perplexity` metric of Hugging Face's evaluate: every document cut to one window after BOS,
/// mean of the documents' perplexities.
inline Protocol mean_of_ppl(index_t length, index_t min_document_tokens = 0) {
  return {.name = "mean_of_ppl",
          .window = length,
          .stride = length,
          .aggregation = Aggregation::mean_ppl,
          .prefix = PrefixToken::every,
          .text = TextUnit::document,
          .max_windows = 1,
          .min_text_tokens = min_document_tokens};
}

}  // namespace protocols

/// What a preset may be told besides the length; 0: the peer's default.
struct ProtocolOptions {
  index_t stride = 0;               ///< press, hf, yarn, longlora, llamacpp_stride
  index_t batch = 0;                ///< longlora
  index_t min_document_tokens = 0;  ///< yarn, yarn_truncate, mean_of_ppl
  index_t window_tokens = 0;        ///< prefix
};

/// A preset that can be asked for by name, and the options that it has.
struct ProtocolPreset {
  std::string_view name;
  Protocol (*make)(index_t length, const ProtocolOptions& options) = nullptr;
  bool has_stride = false;
  bool has_batch = false;
  bool has_min_document_tokens = false;
  bool has_window_tokens = false;
};

inline constexpr ProtocolPreset protocol_presets[] = {
    {.name = "prefix",
     .make = [](index_t n,
                const ProtocolOptions& o) { return protocols::prefix(n, o.window_tokens); },
     .has_window_tokens = true},
    {.name = "press",
     .make = [](index_t n, const ProtocolOptions& o) { return protocols::press(n, o.stride); },
     .has_stride = true},
    {.name = "hf",
     .make = [](index_t n, const ProtocolOptions& o) { return protocols::hf(n, o.stride); },
     .has_stride = true},
    {.name = "yarn",
     .make =
         [](index_t n, const ProtocolOptions& o) {
           return protocols::yarn(n, o.stride, o.min_document_tokens);
         },
     .has_stride = true,
     .has_min_document_tokens = true},
    {.name = "yarn_truncate",
     .make =
         [](index_t n, const ProtocolOptions& o) {
           return protocols::yarn_truncate(n, o.min_document_tokens);
         },
     .has_min_document_tokens = true},
    {.name = "longlora",
     .make =
         [](index_t n, const ProtocolOptions& o) {
           return protocols::longlora(n, o.stride, o.batch == 0 ? 32 : o.batch);
         },
     .has_stride = true,
     .has_batch = true},
    {.name = "llamacpp",
     .make = [](index_t n, const ProtocolOptions&) { return protocols::llamacpp(n); }},
    {.name = "llamacpp_stride",
     .make = [](index_t n,
                const ProtocolOptions& o) { return protocols::llamacpp_stride(n, o.stride); },
     .has_stride = true},
    {.name = "lmeval",
     .make = [](index_t n, const ProtocolOptions&) { return protocols::lmeval(n); }},
    {.name = "mean_of_ppl",
     .make =
         [](index_t n, const ProtocolOptions& o) {
           return protocols::mean_of_ppl(n, o.min_document_tokens);
         },
     .has_min_document_tokens = true}};

/// Names of the presets.
inline constexpr auto protocol_names = [] {
  std::array<std::string_view, std::size(protocol_presets)> names = {};
  std::size_t i = 0;
  for (const ProtocolPreset& p : protocol_presets) names[i++] = p.name;
  return names;
}();

/// \throws Error(usage) for an unknown name: the known ones, and the nearest
inline const ProtocolPreset& find_protocol(std::string_view name) {
  std::string known;
  NearestWord nearest(name);
  for (const ProtocolPreset& p : protocol_presets) {
    if (p.name == name) return p;
    known.append(known.empty() ? "" : ", ").append(p.name);
    nearest.offer(p.name);
  }
  fail({.kind = ErrorClass::usage,
        .field = "protocol",
        .found = escaped(name),
        .expected = "one of " + known,
        .fix = nearest.best().empty() ? "" : "Did you mean " + std::string(nearest.best()) + "?"});
}

/// A preset by name. \throws Error(usage) for an unknown name, an option that the preset does not
/// have, a length that it cannot take
inline Protocol make_protocol(std::string_view name, index_t length, ProtocolOptions o = {}) {
  constexpr index_t limit = index_t{1} << 32;
  const ProtocolPreset& preset = find_protocol(name);
  const auto bounded = [&](const char* field, index_t value, index_t least, bool has) {
    if (value < least || value > limit) {
      fail({.kind = ErrorClass::usage,
            .where = "protocol " + std::string(name),
            .field = field,
            .found = std::to_string(value),
            .expected = "a number from " + std::to_string(least) + " to 2^32"});
    }
    if (value == 0 || has) return;
    fail({.kind = ErrorClass::usage,
          .where = "protocol " + std::string(name),
          .field = field,
          .found = std::to_string(value),
          .expected = "nothing: the protocol has no such option",
          .fix = "Leave it out, or take a protocol that has it (docs/protocols.md)"});
  };
  bounded("length", length, 1, true);
  bounded("stride", o.stride, 0, preset.has_stride);
  bounded("batch", o.batch, 0, preset.has_batch);
  bounded("min_document_tokens", o.min_document_tokens, 0, preset.has_min_document_tokens);
  bounded("window_tokens", o.window_tokens, 0, preset.has_window_tokens);
  const Protocol made = preset.make(length, o);
  check(made);
  return made;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
