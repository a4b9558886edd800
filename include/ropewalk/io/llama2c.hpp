// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Checkpoints of karpathy/llama2.c, "version 0": a 28-byte header, then float32 tensors in a fixed
/// order. This header finds the tensors; hub/ makes a model of them.

#include <array>
#include <cstdint>
#include <limits>
#include <string>

#include "ropewalk/io/file_kind.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// The header, in the names of llama2.c's Config.
struct Llama2cHeader {
  std::int32_t dim = 0;         ///< hidden_size
  std::int32_t hidden_dim = 0;  ///< intermediate_size
  std::int32_t n_layers = 0;
  std::int32_t n_heads = 0;
  std::int32_t n_kv_heads = 0;
  std::int32_t vocab_size = 0;  ///< absolute value; the sign is in shared_classifier
  std::int32_t seq_len = 0;     ///< trained length in tokens
  bool shared_classifier = true;

  std::int64_t head_dim() const { return dim / n_heads; }
  std::int64_t key_value_size() const { return n_kv_heads * head_dim(); }
};

/// Byte offsets of the tensors, float32, row-major. Tensors of the layers lie one after the other.
struct Llama2cLayout {
  Llama2cHeader header;
  std::uint64_t token_embedding = 0;  ///< (vocab_size, dim)
  std::uint64_t rms_att = 0;          ///< (n_layers, dim)
  std::uint64_t wq = 0;               ///< (n_layers, dim, dim); pairs are interleaved
  std::uint64_t wk = 0;               ///< (n_layers, key_value_size, dim)
  std::uint64_t wv = 0;               ///< (n_layers, key_value_size, dim)
  std::uint64_t wo = 0;               ///< (n_layers, dim, dim)
  std::uint64_t rms_ffn = 0;          ///< (n_layers, dim)
  std::uint64_t w1 = 0;               ///< (n_layers, hidden_dim, dim): gate
  std::uint64_t w2 = 0;               ///< (n_layers, dim, hidden_dim): down
  std::uint64_t w3 = 0;               ///< (n_layers, hidden_dim, dim): up
  std::uint64_t rms_final = 0;        ///< (dim)
  std::uint64_t freq_cis = 0;         ///< two RoPE tables (seq_len, head_dim / 2), not needed
  std::uint64_t wcls = 0;             ///< (vocab_size, dim) if not shared_classifier, else the end
  std::uint64_t file_size = 0;        ///< what the header says; the file has exactly this
};

inline constexpr std::uint64_t llama2c_header_size = 28;

namespace detail {

inline void check_llama2c_field(const std::string& file, std::size_t index, const char* field,
                                std::int64_t value, std::int64_t limit) {
  if (value >= 1 && value <= limit) return;
  fail({.kind = value < 1 ? ErrorClass::format : ErrorClass::limit,
        .file = file,
        .where = "byte " + std::to_string(4 * index),
        .field = field,
        .found = std::to_string(value),
        .expected = value < 1 ? std::string("at least 1") : "at most " + std::to_string(limit),
        .fix = "Give a llama2.c checkpoint of export version 0: this header is not one"});
}

inline Llama2cHeader read_llama2c_header(const std::array<std::int32_t, 7>& raw,
                                         const std::string& file) {
  // INT32_MIN has no positive counterpart.
  const std::int64_t vocab_size = raw[5] < 0 ? -std::int64_t{raw[5]} : std::int64_t{raw[5]};
  check_llama2c_field(file, 0, "dim", raw[0], 1 << 20);
  check_llama2c_field(file, 1, "hidden_dim", raw[1], 1 << 22);
  check_llama2c_field(file, 2, "n_layers", raw[2], 4096);
  check_llama2c_field(file, 3, "n_heads", raw[3], 1 << 16);
  check_llama2c_field(file, 4, "n_kv_heads", raw[4], 1 << 16);
  check_llama2c_field(file, 5, "vocab_size", vocab_size, 1 << 22);
  check_llama2c_field(file, 6, "seq_len", raw[6], std::numeric_limits<std::int32_t>::max());
  Llama2cHeader h{.dim = raw[0],
                  .hidden_dim = raw[1],
                  .n_layers = raw[2],
                  .n_heads = raw[3],
                  .n_kv_heads = raw[4],
                  .vocab_size = static_cast<std::int32_t>(vocab_size),
                  .seq_len = raw[6],
                  .shared_classifier = raw[5] > 0};
  const auto refuse = [&file](std::size_t index, const char* field, std::int64_t value,
                              std::string expected) {
    fail({.kind = ErrorClass::format,
          .file = file,
          .where = "byte " + std::to_string(4 * index),
          .field = field,
          .found = std::to_string(value),
          .expected = std::move(expected),
          .fix = "Give a llama2.c checkpoint of export version 0: this header is not one"});
  };
  if (h.dim % h.n_heads != 0) {
    refuse(3, "n_heads", h.n_heads, "a divisor of dim = " + std::to_string(h.dim));
  }
  if (h.n_heads % h.n_kv_heads != 0) {
    refuse(4, "n_kv_heads", h.n_kv_heads, "a divisor of n_heads = " + std::to_string(h.n_heads));
  }
  if (h.head_dim() % 2 != 0 || h.head_dim() > 4096) {
    refuse(3, "dim / n_heads", h.head_dim(), "an even head dimension of at most 4096");
  }
  return h;
}

}  // namespace detail

/// Reads and checks the header, and that the file is exactly as long as it says.
/// \throws Error(format) or Error(limit) with the byte offset, Error(unsupported) for versions
/// 1, 2.
template <ByteSource S>
Llama2cLayout read_llama2c_layout(const S& source) {
  refuse_other_kinds(source, FileKind::unknown, "a llama2.c checkpoint");
  if (source.size() < llama2c_header_size) {
    fail({.kind = ErrorClass::format,
          .file = source.name(),
          .where = "byte 0",
          .found = std::to_string(source.size()) + " bytes",
          .expected = "a llama2.c header of 28 bytes",
          .fix = "Get the file again: it is truncated"});
  }
  std::array<std::int32_t, 7> raw{};
  source.read(0, std::as_writable_bytes(std::span(raw)));
  const Llama2cHeader h = detail::read_llama2c_header(raw, source.name());

  std::uint64_t end = llama2c_header_size;
  const auto place = [&end](std::int64_t count, std::int64_t rows, std::int64_t columns) {
    const std::uint64_t at = end;
    std::uint64_t bytes = 4;
    for (const std::int64_t n : {count, rows, columns}) {
      bytes = checked_mul(bytes, static_cast<std::uint64_t>(n), "llama2.c tensor size");
    }
    end = checked_add(end, bytes, "llama2.c file size");
    return at;
  };
  Llama2cLayout t;
  t.header = h;
  t.token_embedding = place(1, h.vocab_size, h.dim);
  t.rms_att = place(h.n_layers, 1, h.dim);
  t.wq = place(h.n_layers, h.dim, h.dim);
  t.wk = place(h.n_layers, h.key_value_size(), h.dim);
  t.wv = place(h.n_layers, h.key_value_size(), h.dim);
  t.wo = place(h.n_layers, h.dim, h.dim);
  t.rms_ffn = place(h.n_layers, 1, h.dim);
  t.w1 = place(h.n_layers, h.hidden_dim, h.dim);
  t.w2 = place(h.n_layers, h.dim, h.hidden_dim);
  t.w3 = place(h.n_layers, h.hidden_dim, h.dim);
  t.rms_final = place(1, 1, h.dim);
  t.freq_cis = place(2, h.seq_len, h.head_dim() / 2);
  t.wcls = place(h.shared_classifier ? 0 : 1, h.vocab_size, h.dim);
  t.file_size = end;
  if (source.size() != end) {
    const bool cut = source.size() < end;
    fail({.kind = ErrorClass::format,
          .file = source.name(),
          .where = "byte " + std::to_string(cut ? source.size() : end),
          .found = std::to_string(source.size()) + " bytes, " +
                   std::to_string(cut ? end - source.size() : source.size() - end) +
                   (cut ? " too few" : " too many"),
          .expected = std::to_string(end) + " bytes, as the header's sizes need",
          .fix = cut ? "Get the file again: it is truncated, or not a llama2.c checkpoint"
                     : "Check that this is a llama2.c checkpoint of export version 0 and nothing "
                       "was appended to it"});
  }
  return t;
}

}  // namespace ropewalk::inline ROPEWALK_ABI
