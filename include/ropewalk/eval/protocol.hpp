// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// What "perplexity" means: windows, scored tokens, averaging and prefix token, by peer's name.

#include <cstdint>
#include <string>
#include <string_view>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/hash.hpp"
#include "ropewalk/core/number_text.hpp"
#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// How losses become one number. All but mean_ppl average nats and take the exponential last.
enum class Aggregation {
  token,          ///< every scored token (Protocol::weighting may bend this)
  window_mean,    ///< mean of each window's mean, long and short windows alike
  document_mean,  ///< mean of each document's mean
  mean_ppl,       ///< mean over documents of exp(the document's mean)
};

/// Where the prefix token (BOS, or EOS where a model has no BOS) is fed. It is never scored.
enum class PrefixToken {
  none,     ///< ids are fed as they are
  first,    ///< once before each text; windows are cut out of the text with it
  every,    ///< before every window, which holds one text token less
  replace,  ///< once before the text, and in the place of each window's first token
};

/// What a text is.
enum class TextUnit {
  joined,    ///< all documents, one after the other
  document,  ///< each document alone
};

/// What becomes of tokens that fill no window.
enum class TextTail {
  partial,     ///< the last window is shorter
  drop,        ///< not scored
  reach_back,  ///< the last window starts earlier and scores what is left
};

/// How a window counts under Aggregation::token.
enum class WindowWeight {
  predictions,  ///< by its scored tokens
  /// By its labels less one, as Hugging Face's page weights its window means: right for the first
  /// window, one too few for every later one.
  labels_less_one,
};

/// How a text is cut into windows and its losses are averaged. Five knobs say most of it: window,
/// stride, scored, aggregation, prefix; the rest are the peers' ways at the edges.
/// docs/protocols.md has each peer's formula, protocol_presets.hpp the presets; canonical_text()
/// names every knob.
struct Protocol {
  std::string_view name = "custom";
  index_t window = 0;  ///< tokens fed to the model at once, the prefix token included
  index_t stride = 0;  ///< tokens from the start of a window to the start of the next
  /// Predictions at each window's end that count; 0: those of tokens that no earlier window has
  /// predicted. `window` or more: all, overlaps are counted again.
  index_t scored = 0;
  Aggregation aggregation = Aggregation::token;
  PrefixToken prefix = PrefixToken::none;

  TextUnit text = TextUnit::joined;
  TextTail tail = TextTail::partial;
  WindowWeight weight = WindowWeight::predictions;
  /// Whether a window's last fed token predicts the one after it (`window` losses a window) or
  /// labels are the fed ids (`window` - 1).
  bool predicts_beyond = false;
  /// Windows end at stride, 2 stride, ... and grow up to `window` before they slide.
  bool growing = false;
  bool needs_prefix = false;      ///< without a prefix id: an error, else as PrefixToken::none
  bool needs_full_window = true;  ///< an error where no window of any text is `window` long
  index_t spare = 0;              ///< tokens that must follow a full window (tail = drop)
  index_t skipped_windows = 0;    ///< last windows of a text that are left out
  index_t max_windows = 0;        ///< of a text; 0: no limit
  index_t min_text_tokens = 0;   ///< shorter documents are left out; too short a joined text: error
  index_t windows_per_mean = 1;  ///< window_mean: windows averaged first (a batch), then batches
  double exponential_base = 0;   ///< of the perplexity; 0: e

  friend bool operator==(const Protocol&, const Protocol&) = default;
};

constexpr std::string_view to_text(Aggregation a) {
  constexpr std::string_view names[] = {"token", "window_mean", "document_mean", "mean_ppl"};
  return names[static_cast<std::size_t>(a)];
}
constexpr std::string_view to_text(PrefixToken p) {
  constexpr std::string_view names[] = {"none", "first", "every", "replace"};
  return names[static_cast<std::size_t>(p)];
}
constexpr std::string_view to_text(TextUnit u) {
  return u == TextUnit::joined ? "joined" : "document";
}
constexpr std::string_view to_text(TextTail t) {
  constexpr std::string_view names[] = {"partial", "drop", "reach_back"};
  return names[static_cast<std::size_t>(t)];
}
constexpr std::string_view to_text(WindowWeight w) {
  return w == WindowWeight::predictions ? "predictions" : "labels_less_one";
}

/// How many neighbouring windows score a token: 1 where none is scored twice.
constexpr index_t overlapping_windows(const Protocol& p) {
  if (p.scored == 0) return 1;
  return (std::min(p.scored, p.window) + p.stride - 1) / p.stride;
}

/// Every knob as `key=value`, in a fixed order, without the name: what protocol_hash is of.
inline std::string knobs_text(const Protocol& p) {
  std::string out;
  const auto add = [&out](std::string_view key, std::string_view value) {
    if (!out.empty()) out += ',';
    out.append(key).append("=").append(value);
  };
  const auto count = [&add](std::string_view key, index_t n) { add(key, std::to_string(n)); };
  const auto flag = [&add](std::string_view key, bool b) { add(key, b ? "true" : "false"); };
  count("window", p.window);
  count("stride", p.stride);
  add("scored", p.scored == 0 ? "fresh" : p.scored >= p.window ? "all" : std::to_string(p.scored));
  add("aggregation", to_text(p.aggregation));
  add("prefix", to_text(p.prefix));
  add("text", to_text(p.text));
  add("tail", to_text(p.tail));
  add("weight", to_text(p.weight));
  flag("predicts_beyond", p.predicts_beyond);
  flag("growing", p.growing);
  flag("needs_prefix", p.needs_prefix);
  flag("needs_full_window", p.needs_full_window);
  count("spare", p.spare);
  count("skipped_windows", p.skipped_windows);
  count("max_windows", p.max_windows);
  count("min_text_tokens", p.min_text_tokens);
  count("windows_per_mean", p.windows_per_mean);
  add("exponential_base", p.exponential_base == 0 ? "e" : number_text(p.exponential_base));
  return out;
}

/// `name:` and every knob: what results carry.
inline std::string canonical_text(const Protocol& p) {
  return std::string(p.name) + ":" + knobs_text(p);
}

/// Of every knob but not the name: equal hashes mean the same computation.
inline std::uint64_t protocol_hash(const Protocol& p) {
  return Hasher().text(knobs_text(p)).digest();
}

/// \throws Error(usage) for knobs that contradict each other, naming the knob
inline void check(const Protocol& p) {
  const auto rule = [&p](bool holds, const char* knob, const std::string& found,
                         const char* expected) {
    if (holds) return;
    fail({.kind = ErrorClass::usage,
          .where = "protocol " + std::string(p.name),
          .field = knob,
          .found = found,
          .expected = expected});
  };
  constexpr index_t limit = index_t{1} << 40;  // keeps sums of knobs far from overflow
  const bool beyond = p.predicts_beyond;
  const index_t least = (beyond ? 1 : 2) + (p.prefix == PrefixToken::every && beyond ? 1 : 0);
  rule(p.window >= least && p.window <= limit, "window", std::to_string(p.window),
       "a window that predicts something: at least 2 tokens");
  rule(p.stride >= 1 && p.stride <= limit, "stride", std::to_string(p.stride), "at least 1");
  rule(p.scored >= 0, "scored", std::to_string(p.scored), "at least 0");
  rule(!p.growing || (beyond && p.stride <= p.window && p.tail == TextTail::partial &&
                      p.prefix != PrefixToken::every && p.prefix != PrefixToken::replace),
       "growing", "true", "predicts_beyond, tail partial, stride <= window, prefix none or first");
  rule(p.tail != TextTail::reach_back ||
           (beyond && p.stride == p.window && p.scored == 0 && p.prefix != PrefixToken::every),
       "tail", "reach_back", "predicts_beyond, stride = window, fresh tokens scored");
  rule(p.prefix != PrefixToken::replace || !beyond, "prefix", "replace", "no predicts_beyond");
  rule(p.prefix != PrefixToken::every || !beyond, "prefix", "every", "no predicts_beyond");
  rule(p.spare >= 0 && p.spare <= limit, "spare", std::to_string(p.spare), "at least 0");
  rule(p.skipped_windows >= 0, "skipped_windows", std::to_string(p.skipped_windows), "at least 0");
  rule(p.max_windows >= 0, "max_windows", std::to_string(p.max_windows), "at least 0");
  rule(p.min_text_tokens >= 0, "min_text_tokens", std::to_string(p.min_text_tokens), "at least 0");
  rule(p.windows_per_mean >= 1, "windows_per_mean", std::to_string(p.windows_per_mean),
       "at least 1");
  rule(p.exponential_base == 0 || (p.exponential_base > 1 && p.exponential_base < 1e3),
       "exponential_base", number_text(p.exponential_base), "0 for e, or a base in (1, 1000)");
}

}  // namespace ropewalk::inline ROPEWALK_ABI
