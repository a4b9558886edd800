// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// load_checkpoint: from a path to a model, whatever its format.

#include <string>

#include "ropewalk/hub/checkpoint_data.hpp"
#include "ropewalk/hub/hf_checkpoint.hpp"
#include "ropewalk/hub/llama2c_checkpoint.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Loads a model: a Hugging Face folder (config.json and safetensors), or a llama2.c .bin file.
/// Matrices become T, rounded once; vectors stay floats. The peak of memory is the model as T and
/// 64 rows of a matrix.
/// \throws Error of class format, limit, config, mismatch, path (the input is wrong), unsupported,
/// io, resource or numeric (NaN or infinity among the weights).
template <class T = float>
CheckpointOf<T> load_checkpoint(const std::string& path) {
  if (is_directory(path)) return load_hf_folder<T>(path);
  const FileSource source(path);
  if (file_kind(source) == FileKind::gguf) {
    fail({.kind = ErrorClass::unsupported,
          .file = path,
          .found = "a GGUF file",
          .expected = "a Hugging Face folder or a llama2.c .bin file",
          .fix = std::string(file_kind_advice(FileKind::gguf))});
  }
  CheckpointOf<T> out = load_llama2c<T>(source);
  source.check_unchanged();
  return out;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
