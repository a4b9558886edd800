// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope.hpp"

#include "support/error_of.hpp"

namespace ropewalk {
namespace {

constexpr ModelRope model = {.rope_theta = 20000, .max_position_embeddings = 256};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("rope/rope_spec: specs give the policies they name, the model fills the rest") {
  CHECK(parse_rope("default", model) == AdjustedBase{20000});
  CHECK(parse_rope("theta=500000", model) == AdjustedBase{500000});
  CHECK(parse_rope("theta=5e5", model) == AdjustedBase{500000});
  CHECK(parse_rope("default:rope_theta=500000", model) == AdjustedBase{500000});
  CHECK(parse_rope("linear:factor=2", model) == LinearInterpolation{20000, 2});
  CHECK(parse_rope("ntk:factor=4", model) == NtkAware{20000, 4});
  CHECK(parse_rope("ntk:factor=4,rope_theta=1e4", model) == NtkAware{10000, 4});
  CHECK(parse_rope("dynamic:factor=2", model) == DynamicNtk{20000, 2, 256});
  CHECK(parse_rope("ntk_by_parts:factor=2", model) == NtkByParts{20000, 2, 256, 1, 1});
  CHECK(parse_rope("yarn:factor=4,original_max_position_embeddings=512", model) ==
        Yarn{.rope_theta = 20000, .factor = 4, .original_max_position_embeddings = 512});
  CHECK(parse_rope("yarn:factor=4,truncate=false,attention_factor=1.5,mscale=0.5", model) ==
        Yarn{.rope_theta = 20000,
             .factor = 4,
             .original_max_position_embeddings = 256,
             .attention_factor_override = 1.5,
             .mscale = 0.5,
             .truncate = false});
  CHECK(parse_rope("yarn:factor=4,attention_factor=null", model) ==
        parse_rope("yarn:factor=4", model));
  CHECK(parse_rope("yarn_paper:factor=4", model).method() == "yarn_paper");
  CHECK(parse_rope("llama3:factor=4,low_freq_factor=1,high_freq_factor=4", model) ==
        Llama3{20000, 4, 1, 4, 256});
  // Lengths accept binary suffixes.
  CHECK(parse_rope("dynamic:factor=2,original_max_position_embeddings=4K", model) ==
        DynamicNtk{20000, 2, 4096});
}

TEST_CASE("rope/rope_spec: the canonical text names every key") {
  CHECK(to_text(parse_rope("theta=500000", model)) == "default:rope_theta=500000");
  CHECK(to_text(parse_rope("ntk:factor=4", model)) == "ntk:rope_theta=20000,factor=4");
  CHECK(to_text(NtkAware{1e4, 0.1}) == "ntk:rope_theta=10000,factor=0.1");
  CHECK(to_text(parse_rope("yarn:factor=2.5", model)) ==
        "yarn:rope_theta=20000,factor=2.5,original_max_position_embeddings=256,"
        "attention_factor=null,beta_fast=32,beta_slow=1,mscale=null,mscale_all_dim=null,"
        "truncate=true");
  CHECK(to_text(parse_rope("llama3:factor=4,low_freq_factor=1,high_freq_factor=4", model)) ==
        "llama3:rope_theta=20000,factor=4,low_freq_factor=1,high_freq_factor=4,"
        "original_max_position_embeddings=256");
  CHECK(config_hash(AdjustedBase{10000}) != config_hash(AdjustedBase{10001}));
  CHECK(config_hash(NtkAware{1e4, 2}) != config_hash(LinearInterpolation{1e4, 2}));
}

TEST_CASE("rope/rope_spec: wrong specs are refused, naming culprit and rule") {
  struct Wrong {
    const char* spec;
    const char* says;  // what the message must contain, besides the spec itself
  };
  for (const Wrong& wrong : {
           Wrong{"", "METHOD"},
           {"yaarn:factor=4", "Did you mean yarn?"},
           {"Yarn:factor=4", "Did you mean yarn?"},
           {"unheard_of", "default, linear, ntk, dynamic"},
           {"yarn:facter=4", "Did you mean factor?"},
           {"default:factor=2", "rope_theta"},
           {"linear", "Give factor"},
           {"linear:", "KEY=VALUE"},
           {"linear:factor", "KEY=VALUE"},
           {"linear:factor=", "KEY=VALUE"},
           {"linear:=2", "KEY=VALUE"},
           {"linear:factor=2,", "KEY=VALUE"},
           {"linear:,factor=2", "KEY=VALUE"},
           {"linear:factor=2 ", "number of at least 1"},
           {" linear:factor=2", "one of default"},
           {"linear:factor=2x", "number of at least 1"},
           {"linear:factor=\"2\"", "number of at least 1"},
           {"linear:factor=+2", "number of at least 1"},
           {"linear:factor=0x2", "number of at least 1"},
           {"linear:factor=true", "number of at least 1"},
           {"linear:factor=null", "number of at least 1"},
           {"linear:factor=nan", "number of at least 1"},
           {"linear:factor=inf", "number of at least 1"},
           {"linear:factor=1e400", "number of at least 1"},
           {"linear:factor=0", "number of at least 1"},
           {"linear:factor=-4", "number of at least 1"},
           {"linear:factor=0.5", "number of at least 1"},
           {"linear:factor=2,factor=2", "Remove one"},
           {"linear:factor=[1,2]", "number of at least 1"},
           {"linear:factor=[1,2", "unmatched ["},
           {"linear:factor=1]", "unmatched ]"},
           {"linear:factor={1,2}", "one setting"},
           {"linear=2", "METHOD"},
           {"theta=", "number above 1"},
           {"theta=1", "number above 1"},
           {"theta=0.5", "number above 1"},
           {"theta=5e5,factor=2", "number above 1"},
           {"default:theta=5e5", "Did you mean rope_theta?"},
           {"dynamic:factor=2,original_max_position_embeddings=0", "at least 1"},
           {"dynamic:factor=2,original_max_position_embeddings=4096.5", "integer"},
           {"dynamic:factor=2,original_max_position_embeddings=99999999999999999999", "integer"},
           {"dynamic:factor=2,original_max_position_embeddings=9999999999999G", "integer"},
           {"yarn:factor=4,truncate=1", "true or false"},
           {"yarn:factor=4,beta_fast=1", "more than beta_slow = 1"},
           {"yarn:factor=4,beta_slow=0", "above 0"},
           {"yarn:factor=4,attention_factor=-1", "above 0"},
           {"yarn:factor=4,attention_factor=x", "or null"},
           {"yarn:factor=4,original_max_position_embeddings=6", "2 pi"},
           {"llama3:factor=4", "Give low_freq_factor"},
           {"llama3:factor=4,low_freq_factor=4,high_freq_factor=4", "more than low_freq_factor"},
           {"llama3:factor=4,low_freq_factor=0,high_freq_factor=4", "above 0"},
       }) {
    const ErrorInfo error = error_of([&] { (void)parse_rope(wrong.spec, model); });
    const std::string message = to_text(error);
    CHECK_MESSAGE(error.kind == ErrorClass::usage, wrong.spec);
    CHECK_MESSAGE(contains(message, wrong.says), message);
    CHECK_MESSAGE(contains(message, escaped(wrong.spec)), message);
  }
}

TEST_CASE("rope/rope_spec: what the model does not say must be given") {
  const ModelRope silent = {};
  CHECK(error_of([&] { (void)parse_rope("default", silent); }).field == "rope_theta");
  CHECK(parse_rope("theta=10000", silent) == AdjustedBase{10000});
  CHECK(error_of([&] { (void)parse_rope("yarn:factor=4,rope_theta=1e4", silent); }).field ==
        "original_max_position_embeddings");
}

TEST_CASE("rope/rope_spec: values of a file give errors of the file") {
  const SpecOrigin origin = {
      .kind = ErrorClass::config, .file = "config.json", .where = "/rope_scaling"};
  const auto outcome = [&](const char* method, std::vector<KeyValue> values) {
    return error_of([&] { (void)make_rope(method, model, values, origin); });
  };
  CHECK(make_rope("yarn", model, std::vector<KeyValue>{{"factor", "4.0"}, {"beta_fast", "16"}},
                  origin) == Yarn{.rope_theta = 20000,
                                  .factor = 4,
                                  .original_max_position_embeddings = 256,
                                  .beta_fast = 16});
  const ErrorInfo rule = outcome("linear", {{"factor", "0.5"}});
  CHECK(rule.kind == ErrorClass::config);
  CHECK(rule.file == "config.json");
  CHECK(rule.where == "/rope_scaling");
  CHECK(rule.field == "factor");
  CHECK(outcome("linear", {{"factor", "\"8\""}}).kind == ErrorClass::config);
  CHECK(outcome("linear", {}).kind == ErrorClass::config);
  CHECK(outcome("linear", {{"factor", "2"}, {"fact\x1bor", "2"}}).field == "\"fact\\x1bor\"");
  CHECK(outcome("yarn", {{"factor", "4"}, {"beta_fast", "0.5"}}).field == "beta_fast");
  const ErrorInfo unknown = outcome("clex", {});
  CHECK(unknown.kind == ErrorClass::unsupported);
  CHECK(contains(unknown.expected, "llama3"));
}

TEST_CASE("rope/rope_spec: sets expand to all combinations") {
  using Specs = std::vector<std::string>;
  CHECK(expand_rope_spec("default") == Specs{"default"});
  CHECK(expand_rope_spec("") == Specs{""});
  CHECK(expand_rope_spec("theta={1e4,5e4}") == Specs{"theta=1e4", "theta=5e4"});
  CHECK(expand_rope_spec("yarn:factor={2,4},truncate={true,false}") ==
        Specs{"yarn:factor=2,truncate=true", "yarn:factor=2,truncate=false",
              "yarn:factor=4,truncate=true", "yarn:factor=4,truncate=false"});
  CHECK(expand_rope_spec("{ntk,linear}:factor=2") == Specs{"ntk:factor=2", "linear:factor=2"});
  CHECK(expand_rope_spec("x:list={[1,2],[3]}") == Specs{"x:list=[1,2]", "x:list=[3]"});
  CHECK(expand_rope_spec("theta={1e4}") == Specs{"theta=1e4"});
  for (const char* wrong : {"theta={1e4", "theta=1e4}", "theta={1,{2}}", "theta={}", "theta={1,}",
                            "theta={,1}", "theta={[1}]}", "}{"}) {
    CHECK_MESSAGE(outcome_of([&] { (void)expand_rope_spec(wrong); }) == "usage", wrong);
  }
  std::string many = "x:";
  for (int i = 0; i < 13; ++i) many += "{0,1}";
  CHECK(outcome_of([&] { (void)expand_rope_spec(many); }) == "usage");
  many.resize(many.size() - 5);  // 2^12 = 4096 is still allowed
  CHECK(expand_rope_spec(many).size() == 4096);
}

}  // namespace ropewalk
