// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/hub/hf_config.hpp"

#include "hub/tiny_config.hpp"
#include "support/error_of.hpp"

using namespace ropewalk;

namespace {

HfConfig parsed(const Changes& changes) {
  return parse_hf_config(parse_json(tiny_config(changes), "config.json").view());
}
ErrorInfo config_error(const Changes& changes) {
  return error_of([&] { parsed(changes); });
}
std::string rope_of(const Changes& changes) { return to_text(parsed(changes).rope); }

bool noted(const HfConfig& c, std::string_view text) {
  for (const std::string& note : c.notes) {
    if (note.find(text) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("hub/hf_config: a plain configuration is read whole, without notes") {
  const HfConfig c = parsed({});
  CHECK(c.config == LlamaConfig{.hidden_size = 8,
                                .intermediate_size = 12,
                                .num_hidden_layers = 2,
                                .num_attention_heads = 4,
                                .num_key_value_heads = 2,
                                .head_dim = 2,
                                .vocab_size = 5,
                                .max_position_embeddings = 64,
                                .rms_norm_eps = 1e-5,
                                .tie_word_embeddings = false,
                                .norm_head = false,
                                .pair_layout = PairLayout::half_split});
  CHECK(to_text(c.rope) == "default:rope_theta=10000");
  CHECK(c.notes.empty());
}

TEST_CASE("hub/hf_config: values by class and culprit") {
  struct Row {
    std::string id;
    Changes changes;
    std::string outcome;
    std::string names = {};
  };
  std::vector<Row> rows{
      {"C03", {{"num_attention_heads", "3"}}, "config", "hidden_size"},
      {"C04 0", {{"head_dim", "0"}}, "config", "head_dim"},
      {"C04 1", {{"head_dim", "1"}}, "config", "even"},
      {"C04 65", {{"head_dim", "65"}}, "config", "even"},
      {"C04 null", {{"head_dim", "null"}}, "accepted"},
      {"C05", {{"head_dim", "6"}}, "accepted"},
      {"C06 > heads", {{"num_key_value_heads", "8"}}, "config", "divisor"},
      {"C06 no divisor", {{"num_key_value_heads", "3"}}, "config", "divisor"},
      {"C07 10^9", {{"num_hidden_layers", "1000000000"}}, "limit", "num_hidden_layers"},
      {"C09 2^31", {{"vocab_size", "2147483648"}}, "limit", "vocab_size"},
      {"C10 2^40", {{"max_position_embeddings", "1099511627776"}}, "limit"},
      {"C12 number", {{"rope_scaling", "2"}}, "config", "/rope_scaling"},
      {"C12 array", {{"rope_scaling", "[]"}}, "config", "/rope_scaling"},
      {"C12 empty", {{"rope_scaling", "{}"}}, "config", "/rope_scaling"},
      {"C12 null", {{"rope_scaling", "null"}}, "accepted"},
      {"C13 unknown", {{"rope_scaling", R"({"type":"yarnn","factor":2})"}}, "unsupported", "yarn"},
      {"C13 differ",
       {{"rope_scaling", R"({"type":"linear","rope_type":"dynamic","factor":2})"}},
       "config",
       "rope_type"},
      {"C13 two dictionaries",
       {{"rope_scaling", R"({"type":"linear","factor":2})"},
        {"rope_parameters", R"({"rope_type":"linear","factor":4})"}},
       "config",
       "factor"},
      {"C13 one with more",
       {{"rope_scaling", R"({"type":"linear","factor":2})"},
        {"rope_parameters", R"({"rope_type":"default","rope_theta":1e4})"}},
       "config",
       "/rope_parameters"},
      {"C13 agree",
       {{"rope_scaling", R"({"type":"linear","factor":2})"},
        {"rope_parameters", R"({"rope_type":"linear","factor":2.0,"rope_theta":1e4})"}},
       "accepted"},
      {"unknown key",
       {{"rope_scaling", R"({"type":"linear","factor":2,"factr":2})"}},
       "config",
       "factr"},
      {"no type", {{"rope_scaling", R"({"factor":2})"}}, "config", "factor"},
      {"ntk is ambiguous",
       {{"rope_scaling", R"({"type":"ntk","factor":2})"}},
       "unsupported",
       "several"},
      {"C15", {{"rope_scaling", R"({"type":"dynamic","factor":2})"}}, "config", "d / (d - 2)"},
      {"dynamic alpha",
       {{"head_dim", "4"}, {"rope_scaling", R"({"type":"dynamic","factor":1,"alpha":2})"}},
       "unsupported",
       "alpha"},
      {"dynamic other original length",
       {{"head_dim", "4"},
        {"rope_scaling", R"({"type":"dynamic","factor":2,"original_max_position_embeddings":32})"}},
       "config",
       "original"},
      {"per layer type",
       {{"rope_parameters", R"({"full_attention":{"rope_type":"default"}})"}},
       "unsupported",
       "full_attention"},
      {"C20 0", {{"partial_rotary_factor", "0"}}, "config", "partial_rotary_factor"},
      {"C20 1.5", {{"partial_rotary_factor", "1.5"}}, "config"},
      {"C20 -1", {{"partial_rotary_factor", "-1"}}, "config"},
      {"C20 0.5", {{"head_dim", "8"}, {"partial_rotary_factor", "0.5"}}, "accepted"},
      {"C20 odd", {{"partial_rotary_factor", "0.5"}}, "config", "even number of rotated channels"},
      {"C20 string", {{"partial_rotary_factor", R"("0.5")"}}, "config", "partial_rotary_factor"},
      {"C20 in dict",
       {{"head_dim", "8"},
        {"rope_parameters",
         R"({"rope_type":"default","rope_theta":1e4,"partial_rotary_factor":0.5})"}},
       "accepted"},
      {"C20 two that differ",
       {{"head_dim", "8"}, {"partial_rotary_factor", "0.5"}, {"rotary_pct", "0.25"}},
       "config",
       "/rotary_pct"},
      {"C20 top level and dict differ",
       {{"head_dim", "8"},
        {"partial_rotary_factor", "0.5"},
        {"rope_scaling", R"({"type":"linear","factor":2,"partial_rotary_factor":0.25})"}},
       "config",
       "/partial_rotary_factor"},
      {"rotary_dim", {{"head_dim", "8"}, {"rotary_dim", "4"}}, "accepted"},
      {"rotary_dim odd", {{"head_dim", "8"}, {"rotary_dim", "3"}}, "config", "even"},
      {"rotary_dim too wide", {{"head_dim", "8"}, {"rotary_dim", "10"}}, "config", "head_dim = 8"},
      {"rotary_dim and share agree",
       {{"head_dim", "8"}, {"rotary_dim", "4"}, {"rotary_pct", "0.5"}},
       "accepted"},
      {"rotary_dim and share differ",
       {{"head_dim", "8"}, {"rotary_dim", "6"}, {"rotary_pct", "0.5"}},
       "config",
       "/rotary_dim"},
      {"proportional with rotary_dim",
       {{"head_dim", "8"},
        {"rotary_dim", "4"},
        {"rope_scaling", R"({"type":"proportional","partial_rotary_factor":0.5})"}},
       "config",
       "/rotary_dim"},
      {"use_logn_attn", {{"use_logn_attn", "true"}}, "accepted"},
      {"use_logn_attn 1", {{"use_logn_attn", "1"}}, "config", "/use_logn_attn"},
      {"seq_length 0", {{"use_logn_attn", "true"}, {"seq_length", "0"}}, "config", "/seq_length"},
      {"use_dynamic_ntk", {{"use_dynamic_ntk", "true"}}, "unsupported", "/use_dynamic_ntk"},
      {"use_dynamic_ntk false", {{"use_dynamic_ntk", "false"}}, "accepted"},
      {"C20 1", {{"partial_rotary_factor", "1.0"}}, "accepted"},
      {"C21 0", {{"rms_norm_eps", "0"}}, "config", "rms_norm_eps"},
      {"C21 negative", {{"rms_norm_eps", "-1e-5"}}, "config"},
      {"C21 1e400", {{"rms_norm_eps", "1e400"}}, "format", "1e400"},
      {"C22 gelu", {{"hidden_act", R"("gelu_new")"}}, "unsupported", "gelu_new"},
      {"C22 empty", {{"hidden_act", R"("")"}}, "unsupported"},
      {"C23", {{"attention_bias", "true"}}, "unsupported", "attention_bias"},
      {"C23 mlp", {{"mlp_bias", "true"}}, "unsupported", "mlp_bias"},
      {"C23 string", {{"attention_bias", R"("false")"}}, "config", "attention_bias"},
      {"C24 missing", {{"architectures", ""}}, "unsupported", "architectures"},
      {"C24 unknown", {{"architectures", R"(["GPT2LMHeadModel"])"}}, "unsupported", "GPT2"},
      {"C24 two", {{"architectures", R"(["LlamaForCausalLM","X"])"}}, "unsupported"},
      {"C24 type", {{"model_type", R"("qwen2")"}}, "unsupported", "qwen2"},
      {"C24 Index",
       {{"architectures", R"(["IndexForCausalLM"])"}, {"model_type", R"("index")"}},
       "accepted"},
      {"C25", {{"torch_dtype", R"("float8")"}}, "config", "torch_dtype"},
      {"C25 ok", {{"torch_dtype", R"("bfloat16")"}}, "accepted"},
      {"C26", {{"tie_word_embeddings", R"("false")"}}, "config", "tie_word_embeddings"},
      {"C27", {{"quantization_config", R"({"bits":4})"}}, "unsupported", "quantization_config"},
      {"C28", {{"auto_map", R"({"AutoModel":"x.y"})"}}, "accepted"},
      {"C29 eos", {{"eos_token_id", "5"}}, "config", "eos_token_id"},
      {"C29 bos", {{"bos_token_id", "-1"}}, "config"},
      {"C29 list", {{"eos_token_id", "[1,7]"}}, "config", "/eos_token_id/1"},
      {"C29 null", {{"eos_token_id", "null"}, {"bos_token_id", "1"}}, "accepted"},
      {"C30 0", {{"sliding_window", "0"}}, "config", "sliding_window"},
      {"C30 -4", {{"sliding_window", "-4"}}, "config"},
      {"C30 4096", {{"sliding_window", "4096"}}, "unsupported"},
      {"C30 null", {{"sliding_window", "null"}}, "accepted"},
      {"layer types",
       {{"layer_types", R"(["full_attention","sliding_attention"])"}},
       "unsupported",
       "/layer_types/1"},
      {"C32", {{"initializer_range", "-0.02"}}, "config", "initializer_range"},
      {"norm_head 2", {{"norm_head", "2"}}, "config", "norm_head"},
      {"rope_interleave", {{"rope_interleave", "true"}}, "unsupported", "rope_interleave"},
      {"duplicate key", {{"hidden_size", "8, \"hidden_size\": 8"}}, "format", "second time"},
      {"root array", {{"hidden_size", "8} , {"}}, "format"},
  };
  // C01, C02, C06 to C10: every size.
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "vocab_size", "max_position_embeddings"}) {
    for (const char* bad :
         {"0", "-1", "1.5", "1e30", "\"8\"", "true", "[]", "18446744073709551616"}) {
      rows.push_back({std::string("C01 ") + key, {{key, bad}}, "config", key});
    }
    if (std::string(key) != "num_key_value_heads") {
      rows.push_back({std::string("missing ") + key, {{key, ""}}, "config", key});
    }
  }
  for (const char* bad : {"0", "-1", "\"10000\"", "null", "1", "0.5", "true"}) {
    rows.push_back({std::string("C11 ") + bad, {{"rope_theta", bad}}, "config", "rope_theta"});
    rows.push_back(
        {std::string("C11 in dict ") + bad,
         {{"rope_parameters", std::string(R"({"rope_type":"default","rope_theta":)") + bad + "}"}},
         "config",
         "rope_theta"});
  }
  rows.push_back({"C11 1e400", {{"rope_theta", "1e400"}}, "format", "1e400"});
  for (const char* bad : {"0", "-2", "0.5", "\"8\"", "null", "[2]", "true"}) {
    rows.push_back({std::string("C14 ") + bad,
                    {{"rope_scaling", std::string(R"({"type":"linear","factor":)") + bad + "}"}},
                    "config",
                    "factor"});
  }
  rows.push_back({"C14 missing", {{"rope_scaling", R"({"type":"linear"})"}}, "config", "factor"});
  rows.push_back({"C14 missing", {{"rope_scaling", R"({"type":"yarn"})"}}, "config", "factor"});
  const auto yarn = [&](const std::string& id, const std::string& more, const std::string& outcome,
                        const std::string& names = {}) {
    rows.push_back(
        {"C16 " + id,
         {{"head_dim", "8"}, {"rope_scaling", R"({"type":"yarn","factor":4)" + more + "}"}},
         outcome,
         names});
  };
  yarn("defaults", "", "accepted");
  yarn("fast = slow", R"(,"beta_fast":2,"beta_slow":2)", "config", "beta_fast");
  yarn("fast < slow", R"(,"beta_fast":1,"beta_slow":2)", "config", "beta_fast");
  yarn("fast 0", R"(,"beta_fast":0)", "config", "beta_fast");
  yarn("slow 0", R"(,"beta_slow":0)", "config", "beta_slow");
  yarn("original 0", R"(,"original_max_position_embeddings":0)", "config", "original");
  yarn("original 1", R"(,"original_max_position_embeddings":1)", "config", "original");
  yarn("attention_factor", R"(,"attention_factor":-1)", "config", "attention_factor");
  yarn("attention_factor null", R"(,"attention_factor":null)", "accepted");
  yarn("finetuned", R"(,"finetuned":true)", "accepted");
  yarn("truncate", R"(,"truncate":1)", "config", "truncate");
  const auto llama3 = [&](const std::string& id, const std::string& low, const std::string& high,
                          const std::string& length, const std::string& outcome) {
    rows.push_back(
        {"C17 " + id,
         {{"rope_scaling", R"({"rope_type":"llama3","factor":8,"low_freq_factor":)" + low +
                               R"(,"high_freq_factor":)" + high +
                               R"(,"original_max_position_embeddings":)" + length + "}"}},
         outcome});
  };
  llama3("ok", "1", "4", "32", "accepted");
  llama3("low = high", "4", "4", "32", "config");
  llama3("low 0", "0", "4", "32", "config");
  llama3("high 0", "1", "0", "32", "config");
  llama3("original 0", "1", "4", "0", "config");
  llama3("original = max", "1", "4", "64", "config");
  for (const Row& row : rows) {
    CAPTURE(row.id);
    const ErrorInfo e = config_error(row.changes);
    CAPTURE(to_text(e));
    const std::string outcome =
        e.found == "no error" ? "accepted" : std::string(error_class_name(e.kind));
    CHECK(outcome == row.outcome);
    if (outcome == "accepted") continue;
    CHECK(e.file == "config.json");
    CHECK(to_text(e).find(row.names) != std::string::npos);
  }
}

TEST_CASE("hub/hf_config: every prefix of the file is refused") {
  const std::string text = tiny_config({{"rope_scaling", R"({"type":"linear","factor":2})"}});
  const std::size_t last = text.find_last_of('}');
  for (std::size_t n = 0; n <= last; ++n) {
    REQUIRE(outcome_of([&] {
              parse_hf_config(parse_json(text.substr(0, n), "config.json").view());
            }) == "format");
  }
}

TEST_CASE("hub/hf_rope: old and new spelling give the same rope") {
  const std::string yarn = R"("factor":4,"beta_fast":16,"original_max_position_embeddings":32})";
  const std::string expected =
      "yarn:rope_theta=50000,factor=4,original_max_position_embeddings=32,attention_factor=null,"
      "beta_fast=16,beta_slow=1,mscale=null,mscale_all_dim=null,truncate=true";
  const Changes old_one{
      {"head_dim", "8"}, {"rope_theta", "50000"}, {"rope_scaling", R"({"type":"yarn",)" + yarn}};
  const Changes middle{{"head_dim", "8"},
                       {"rope_theta", "5e4"},
                       {"rope_scaling", R"({"rope_type":"yarn","type":"yarn",)" + yarn}};
  const Changes new_one{{"head_dim", "8"},
                        {"rope_theta", ""},
                        {"rope_parameters", R"({"rope_type":"yarn","rope_theta":50000.0,)" + yarn}};
  CHECK(rope_of(old_one) == expected);
  CHECK(rope_of(middle) == expected);
  CHECK(rope_of(new_one) == expected);
}

TEST_CASE("hub/hf_rope: where theta comes from, in order") {
  const std::string dict = R"({"rope_type":"default","rope_theta":20000})";
  const HfConfig both = parsed({{"rope_parameters", dict}});
  CHECK(to_text(both.rope) == "default:rope_theta=20000");
  CHECK(noted(both, "the former holds"));
  CHECK(rope_of({{"rope_theta", "30000"}}) == "default:rope_theta=30000");
  CHECK(rope_of({{"rope_theta", ""}, {"rotary_emb_base", "40000"}}) == "default:rope_theta=40000");
  const HfConfig none = parsed({{"rope_theta", ""}});
  CHECK(to_text(none.rope) == "default:rope_theta=10000");
  CHECK(noted(none, "rope_theta is not given"));
}

TEST_CASE("hub/hf_rope: where the original length comes from") {
  const auto length_of = [](const Changes& changes) {
    const HfConfig c = parsed(changes);
    std::string text = to_text(c.rope);
    text = text.substr(text.find("original_max_position_embeddings=") + 33);
    return text.substr(0, text.find(','));
  };
  const Changes head{{"head_dim", "8"}};
  const auto with = [&](Changes more) {
    more.push_back(head[0]);
    return more;
  };
  const std::string inner = R"({"type":"yarn","factor":2,"original_max_position_embeddings":32})";
  CHECK(length_of(with({{"rope_scaling", inner}})) == "32");
  CHECK(length_of(with({{"rope_scaling", inner}, {"original_max_position_embeddings", "16"}})) ==
        "16");
  CHECK(noted(parsed(with({{"rope_scaling", inner}, {"original_max_position_embeddings", "16"}})),
              "the latter holds"));
  const Changes implied = with({{"rope_scaling", R"({"type":"yarn","factor":2})"}});
  CHECK(length_of(implied) == "64");
  CHECK(noted(parsed(implied), "original_max_position_embeddings is not given"));
  CHECK(length_of(with({{"rope_scaling", R"({"type":"dynamic","factor":2})"}})) == "64");
}

TEST_CASE("hub/hf_rope: yarn's factor may be null, then it is the ratio of the lengths") {
  const HfConfig c = parsed(
      {{"head_dim", "8"},
       {"rope_scaling", R"({"type":"yarn","factor":null,"original_max_position_embeddings":16})"}});
  REQUIRE(c.rope.get_if<Yarn>() != nullptr);
  CHECK(c.rope.get_if<Yarn>()->factor == 4);
  CHECK(noted(c, "factor is null"));
  // An explicit factor wins over the ratio.
  const HfConfig d = parsed(
      {{"head_dim", "8"},
       {"rope_scaling", R"({"type":"yarn","factor":2,"original_max_position_embeddings":16})"}});
  CHECK(d.rope.get_if<Yarn>()->factor == 2);
}

TEST_CASE("hub/hf_rope: which channels rotate") {
  const Changes head{{"head_dim", "8"}};
  const auto part = [&](Changes more) {
    more.push_back(head[0]);
    return parsed(more).rope.modifiers();
  };
  const RopeModifiers half{.partial_rotary_factor = 0.5};
  CHECK(part({{"partial_rotary_factor", "0.5"}}) == half);
  CHECK(part({{"rotary_pct", "0.5"}}) == half);
  CHECK(part({{"rope_pct", "0.5"}}) == half);
  CHECK(part({{"rope_theta", ""},
              {"rope_parameters",
               R"({"rope_type":"yarn","factor":2,"rope_theta":1e4,"partial_rotary_factor":0.5,)"
               R"("original_max_position_embeddings":32})"}}) == half);
  CHECK(part({{"rotary_dim", "4"}}) == RopeModifiers{.rotary_dim = 4});
  CHECK(part({{"rotary_dim", "8"}}) == RopeModifiers{});
  CHECK(part({{"partial_rotary_factor", "1"}}) == RopeModifiers{});
  CHECK(rope_of({{"head_dim", "8"}, {"rotary_pct", "0.25"}}) ==
        "default:rope_theta=10000,partial_rotary_factor=0.25");
  // Of `proportional` the share is the method's own, wherever it stands.
  const std::string own = "proportional:rope_theta=10000,factor=1,partial_rotary_factor=0.5";
  CHECK(rope_of({{"head_dim", "8"},
                 {"rope_scaling", R"({"type":"proportional","partial_rotary_factor":0.5})"}}) ==
        own);
  CHECK(rope_of({{"head_dim", "8"},
                 {"rope_scaling", R"({"type":"proportional"})"},
                 {"partial_rotary_factor", "0.5"}}) == own);
  CHECK(noted(parsed({{"head_dim", "8"}, {"rope_scaling", R"({"type":"proportional"})"}}),
              "partial_rotary_factor is not given"));
}

TEST_CASE("hub/hf_rope: log-n scaling of Qwen-1") {
  CHECK(rope_of({{"use_logn_attn", "true"}, {"seq_length", "2048"}}) ==
        "default:rope_theta=10000,logn_length=2048");
  CHECK(rope_of({{"use_logn_attn", "true"}}) == "default:rope_theta=10000,logn_length=64");
  CHECK(rope_of({{"use_logn_attn", "false"}, {"seq_length", "2048"}}) ==
        "default:rope_theta=10000");
}

TEST_CASE("hub/hf_rope: longrope, its older name, and where its lengths and factor come from") {
  const std::string lists = R"("short_factor":[1,1.05,1.1,2],"long_factor":[1,2.5,5,10])";
  const auto rope = [&](const std::string& more, const Changes& outer = {}) {
    Changes changes = outer;
    changes.emplace_back("head_dim", "8");
    changes.emplace_back("rope_scaling", "{" + lists + more + "}");
    return parsed(changes).rope;
  };
  const LongRope expected{.rope_theta = 10000,
                          .short_factor = {1, 1.05, 1.1, 2},
                          .long_factor = {1, 2.5, 5, 10},
                          .factor = 4,
                          .original_max_position_embeddings = 16};
  const std::string length = R"(,"original_max_position_embeddings":16)";
  const Changes top{{"original_max_position_embeddings", "16"}};
  CHECK(rope(R"(,"rope_type":"longrope","factor":4)" + length) == AnyFrequency(expected));
  CHECK(rope(R"(,"type":"su","factor":4)" + length) == AnyFrequency(expected));
  CHECK(rope(R"(,"type":"longrope")" + length) == AnyFrequency(expected));  // 64 / 16
  CHECK(rope(R"(,"type":"longrope","factor":null)", top) == AnyFrequency(expected));
  CHECK(rope(R"(,"type":"su")", top) == AnyFrequency(expected));  // as Phi-3 writes it
  LongRope scaled = expected;
  scaled.short_mscale = 1;
  scaled.long_mscale = 1.25;
  CHECK(rope(R"(,"type":"longrope","short_mscale":1.0,"long_mscale":1.25)", top) ==
        AnyFrequency(scaled));
  LongRope given = expected;
  given.factor = 2;
  given.attention_factor_override = 1.5;
  CHECK(rope(R"(,"type":"longrope","factor":2,"attention_factor":1.5)", top) ==
        AnyFrequency(given));

  const auto error = [&](const std::string& dict, const Changes& outer = {}) {
    Changes changes = outer;
    changes.emplace_back("head_dim", "8");
    changes.emplace_back("rope_scaling", dict);
    const ErrorInfo e = config_error(changes);
    CHECK(e.file == "config.json");
    return std::string(error_class_name(e.kind)) + " " + to_text(e);
  };
  const auto says = [](const std::string& text, const std::string& part) {
    CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  };
  says(error(R"({"type":"su","short_factor":[1,1,1],"long_factor":[1,1,1],"factor":2})"),
       "4 numbers, one for each pair of the 8 rotated channels");
  says(error(R"({"type":"su","short_factor":[1,1,1,1],"long_factor":[1,1,1,"2"],"factor":2})"),
       "/rope_scaling/long_factor/3");
  says(error(R"({"type":"su","short_factor":[1,1,1,1],"long_factor":[1,1,1,0],"factor":2})"),
       "config");
  says(error(R"({"type":"su","short_factor":[1,1,1,1],"factor":2})"), "long_factor");
  says(error(R"({"type":"su","short_factor":[1,1,1,1],"long_factor":2})"), "long_factor");
  // Lists are as long as the rotated part: Phi-4-mini's rule.
  says(error("{" + lists + R"(,"type":"longrope"})", {{"partial_rotary_factor", "0.5"}}),
       "2 numbers, one for each pair of the 4 rotated channels");
  CHECK(
      parsed({{"head_dim", "8"},
              {"partial_rotary_factor", "0.5"},
              {"rope_scaling", R"({"type":"longrope","short_factor":[1,1],"long_factor":[1,2]})"}})
          .rope.get_if<LongRope>() != nullptr);
}

TEST_CASE("hub/hf_config: defaults taken and keys ignored are told") {
  const HfConfig c = parsed({{"rms_norm_eps", ""},
                             {"tie_word_embeddings", ""},
                             {"hidden_act", ""},
                             {"num_key_value_heads", ""},
                             {"auto_map", "{}"},
                             {"use_cache", "true"},
                             {"logit\\nscale", "2"}});
  CHECK(c.config.rms_norm_eps == 1e-6);
  CHECK(c.config.num_key_value_heads == 4);
  CHECK(noted(c, "rms_norm_eps"));
  CHECK(noted(c, "tie_word_embeddings"));
  CHECK(noted(c, "hidden_act"));
  CHECK(noted(c, "auto_map"));
  CHECK(noted(c, "\"logit\\x0ascale\""));
  CHECK(!noted(c, "use_cache"));
}

TEST_CASE("hub/hf_config: norm_head as boolean or number") {
  CHECK(parsed({{"norm_head", "true"}}).config.norm_head);
  CHECK(parsed({{"norm_head", "1"}}).config.norm_head);
  CHECK(!parsed({{"norm_head", "0"}}).config.norm_head);
}
