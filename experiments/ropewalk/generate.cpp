// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk generate`: continuation of a prompt, greedily or by sampling.

#include "ropewalk/model/generate.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <fmt/format.h>

#include "ropewalk/hub/eos_ids.hpp"
#include "ropewalk/io/byte_source.hpp"
#include "ropewalk/text/streamed_text.hpp"

#include "commands.hpp"
#include "loaded_model.hpp"
#include "output.hpp"
#include "stop_signal.hpp"

namespace cli {

namespace {

constexpr const char* examples =
    "  ropewalk generate --model stories260K.bin --tokenizer tok512.bin --prompt 'Once upon'\n"
    "  ropewalk generate --model hf-folder --prompt 'Once upon a time' --temperature 0.8 \\\n"
    "      --top-k 40 --top-p 0.95 --repetition-penalty 1.1 --seed 7 --stop 'The end'\n"
    "  ropewalk generate --model hf-folder --prompt-file book.txt --max-tokens 200 \\\n"
    "      --rope yarn:factor=4 --context 2K --overflow keep-ends\n"
    "  ropewalk generate --model hf-folder --prompt 'Once' --rope dynamic:factor=2 \\\n"
    "      --context 1K --max-tokens 1K --mode hf_cache --format ids\n";

struct GenerateOptions {
  ModelOptions model = {};
  std::optional<std::string> prompt = {}, prompt_file = {};
  std::optional<std::int64_t> max_tokens = {}, top_k = {}, context = {};
  SamplingConfig sampling = {};
  std::vector<std::string> rope = {"default"};
  std::vector<std::string> stops = {};
  std::string overflow = "stop";
  std::string mode = "consistent_decode";
  std::string format = "text";
  bool ignore_eos = false;
};

/// False when help was asked for.
bool parse(Arguments arguments, GenerateOptions& o) {
  Options options("generate", "Continuation of a prompt, token by token.", examples);
  options.text("--prompt", "TEXT", o.prompt, "Text to continue; empty: start from BOS");
  options.text("--prompt-file", "FILE", o.prompt_file, "The same from a file, byte for byte");
  options.size("--max-tokens", 1, o.max_tokens, "Tokens to add [256]");
  options.real("--temperature", o.sampling.temperature,
               "Divides the logits; 0 takes the most probable token [0]");
  options.size("--top-k", 0, o.top_k, "Draw from the K most probable tokens; 0: from all [0]");
  options.real("--top-p", o.sampling.top_p,
               "Draw from the most probable tokens that hold this share, in (0, 1] [1]");
  options.real("--repetition-penalty", o.sampling.repetition_penalty,
               "Divides positive and multiplies negative logits of tokens seen before [1]");
  options.texts("--stop", "TEXT", o.stops, "End before this text; may be given several times");
  options.flag("--ignore-eos", o.ignore_eos, "Go on after the model's end-of-text token");
  options.size("--context", 1, o.context,
               "Longest sequence, prompt and continuation [the trained length; times the factor of "
               "a --rope other than default]");
  options.choice("--overflow", {"stop", "keep-ends"}, o.overflow,
                 "At the context's end: stop, or drop the middle (on ids) and go on");
  options.texts("--rope", "SPEC", o.rope, "One rope setting, as for sweep [default]");
  options.choice("--mode", {"consistent_decode", "recompute", "hf_cache", "fixed"}, o.mode,
                 "Where frequencies follow the length: those of the length so far for all cached "
                 "keys; a fresh pass per token; old keys keep theirs as in transformers; those of "
                 "the longest length from the start");
  options.choice("--format", {"text", "ids"}, o.format, "Text, or ids in one line, BOS first");
  add_model_options(options, o.model);
  return options.parse(arguments);
}

/// Runs `call`; a setting that the library refuses is reported under its option's name.
template <class Call>
decltype(auto) with_option_names(Call&& call) {
  try {
    return call();
  } catch (const Error& error) {
    ErrorInfo info = error.info();
    if (info.kind != ErrorClass::usage || info.field.empty()) throw;
    info.field = "--" + info.field;
    std::replace(info.field.begin(), info.field.end(), '_', '-');
    fail(std::move(info));
  }
}

std::vector<TokenId> encode_prompt(const AnyTokenizer& tokenizer, const std::string& prompt) {
  TokenStream stream;
  if (const auto bos = tokenizer.bos_id()) stream.push(*bos, 0);
  tokenizer.encode(prompt, stream);
  if (stream.ids.empty()) {
    fail_usage("--prompt", "an empty prompt, and a tokenizer without BOS",
               "at least one token to start from");
  }
  return std::move(stream.ids);
}

/// The trained length, times the factor of a setting that is not the checkpoint's own.
std::int64_t default_context(const Setting& setting, std::int64_t trained) {
  if (setting.arg == "default") return trained;
  double factor = 1;
  std::int64_t original = trained;
  AnyFrequency::fields(setting.policy, [&](const Field& field, const auto& value) {
    using Value = std::remove_cvref_t<decltype(value)>;
    if constexpr (std::is_same_v<Value, double>) {
      if (field.key == "factor") factor = value;
    } else if constexpr (std::is_same_v<Value, std::optional<double>>) {
      if (field.key == "factor" && value) factor = *value;
    } else if constexpr (std::is_same_v<Value, std::int64_t>) {
      if (field.key == "original_max_position_embeddings") original = value;
    }
  });
  const double extended = std::floor(static_cast<double>(original) * factor);
  return extended > static_cast<double>(trained) && extended < 0x1p40
             ? static_cast<std::int64_t>(extended)
             : trained;
}

/// Ids that end a text: what the model's folder says; BOS and EOS of llama2.c's tokenizers.
std::vector<TokenId> eos_ids_of(const LoadedModel& model, const AnyTokenizer& tokenizer) {
  if (is_directory(model.path)) return read_eos_ids(model.path, model.config().vocab_size);
  const bool llama2c = tokenizer.visit([](const auto& t) {
    return std::is_same_v<std::remove_cvref_t<decltype(t)>, Llama2cTokenizer>;
  });
  return llama2c ? std::vector<TokenId>{1, 2} : std::vector<TokenId>{};
}

/// The text that the last id adds to that of the ids before it: its piece, without the space that
/// encode() put before the text if it comes first.
std::string added_text(const AnyTokenizer& tokenizer, std::span<const TokenId> ids) {
  std::string piece = tokenizer.piece(ids.back());
  if (!piece.starts_with(" ") || ids.size() < 2) return piece;
  const auto both = ids.last(2);
  const std::string before = tokenizer.decode(both.first(1));
  const bool loses_space = tokenizer.decode(both) == before + piece.substr(1);
  return loses_space ? piece.substr(1) : piece;
}

/// Writes the prompt and what comes after it, each token as it comes.
class Printer {
 public:
  Printer(const AnyTokenizer& tokenizer, bool as_text, std::vector<std::string> stops)
      : tokenizer_(tokenizer), as_text_(as_text), text_(std::move(stops)) {}

  void start(std::span<const TokenId> prompt) {
    print(as_text_ ? tokenizer_.decode(prompt) : fmt::format("{}", fmt::join(prompt, " ")));
    flush_output();
  }
  /// The last of `ids` is new; one that ends the text is no part of it. False when a stop string
  /// has come.
  bool add(std::span<const TokenId> ids, bool ends) {
    const std::string settled = ends ? "" : text_.push(added_text(tokenizer_, ids));
    print(as_text_ ? settled : fmt::format(" {}", ids.back()));
    flush_output();
    return !text_.stopped();
  }
  void finish() {
    const std::string rest = text_.finish();
    if (as_text_) print(rest);
    print("\n");
    flush_output();
  }
  bool stopped() const { return text_.stopped(); }

 private:
  const AnyTokenizer& tokenizer_;
  bool as_text_;
  StreamedText text_;
};

class Timer {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::string rate(std::int64_t tokens, double seconds) {
  return fmt::format("{} tokens in {:.2f} s ({:.1f} tokens/s)", tokens, seconds,
                     static_cast<double>(tokens) / std::max(seconds, 1e-9));
}

std::string cut_note(const ContextCut& cut, std::int64_t context) {
  return fmt::format(
      "note: --overflow keep-ends: of {} tokens the first {} and the last {} are kept and read at "
      "positions from 0 on (context of {} tokens)",
      cut.length, cut.head, cut.tail, context);
}

}  // namespace

int run_generate(Arguments arguments) {
  GenerateOptions o;
  if (!parse(arguments, o)) return 0;
  o.sampling.top_k = o.top_k.value_or(0);
  o.sampling.seed = o.model.seed;
  with_option_names([&] {
    o.sampling.check();
    StreamedText{o.stops};
  });
  if (o.prompt.has_value() == o.prompt_file.has_value()) {
    fail_usage("--prompt", o.prompt ? "both --prompt and --prompt-file" : "nothing",
               "either --prompt TEXT or --prompt-file FILE");
  }
  if (o.prompt_file) o.prompt = read_text(FileSource(*o.prompt_file), std::uint64_t{1} << 30);

  LoadedModel model(o.model);
  const LlamaConfig& config = model.config();
  const std::vector<Setting> settings = parse_settings(o.rope, model);
  if (settings.size() != 1) {
    fail_usage("--rope", std::to_string(settings.size()) + " settings", "one");
  }
  const AnyTokenizer tokenizer = model.open_tokenizer();
  std::vector<TokenId> ids = encode_prompt(tokenizer, *o.prompt);
  GenerateConfig generation{
      .sampling = o.sampling,
      .max_tokens = static_cast<index_t>(o.max_tokens.value_or(256)),
      .context = o.context.value_or(default_context(settings[0], config.max_position_embeddings)),
      .overflow = o.overflow == "stop" ? Overflow::stop : Overflow::keep_ends,
      .precision = model.precision};
  for (const DecodeMode mode : {DecodeMode::consistent_decode, DecodeMode::recompute,
                                DecodeMode::hf_cache, DecodeMode::fixed}) {
    if (o.mode == decode_mode_name(mode)) generation.mode = mode;
  }
  const auto prompt_tokens = static_cast<std::int64_t>(ids.size());
  if (generation.overflow == Overflow::stop && prompt_tokens >= generation.context) {
    fail_usage(o.prompt_file ? "--prompt-file" : "--prompt",
               fmt::format("{} tokens", prompt_tokens),
               fmt::format("fewer than the context of {} tokens", generation.context),
               "Raise --context, or give --overflow keep-ends");
  }
  const bool quiet = o.model.quiet;
  if (!o.ignore_eos) generation.eos_ids = eos_ids_of(model, tokenizer);
  if (generation.eos_ids.empty() && !o.ignore_eos) {
    remark(quiet,
           "note: no end-of-text id is known for this model: only --max-tokens, --stop and "
           "the context end the text");
  }
  if (settings[0].depends_on_length) {
    remark(quiet,
           fmt::format("note: {}: the frequencies follow the length of the sequence: mode {}",
                       settings[0].canonical, o.mode));
  }

  install_stop_signals();
  Printer printer(tokenizer, o.format == "text", o.stops);
  const Timer timer;
  double prompt_seconds = 0;
  std::int64_t generated = 0;
  int cuts = 0;
  const GenerateHooks hooks{.on_token =
                                [&](TokenId id) {
                                  if (generated++ == 0) prompt_seconds = timer.seconds();
                                  const auto& eos = generation.eos_ids;
                                  const bool ends =
                                      std::find(eos.begin(), eos.end(), id) != eos.end();
                                  const bool go_on = printer.add(ids, ends);
                                  check_stop();
                                  return go_on;
                                },
                            .on_cut =
                                [&](const ContextCut& cut) {
                                  // One line for the prompt, one for the first cut on the way.
                                  if (cuts++ == 0 || (cuts == 2 && generated > 0)) {
                                    remark(quiet, cut_note(cut, generation.context));
                                  }
                                },
                            .on_chunk = [](index_t, index_t) { check_stop(); }};
  printer.start(ids);
  int exit_code = 0;
  GenerateResult result;
  try {
    result = with_option_names([&] {
      return model.visit([&](const auto& m) {
        return generate(m.llama, LengthFrequencies(settings[0].policy, config.head_dim), m.kernels,
                        model.threads.executor(), ids, generation, hooks);
      });
    });
  } catch (const Stopped& stopped) {
    exit_code = stopped.exit_code;
  }
  const double decode_seconds = timer.seconds() - prompt_seconds;
  printer.finish();

  std::string why = "stopped by a signal";
  if (exit_code == 0) {
    why = result.reason == StopReason::eos        ? "end of text"
          : result.reason == StopReason::on_token ? "stop string"
          : result.reason == StopReason::context
              ? fmt::format(
                    "context of {} tokens full (--context N raises it, --overflow "
                    "keep-ends goes on)",
                    generation.context)
              : "--max-tokens";
  }
  // The first token comes out of the pass over the prompt.
  std::string speed;
  if (generated > 0) speed += "; prompt: " + rate(prompt_tokens, prompt_seconds);
  if (generated > 1) speed += "; decoding: " + rate(generated - 1, decode_seconds);
  if (cuts > 0) speed += fmt::format("; the middle was cut {} times", cuts);
  remark(quiet, fmt::format("generated {} tokens after {}{}; end: {}", generated, prompt_tokens,
                            speed, why));
  return exit_code;
}

}  // namespace cli
