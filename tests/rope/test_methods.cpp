// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/rope.hpp"

#include "support/error_of.hpp"

// Numbers from the methods' sources: published implementations and independent float64
// evaluations of the papers' formulas, written to 15 digits. docs/methods.md names the source of
// each method.

namespace ropewalk {
namespace {

using Values = std::vector<std::pair<std::size_t, double>>;

std::vector<double> frequencies(const AnyFrequency& policy, RotaryShape shape) {
  return make_frequency_plan(policy, shape).inv_freq;
}

/// 1e-12 relative: the tables' 15 digits leave 5e-15, independent float64 formulas a few 1e-16.
void check_values(const AnyFrequency& policy, RotaryShape shape, const Values& values) {
  const std::vector<double> w = frequencies(policy, shape);
  for (const auto& expected : values) {
    const double got = w[expected.first], want = expected.second;
    CHECK_MESSAGE(std::fabs(got / want - 1) < 1e-12, to_text(policy), " [", expected.first, "] is ",
                  number_text(got), ", not ", number_text(want));
  }
}

/// |got / truth - 1| <= relative.
bool near(double got, double truth, double relative) {
  return std::fabs(got - truth) <= relative * std::fabs(truth);
}

constexpr RotaryShape d128 = {.rotary_dim = 128};
constexpr RotaryShape d64 = {.rotary_dim = 64};

}  // namespace

TEST_CASE("rope/adjusted_base: golden frequencies") {
  check_values(AdjustedBase{10000}, d128,
               {{0, 1},
                {1, 0.865964323360065},
                {16, 0.1},
                {32, 0.01},
                {48, 0.001},
                {63, 0.000115478198468946}});
  check_values(AdjustedBase{500000}, d128,
               {{0, 1},
                {1, 0.814617233856545},
                {16, 0.0376060309308639},
                {32, 0.0014142135623731},
                {48, 5.31829589694499e-05},
                {63, 2.45514079113161e-06}});
  check_values(AdjustedBase{320000}, d128,
               {{0, 1},
                {1, 0.820317603974594},
                {16, 0.0420448207626857},
                {32, 0.00176776695296637},
                {48, 7.43254446876701e-05},
                {63, 3.80950010685957e-06}});
  check_values(AdjustedBase{8000000}, d128,
               {{0, 1},
                {1, 0.780080135654624},
                {16, 0.018803015465432},
                {32, 0.000353553390593274},
                {48, 6.64786987118124e-06},
                {63, 1.60239947521677e-07}});
  check_values(AdjustedBase{128000000}, d128,
               {{0, 1},
                {1, 0.747007297110657},
                {16, 0.00940150773271598},
                {32, 8.83883476483184e-05},
                {48, 8.30983733897654e-07},
                {63, 1.0458398505902e-08}});
  // Slow-down of the last pair against base 10000, and its wavelength.
  const double last = frequencies(AdjustedBase{10000}, d128)[63];
  const auto slower = [&](double theta) {
    return last / frequencies(AdjustedBase{theta}, d128)[63];
  };
  CHECK(near(slower(320000), 30.313, 2e-5));
  CHECK(near(slower(500000), 47.035, 2e-5));
  CHECK(near(slower(1e6), 93.057, 2e-5));
  CHECK(near(slower(8e6), 720.658, 2e-6));
  CHECK(near(two_pi / last, 54410.14, 2e-7));
  CHECK(frequencies(AdjustedBase{10000}, {.rotary_dim = 2}) == std::vector<double>{1});
}

TEST_CASE("rope/linear: golden frequencies") {
  check_values(LinearInterpolation{.factor = 8}, d128,
               {{0, 0.125},
                {1, 0.108245540420008},
                {16, 0.0125},
                {32, 0.00125},
                {48, 0.000125},
                {63, 1.44347748086182e-05}});
}

TEST_CASE("rope/ntk_aware: golden frequencies") {
  const NtkAware ntk = {.factor = 8};
  check_values(ntk, d128,
               {{0, 1},
                {1, 0.837848001918802},
                {16, 0.0589717224448682},
                {32, 0.00347766404811457},
                {48, 0.000205083839001909},
                {63, 1.44347748086182e-05}});
  // The raised base itself.
  const auto raised = [](double theta, double s) { return theta * std::pow(s, 128.0 / 126.0); };
  CHECK(near(raised(10000, 8), 82684.6226405622, 1e-14));
  CHECK(near(raised(5e5, 8), 4134231.132028111, 1e-14));
  for (const double theta : {1e4, 5e5, 3.2e5}) {
    const std::vector<double> w = frequencies(NtkAware{theta, 8}, d128);
    const std::vector<double> abf = frequencies(AdjustedBase{raised(theta, 8)}, d128);
    const std::vector<double> plain = frequencies(AdjustedBase{theta}, d128);
    for (std::size_t i = 0; i < w.size(); ++i) {
      CHECK(near(w[i], abf[i], 1e-14));
    }
    CHECK(w[0] == 1);
    // The last pair is slowed by exactly the factor: 2 roundings of the three values involved.
    CHECK(near(plain[63] / w[63], 8, 5e-16));
  }
}

TEST_CASE("rope/dynamic_ntk: golden frequencies and lengths") {
  const auto dynamic = [](double theta, double factor, std::int64_t length) {
    return DynamicNtk{
        .rope_theta = theta, .factor = factor, .original_max_position_embeddings = length};
  };
  const auto at = [](std::int64_t T) { return RotaryShape{.rotary_dim = 128, .seq_len = T}; };
  check_values(
      dynamic(1e4, 8, 4096), at(8192),
      {{0, 1}, {16, 0.0572338150838124}, {32, 0.00327570958904803}, {63, 1.2830910940994e-05}});
  check_values(
      dynamic(1e4, 8, 4096), at(32768),
      {{0, 1}, {16, 0.0358148823380907}, {32, 0.00128270579689128}, {63, 2.02593330647273e-06}});
  check_values(
      dynamic(1e4, 2, 4096), at(8192),
      {{0, 1}, {16, 0.0756530337024315}, {32, 0.00572338150838124}, {63, 3.84927328229819e-05}});
  check_values(
      dynamic(1e6, 2, 32768), at(131072),
      {{0, 1}, {16, 0.0192917633725248}, {32, 0.000372172134021491}, {63, 1.77276822964531e-07}});
  check_values(
      dynamic(5e5, 2, 32768), at(262144),
      {{0, 1}, {16, 0.0189046070836191}, {32, 0.00035738416898602}, {63, 1.63676052742107e-07}});
  check_values(
      dynamic(3.2e5, 8, 4096), at(32768),
      {{0, 1}, {16, 0.015058303085417}, {32, 0.000226752491812279}, {63, 6.68333352080626e-08}});

  const DynamicNtk d = dynamic(1e4, 8, 4096);
  CHECK(d.scale(8192) == 9);
  CHECK(d.scale(16384) == 25);
  CHECK(d.scale(32768) == 57);
  CHECK(dynamic(1e4, 2, 4096).scale(32768) == 15);
  CHECK(near(1e4 * std::pow(d.scale(4097), 128.0 / 126.0), 10019.84158, 1e-9));
  // Up to the trained length it is plain RoPE, also where the formula would go below 1 or 0.
  const std::vector<double> plain = frequencies(AdjustedBase{}, d128);
  for (const std::int64_t T : {0, 1, 512, 3583, 4095, 4096}) {
    CHECK(d.scale(T) == 1);
    CHECK(d.length_key(T) == 4096);
    CHECK(frequencies(d, at(T)) == plain);
  }
  CHECK(d.length_key(4097) == 4097);
  CHECK(frequencies(d, at(4097)) != plain);
}

TEST_CASE("rope/by_parts: correction ranges and magnitudes") {
  const auto raw = [](double theta, std::int64_t length, index_t d) {
    return correction_range(32, 1, theta, length, d, false);
  };
  const auto rounded = [](double theta, std::int64_t length, index_t d) {
    const CorrectionRange r = correction_range(32, 1, theta, length, d, true);
    return std::pair(r.low, r.high);
  };
  const auto check_range_near = [](CorrectionRange r, double low, double high) {
    CHECK(std::fabs(r.low - low) < 6e-7);  // the sources print 6 decimals
    CHECK(std::fabs(r.high - high) < 6e-7);
  };
  check_range_near(raw(1e4, 4096, 128), 20.944482, 45.026881);
  check_range_near(raw(5e5, 8192, 128), 18.081135, 34.984119);
  check_range_near(raw(1e6, 32768, 128), 23.595948, 39.650881);
  check_range_near(raw(3.2e5, 4096, 128), 15.218101, 32.716189);
  check_range_near(raw(150000, 4096, 64), 8.092779, 17.398025);
  check_range_near(raw(1e4, 4096, 64), 10.472241, 22.513441);
  CHECK(rounded(1e4, 4096, 128) == std::pair(20.0, 46.0));
  CHECK(rounded(5e5, 8192, 128) == std::pair(18.0, 35.0));
  CHECK(rounded(1e6, 32768, 128) == std::pair(23.0, 40.0));
  CHECK(rounded(3.2e5, 4096, 128) == std::pair(15.0, 33.0));
  // Trained lengths of tiny models: the lower end clamps to 0.
  CHECK(rounded(1e4, 128, 32) == std::pair(0.0, 6.0));
  CHECK(rounded(1e4, 256, 32) == std::pair(0.0, 7.0));
  CHECK(rounded(1e4, 256, 64) == std::pair(0.0, 13.0));
  CHECK(rounded(1e4, 512, 64) == std::pair(3.0, 16.0));
  // The upper end clamps to d - 1 = 127, not to the last pair 63.
  CHECK(rounded(1e4, 131072, 128).second == 70);

  CHECK(near(yarn_magnitude(4), 1.138629436111989, 1e-15));
  CHECK(near(yarn_magnitude(8), 1.2079441541679836, 1e-15));
  CHECK(near(yarn_magnitude(16), 1.2772588722239782, 1e-15));
  CHECK(near(yarn_magnitude(32), 1.3465735902799727, 1e-15));
  CHECK(near(yarn_magnitude(40, 0.707), 1.2608037774058554, 1e-15));
  CHECK(yarn_magnitude(1) == 1);
  CHECK(yarn_magnitude(0.5) == 1);

  CHECK(blend(0.25, 0.75, 0) == 0.25);
  CHECK(blend(0.1, 0.7, 1) == 0.7);
  CHECK(blend(0.3, 0.3, 0.123) == 0.3);
  CHECK(index_weight(3, {4, 8}) == 1);
  CHECK(index_weight(6, {4, 8}) == 0.5);
  CHECK(index_weight(9, {4, 8}) == 0);
}

TEST_CASE("rope/yarn: golden frequencies") {
  const Yarn yarn = {.factor = 8, .original_max_position_embeddings = 4096};
  check_values(yarn, d128,
               {{0, 1},
                {20, 0.0562341325190349},
                {21, 0.0470579194992012},
                {32, 0.00596153846153846},
                {45, 0.000244315266153669},
                {63, 1.44347748086182e-05}});
  Yarn exact = yarn;
  exact.truncate = false;
  check_values(exact, d128,
               {{0, 1},
                {20, 0.0562341325190349},
                {21, 0.0485985223062841},
                {32, 0.00598313344131767},
                {45, 0.000193994851431497},
                {63, 1.44347748086182e-05}});
  check_values(Yarn{.rope_theta = 5e5, .factor = 8, .original_max_position_embeddings = 8192}, d128,
               {{0, 1},
                {18, 0.0249554086705587},
                {19, 0.019282754937832},
                {27, 0.00211607463381262},
                {34, 0.00016561303594542},
                {63, 3.06892598891451e-07}});
  check_values(Yarn{.rope_theta = 1e6, .factor = 4, .original_max_position_embeddings = 32768},
               d128,
               {{0, 1},
                {23, 0.00697830584859866},
                {24, 0.0053753214907901},
                {32, 0.000602941176470588},
                {39, 6.49039432083703e-05},
                {63, 3.1023444018793e-07}});
  check_values(Yarn{.rope_theta = 150000,
                    .factor = 32,
                    .original_max_position_embeddings = 4096,
                    .truncate = false},
               d64,
               {{0, 1},
                {8, 0.0508132748154615},
                {9, 0.0317056961846638},
                {12, 0.00679495948973222},
                {17, 0.000129318701245063},
                {31, 3.02351142811921e-07}});
  check_values(Yarn{.factor = 40, .original_max_position_embeddings = 4096}, d64,
               {{0, 1},
                {10, 0.0562341325190349},
                {11, 0.0390069265671439},
                {16, 0.0055},
                {22, 0.000177827941003892},
                {31, 3.33380358040831e-06}});
  // A long trained length, where clamping to the last pair instead of d - 1 would show.
  check_values(Yarn{.factor = 8, .original_max_position_embeddings = 131072}, d128,
               {{63, 4.272693343350996e-05}});
}

TEST_CASE("rope/yarn: where the attention factor comes from") {
  Yarn yarn = {.factor = 8, .original_max_position_embeddings = 4096};
  const auto factor = [&] { return yarn.attention_factor(d128); };
  CHECK(near(factor(), 1.2079441541679836, 1e-15));
  yarn.mscale = 0.707;  // alone it says nothing, as in transformers
  CHECK(near(factor(), 1.2079441541679836, 1e-15));
  yarn.mscale_all_dim = 0;
  CHECK(near(factor(), 1.2079441541679836, 1e-15));
  yarn.mscale_all_dim = 0.707;
  CHECK(factor() == 1);
  yarn.mscale_all_dim = 1;
  CHECK(near(factor(), (0.1 * 0.707 * std::log(8.0) + 1) / 1.2079441541679836, 1e-15));
  yarn.attention_factor_override = 1.5;
  CHECK(factor() == 1.5);
}

TEST_CASE("rope/yarn_paper: golden frequencies") {
  const YarnPaper paper = {.factor = 8, .original_max_position_embeddings = 4096};
  check_values(paper, d128,
               {{0, 1},
                {20, 0.0562341325190349},
                {21, 0.0483467307684543},
                {22, 0.0368019241805844},
                {32, 0.00280777843884307},
                {45, 0.000192659289498413},
                {63, 1.44347748086182e-05}});
  CHECK(near(paper.attention_factor(d128), 1.2079441541679836, 1e-15));
}

TEST_CASE("rope/llama3: golden frequencies") {
  const Llama3 eight = {.factor = 8, .original_max_position_embeddings = 8192};
  check_values(eight, d128,
               {{0, 1},
                {28, 0.00321144599475259},
                {29, 0.00216657076350336},
                {32, 0.000524846160992955},
                {34, 0.000178507812767996},
                {35, 9.55621235396468e-05},
                {63, 3.06892598891451e-07}});
  Llama3 more = eight;
  more.factor = 32;
  check_values(more, d128,
               {{0, 1},
                {28, 0.00321144599475259},
                {29, 0.00211840699677961},
                {32, 0.000429556796559368},
                {34, 9.70828780262767e-05},
                {35, 2.38905308849117e-05},
                {63, 7.67231497228628e-08}});
  // The divisors that GGUF files store as rope_freqs; pairs 0-28 untouched, from 35 divided.
  const std::vector<double> w = frequencies(eight, d128);
  const std::vector<double> plain = frequencies(AdjustedBase{5e5}, d128);
  const double divisors[] = {1,          1.20748387, 1.55341463, 2.02631321,
                             2.69452969, 3.68425253, 5.25732659, 8};
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const double divisor = i < 28 ? 1 : i > 35 ? 8 : divisors[i - 28];
    CHECK(near(plain[i] / w[i], divisor, 5e-9));  // 9 digits stored
    if (i <= 28) CHECK(w[i] == plain[i]);
    if (i >= 35) CHECK(w[i] == plain[i] / 8);
  }
}

TEST_CASE("rope/llama3: is the paper's by-parts method with its own bounds") {
  const Llama3 llama = {.rope_theta = 1e4,
                        .factor = 6,
                        .low_freq_factor = 1.5,
                        .high_freq_factor = 7,
                        .original_max_position_embeddings = 2048};
  const YarnPaper paper = {.rope_theta = 1e4,
                           .factor = 6,
                           .original_max_position_embeddings = 2048,
                           .attention_factor_override = 1,
                           .beta_fast = 7,
                           .beta_slow = 1.5};
  CHECK(make_frequency_plan(llama, d128).rope_hash == make_frequency_plan(paper, d128).rope_hash);
}

TEST_CASE("rope/ntk_by_parts: golden frequencies") {
  const NtkByParts parts = {.factor = 8, .original_max_position_embeddings = 4096};
  CHECK(parts.linear_range(d128).low == 43);
  CHECK(parts.linear_range(d128).high == 48);
  CHECK(parts.plain_range(d128).low == 25);
  CHECK(parts.plain_range(d128).high == 41);
  check_values(parts, d128,
               {{0, 1},
                {16, 0.1},
                {32, 0.00714647802105013},
                {40, 0.000989379111851824},
                {45, 0.000286208510684943},
                {63, 1.44347748086182e-05}});
}

TEST_CASE("rope/methods: fields that do not fit together are refused by name") {
  const auto field_of = [](const AnyFrequency& policy, RotaryShape shape) {
    const ErrorInfo error = error_of([&] { policy.check(shape); });
    CHECK(error.kind == ErrorClass::config);
    CHECK_FALSE(error.expected.empty());
    return error.field;
  };
  const Yarn yarn = {.factor = 4, .original_max_position_embeddings = 4096};
  Yarn broken = yarn;
  broken.beta_fast = 1;
  CHECK(field_of(broken, d128) == "beta_fast");
  broken = yarn;
  broken.original_max_position_embeddings = 6;  // below 2 pi: the ramp would invert
  CHECK(field_of(broken, {}) == "original_max_position_embeddings");
  broken.original_max_position_embeddings = 7;
  CHECK_NOTHROW(broken.check(d128));
  broken = yarn;
  broken.original_max_position_embeddings = 0;
  CHECK(field_of(broken, {}) == "original_max_position_embeddings");
  broken = yarn;
  broken.rope_theta = 1.05;  // all pairs turn often: ramp beyond the head
  CHECK_NOTHROW(broken.check({}));
  CHECK(field_of(broken, d128) == "rope_theta");
  CHECK(field_of(Llama3{.factor = 8,
                        .low_freq_factor = 4,
                        .high_freq_factor = 4,
                        .original_max_position_embeddings = 8192},
                 d128) == "high_freq_factor");
  CHECK(field_of(YarnPaper{.factor = 8,
                           .original_max_position_embeddings = 4096,
                           .beta_fast = 1,
                           .beta_slow = 2},
                 d128) == "beta_fast");
  CHECK(
      field_of(NtkByParts{.factor = 8, .original_max_position_embeddings = 4096, .ntk_factor = 1.5},
               d128) == "ntk_factor");
  CHECK(field_of(NtkByParts{.factor = 8, .original_max_position_embeddings = 12}, d128) ==
        "original_max_position_embeddings");
  // d / (d - 2)
  constexpr RotaryShape d2 = {.rotary_dim = 2};
  CHECK(field_of(NtkAware{.factor = 2}, d2) == "rotary_dim");
  CHECK(field_of(DynamicNtk{.factor = 2, .original_max_position_embeddings = 8}, d2) ==
        "rotary_dim");
  CHECK_NOTHROW(LinearInterpolation{.factor = 2}.check(d2));
}

}  // namespace ropewalk
