// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Generation: a prompt is continued token by token, greedily or by sampling.

#include <functional>
#include <vector>

#include "ropewalk/model/decoder.hpp"
#include "ropewalk/model/sampling.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What happens when the sequence would grow beyond the context.
enum class Overflow {
  stop,  ///< generation ends; a prompt that leaves no room is an error
  /// The middle is dropped, on ids: nothing is decoded and tokenized again. What stays is read
  /// anew, at positions from 0 on, so predictions are those of the shortened sequence.
  keep_ends,
};

struct GenerateConfig {
  SamplingConfig sampling = {};
  index_t max_tokens = 256;
  std::int64_t context = 0;  ///< longest sequence, prompt and continuation; has no default
  Overflow overflow = Overflow::stop;
  std::vector<TokenId> eos_ids = {};  ///< ids that end the continuation, and are part of it
  DecodeMode mode = DecodeMode::consistent_decode;
  index_t chunk = 512;  ///< tokens of a pass over the prompt
  AnglePrecision precision = AnglePrecision::exact;
};

/// A sequence was cut: its first `head` and last `tail` tokens stay.
struct ContextCut {
  index_t length = 0;  ///< before
  index_t head = 0;
  index_t tail = 0;
};

/// What a caller wants to hear while it runs; any may be empty. They may throw to end it.
struct GenerateHooks {
  std::function<bool(TokenId)> on_token = {};  ///< after each token; false ends the continuation
  std::function<void(const ContextCut&)> on_cut = {};
  std::function<void(index_t done, index_t total)> on_chunk = {};  ///< tokens read so far
};

enum class StopReason { max_tokens, eos, context, on_token };

struct GenerateResult {
  StopReason reason = StopReason::max_tokens;
  index_t prompt_tokens = 0;  ///< as given
  index_t generated = 0;
  index_t cuts = 0;
};

/// The first `head` and the last `tail` ids.
inline std::vector<TokenId> keep_ends(std::span<const TokenId> ids, index_t head, index_t tail) {
  const auto size = static_cast<index_t>(ids.size());
  require(head >= 0 && tail >= 0 && head + tail <= size, "ends that are within the sequence");
  std::vector<TokenId> out(ids.begin(), ids.begin() + head);
  out.insert(out.end(), ids.end() - tail, ids.end());
  return out;
}

/// How Overflow::keep_ends cuts a prompt: nothing if it fits beside min(max_tokens, context / 2)
/// new tokens, else half of the room for each end (LongBench's middle truncation, cut on ids).
inline ContextCut prompt_cut(index_t length, index_t context, index_t max_tokens) {
  const index_t room = context - std::min(max_tokens, context / 2);
  if (length <= room) return {length, length, 0};
  return {length, room / 2, room / 2};
}

/// How it cuts a sequence that has grown to `context`: a quarter at each end stays, so that a cut
/// comes once per context / 2 tokens.
inline ContextCut running_cut(index_t context) { return {context, context / 4, context / 4}; }

namespace detail {

inline void check_generate(std::span<const TokenId> ids, const GenerateConfig& config,
                           index_t vocab_size) {
  require(!ids.empty(), "a prompt of at least one token");
  require(config.max_tokens >= 0, "max_tokens >= 0");
  const auto wrong = [](const char* field, std::int64_t found, std::string expected,
                        std::string fix = {}) {
    fail({.kind = ErrorClass::usage,
          .field = field,
          .found = std::to_string(found),
          .expected = std::move(expected),
          .fix = std::move(fix)});
  };
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_size) {
      wrong("prompt id", id, "an id in [0, " + std::to_string(vocab_size) + ")");
    }
  }
  if (config.overflow == Overflow::keep_ends) {
    if (config.context < 4)
      wrong("context", config.context, "at least 4 tokens, to keep both ends");
  } else if (config.max_tokens > 0 && static_cast<std::int64_t>(ids.size()) >= config.context) {
    wrong("prompt", static_cast<std::int64_t>(ids.size()),
          "fewer tokens than the context of " + std::to_string(config.context),
          "Raise the context, or let overflow keep the ends");
  }
}

}  // namespace detail

/// Appends up to config.max_tokens tokens to `ids`. Nothing is ever removed from `ids`: where
/// Overflow::keep_ends cuts, it cuts what the model is given.
///
/// At temperature 0 without a penalty each token is the argmax of HeadResult; else it is drawn by
/// TokenSampler from the logits, step t of a seed being the t-th token added. The repetition
/// penalty counts the tokens that the model is given.
/// \throws Error(usage) for an empty prompt, ids outside the vocabulary, settings out of their
/// range, a prompt that fills the context; Error(numeric) when logits are not finite
template <class T>
GenerateResult generate(const Llama<T>& model, const LengthFrequencies& frequencies,
                        const KernelTable<T>& kernels, const Executor& executor,
                        std::vector<TokenId>& ids, const GenerateConfig& config,
                        const GenerateHooks& hooks = {}) {
  detail::check_generate(ids, config, model.config.vocab_size);
  TokenSampler sampler(config.sampling);
  GenerateResult result{.prompt_tokens = static_cast<index_t>(ids.size())};
  if (config.max_tokens == 0) return result;
  const auto context = static_cast<index_t>(config.context);
  std::vector<TokenId> given = ids;  // to the model
  const auto cut_to = [&](const ContextCut& cut) {
    given = keep_ends(given, cut.head, cut.tail);
    ++result.cuts;
    if (hooks.on_cut) hooks.on_cut(cut);
  };
  if (config.overflow == Overflow::keep_ends) {
    const ContextCut cut = prompt_cut(result.prompt_tokens, context, config.max_tokens);
    if (cut.head + cut.tail < cut.length) cut_to(cut);
  }
  const auto room = static_cast<std::int64_t>(given.size());
  Decoder<T> decoder(
      model, frequencies, kernels, executor,
      {.capacity = std::min(config.context,
                            checked_add(room, std::int64_t{config.max_tokens}, "max_tokens")),
       .mode = config.mode,
       .chunk = config.chunk,
       .precision = config.precision});
  std::vector<double> logits(
      config.sampling.needs_logits() ? static_cast<std::size_t>(model.config.vocab_size) : 0);
  const auto on_chunk = [&](index_t done) {
    if (hooks.on_chunk) hooks.on_chunk(done, static_cast<index_t>(given.size()));
  };
  const auto ends = [&](TokenId id) {
    return std::find(config.eos_ids.begin(), config.eos_ids.end(), id) != config.eos_ids.end();
  };
  while (result.generated < config.max_tokens) {
    if (static_cast<index_t>(given.size()) >= context) {
      if (config.overflow == Overflow::stop) {
        result.reason = StopReason::context;
        return result;
      }
      cut_to(running_cut(context));
      decoder.restart();
    }
    TokenId id = decoder.next(given, logits, on_chunk);
    if (!logits.empty()) {
      id = sampler.sample(logits, given, static_cast<std::uint64_t>(result.generated));
    }
    ids.push_back(id);
    given.push_back(id);
    ++result.generated;
    const bool go_on = !hooks.on_token || hooks.on_token(id);
    if (ends(id)) {
      result.reason = StopReason::eos;
      return result;
    }
    if (!go_on) {
      result.reason = StopReason::on_token;
      return result;
    }
  }
  return result;
}

/// Appends the most probable next token to `ids` until `max_tokens` are added or on_token(id)
/// returns false. All frequencies are those of one plan.
/// \param ids the prompt, not empty
/// \throws as generate
template <class T, class OnToken>
void generate_greedy(const Llama<T>& model, const FrequencyPlan& frequencies,
                     const KernelTable<T>& kernels, const Executor& executor,
                     std::vector<TokenId>& ids, index_t max_tokens, OnToken&& on_token) {
  const GenerateConfig config{.max_tokens = max_tokens,
                              .context = checked_add(static_cast<std::int64_t>(ids.size()),
                                                     std::int64_t{max_tokens}, "max_tokens")};
  generate(model, LengthFrequencies(frequencies), kernels, executor, ids, config,
           {.on_token = [&on_token](TokenId id) { return static_cast<bool>(on_token(id)); }});
}

}  // namespace ropewalk::inline ROPEWALK_ABI
