// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/io/llama2c.hpp"

#include "io/make_safetensors.hpp"
#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

using Header = std::array<std::int32_t, 7>;
constexpr Header tiny{8, 12, 2, 4, 2, 5, 3};  // head_dim 2

/// Floats that the sizes ask for, counted by hand from llama2.c's memory_map_weights.
std::size_t floats_of(const Header& h) {
  const auto n = [](std::int32_t v) { return static_cast<std::size_t>(v); };
  const std::size_t C = n(h[0]), F = n(h[1]), L = n(h[2]), H = n(h[3]), K = n(h[4]), S = n(h[6]);
  const std::size_t V = n(h[5] < 0 ? -h[5] : h[5]), D = C / H;
  const std::size_t layer = C + C * C + 2 * (K * D * C) + C * C + C + 3 * (F * C);
  return V * C + L * layer + C + 2 * (S * D / 2) + (h[5] < 0 ? V * C : 0);
}

std::string file_of(const Header& h, std::size_t floats) {
  return bytes_of(std::span<const std::int32_t>(h)) + std::string(4 * floats, '\1');
}

ErrorInfo error_with(const Header& h) {
  const std::string file = file_of(h, 100);
  return error_of([&] { read_llama2c_layout(MemorySource(file, "m.bin")); });
}

Header changed(std::size_t field, std::int32_t value) {
  Header h = tiny;
  h[field] = value;
  return h;
}

}  // namespace

TEST_CASE("io/llama2c: offsets follow the order of the file, shared classifier or not") {
  for (const std::int32_t vocab : {5, -5}) {
    const Header h = changed(5, vocab);
    const std::string file = file_of(h, floats_of(h));
    const Llama2cLayout t = read_llama2c_layout(MemorySource(file));
    CHECK(t.header.shared_classifier == (vocab > 0));
    CHECK(t.header.vocab_size == 5);
    CHECK(t.token_embedding == 28);
    CHECK(t.rms_att == 28 + 4 * 5 * 8);
    CHECK(t.wq == t.rms_att + 4 * 2 * 8);
    CHECK(t.wk == t.wq + 4 * 2 * 8 * 8);
    CHECK(t.wv == t.wk + 4 * 2 * 4 * 8);
    CHECK(t.wo == t.wv + 4 * 2 * 4 * 8);
    CHECK(t.rms_ffn == t.wo + 4 * 2 * 8 * 8);
    CHECK(t.w1 == t.rms_ffn + 4 * 2 * 8);
    CHECK(t.w2 == t.w1 + 4 * 2 * 12 * 8);
    CHECK(t.w3 == t.w2 + 4 * 2 * 12 * 8);
    CHECK(t.rms_final == t.w3 + 4 * 2 * 12 * 8);
    CHECK(t.freq_cis == t.rms_final + 4 * 8);
    CHECK(t.wcls == t.freq_cis + 4 * 2 * 3);
    CHECK(t.file_size == file.size());
  }
}

TEST_CASE("io/llama2c: every truncation and every longer file is refused") {
  const std::string file = file_of(tiny, floats_of(tiny));
  for (std::size_t n = 0; n < file.size(); ++n) {
    REQUIRE(outcome_of([&] {
              read_llama2c_layout(MemorySource(std::string_view(file).substr(0, n)));
            }) == "format");
  }
  for (const std::size_t more : {1u, 4u, 34u}) {
    const std::string longer = file + std::string(more, 'x');
    const ErrorInfo e = error_of([&] { read_llama2c_layout(MemorySource(longer)); });
    CHECK(e.kind == ErrorClass::format);
    CHECK(e.where == "byte " + std::to_string(file.size()));
    CHECK(e.found.find(std::to_string(more) + " too many") != std::string::npos);
  }
  const ErrorInfo cut = error_of([&] {
    read_llama2c_layout(MemorySource(std::string_view(file).substr(0, file.size() - 3), "m.bin"));
  });
  CHECK(cut.file == "m.bin");
  CHECK(cut.found.find("3 too few") != std::string::npos);
  CHECK(cut.fix.find("truncated") != std::string::npos);
}

TEST_CASE("io/llama2c: impossible headers name the field, its offset and the rule") {
  constexpr std::array<const char*, 7> names{"dim",        "hidden_dim", "n_layers", "n_heads",
                                             "n_kv_heads", "vocab_size", "seq_len"};
  constexpr std::int32_t lowest = std::numeric_limits<std::int32_t>::min();
  constexpr std::int32_t highest = std::numeric_limits<std::int32_t>::max();
  for (std::size_t i = 0; i < 7; ++i) {
    CAPTURE(i);
    ErrorInfo e = error_with(changed(i, 0));
    CHECK(e.kind == ErrorClass::format);
    CHECK(e.field == names[i]);
    CHECK(e.where == "byte " + std::to_string(4 * i));
    CHECK(e.found == "0");
    e = error_with(changed(i, lowest));
    CHECK(e.kind == (i == 5 ? ErrorClass::limit : ErrorClass::format));  // its sign is a flag
    CHECK(e.field == names[i]);
    e = error_with(changed(i, highest));
    CHECK(e.kind == (i == 6 ? ErrorClass::format : ErrorClass::limit));  // only then too short
  }
  CHECK(error_with(changed(0, 9)).field == "n_heads");  // 4 heads into 9
  CHECK(error_with(changed(4, 3)).field == "n_kv_heads");
  CHECK(error_with(changed(4, 8)).field == "n_kv_heads");
  CHECK(error_with(changed(0, 12)).field == "dim / n_heads");  // 3: odd
  CHECK(error_with(changed(0, 12)).found == "3");
}

TEST_CASE("io/llama2c: other kinds of files are called by name") {
  struct Row {
    std::string content;
    std::string says;
    ErrorClass kind;
  };
  const std::vector<Row> rows{
      {"", "an empty file", ErrorClass::format},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n", "git-lfs pointer",
       ErrorClass::format},
      {"<!doctype html><html><body>404</body></html>", "HTML", ErrorClass::format},
      {"{\"error\": \"Repository not found\"}           ", "JSON", ErrorClass::format},
      {"PK\3\4                                         ", "zip", ErrorClass::format},
      {std::string("GGUF\3\0\0\0", 8) + std::string(40, '\0'), "GGUF", ErrorClass::format},
      {make_safetensors({{"a", "F32", {1}, "1234"}}), "safetensors", ErrorClass::format},
      {"24ka" + std::string(252, '\1'), "version 1 or 2", ErrorClass::unsupported},
  };
  for (const Row& row : rows) {
    CAPTURE(row.says);
    const ErrorInfo e = error_of([&] { read_llama2c_layout(MemorySource(row.content, "m.bin")); });
    CHECK(e.kind == row.kind);
    CHECK(e.found.find(row.says) != std::string::npos);
    CHECK(!e.fix.empty());
  }
}
