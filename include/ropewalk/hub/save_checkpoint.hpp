// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Writes a model as a Hugging Face folder that transformers and load_checkpoint() open.

#include <algorithm>
#include <cerrno>
#include <span>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "ropewalk/hub/fill_weights.hpp"
#include "ropewalk/hub/half_split.hpp"
#include "ropewalk/hub/hf_config_write.hpp"
#include "ropewalk/io/file_name.hpp"
#include "ropewalk/io/safetensors_write.hpp"
#include "ropewalk/model/weights.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// What a folder will hold.
struct SavedCheckpoint {
  const LlamaConfig& config;
  const AnyFrequency& rope;
  const LlamaWeights<float>& weights;
  /// A file that is copied beside the weights (a vocab.json with its merges.txt), or none.
  std::string tokenizer_path = {};
  std::vector<TokenId> eos_ids = {};  ///< ids that end a text
};

namespace detail {

/// Calls visit(name, outputs, inputs, read) for every parameter; vectors have 0 inputs, and
/// read(row, out) gives a row of the file: (inputs), or the whole vector.
template <class Visitor>
void for_each_saved(const SavedCheckpoint& saved, Visitor&& visit) {
  const HalfSplitRows rows(saved.config, saved.rope.modifiers());
  for_each_parameter(saved.config, saved.weights, [&](const std::string& name, const auto& w) {
    if constexpr (requires { w.outputs(); }) {
      visit(name, w.outputs(), w.inputs(),
            [&](index_t row, std::span<float> out) { w.get_row(rows(name, row), out); });
    } else {
      visit(name, w.size(), index_t{0}, [&](index_t, std::span<float> out) {
        std::copy(w.span().begin(), w.span().end(), out.begin());
      });
    }
  });
}

inline void copy_file(const std::string& from, const std::string& to) {
  const FileSource source(from);
  AtomicFile file(to);
  for_each_chunk(source, [&file](std::span<const std::byte> bytes) { file.write(bytes); });
  source.check_unchanged();
  file.commit();
}

/// Copies a tokenizer into the folder, unless it is there.
inline void copy_tokenizer(const std::string& path, const std::string& folder) {
  const std::string from = directory_of(path), name = path.substr(path.rfind('/') + 1);
  for (const char* own : {"config.json", "model.safetensors"}) {
    if (name == own) {
      fail({.kind = ErrorClass::path,
            .file = path,
            .found = "a name that the checkpoint's own file has",
            .expected = "a tokenizer"});
    }
  }
  copy_file(path, join_path(folder, name));
  const std::string merges = join_path(from, "merges.txt");
  if (name == "vocab.json" && file_exists(merges)) {
    copy_file(merges, join_path(folder, "merges.txt"));
  }
}

/// Takes the name of a file durably away; false if there is none.
inline bool remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return false;
    fail_write(path, errno, "removing");
  }
  const FileDescriptor folder(
      ::open(directory_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() >= 0 && ::fsync(folder.get()) != 0 && errno != EINVAL) {
    fail_write(path, errno, "fsync of the folder");
  }
  return true;
}

/// Whether the file holds this text. A file that cannot be read holds another.
inline bool holds_text(const std::string& path, const std::string& text) {
  try {
    return read_text(FileSource(path), text.size()) == text;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace detail

/// Writes config.json, model.safetensors (F32, half_split) and a copy of the tokenizer into an
/// existing folder. Each file is replaced atomically, the configuration last; one that says
/// something else is removed before the weights are replaced. So a process killed at any moment
/// leaves the old model, the new one, or a folder that is no checkpoint, never weights with the
/// settings of others. To keep an old model until another one is whole, write to another folder.
/// \throws Error(unsupported) for what config.json cannot say, Error(numeric) for weights that are
/// not finite, both before anything is written; Error(io | resource)
inline void save_checkpoint(const SavedCheckpoint& saved, const std::string& folder) {
  const std::string json = hf_config_json(saved.config, saved.rope, saved.eos_ids);
  const std::string config_path = join_path(folder, "config.json");
  const std::string weights_path = join_path(folder, "model.safetensors");
  std::vector<FloatTensorEntry> entries;
  std::vector<float> values;
  detail::for_each_saved(
      saved, [&](const std::string& name, index_t outputs, index_t inputs, const auto& read) {
        entries.push_back({name, inputs == 0 ? std::vector<std::int64_t>{outputs}
                                             : std::vector<std::int64_t>{outputs, inputs}});
        FiniteScan<float> scan;
        values.resize(static_cast<std::size_t>(inputs == 0 ? outputs : inputs));
        const index_t rows = inputs == 0 ? 1 : outputs;
        for (index_t row = 0; row < rows; ++row) {
          read(row, std::span(values));
          scan.add(values, row * inputs);
        }
        if (scan.count != 0) {
          fail({.kind = ErrorClass::numeric,
                .file = weights_path,
                .where = "element " + std::to_string(scan.first),
                .field = name,
                .found = std::to_string(scan.count) + " values that are not finite",
                .expected = "finite weights"});
        }
      });
  if (!saved.tokenizer_path.empty()) detail::copy_tokenizer(saved.tokenizer_path, folder);

  SafetensorsWriter writer(weights_path, entries, {{"format", "pt"}});
  detail::for_each_saved(
      saved, [&](const std::string&, index_t outputs, index_t inputs, const auto& read) {
        values.resize(static_cast<std::size_t>(inputs == 0 ? outputs : inputs));
        const index_t rows = inputs == 0 ? 1 : outputs;
        for (index_t row = 0; row < rows; ++row) {
          read(row, std::span(values));
          writer.write(values);
        }
      });
  if (!detail::holds_text(config_path, json)) detail::remove_file(config_path);
  writer.commit();
  write_file(config_path, json);
}

}  // namespace ropewalk::inline ROPEWALK_ABI
