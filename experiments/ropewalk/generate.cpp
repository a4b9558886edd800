// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk generate`: greedy continuation of a prompt.

#include "ropewalk/model/generate.hpp"

#include <fmt/format.h>

#include "ropewalk/io/byte_source.hpp"

#include "commands.hpp"
#include "loaded_model.hpp"
#include "output.hpp"
#include "stop_signal.hpp"

namespace cli {

namespace {

constexpr const char* examples =
    "  ropewalk generate --model stories260K.bin --tokenizer tok512.bin --prompt 'Once upon'\n"
    "  ropewalk generate --model hf-folder --prompt-file start.txt --max-tokens 1K \\\n"
    "      --rope yarn:factor=4\n"
    "  ropewalk generate --model stories260K.bin --tokenizer tok512.bin --prompt '' \\\n"
    "      --max-tokens 200 --format ids\n";

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

}  // namespace

int run_generate(Arguments arguments) {
  ModelOptions o;
  std::optional<std::string> prompt, prompt_file;
  std::optional<std::int64_t> max_tokens;
  double temperature = 0;
  std::vector<std::string> rope = {"default"};
  std::string format = "text";
  Options options("generate", "Greedy continuation of a prompt.", examples);
  options.text("--prompt", "TEXT", prompt, "Text to continue; empty: start from BOS");
  options.text("--prompt-file", "FILE", prompt_file, "The same from a file");
  options.size("--max-tokens", 1, max_tokens, "Tokens to add [256]");
  options.real("--temperature", temperature, "0 is greedy, the only one implemented so far [0]");
  options.texts("--rope", "SPEC", rope, "One rope setting, as for sweep [default]");
  options.choice("--format", {"text", "ids"}, format, "Text, or ids in one line, BOS first");
  add_model_options(options, o);
  if (!options.parse(arguments)) return 0;
  if (temperature != 0) {
    fail({.kind = ErrorClass::unsupported,
          .field = "--temperature",
          .found = fmt::format("{}", temperature),
          .expected = "0, greedy decoding: sampling is not implemented yet"});
  }
  if (prompt.has_value() == prompt_file.has_value()) {
    fail_usage("--prompt", prompt ? "both --prompt and --prompt-file" : "nothing",
               "either --prompt TEXT or --prompt-file FILE");
  }
  if (o.angles != "exact") {
    fail({.kind = ErrorClass::unsupported,
          .field = "--angles",
          .found = o.angles,
          .expected = "exact: generate has no others yet"});
  }
  if (prompt_file) prompt = read_text(FileSource(*prompt_file), std::uint64_t{1} << 30);

  LoadedModel model(o);
  const std::vector<Setting> settings = parse_settings(rope, model);
  if (settings.size() != 1) {
    fail_usage("--rope", std::to_string(settings.size()) + " settings", "one");
  }
  const AnyTokenizer tokenizer = model.open_tokenizer();
  std::vector<TokenId> ids = encode_prompt(tokenizer, *prompt);
  const auto added = static_cast<index_t>(max_tokens.value_or(256));
  const auto total = checked_add(static_cast<index_t>(ids.size()), added, "--max-tokens");
  const FrequencyPlan plan =
      plan_of(settings[0], {.rotary_dim = model.llama.config.head_dim, .seq_len = total});
  if (settings[0].depends_on_length) {
    remark(o.quiet, fmt::format("note: frequencies are fixed for {} tokens, prompt and "
                                "--max-tokens together",
                                total));
  }
  if (total > model.llama.config.max_position_embeddings) {
    remark(o.quiet, fmt::format("note: {} tokens exceed the trained length {}", total,
                                model.llama.config.max_position_embeddings));
  }
  const bool as_text = format == "text";
  if (as_text) print(tokenizer.decode(ids));
  install_stop_signals();
  generate_greedy(
      model.llama, plan, model.kernels, model.threads.executor(), ids, added, [&](TokenId id) {
        check_stop();
        if (!as_text) return true;
        // What the token adds to the text after its predecessor: not always its piece.
        const TokenId before = ids[ids.size() - 2];
        const TokenId both[] = {before, id};
        print(tokenizer.decode(both).substr(tokenizer.decode(std::span(both).first(1)).size()));
        flush_output();
        return true;
      });
  if (!as_text) print(fmt::format("{}", fmt::join(ids, " ")));
  print("\n");
  return 0;
}

}  // namespace cli
