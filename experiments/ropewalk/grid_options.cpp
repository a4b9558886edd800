// SPDX-License-Identifier: Apache-2.0
#include "grid_options.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ropewalk/eval/protocol_presets.hpp"
#include "ropewalk/io/atomic_file.hpp"

namespace cli {

namespace {

/// The names in `--protocol` arguments, which may hold several separated by commas.
std::vector<std::string> protocol_list(const std::vector<std::string>& arguments) {
  std::vector<std::string> names;
  for (const std::string& argument : arguments) {
    for (std::size_t at = 0; at <= argument.size();) {
      const std::size_t comma = std::min(argument.find(',', at), argument.size());
      const std::string name = argument.substr(at, comma - at);
      try {
        find_protocol(name);
      } catch (const Error& error) {
        fail_usage("--protocol", error.info().found, error.info().expected, error.info().fix);
      }
      if (std::find(names.begin(), names.end(), name) != names.end()) {
        fail_usage("--protocol", escaped(name) + " twice", "each protocol once");
      }
      names.push_back(name);
      at = comma + 1;
    }
  }
  return names;
}

std::string device_and_inode(const std::string& path) {
  struct stat s {};
  if (path.empty() || ::stat(path.c_str(), &s) != 0) return {};
  return fmt::format("{}:{}", s.st_dev, s.st_ino);
}

void check_nll_file(const std::string& path, const GridOptions& options) {
  std::vector<std::string> inputs = options.data.texts;
  inputs.insert(inputs.end(), {options.data.tokens, options.model.model, options.model.tokenizer});
  for (const std::string& input : inputs) {
    if (!input.empty() && device_and_inode(input) == device_and_inode(path) &&
        !device_and_inode(path).empty()) {
      fail_usage("--nll-out", path, "a file that is no input of the same command");
    }
  }
  const std::string folder = ropewalk::detail::directory_of(path);
  if (is_directory(path) || ::access(folder.c_str(), W_OK | X_OK) != 0) {
    fail_usage("--nll-out", path, "a file in an existing folder that may be written to");
  }
}

}  // namespace

void add_grid_options(Options& options, GridOptions& out, const std::string& what_rope,
                      const std::string& what_nll) {
  add_data_options(options, out.data);
  options.texts("--rope", "SPEC", out.rope, what_rope);
  options.sizes("--lengths,--length", out.lengths, "Context lengths in tokens, such as 512,1K,2K");
  std::string names;
  for (const std::string_view name : protocol_names) {
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  options.texts("--protocol", "NAME", out.protocol,
                "What perplexity means, one or several of: " + names + " [prefix]");
  options.size("--stride", 1, out.stride,
               "Tokens from window to window, for the protocols that have a stride [theirs]");
  options.text("--nll-out", "FILE.npy", out.nll_out, what_nll);
  options.choice("--format", {"table", "csv", "jsonl"}, out.format, "Form of the rows on stdout");
  add_bins_options(options, out.bins);
  options.flag("--dry-run", out.dry_run,
               "Only tell tokens, operations, memory and time; write nothing");
  add_model_options(options, out.model);
}

void check_grid_options(const GridOptions& options) {
  if (options.lengths.empty()) {
    fail_usage("--lengths", "nothing", "context lengths such as 128,256,512");
  }
  bins_of(options.bins);
  if (options.bins.by_distance && !options.data.synthetic) {
    fail_usage("--by-distance", "no --synthetic", "text whose facts are known: --synthetic");
  }
  const std::vector<std::string> names = protocol_list(options.protocol);
  const auto has_stride = [](const std::string& name) { return find_protocol(name).has_stride; };
  if (options.stride && std::none_of(names.begin(), names.end(), has_stride)) {
    std::string strided;
    for (const ProtocolPreset& p : protocol_presets) {
      if (p.has_stride) strided.append(strided.empty() ? "" : ", ").append(p.name);
    }
    fail_usage("--stride", std::to_string(*options.stride) + " with " + names.front(),
               "a protocol with a stride: " + strided);
  }
  if (!options.nll_out.empty() && std::find(names.begin(), names.end(), "prefix") == names.end()) {
    fail_usage("--nll-out", "protocol " + names.front(), "protocol prefix among the protocols");
  }
  if (options.data.synthetic) {
    if (!options.data.texts.empty() || !options.data.tokens.empty()) {
      fail_usage("--synthetic", "--text or --tokens beside it", "one kind of input");
    }
    if (names != std::vector<std::string>{"prefix"}) {
      fail_usage("--protocol", names.front() + " with --synthetic", "prefix");
    }
  } else if (options.data.texts.empty() == options.data.tokens.empty()) {
    fail_usage(
        "--text",
        options.data.tokens.empty() ? "neither --text nor --tokens" : "both --text and --tokens",
        "--text FILE..., --tokens FILE or --synthetic");
  }
}

Grid make_grid(const GridOptions& options, const LoadedModel& model) {
  Grid grid{.settings = parse_settings(options.rope, model),
            .protocols = protocol_list(options.protocol),
            .stride = static_cast<index_t>(options.stride.value_or(0))};
  for (const std::int64_t length : options.lengths) {
    grid.lengths.push_back(static_cast<index_t>(length));
  }
  if (options.nll_out.empty()) return grid;
  if (grid.settings.size() == 1) {
    grid.nll_files = {options.nll_out};
  } else {
    std::string stem = options.nll_out;
    if (stem.ends_with(".npy")) stem.resize(stem.size() - 4);
    for (std::size_t i = 0; i < grid.settings.size(); ++i) {
      grid.nll_files.push_back(fmt::format("{}-{}.npy", stem, i));
    }
  }
  for (const std::string& file : grid.nll_files) check_nll_file(file, options);
  return grid;
}

}  // namespace cli
