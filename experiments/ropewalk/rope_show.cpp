// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk rope show`: the frequencies of a rope setting.

#include <fmt/format.h>

#include "commands.hpp"
#include "loaded_model.hpp"
#include "output.hpp"

namespace cli {

namespace {

constexpr std::int64_t default_head_dim = 128;

constexpr const char* examples =
    "  ropewalk rope show theta=500000\n"
    "  ropewalk rope show yarn:factor=4,rope_theta=1e4,original_max_position_embeddings=4K \\\n"
    "      --head-dim 64 --format jsonl\n"
    "  ropewalk rope show hf-folder/config.json\n"
    "  ropewalk rope show dynamic:factor=2 --model hf-folder --length 8K\n";

std::string table_text(const Row& row, const std::vector<double>& inv_freq,
                       const std::vector<double>& wavelength) {
  std::string text;
  for (const auto& [key, value] : row) {
    if (std::holds_alternative<std::vector<double>>(value)) continue;
    const auto* string = std::get_if<std::string>(&value);
    text += fmt::format("{:<16}  {}\n", key, string != nullptr ? *string : to_json(value));
  }
  std::vector<std::vector<std::string>> table = {{"pair", "inv_freq", "wavelength"}};
  for (std::size_t i = 0; i < inv_freq.size(); ++i) {
    table.push_back({std::to_string(i), fmt::format("{:.10g}", inv_freq[i]),
                     fmt::format("{:.6g}", wavelength[i])});
  }
  return text + "\n" + aligned_table(table);
}

}  // namespace

int run_rope_show(Arguments arguments) {
  std::string spec, model, format = "table";
  std::optional<std::int64_t> head_dim, length;
  Options options("rope show",
                  "Frequencies (radians per token) and wavelengths (tokens) of a rope setting.",
                  examples);
  options.positional("SPEC", spec, "Rope setting, or a config.json");
  options.size("--head-dim", 2, head_dim, "Rotated channels of a head [the model's, else 128]");
  options.size("--length", 1, length, "Length of the sequence, for methods that depend on it");
  options.text("--model", "PATH", model, "Model from which the spec takes what it leaves out");
  options.choice("--format", {"table", "csv", "jsonl"}, format, "Form of the output");
  if (!options.parse(arguments)) return 0;
  if (spec.empty()) fail_usage("SPEC", "nothing", "a rope setting or a config.json");

  ModelFacts facts;
  Setting setting{.arg = spec};
  if (!model.empty()) facts = read_model_facts(model);
  if (spec.ends_with(".json")) {
    facts = read_config_facts(spec);
    setting.policy = facts.rope;
  } else if (spec == "default" && !model.empty()) {
    setting.policy = facts.rope;
  } else {
    setting.policy = parse_rope(spec, facts.defaults);
  }
  if (!length && depends_on_length(setting.policy)) {
    fail_usage("--length", "nothing",
               "the length of the sequence: the frequencies of this method depend on it");
  }
  const std::int64_t dim = head_dim.value_or(facts.head_dim.value_or(default_head_dim));
  if (dim % 2 != 0 || dim > 4096) {
    fail_usage("--head-dim", std::to_string(dim), "an even number of at most 4096");
  }
  const FrequencyPlan plan = plan_of(setting, {.rotary_dim = dim, .seq_len = length.value_or(0)});
  std::vector<double> wavelength;
  constexpr double turn = 6.28318530717958647693;
  for (const double w : plan.inv_freq) wavelength.push_back(turn / w);

  const Row row = {{"rope", to_text(setting.policy)},
                   {"rope_arg", spec},
                   {"rotary_dim", std::int64_t{plan.rotary_dim()}},
                   {"length", length ? Value(*length) : Value()},
                   {"attention_factor", plan.attention_factor},
                   {"rope_hash", hash_text(plan.rope_hash)},
                   {"inv_freq", plan.inv_freq},
                   {"wavelength", wavelength}};
  switch (parse_format(format)) {
    case Format::jsonl:
      print(to_json(row) + "\n");
      break;
    case Format::csv:
      for (std::size_t i = 0; i < wavelength.size(); ++i) {
        Row line(row.begin(), row.end() - 2);
        line.insert(line.begin(), {"pair", static_cast<std::int64_t>(i)});
        line.emplace_back("inv_freq", plan.inv_freq[i]);
        line.emplace_back("wavelength", wavelength[i]);
        if (i == 0) print(csv_header(line));
        print(csv_line(line));
      }
      break;
    case Format::table:
      print(table_text(row, plan.inv_freq, wavelength));
      break;
  }
  return 0;
}

}  // namespace cli
