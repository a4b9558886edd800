// SPDX-License-Identifier: Apache-2.0
#include "run_plan.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "ropewalk/eval/score_passes.hpp"
#include "ropewalk/hub/hf_config.hpp"
#include "ropewalk/hub/llama2c_checkpoint.hpp"
#include "ropewalk/io/json.hpp"

#include "kernels.hpp"
#include "machine.hpp"

namespace cli {

namespace {

/// Share of the memory there is that a run may plan to take.
constexpr double usable = 0.9;

struct Term {
  const char* name;
  std::int64_t bytes;
};

std::vector<Term> terms_of(const RunMemory& m) {
  std::vector<Term> terms = {{"weights", m.pass.weights},
                             {"program and ids", m.loaded - m.pass.weights},
                             {"workspace", m.pass.workspace},
                             {"rotations", m.pass.rotary},
                             {"block plan", m.pass.block_plan},
                             {"results", m.pass.results},
                             {"losses", m.losses}};
  std::stable_sort(terms.begin(), terms.end(),
                   [](const Term& a, const Term& b) { return a.bytes > b.bytes; });
  return terms;
}

/// Tokens of the longest pass that is needed.
index_t longest_pass(const RunPlan& plan) {
  index_t longest = 1;
  for (const GridPass& p : plan.batches.passes) {
    longest = std::max(longest, pass_of(plan.settings, p).num_fed());
  }
  return longest;
}

/// The forward pass that a batch is.
BatchShape shape_of(const std::vector<SettingPasses>& settings, std::span<const GridPass> batch) {
  BatchShape shape;
  std::size_t setting = 0;
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const index_t fed = pass_of(settings, batch[i]).num_fed();
    shape.tokens += fed;
    shape.key_slots += round_up(fed, key_panel);
    // Passes of one setting share rows, unless their frequencies differ: at most all tokens'.
    if (i > 0 && batch[i].setting == setting) {
      rows = std::max(rows, fed);
    } else {
      shape.rotary_rows += std::exchange(rows, fed);
    }
    setting = batch[i].setting;
  }
  shape.rotary_rows += rows;
  return shape;
}

/// What a pass of fewer tokens or threads would make of the peak.
std::int64_t scaled_peak(const RunMemory& m, const LoadedModel& model, index_t length,
                         index_t tokens, index_t workers) {
  const ForwardMemory pass = model.memory_of(BatchShape::of(tokens), workers);
  const double share = static_cast<double>(tokens) / static_cast<double>(length);
  return m.loaded + (pass.total() - pass.weights) +
         static_cast<std::int64_t>(share * static_cast<double>(m.losses));
}

std::string fitting_setting(const RunMemory& m, LoadedModel& model, index_t length, double limit) {
  const index_t workers = model.threads.executor().workers();
  const auto fits = [&](index_t tokens, index_t threads) {
    return static_cast<double>(scaled_peak(m, model, length, tokens, threads)) <= limit;
  };
  if (workers > 1 && fits(length, 1)) return "Give --threads 1";
  if (!fits(1, workers)) return "Take a machine with more memory, or a smaller model";
  index_t low = 1, high = length;  // low fits, high does not
  while (high - low > 1) {
    const index_t middle = low + (high - low) / 2;
    (fits(middle, workers) ? low : high) = middle;
  }
  return fmt::format("Give lengths of at most {} ({})", low,
                     bytes_text(static_cast<double>(scaled_peak(m, model, length, low, workers))));
}

[[noreturn]] void refuse(std::int64_t bytes, const std::string& terms, double limit,
                         const std::string& limit_name, std::string fix) {
  fail({.kind = ErrorClass::resource,
        .field = "memory",
        .found = fmt::format("a predicted peak of {} ({})", bytes_text(static_cast<double>(bytes)),
                             terms),
        .expected =
            fmt::format("at most {}, {} of what {} leaves", bytes_text(limit), usable, limit_name),
        .fix = std::move(fix)});
}

/// The shape of a model without its weights, and the size of the files that hold them.
struct ModelHeader {
  LlamaConfig config = {};
  double file_bytes = 0;
};

std::optional<ModelHeader> read_header(const std::string& path) {
  ModelHeader header;
  try {
    if (is_directory(path)) {
      const JsonDocument document = read_json(FileSource(path + "/config.json"));
      header.config = parse_hf_config(document.view()).config;
      std::error_code ignored;
      for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
        if (entry.path().extension() != ".safetensors") continue;
        header.file_bytes += static_cast<double>(entry.file_size(ignored));
      }
      return header;
    }
    const FileSource source(path);
    if (file_kind(source) != FileKind::unknown) return std::nullopt;
    header.config = llama2c_config(read_llama2c_layout(source).header);
    header.file_bytes = static_cast<double>(source.size());
    return header;
  } catch (const Error&) {
    return std::nullopt;  // loading will say what is wrong
  }
}

}  // namespace

ForwardMemory largest_batch(LoadedModel& model, const std::vector<SettingPasses>& settings,
                            const GridBatches& batches) {
  const index_t workers = model.threads.executor().workers();
  ForwardMemory largest = model.memory_of(BatchShape::of(1), workers);
  std::size_t begin = 0;
  for (const std::size_t end : batches.ends) {
    const ForwardMemory m = model.memory_of(
        shape_of(settings, std::span(batches.passes).subspan(begin, end - begin)), workers);
    if (m.total() > largest.total()) largest = m;
    begin = end;
  }
  return largest;
}

namespace {

constexpr std::int64_t loss_bytes = 9;  // 8 of a loss, one of its hit

/// Of the losses of all passes of a setting.
std::int64_t stored_bytes(const SettingPasses& setting) {
  std::int64_t scored = 0;
  for (const PassPlan& plan : setting.plans) {
    for (const Pass& pass : plan.passes) scored += pass.num_scored();
  }
  return scored * loss_bytes;
}

RunMemory run_memory(const Evaluation& evaluation, const std::vector<SettingPasses>& settings,
                     const GridBatches& batches, LoadedModel& model) {
  const ProcessMemory now = process_memory();
  RunMemory m{.loaded = now.resident,
              .pass = largest_batch(model, settings, batches),
              .before = now.peak_resident};
  // Held at once: the losses of the first setting and of those in a batch.
  const std::int64_t first = stored_bytes(settings.front());
  std::int64_t stored = first;
  std::size_t begin = 0;
  for (const std::size_t end : batches.ends) {
    std::int64_t held = first;
    for (std::size_t s = std::max<std::size_t>(1, batches.passes[begin].setting);
         s <= batches.passes[end - 1].setting; ++s) {
      held += stored_bytes(settings[s]);
    }
    stored = std::max(stored, held);
    begin = end;
  }
  const std::int64_t copies = settings.size() > 1 ? 2 : 1;
  std::int64_t summary = 0;
  for (const RequestGroup& group : evaluation.groups) {
    for (const WindowPlan& plan : group.plans) {
      std::int64_t scored = 0;
      for (const ScoredWindow& w : plan.windows) scored += w.num_scored();
      // Resampling tokens: an item of 16 bytes, and sums around the ring twice.
      constexpr std::int64_t resampling = 3 * 16;
      summary = std::max(summary, scored * (copies * loss_bytes + resampling));
    }
  }
  m.losses = stored + summary;
  return m;
}

/// Bytes that a run may plan to take.
double memory_limit(const RunMemory& memory) {
  return usable * static_cast<double>(memory.loaded + memory_room().bytes);
}

}  // namespace

RunPlan plan_run(const Grid& grid, const Evaluation& evaluation, LoadedModel& model,
                 const KnownCells& known) {
  RunPlan plan{.settings = plan_settings(grid, evaluation, known)};
  for (index_t tokens = default_batch_tokens; !plan.fits && tokens >= key_panel; tokens /= 2) {
    plan.batch_tokens = tokens;
    plan.batches = batch_passes(grid, plan.settings, model.config().head_dim, tokens);
    plan.memory = run_memory(evaluation, plan.settings, plan.batches, model);
    plan.fits = static_cast<double>(plan.memory.peak()) <= memory_limit(plan.memory);
  }
  return plan;
}

std::string largest_terms(const RunMemory& memory, std::size_t count) {
  std::string out;
  const std::vector<Term> terms = terms_of(memory);
  for (std::size_t i = 0; i < std::min(count, terms.size()); ++i) {
    out += fmt::format("{}{} {}", i == 0 ? "" : ", ", terms[i].name,
                       bytes_text(static_cast<double>(terms[i].bytes)));
  }
  return out;
}

void check_run_memory(const RunPlan& plan, LoadedModel& model) {
  if (plan.fits) return;
  const RunMemory& memory = plan.memory;
  const double limit = memory_limit(memory);
  refuse(memory.peak(), largest_terms(memory, 3), limit, memory_room().limit,
         fitting_setting(memory, model, longest_pass(plan), limit));
}

void check_weights_memory(const ModelOptions& options) {
  const std::optional<ModelHeader> header = read_header(options.model);
  if (!header) return;
  std::int64_t bytes = 0;
  try {
    header->config.check();
    bytes = with_dtype(options.dtype, [&]<class T>(T) {
      return forward_memory<T>(header->config, 1, 1, false).weights;
    });
  } catch (const Error&) {
    return;
  }
  // Files of half-precision weights may take half of what they become; far smaller files do not
  // hold what the header says, and loading will say so.
  if (4 * header->file_bytes < static_cast<double>(bytes)) return;
  const MemoryRoom room = memory_room();
  const double limit = usable * static_cast<double>(process_memory().resident + room.bytes);
  if (static_cast<double>(bytes) <= limit) return;
  refuse(bytes, "weights " + bytes_text(static_cast<double>(bytes)), limit, room.limit,
         "Take a machine with more memory, or a smaller model");
}

}  // namespace cli
