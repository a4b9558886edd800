// SPDX-License-Identifier: Apache-2.0
/// \file
/// `ropewalk rope show`, `rope compare`: the frequencies of rope settings.

#include <algorithm>
#include <limits>

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
    "  ropewalk rope show dynamic:factor=2 --model hf-folder --length 8K\n"
    "  ropewalk rope show default:rope_theta=1e4,partial_rotary_factor=0.25,logn_length=4K\n";

/// The channels that a pair of numbers rotates, in both layouts; o is the first channel, r their
/// number.
std::string pairs_text(const FrequencyPlan& plan) {
  const index_t first = plan.first_channel, half = plan.num_pairs();
  const auto pair = [](index_t a, index_t b) { return fmt::format("({}, {})", a, b); };
  const auto listed = [&](index_t a, index_t b, index_t step) {
    std::string text = pair(a, b);
    if (half > 1) text += " " + pair(a + step, b + step);
    if (half > 2) text += half > 3 ? " ..." : " " + pair(a + 2 * step, b + 2 * step);
    return text;
  };
  return "half_split " + listed(first, first + half, 1) + "; interleaved " +
         listed(first, first + 1, 2);
}

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

/// Options of both commands.
struct ShowOptions {
  std::string model = {};
  std::string format = "table";
  std::optional<std::int64_t> head_dim = {};
  std::optional<std::int64_t> length = {};
};

void add_show_options(Options& options, ShowOptions& out) {
  options.size(
      "--head-dim", 2, out.head_dim,
      "Channels of a head, of which the setting may rotate a part [the model's, else 128]");
  options.size("--length", 1, out.length, "Length of the sequence, for methods that depend on it");
  options.text("--model", "PATH", out.model, "Model from which specs take what they leave out");
  options.choice("--format", {"table", "csv", "jsonl"}, out.format, "Form of the output");
}

/// A setting and its frequencies for a head.
struct Lowered {
  Setting setting = {};
  FrequencyPlan plan = {};
  std::int64_t head_dim = 0;
  std::optional<std::int64_t> length = {};
};

/// \param spec a rope setting or the path of a config.json
Lowered lower(const ShowOptions& o, const std::string& spec) {
  ModelFacts facts;
  Setting setting{.arg = spec};
  if (!o.model.empty()) facts = read_model_facts(o.model);
  if (spec.ends_with(".json")) {
    facts = read_config_facts(spec);
    setting.policy = facts.rope;
  } else if (spec == "default" && !o.model.empty()) {
    setting.policy = facts.rope;
  } else {
    setting.policy = parse_rope(spec, facts.defaults);
  }
  if (!o.length && depends_on_length(setting.policy)) {
    fail_usage("--length", "nothing",
               "the length of the sequence: the frequencies of this method depend on it");
  }
  const std::int64_t dim = o.head_dim.value_or(facts.head_dim.value_or(default_head_dim));
  if (dim % 2 != 0 || dim > 4096) {
    fail_usage("--head-dim", std::to_string(dim), "an even number of at most 4096");
  }
  FrequencyPlan plan = plan_of(setting, {.rotary_dim = dim, .seq_len = o.length.value_or(0)});
  return {std::move(setting), std::move(plan), dim, o.length};
}

constexpr const char* compare_examples =
    "  ropewalk rope compare yarn:factor=8 yarn_paper:factor=8 --model hf-folder\n"
    "  ropewalk rope compare old/config.json new/config.json --length 32K --format jsonl\n";

/// A setting against the first one: how far their pairs differ.
Row comparison(const Lowered& first, const Lowered& other) {
  const std::vector<double>&a = first.plan.inv_freq, &b = other.plan.inv_freq;
  std::vector<std::int64_t> differing;
  std::vector<double> ratio;
  for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    const bool both = i < a.size() && i < b.size();
    ratio.push_back(both ? (a[i] == b[i] ? 1 : b[i] / a[i])
                         : std::numeric_limits<double>::quiet_NaN());
    if (!both || a[i] != b[i]) differing.push_back(static_cast<std::int64_t>(i));
  }
  const auto same = [](const auto& x, const auto& y) { return x == y; };
  std::vector<std::string> besides;  // what differs besides frequencies
  if (!same(first.plan.first_channel, other.plan.first_channel)) besides.emplace_back("channels");
  if (!same(first.plan.attention_factor, other.plan.attention_factor)) {
    besides.emplace_back("attention_factor");
  }
  if (!same(first.plan.logit_scale, other.plan.logit_scale)) besides.emplace_back("logit_scale");
  if (!same(first.plan.logn, other.plan.logn)) besides.emplace_back("logn");
  return {{"rope", to_text(other.setting.policy)},
          {"rope_arg", other.setting.arg},
          {"rope_hash", hash_text(other.plan.rope_hash)},
          {"same", first.plan.rope_hash == other.plan.rope_hash},
          {"pairs", static_cast<std::int64_t>(b.size())},
          {"attention_factor", other.plan.attention_factor},
          {"logit_scale", other.plan.logit_scale},
          {"differing_pairs", static_cast<std::int64_t>(differing.size())},
          {"besides", besides},
          {"ratio", ratio}};
}

/// Frequencies of all settings, and of each its ratio to the first.
std::string compared_text(const std::vector<Lowered>& settings, const std::vector<Row>& rows) {
  std::string text;
  std::size_t pairs = 0;
  std::vector<std::vector<std::string>> table(1);
  table[0].push_back("pair");
  for (std::size_t k = 0; k < settings.size(); ++k) {
    const FrequencyPlan& plan = settings[k].plan;
    const auto& differing = std::get<std::int64_t>(rows[k][7].second);
    const auto& besides = std::get<std::vector<std::string>>(rows[k][8].second);
    text += fmt::format("[{}] {}  {}\n    attention_factor {}, logit_scale {}", k + 1,
                        hash_text(plan.rope_hash), to_text(settings[k].setting.policy),
                        plan.attention_factor, plan.logit_scale);
    if (plan.logn.length != 0) text += fmt::format(", logn_length {}", plan.logn.length);
    if (k > 0) {
      text += fmt::format("; {} of {} pairs differ from [1]", differing,
                          std::max(plan.inv_freq.size(), settings[0].plan.inv_freq.size()));
      for (const std::string& what : besides) text += ", " + what;
    }
    text += "\n";
    pairs = std::max(pairs, plan.inv_freq.size());
    table[0].push_back(fmt::format("[{}]", k + 1));
    if (k > 0) table[0].push_back(fmt::format("[{}]/[1]", k + 1));
  }
  for (std::size_t i = 0; i < pairs; ++i) {
    std::vector<std::string> line = {std::to_string(i)};
    for (std::size_t k = 0; k < settings.size(); ++k) {
      const std::vector<double>& w = settings[k].plan.inv_freq;
      line.push_back(i < w.size() ? fmt::format("{:.10g}", w[i]) : "-");
      if (k == 0) continue;
      const double ratio = std::get<std::vector<double>>(rows[k][9].second)[i];
      line.push_back(ratio == ratio ? fmt::format("{:.6g}", ratio) : "-");
    }
    table.push_back(std::move(line));
  }
  return text + "\n" + aligned_table(table);
}

}  // namespace

int run_rope_compare(Arguments arguments) {
  std::vector<std::string> specs;
  ShowOptions o;
  Options options("rope compare",
                  "Rope settings against the first one: hashes, the pairs whose frequencies "
                  "differ and by how much, factors of logits.",
                  compare_examples);
  options.texts("SPEC", "SPEC", specs, "Rope settings, or config.json files; two or more");
  add_show_options(options, o);
  if (!options.parse(arguments)) return 0;
  if (specs.size() < 2) {
    fail_usage("SPEC", std::to_string(specs.size()) + " settings", "two or more");
  }
  std::vector<Lowered> settings;
  std::vector<Row> rows;
  for (const std::string& spec : specs) {
    settings.push_back(lower(o, spec));
    rows.push_back(comparison(settings.front(), settings.back()));
  }
  const Format format = parse_format(o.format);
  if (format == Format::table) {
    print(compared_text(settings, rows));
    return 0;
  }
  if (format == Format::csv) print(csv_header(rows.front()));
  for (const Row& row : rows) print(format == Format::csv ? csv_line(row) : to_json(row) + "\n");
  return 0;
}

int run_rope_show(Arguments arguments) {
  std::string spec;
  ShowOptions o;
  Options options("rope show",
                  "Frequencies (radians per token) and wavelengths (tokens) of a rope setting, the "
                  "channels that rotate, and the scales of logits.",
                  examples);
  options.positional("SPEC", spec, "Rope setting, or a config.json");
  add_show_options(options, o);
  if (!options.parse(arguments)) return 0;
  if (spec.empty()) fail_usage("SPEC", "nothing", "a rope setting or a config.json");

  const auto [setting, plan, dim, length] = lower(o, spec);
  std::vector<double> wavelength;
  constexpr double turn = 6.28318530717958647693;
  for (const double w : plan.inv_freq) wavelength.push_back(turn / w);

  const bool logn = plan.logn.length != 0;
  const Row row = {{"rope", to_text(setting.policy)},
                   {"rope_arg", spec},
                   {"head_dim", dim},
                   {"rotary_dim", std::int64_t{plan.rotary_dim()}},
                   {"rotary_offset", std::int64_t{plan.first_channel}},
                   {"pairs", pairs_text(plan)},
                   {"length", length ? Value(*length) : Value()},
                   {"attention_factor", plan.attention_factor},
                   {"logit_scale", plan.logit_scale},
                   {"logn_length", logn ? Value(plan.logn.length) : Value()},
                   {"logn_clip", logn ? Value(plan.logn.clip) : Value()},
                   {"rope_hash", hash_text(plan.rope_hash)},
                   {"inv_freq", plan.inv_freq},
                   {"wavelength", wavelength}};
  switch (parse_format(o.format)) {
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
