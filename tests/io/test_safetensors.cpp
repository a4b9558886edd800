// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/io/safetensors.hpp"

#include "io/make_safetensors.hpp"
#include "support/error_of.hpp"
#include "support/growth.hpp"
#include "support/temp_dir.hpp"

using namespace ropewalk;

namespace {

ErrorInfo index_error(const std::string& file) {
  return error_of([&] { read_safetensors_index(MemorySource(file, "m.safetensors")); });
}

/// One F32 tensor "a" of the given shape and offsets.
std::string entry(const std::string& shape, const std::string& offsets,
                  const std::string& dtype = "\"F32\"") {
  return R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

const std::string a4 = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
const std::string b4 = R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]})";

std::string nested(int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += '[';
  return out;
}

}  // namespace

TEST_CASE("io/safetensors: malformed files, by class and culprit") {
  struct Row {
    std::string id;
    std::string file;
    std::string outcome;
    std::string names = {};  // must be in the message
  };
  const std::string ok4(4, 'd'), ok8(8, 'd');
  const auto raw = [](const std::string& header, const std::string& data = "") {
    return raw_safetensors(header, data);
  };
  const std::string two32 = "4294967296";
  std::vector<Row> rows{
      {"A01", "", "format", "empty"},
      {"A03", little_endian(0, 8), "format", "header of 0 bytes"},
      {"A04", raw("{"), "format", "byte 9"},
      {"A05", little_endian(2, 8) + "{", "format", "truncated"},
      {"A06 -1", little_endian(~0ull, 8) + "{}", "limit", "18446744073709551615"},
      {"A06 -8", little_endian(~0ull - 7, 8) + "{}", "limit"},
      {"A06 2^63", little_endian(1ull << 63, 8) + "{}", "limit"},
      {"A08", std::string("\0\0\0\0\0\0\0\2{}", 10), "limit", "big-endian"},
      {"A09", raw("{\"\xff\":1}"), "format", "byte 10"},
      {"A10", raw("\xef\xbb\xbf{}"), "format", "byte 8"},
      {"A11", raw("  {}"), "accepted"},
      {"A12", raw("{} \t\r\n  "), "accepted"},
      {"A13", raw(std::string("{}\0\0", 4)), "format", "byte 10"},
      {"A14", raw("{}x"), "format"},
      {"A14 two", raw("{}{}"), "format"},
      {"A15 array", raw("[]"), "format", "an array"},
      {"A15 string", raw("\"x\""), "format", "a string"},
      {"A15 number", raw("1"), "format", "a number"},
      {"A15 null", raw("null"), "format", "null"},
      {"A16", raw("{\"a\":{\"x\":" + nested(100000)), "limit", "64"},
      {"A17", raw("{" + a4 + "," + a4 + "}", ok4), "format", "\"a\" a second time"},
      {"A18", raw("{" + a4 + R"(,"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", ok8),
       "format", "second time"},
      {"A19",
       raw(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)"
           R"("a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})"),
       "format", "second time"},
      {"A20", raw(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", ok4),
       "format", "/a/dtype"},
      {"A21", raw(R"({"__metadata__":{},"__metadata__":{}})"), "format", "__metadata__"},
      {"A22 array", raw(R"({"__metadata__":[]})"), "format", "an array"},
      {"A22 number", raw(R"({"__metadata__":1})"), "format", "a number"},
      {"A22 value number", raw(R"({"__metadata__":{"k":1}})"), "format", "/__metadata__/k"},
      {"A22 value null", raw(R"({"__metadata__":{"k":null}})"), "format", "/__metadata__/k"},
      {"A22 value object", raw(R"({"__metadata__":{"k":{}}})"), "format", "/__metadata__/k"},
      {"A23 number", raw(R"({"a":1})"), "format", "/a"},
      {"A23 string", raw(R"({"a":"x"})"), "format", "/a"},
      {"A23 null", raw(R"({"a":null})"), "format", "/a"},
      {"A23 array", raw(R"({"a":[]})"), "format", "/a"},
      {"A24 dtype", raw(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", ok4), "format", "no dtype"},
      {"A24 shape", raw(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", ok4), "format",
       "no shape"},
      {"A24 offsets", raw(R"({"a":{"dtype":"F32","shape":[1]}})", ok4), "format",
       "no data_offsets"},
      {"A25",
       raw(R"({"a":{"dtype":"F32","x":{"y":[{"dtype":1}]},"shape":[1],"data_offsets":[0,4]}})",
           ok4),
       "accepted"},
      {"A25 duplicate inside",
       raw(R"({"a":{"dtype":"F32","x":{"y":1,"y":2},"shape":[1],"data_offsets":[0,4]}})", ok4),
       "format", "/a/x/y"},
      {"A30 2^64", raw(entry("[18446744073709551616]", "[0,4]"), ok4), "limit", "/a/shape/0"},
      {"A30 10^30", raw(entry("[1000000000000000000000000000000]", "[0,4]"), ok4), "limit"},
      {"A30 digits", raw(entry("[1" + std::string(1000000, '0') + "]", "[0,4]"), ok4), "limit"},
      {"A31", raw(entry("[" + two32 + "," + two32 + "]", "[0,0]", "\"U8\"")), "limit",
       "4294967296, 4294967296"},
      {"A32", raw(entry("[9223372036854775810,2]", "[0,16]"), ok8 + ok8), "limit"},
      {"A33", raw(entry("[2,9223372036854775807]", "[0,0]", "\"I32\"")), "limit"},
      {"A34", raw(entry("[9223372036854775808,4,0]", "[0,0]")), "limit"},
      {"A34 0 first", raw(entry("[0,9223372036854775808,4]", "[0,0]")), "limit"},
      {"A34 product", raw(entry("[281474976710656,281474976710656,0]", "[0,0]")), "limit"},
      {"A34 product 0 first", raw(entry("[0,281474976710656,281474976710656]", "[0,0]")), "limit"},
      {"A35", raw(entry("[2,0]", "[0,0]")), "accepted"},
      {"A36", raw(entry("[2,0]", "[0,4]"), ok4), "format", "0 bytes"},
      {"A37", raw(entry("[]", "[0,4]"), ok4), "accepted"},
      {"A38 8", raw(entry("[1,1,1,1,1,1,1,1]", "[0,4]"), ok4), "accepted"},
      {"A38 9", raw(entry("[1,1,1,1,1,1,1,1,1]", "[0,4]"), ok4), "limit", "rank"},
      {"A39", raw(entry("[1]", "[4,0]"), ok4), "format", "[4, 0]"},
      {"A40 by 1", raw(entry("[5]", "[0,5]", "\"U8\""), ok4), "format", "1 more bytes"},
      {"A40 by 2^40", raw(entry("[1099511627776]", "[0,1099511627776]", "\"U8\""), ok4), "format",
       "truncated"},
      {"A41", raw(entry("[1]", "[4,8]"), ok8), "format", "hole of 4 bytes after the start"},
      {"A42", raw("{" + a4 + R"(,"b":{"dtype":"U8","shape":[1],"data_offsets":[5,6]}})", "123456"),
       "format", "hole of 1 bytes after tensor \"a\""},
      {"A43", raw("{" + a4 + R"(,"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})", ok4),
       "format", "overlap of 1 bytes"},
      {"A44", raw("{" + a4 + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", ok4),
       "format", "tied weights once"},
      {"A45", raw("{" + a4 + "}", ok4 + std::string(34, 'z')), "format", "34 bytes after"},
      {"A47 small", raw(entry("[2]", "[0,4]"), ok4), "format", "8 bytes"},
      {"A47 large", raw(entry("[1]", "[0,8]"), ok8), "format", "4 bytes"},
      {"A48", raw("{" + b4 + "," + a4 + "}", ok8), "accepted"},
      {"A51 empty name", raw(R"({"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", ok4),
       "format", "empty tensor name"},
      {"A51 long name",
       raw("{\"" + std::string(1 << 20, 'n') +
               R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
           ok4),
       "limit", "1048576 bytes"},
      {"A51 odd name",
       raw(R"({"\u0000\n\u001b[31m\u202e":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", ok4),
       "accepted"},
      {"A54", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "format",
       "git lfs pull"},
      {"A55 html", "<!DOCTYPE html>\n<html></html>", "format", "HTML"},
      {"A55 json", "{\"error\":\"Access denied\"}", "format", "JSON"},
      {"A55 gzip", "\x1f\x8b\x08....................", "format", "gzip"},
      {"A55 zip", "PK\3\4......................", "format", "zip"},
      {"A55 gguf", std::string("GGUF\3\0\0\0", 8) + std::string(20, '\0'), "format", "GGUF"},
      {"F4 half a byte", raw(entry("[3]", "[0,1]", "\"F4\""), "1"), "format", "12 bits"},
      {"F4", raw(entry("[4]", "[0,2]", "\"F4\""), "12"), "accepted"},
      {"shape no array", raw(entry("{}", "[0,4]"), ok4), "format", "/a/shape"},
      {"shape nested", raw(entry("[[1]]", "[0,4]"), ok4), "format", "/a/shape/0"},
  };
  for (std::size_t n = 1; n < 8; ++n) {
    rows.push_back({"A02", std::string(n, '\1'), "format", std::to_string(n) + " bytes"});
  }
  for (const std::string dtype : {"\"F128\"", "\"f32\"", "\"F32 \"", "\"\"", "3", "null"}) {
    rows.push_back({"A26 " + dtype, raw(entry("[1]", "[0,4]", dtype), ok4), "format", "/a/dtype"});
  }
  for (const std::string element :
       {"-1", "2.0", "2e0", "\"2\"", "true", "null", "007", "+1", "0x10", "-0", "1_000"}) {
    rows.push_back({"A28 A29 " + element, raw(entry("[" + element + "]", "[0,4]"), ok4), "format"});
  }
  for (const std::string offsets : {"[0]", "[0,4,8]", "\"0,4\"", "[0.0,4]", "[-4,0]", "[]"}) {
    rows.push_back({"A50 " + offsets, raw(entry("[1]", offsets), ok4), "format", "data_offsets"});
  }
  for (const Row& row : rows) {
    CAPTURE(row.id);
    const ErrorInfo e = index_error(row.file);
    const std::string outcome =
        e.found == "no error" ? "accepted" : std::string(error_class_name(e.kind));
    CHECK(outcome == row.outcome);
    if (outcome == "accepted") continue;
    CAPTURE(to_text(e));
    CHECK(e.file == "m.safetensors");
    CHECK(to_text(e).find(row.names) != std::string::npos);
    CHECK(to_text(e).find('\x1b') == std::string::npos);
    CHECK(to_text(e).size() < 1000);
  }
}

TEST_CASE("io/safetensors: A07 a header beyond the limit is refused without reading it") {
  const TempDir dir;
  const std::string path = dir.write("big", little_endian(100'000'001, 8));
  std::ofstream(path, std::ios::in | std::ios::out | std::ios::binary).seekp(100'000'020).put('x');
  const ErrorInfo e = error_of([&] { read_safetensors_index(FileSource(path)); });
  CHECK(e.kind == ErrorClass::limit);
  CHECK(e.found.find("100000001") != std::string::npos);
}

TEST_CASE("io/safetensors: A46 every truncation of a valid file is refused") {
  const std::string file = make_safetensors(
      {{"model.a", "F32", {2, 3}, std::string(24, 'x')}, {"b", "BF16", {5}, std::string(10, 'y')}},
      R"({"format":"pt"})");
  REQUIRE(index_error(file).found == "no error");
  for (std::size_t n = 0; n < file.size(); ++n) {
    const ErrorInfo e = index_error(file.substr(0, n));
    REQUIRE(e.kind == ErrorClass::format);
  }
  CHECK(index_error(file.substr(0, file.size() - 1)).expected == "1 more bytes");
}

TEST_CASE("io/safetensors: every bit flip of the header ends typed or means something else") {
  const std::string file = make_safetensors({{"a", "F32", {2}, std::string(8, 'x')}});
  int refused = 0;
  for (std::size_t i = 0; i < (file.size() - 8) * 8; ++i) {
    std::string flipped = file;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    const ErrorInfo e = index_error(flipped);
    if (e.found == "no error") continue;
    ++refused;
    REQUIRE((e.kind == ErrorClass::format || e.kind == ErrorClass::limit));
  }
  CHECK(refused > 300);  // most flips hit structure; those in the name or to I32, U32 do not
}

TEST_CASE("io/safetensors: metadata, order by data, lookup by name") {
  const std::string file = raw_safetensors(
      "{\"__metadata__\":{\"format\":\"pt\",\"k\":\"v\"}," + b4 + "," + a4 + "}  ", "AAAABBBB");
  const SafetensorsIndex index = read_safetensors_index(MemorySource(file));
  REQUIRE(index.tensors.size() == 2);
  CHECK(index.tensors[0].name == "a");
  CHECK(index.find("b")->begin == 4);
  CHECK(index.find("c") == nullptr);
  CHECK(index.find("") == nullptr);
  REQUIRE(index.metadata.size() == 2);
  CHECK(index.metadata[1].first == "k");
  CHECK(index.metadata[1].second == "v");
  CHECK(index.data_offset == file.size() - 8);
}

TEST_CASE("io/safetensors: A25 unknown fields are noted") {
  const std::string file = raw_safetensors(
      R"({"a":{"dtype":"F32","note":"hi","shape":[1],"data_offsets":[0,4]}})", "1234");
  const SafetensorsIndex index = read_safetensors_index(MemorySource(file));
  REQUIRE(index.notes.size() == 1);
  CHECK(index.notes[0].find("\"note\"") != std::string::npos);
}

TEST_CASE("io/safetensors: A49 values of every float dtype, at any alignment and any range") {
  const std::vector<float> f32{1.5f, -0.0f, 0x1p-149f, 3.4e38f, -7.25f};
  std::vector<std::uint16_t> b(5), h(5);
  std::vector<double> f64;
  std::vector<float> as_bf16, as_f16;
  for (std::size_t i = 0; i < 5; ++i) {
    b[i] = to_bf16(f32[i]).bits;
    h[i] = to_f16(f32[i]).bits;
    as_bf16.push_back(to_float(bf16{b[i]}));
    as_f16.push_back(to_float(f16{h[i]}));
    f64.push_back(static_cast<double>(f32[i]));
  }
  for (std::size_t pad = 0; pad < 8; ++pad) {
    const std::string file =
        make_safetensors({{"pad", "U8", {static_cast<std::int64_t>(pad)}, std::string(pad, 'p')},
                          {"f32", "F32", {5}, bytes_of(std::span<const float>(f32))},
                          {"bf16", "BF16", {5}, bytes_of(std::span<const std::uint16_t>(b))},
                          {"f16", "F16", {5}, bytes_of(std::span<const std::uint16_t>(h))},
                          {"f64", "F64", {5}, bytes_of(std::span<const double>(f64))}});
    const MemorySource source(file);
    const SafetensorsIndex index = read_safetensors_index(source);
    for (std::size_t first = 0; first <= 5; ++first) {
      const auto same = [&](const char* name, const std::vector<float>& expected) {
        std::vector<float> out(5 - first);
        read_floats(source, index, *index.find(name), first, out);
        return bytes_of(std::span<const float>(out)) ==
               bytes_of(std::span<const float>(expected).subspan(first));
      };
      REQUIRE(same("f32", f32));
      REQUIRE(same("bf16", as_bf16));
      REQUIRE(same("f16", as_f16));
      REQUIRE(same("f64", f32));
    }
    std::vector<float> out(2);
    CHECK(error_of([&] { read_floats(source, index, *index.find("f32"), 4, out); }).kind ==
          ErrorClass::usage);
    CHECK(error_of([&] { read_floats(source, index, *index.find("pad"), 0, {}); }).kind ==
          ErrorClass::unsupported);
  }
}

TEST_CASE("io/safetensors: reading goes past the conversion buffer without a seam") {
  std::vector<std::uint16_t> bits(10000);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  const std::string file =
      make_safetensors({{"a", "BF16", {100, 100}, bytes_of(std::span<const std::uint16_t>(bits))}});
  const MemorySource source(file);
  const SafetensorsIndex index = read_safetensors_index(source);
  std::vector<float> out(9999);
  read_floats(source, index, *index.find("a"), 1, out);
  bool equal = true;
  for (std::size_t i = 0; i < out.size(); ++i) {
    equal = equal && out[i] == to_float(bf16{static_cast<std::uint16_t>(i + 1)});
  }
  CHECK(equal);
}

TEST_CASE("io/safetensors: A52 many zero-size tensors take linear time") {
  std::string files[2];
  for (const int i : {0, 1}) {
    std::string header = "{";
    for (int t = 0; t < (i == 0 ? 1 << 12 : 1 << 15); ++t) {
      header += (t == 0 ? "\"t" : ",\"t") + std::to_string(t) +
                R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
    }
    files[i] = raw_safetensors(header + "}", "");
  }
  CHECK(growth(1 << 12, [&](std::size_t count) {
          const MemorySource file(files[count == 1 << 12 ? 0 : 1]);
          REQUIRE(read_safetensors_index(file).tensors.size() == count);
        }) < quadratic_growth);
}
