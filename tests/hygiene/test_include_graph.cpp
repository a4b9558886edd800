// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "hygiene/include_graph.hpp"

namespace ropewalk::hygiene {
namespace {

Headers read_headers(const std::filesystem::path& root) {
  Headers headers;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().extension() != ".hpp") continue;
    std::ostringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    headers[std::filesystem::relative(entry.path(), root).generic_string()] = text.str();
  }
  return headers;
}

/// A small tree that keeps every rule.
Headers clean_tree() {
  return {
      {"core/config.hpp", "#include <cstdint>\n"},
      {"core/hash.hpp", "#include <xxhash.h>\n#include \"ropewalk/core/config.hpp\"\n"},
      {"simd/batch.hpp", "#include <xsimd/xsimd.hpp>\n#include \"ropewalk/core/config.hpp\"\n"},
      {"linalg/gemm.hpp", "#include \"ropewalk/simd/batch.hpp\"\n"},
      {"rope/yarn.hpp", "#include \"ropewalk/core/hash.hpp\"\n"},
      {"rope/rotary_rows.hpp", "#include \"ropewalk/rope/yarn.hpp\"\n"},
      {"rope/rotate.hpp",
       "#include \"ropewalk/simd/batch.hpp\"\n#include \"ropewalk/rope/yarn.hpp\"\n"},
      {"attention/masks.hpp", "#include \"ropewalk/core/config.hpp\"\n"},
      {"attention/blockwise.hpp",
       "#include \"ropewalk/attention/masks.hpp\"\n#include \"ropewalk/linalg/gemm.hpp\"\n"},
      {"model/llama.hpp",
       "#include \"ropewalk/attention/blockwise.hpp\"\n#include \"ropewalk/rope/rotate.hpp\"\n"},
      {"eval/perplexity.hpp", "#include \"ropewalk/model/llama.hpp\"\n"},
      {"io/json.hpp", "#include <nlohmann/json.hpp>\n#include \"ropewalk/core/config.hpp\"\n"},
      {"hub/checkpoint.hpp",
       "#include <filesystem>\n#include \"ropewalk/io/json.hpp\"\n"
       "#include \"ropewalk/model/llama.hpp\"\n"},
      {"oracle/attention.hpp", "#include <Eigen/Core>\n#include \"ropewalk/rope/yarn.hpp\"\n"},
      {"ropewalk.hpp", "#include \"ropewalk/eval/perplexity.hpp\"\n"},
  };
}

/// The violations after one more line in one header.
std::vector<std::string> with_line(const std::string& header, const std::string& line) {
  Headers headers = clean_tree();
  headers[header] += line + "\n";
  return include_violations(headers);
}

std::string lines_of(const std::vector<std::string>& sentences) {
  std::string out;
  for (const std::string& sentence : sentences) out += "\n  " + sentence;
  return out;
}

TEST_CASE("hygiene/include_graph: the headers keep to the arrows") {
  const Headers headers = read_headers(ROPEWALK_SOURCE_DIR "/include/ropewalk");
  REQUIRE(headers.size() > 10);
  const std::vector<std::string> violations = include_violations(headers);
  INFO(lines_of(violations));
  CHECK(violations.empty());
}

TEST_CASE("hygiene/include_graph: a planted forbidden edge is reported") {
  CHECK(lines_of(include_violations(clean_tree())) == "");

  struct Planted {
    std::string header;
    std::string line;
    std::string sentence;
  };
  const std::vector<Planted> planted = {
      {"core/config.hpp", "#include \"ropewalk/rope/yarn.hpp\"",
       "core/config.hpp (core) may not include rope/yarn.hpp (rope)"},
      {"rope/yarn.hpp", "#include \"ropewalk/attention/masks.hpp\"",
       "rope/yarn.hpp (rope) may not include attention/masks.hpp (attention)"},
      {"attention/masks.hpp", "#include \"ropewalk/simd/batch.hpp\"",
       "attention/masks.hpp (attention) may not include simd/batch.hpp (simd)"},
      {"attention/blockwise.hpp", "#include \"ropewalk/rope/yarn.hpp\"",
       "attention/blockwise.hpp (attention_kernels) may not include rope/yarn.hpp (rope)"},
      {"linalg/gemm.hpp", "#include \"ropewalk/rope/yarn.hpp\"",
       "linalg/gemm.hpp (linalg) may not include rope/yarn.hpp (rope)"},
      {"io/json.hpp", "#include \"ropewalk/model/llama.hpp\"",
       "io/json.hpp (io) may not include model/llama.hpp (model)"},
      {"model/llama.hpp", "#include \"ropewalk/io/json.hpp\"",
       "model/llama.hpp (model) may not include io/json.hpp (io)"},
      {"oracle/attention.hpp", "#include \"ropewalk/simd/batch.hpp\"",
       "oracle/attention.hpp (oracle) may not include simd/batch.hpp (simd)"},
      {"ropewalk.hpp", "#include \"ropewalk/hub/checkpoint.hpp\"",
       "ropewalk.hpp (umbrella) may not include hub/checkpoint.hpp (hub)"},
      {"rope/yarn.hpp", "#include <xsimd/xsimd.hpp>",
       "rope/yarn.hpp (rope) may not include <xsimd/xsimd.hpp>"},
      {"linalg/gemm.hpp", "  #  include <Eigen/Dense>",
       "linalg/gemm.hpp (linalg) may not include <Eigen/Dense>"},
      {"model/llama.hpp", "#include <immintrin.h>",
       "model/llama.hpp (model) may not include <immintrin.h>"},
      {"eval/perplexity.hpp", "#include <nlohmann/json.hpp>",
       "eval/perplexity.hpp (eval) may not include <nlohmann/json.hpp>"},
      {"model/llama.hpp", "#include <iostream>",
       "model/llama.hpp: <iostream> is not used in include/"},
      {"model/llama.hpp", "#include <filesystem>",
       "model/llama.hpp: <filesystem> is not used in include/"},
      {"model/llama.hpp", "#include \"ropewalk/model/gone.hpp\"",
       "model/llama.hpp: includes model/gone.hpp, which does not exist"},
  };
  for (const Planted& p : planted) {
    CAPTURE(p.line);
    const std::vector<std::string> violations = with_line(p.header, p.line);
    CHECK_MESSAGE(std::find(violations.begin(), violations.end(), p.sentence) != violations.end(),
                  p.sentence, " is missing in:", lines_of(violations));
  }
}

TEST_CASE("hygiene/include_graph: a forbidden package is found through other headers") {
  // The direct edges of rope/rotary_rows.hpp are all allowed here; what it reaches is not.
  Headers headers = clean_tree();
  headers["core/hash.hpp"] += "#include <Eigen/Core>\n";
  const std::vector<std::string> violations = include_violations(headers);
  const std::string expected = "rope/rotary_rows.hpp reaches <Eigen/Core> through core/hash.hpp";
  CHECK_MESSAGE(std::find(violations.begin(), violations.end(), expected) != violations.end(),
                lines_of(violations));
}

TEST_CASE("hygiene/include_graph: a circle and an unknown folder are reported") {
  Headers headers = clean_tree();
  headers["rope/yarn.hpp"] += "#include \"ropewalk/rope/rotary_rows.hpp\"\n";
  headers["misc/tools.hpp"] = "#include <vector>\n";
  const std::string found = lines_of(include_violations(headers));
  CHECK(found.find("rope/yarn.hpp and rope/rotary_rows.hpp include each other") !=
        std::string::npos);
  CHECK(found.find("folder 'misc' has no rule") != std::string::npos);
}

TEST_CASE("hygiene/include_graph: what is not an include line is left alone") {
  const std::string text =
      "// #include <iostream>\n"
      "/// text #include \"ropewalk/x.hpp\"\n"
      "#define include <a>\n"
      "# include <b/c.hpp>  // why\n"
      "#include MACRO\n"
      "#include \"ropewalk/core/rng.hpp\"";
  const std::vector<Include> found = includes_of(text);
  REQUIRE(found.size() == 2);
  CHECK(found[0].path == "b/c.hpp");
  CHECK(!found[0].quoted);
  CHECK(found[1].path == "ropewalk/core/rng.hpp");
  CHECK(found[1].quoted);
}

}  // namespace
}  // namespace ropewalk::hygiene
