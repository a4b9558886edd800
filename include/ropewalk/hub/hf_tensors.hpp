// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The tensors of a Hugging Face folder: one safetensors file, or shards with an index.

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ropewalk/core/text_match.hpp"
#include "ropewalk/io/file_name.hpp"
#include "ropewalk/io/json.hpp"
#include "ropewalk/io/safetensors.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// All tensors of a folder by name. One shard is open at a time.
class HfTensors {
 public:
  struct Tensor {
    std::size_t shard = 0;
    const SafetensorsTensor* info = nullptr;
  };

  /// model.safetensors if it is there, else the shards of model.safetensors.index.json. Validates
  /// every header and that index and shards agree.
  /// \throws Error(io) when neither is there or a shard is missing, Error(path) for shard names
  /// that are not plain, Error(mismatch) when index and shards differ, Error(unsupported) for
  /// pickles; as read_safetensors_index.
  HfTensors(const std::string& folder, std::vector<std::string>& notes) : folder_(folder) {
    const std::string single = join_path(folder, "model.safetensors");
    const std::string index = join_path(folder, "model.safetensors.index.json");
    if (file_exists(single)) {
      if (file_exists(index)) notes.push_back("model.safetensors.index.json ignored");
      add_shard("model.safetensors", notes);
    } else if (file_exists(index)) {
      read_index(index, notes);
    } else {
      const bool pickle = file_exists(join_path(folder, "pytorch_model.bin")) ||
                          file_exists(join_path(folder, "pytorch_model.bin.index.json"));
      fail({.kind = pickle ? ErrorClass::unsupported : ErrorClass::io,
            .file = single,
            .found = pickle ? "pytorch_model.bin only" : "no such file",
            .expected = "model.safetensors or model.safetensors.index.json",
            .fix = pickle ? "Save the model as safetensors: pickles are never read"
                          : "Check that the folder holds the weights"});
    }
  }

  /// Nothing when there is no tensor of this name.
  std::optional<Tensor> find(const std::string& name) const {
    const auto it = by_name_.find(name);
    if (it == by_name_.end()) return std::nullopt;
    return it->second;
  }
  /// Every name, in no particular order.
  std::vector<std::string_view> names() const {
    std::vector<std::string_view> out;
    for (const auto& entry : by_name_) out.push_back(entry.first);
    return out;
  }
  /// Name of the file that holds a tensor.
  const std::string& file_of(const Tensor& t) const { return shards_[t.shard].index.file; }

  /// Elements [first, first + out.size()) as float; see read_floats.
  void read(const Tensor& t, std::uint64_t first, std::span<float> out) {
    read_floats(open(t.shard), shards_[t.shard].index, *t.info, first, out);
  }
  /// The stored bytes [first, first + out.size()) of a tensor.
  void read_bytes(const Tensor& t, std::uint64_t first, std::span<std::byte> out) {
    open(t.shard).read(shards_[t.shard].index.data_offset + t.info->begin + first, out);
  }
  /// \throws Error(io) when the open shard changed since it was opened.
  void check_unchanged() const {
    if (source_) source_->check_unchanged();
  }

 private:
  struct Shard {
    SafetensorsIndex index;
    std::uint64_t size = 0;
  };

  const FileSource& open(std::size_t shard) {
    if (!source_ || open_shard_ != shard) {
      if (source_) source_->check_unchanged();
      source_.emplace(shards_[shard].index.file);
      open_shard_ = shard;
      if (source_->size() != shards_[shard].size) {
        fail({.kind = ErrorClass::io,
              .file = source_->name(),
              .found = std::to_string(source_->size()) + " bytes",
              .expected = std::to_string(shards_[shard].size) + " bytes as before",
              .fix = "Let no other program write to the file while it is read"});
      }
    }
    return *source_;
  }

  void add_shard(const std::string& name, std::vector<std::string>& notes) {
    source_.emplace(join_path(folder_, name));
    open_shard_ = shards_.size();
    shards_.push_back({read_safetensors_index(*source_), source_->size()});
    Shard& shard = shards_.back();
    for (std::string& note : shard.index.notes) notes.push_back(std::move(note));
    shard.index.notes.clear();
    // Moving a shard moves its vector of tensors, so pointers into it stay valid.
    for (const SafetensorsTensor& t : shard.index.tensors) {
      const auto [it, fresh] = by_name_.emplace(t.name, Tensor{open_shard_, &t});
      if (!fresh) {
        fail({.kind = ErrorClass::mismatch,
              .file = shard.index.file,
              .field = "tensor " + escaped(t.name),
              .found = "the tensor in " + file_of(it->second) + " too",
              .expected = "each tensor in one shard"});
      }
    }
  }

  void read_index(const std::string& path, std::vector<std::string>& notes) {
    constexpr std::size_t max_shards = 4096;
    const JsonDocument document =
        read_json(FileSource(path), {.max_bytes = std::uint64_t{64} << 20, .max_string = 4096});
    const JsonView root = document.view();
    if (root.value().find("weight_map") == nullptr) {
      root.refuse("an object with weight_map", {}, ErrorClass::format);
    }
    const JsonView map = root.at("weight_map");
    const Json::Object* members = map.value().if_object();
    if (members == nullptr || members->keys.empty()) {
      map.refuse("an object of file names that is not empty", {}, ErrorClass::format);
    }
    std::vector<std::string> files;
    std::unordered_map<std::string, std::size_t> number_of;
    for (std::size_t i = 0; i < members->keys.size(); ++i) {
      const JsonView v = map.member(members->keys[i], members->values[i]);
      if (v.value().if_string() == nullptr) v.refuse("a file name", {}, ErrorClass::format);
      const std::string& name = v.as_string();
      check_file_name(name, path, v.pointer());
      if (number_of.emplace(name, files.size()).second) files.push_back(name);
      if (files.size() > max_shards) {
        map.refuse("at most " + std::to_string(max_shards) + " shards", {}, ErrorClass::limit);
      }
    }
    std::size_t missing = 0;
    std::string first_missing;
    for (const std::string& name : files) {
      if (file_exists(join_path(folder_, name))) continue;
      if (missing++ == 0) first_missing = name;
    }
    if (missing != 0) {
      fail({.kind = ErrorClass::io,
            .file = join_path(folder_, first_missing),
            .found = "no such file; " + std::to_string(missing) + " of " +
                     std::to_string(files.size()) + " shards are missing",
            .expected = "every shard that the index names",
            .fix = "Finish the download"});
    }
    for (const std::string& name : files) add_shard(name, notes);
    for (std::size_t i = 0; i < members->keys.size(); ++i) {
      const auto t = find(members->keys[i]);
      const std::string& file = *members->values[i].if_string();
      if (t && t->shard == number_of.at(file)) continue;
      fail({.kind = ErrorClass::mismatch,
            .file = join_path(folder_, file),
            .field = "tensor " + escaped(members->keys[i]),
            .found = t ? "the tensor in " + file_of(*t) : "no such tensor",
            .expected = "the tensor in the shard that the index names"});
    }
    if (by_name_.size() != members->keys.size()) {
      notes.push_back(std::to_string(by_name_.size() - members->keys.size()) +
                      " tensors of the shards are not in the index");
    }
  }

  std::string folder_;
  std::vector<Shard> shards_;
  std::unordered_map<std::string, Tensor> by_name_;
  std::optional<FileSource> source_;
  std::size_t open_shard_ = 0;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
