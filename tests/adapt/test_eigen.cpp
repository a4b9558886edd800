// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/adapt/eigen.hpp"
#include "ropewalk/attention/attention.hpp"
#include "ropewalk/attention/masks.hpp"
#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/position_map.hpp"
#include "ropewalk/rope/rotate.hpp"

#include "support/error_of.hpp"
#include "support/random.hpp"

namespace {
std::atomic<long> allocations{0};
}  // namespace

// Counts every `new` of this executable. Out of line, where g++ does not take malloc and delete for
// a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

using namespace ropewalk;

namespace {

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Columns = Eigen::MatrixXf;  // Eigen's default: column-major
using AnyStride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;

template <class M>
concept Viewable = requires(M&& m) {
  view(std::forward<M>(m));
};
template <class M>
concept HeadsViewable = requires(M&& m) {
  heads_view(std::forward<M>(m), 2);
};

// M& is an lvalue, M a temporary.
static_assert(HeadsViewable<Rows&> && HeadsViewable<const Rows&>);
static_assert(HeadsViewable<Eigen::Map<Rows>> && HeadsViewable<const Eigen::Map<const Rows>&>);
static_assert(HeadsViewable<Eigen::Ref<Rows>> && HeadsViewable<const Eigen::Ref<const Rows>&>);
static_assert(HeadsViewable<Eigen::Block<Rows>> && HeadsViewable<Eigen::Block<const Rows>>);
static_assert(HeadsViewable<Eigen::Transpose<Columns>>, "(channels, tokens) as Eigen keeps it");
static_assert(HeadsViewable<Eigen::Map<Rows, 0, AnyStride>>, "checked at run time");

static_assert(!HeadsViewable<Rows> && !Viewable<Rows>, "a temporary matrix");
static_assert(!HeadsViewable<Eigen::Ref<const Rows>>, "a temporary that may own a copy");
static_assert(!HeadsViewable<Columns&>, "column-major");
static_assert(!HeadsViewable<Eigen::Block<Columns>> && !HeadsViewable<Eigen::Transpose<Rows>>);
static_assert(!HeadsViewable<Eigen::Map<Rows, 0, Eigen::InnerStride<2>>>, "known not to be 1");
static_assert(!Viewable<decltype(std::declval<Rows&>() + std::declval<Rows&>())>, "no memory");
static_assert(!Viewable<decltype(2 * std::declval<Rows&>())>);
static_assert(!Viewable<int&> && !Viewable<std::vector<float>&>);
static_assert(Viewable<Columns&> && Viewable<Eigen::ArrayXXf&> && Viewable<Eigen::VectorXf&>);

// Constant where the matrix is.
template <class M>
using HeadsOf = decltype(heads_view(std::declval<M>(), 1));
static_assert(std::is_same_v<HeadsOf<Rows&>, HeadsView<float>>);
static_assert(std::is_same_v<HeadsOf<const Rows&>, HeadsView<const float>>);
static_assert(std::is_same_v<HeadsOf<Eigen::Map<Rows>>, HeadsView<float>>);
static_assert(std::is_same_v<HeadsOf<Eigen::Map<const Rows>>, HeadsView<const float>>);
static_assert(std::is_same_v<HeadsOf<Eigen::Block<const Rows>>, HeadsView<const float>>);
static_assert(std::is_same_v<HeadsOf<Eigen::Ref<Rows>&>, HeadsView<float>>);
static_assert(std::is_same_v<HeadsOf<const Eigen::Ref<const Rows>&>, HeadsView<const float>>);
static_assert(std::is_same_v<decltype(view(std::declval<const Eigen::MatrixXd&>())),
                             TensorView<const double, 2>>);
static_assert(!std::is_convertible_v<HeadsView<const float>, HeadsView<float>>);

constexpr index_t tokens = 70, heads = 4, key_heads = 2, head_dim = 12;
constexpr index_t query_size = heads * head_dim, key_size = key_heads * head_dim;

Rows random_rows(index_t rows, index_t columns, std::uint32_t stream) {
  const std::vector<float> values = normal_floats(rows * columns, stream);
  return Eigen::Map<const Rows>(values.data(), rows, columns);
}

RotaryRows rotary_rows() {
  return make_rotary_rows(make_frequency_plan(AdjustedBase{}, {.rotary_dim = head_dim}),
                          batch_positions(Identity{1000}, tokens));
}

/// Rotated q and k, output and lse on plain tensors: what every Eigen path has to equal.
struct Plain {
  Rows q, k, output, lse;
};
Plain plain_attention(const Rows& q, const Rows& k, const Rows& v) {
  Plain p{q, k, Rows::Zero(tokens, query_size), Rows::Zero(heads, tokens)};
  std::vector<float> values(v.data(), v.data() + v.size());
  const RotaryRows rows = rotary_rows();
  const HeadsView<float> q_heads(p.q.data(), {tokens, heads, head_dim});
  const HeadsView<float> k_heads(p.k.data(), {tokens, key_heads, head_dim});
  rotate(q_heads, rows, PairLayout::half_split);
  rotate(k_heads, rows, PairLayout::half_split);
  attention(q_heads, k_heads, HeadsView<const float>(values.data(), {tokens, key_heads, head_dim}),
            Causal{}, HeadsView<float>(p.output.data(), {tokens, heads, head_dim}),
            TensorView<float, 2>(p.lse.data(), {heads, tokens}));
  return p;
}

template <class A, class B>
bool same_bits(const A& a, const B& b) {
  const Rows x = a, y = b;
  return x.rows() == y.rows() && x.cols() == y.cols() &&
         std::memcmp(x.data(), y.data(), sizeof(float) * static_cast<std::size_t>(x.size())) == 0;
}

}  // namespace

TEST_CASE("adapt/eigen: rotation and attention in the user's matrices, bits of the plain path") {
  const Rows q0 = random_rows(tokens, query_size, 1), k0 = random_rows(tokens, key_size, 2);
  const Rows v = random_rows(tokens, key_size, 3);
  const Plain plain = plain_attention(q0, k0, v);
  REQUIRE(!same_bits(plain.q, q0));
  const RotaryRows rows = rotary_rows();

  SUBCASE("a map over memory of the user's, and matrices") {
    std::vector<float> memory(q0.data(), q0.data() + q0.size());
    Eigen::Map<Rows> q(memory.data(), tokens, query_size);
    Rows k = k0, output(tokens, query_size), lse(heads, tokens);
    rotate(heads_view(q, heads), rows, PairLayout::half_split);
    rotate(heads_view(k, key_heads), rows, PairLayout::half_split);
    attention(heads_view(q, heads), heads_view(k, key_heads), heads_view(v, key_heads), Causal{},
              heads_view(output, heads), view(lse));
    CHECK(same_bits(Eigen::Map<Rows>(memory.data(), tokens, query_size), plain.q));
    CHECK(same_bits(k, plain.k));
    CHECK(same_bits(output, plain.output));
    CHECK(same_bits(lse, plain.lse));
  }
  SUBCASE("blocks of one fused matrix, its other elements untouched") {
    const float border = 7;
    Rows fused = Rows::Constant(tokens + 2, query_size + 2 * key_size + 3, border);
    fused.block(1, 1, tokens, query_size) = q0;
    fused.block(1, 1 + query_size, tokens, key_size) = k0;
    fused.block(1, 1 + query_size + key_size, tokens, key_size) = v;
    Rows output(tokens, query_size);
    auto q = fused.block(1, 1, tokens, query_size);
    auto k = fused.block(1, 1 + query_size, tokens, key_size);
    rotate(heads_view(q, heads), rows, PairLayout::half_split);
    rotate(heads_view(k, key_heads), rows, PairLayout::half_split);
    CHECK(same_bits(q, plain.q));
    CHECK(same_bits(k, plain.k));
    attention(heads_view(q, heads), heads_view(k, key_heads),
              heads_view(fused.block(1, 1 + query_size + key_size, tokens, key_size), key_heads),
              Causal{}, heads_view(output, heads));
    CHECK(same_bits(output, plain.output));
    CHECK((fused.row(0).array() == border).all());
    CHECK((fused.row(tokens + 1).array() == border).all());
    CHECK((fused.col(0).array() == border).all());
    CHECK((fused.rightCols(2).array() == border).all());
  }
  SUBCASE("column-major matrices (channels, tokens), transposed; lse of any strides") {
    Columns q = q0.transpose(), k = k0.transpose(), output(query_size, tokens);
    const Columns values = v.transpose();
    Columns lse(heads, tokens);
    rotate(heads_view(q.transpose(), heads), rows, PairLayout::half_split);
    rotate(heads_view(k.transpose(), key_heads), rows, PairLayout::half_split);
    attention(heads_view(q.transpose(), heads), heads_view(k.transpose(), key_heads),
              heads_view(values.transpose(), key_heads), Causal{},
              heads_view(output.transpose(), heads), view(lse));
    CHECK(same_bits(q.transpose(), plain.q));
    CHECK(same_bits(output.transpose(), plain.output));
    CHECK(same_bits(lse, plain.lse));
  }
  SUBCASE("a function of Eigen::Ref, as people write them") {
    const auto turn = [&](Eigen::Ref<Rows> m, index_t count) {
      rotate(heads_view(m, count), rows, PairLayout::half_split);
    };
    Rows wide = Rows::Zero(tokens, query_size + 5);
    wide.leftCols(query_size) = q0;
    turn(wide.leftCols(query_size), heads);
    CHECK(same_bits(wide.leftCols(query_size), plain.q));
  }
  SUBCASE("maps with outer strides, and dynamic inner strides of 1") {
    std::vector<float> memory(static_cast<std::size_t>(tokens * 2 * query_size));
    Eigen::Map<Rows, 0, AnyStride> q(memory.data(), tokens, query_size, {2 * query_size, 1});
    q = q0;
    rotate(heads_view(q, heads), rows, PairLayout::half_split);
    CHECK(same_bits(q, plain.q));
  }
}

TEST_CASE("adapt/eigen: a view is the matrix itself, and nothing is allocated") {
  Rows m = random_rows(6, 8, 4);
  const Rows& constant = m;
  Columns columns = m;
  const Rows before = m;
  const long allocated = allocations;
  const HeadsView<float> x = heads_view(m, 2);
  const HeadsView<const float> y = heads_view(constant, 4);
  const TensorView<float, 2> z = view(columns);
  const HeadsView<float> part = heads_view(m.block(1, 4, 3, 4), 2);
  auto back = eigen_rows(x);
  auto second_head = eigen_map(x, 1);
  auto same = eigen_map(z);
  CHECK(allocations == allocated);

  CHECK(x.data() == m.data());
  CHECK(x.extents() == std::array<index_t, 3>{6, 2, 4});
  CHECK(x.strides() == std::array<index_t, 3>{8, 4, 1});
  CHECK(&x(3, 1, 2) == &m(3, 6));
  CHECK(y.data() == m.data());
  CHECK(&y(5, 3, 1) == &m(5, 7));
  CHECK(&z(4, 3) == &columns(4, 3));
  CHECK(z.strides() == std::array<index_t, 2>{1, 6});
  CHECK(&part(2, 1, 1) == &m(3, 7));
  CHECK(&back(3, 6) == &m(3, 6));
  CHECK(&second_head(3, 2) == &m(3, 6));
  CHECK(&same(4, 3) == &columns(4, 3));
  CHECK(same_bits(m, before));

  x(3, 1, 2) = 5;
  second_head(0, 0) = 6;
  CHECK(m(3, 6) == 5);
  CHECK(m(0, 4) == 6);

  ++allocations;  // the counter itself works: a std::vector moves it
  const long with_vector = allocations;
  const std::vector<float> some(100);
  CHECK(allocations > with_vector);
}

TEST_CASE("adapt/eigen: vectors and empty matrices") {
  Eigen::VectorXf column = Eigen::VectorXf::LinSpaced(5, 0, 4);
  CHECK(view(column).extents() == std::array<index_t, 2>{5, 1});
  CHECK(&view(column)(3, 0) == &column(3));
  Eigen::RowVectorXf row = column.transpose();  // one token
  CHECK(&heads_view(row, 1)(0, 0, 3) == &row(3));
  Rows m = random_rows(4, 6, 5);
  CHECK(&view(m.col(2))(3, 0) == &m(3, 2));
  CHECK(&heads_view(m.row(2), 3)(0, 2, 1) == &m(2, 5));
  CHECK(view(Eigen::Map<Rows>(nullptr, 0, 0)).empty());
  Rows none(0, 6);
  CHECK(heads_view(none, 3).extents() == std::array<index_t, 3>{0, 3, 2});
}

TEST_CASE("adapt/eigen: tensors as matrices, through every stride") {
  Tensor<float, 3> x({5, 3, 4});
  const std::vector<float> values = normal_floats(x.size(), 6);
  std::copy(values.begin(), values.end(), x.data());
  const Tensor<float, 3>& constant = x;
  static_assert(std::is_same_v<decltype(eigen_rows(x.view()))::PointerType, float*>);
  static_assert(std::is_same_v<decltype(eigen_rows(constant.view()))::PointerType, const float*>);

  CHECK(eigen_rows(x.view()).rows() == 5);
  CHECK(eigen_rows(x.view()).cols() == 12);
  for (index_t t = 0; t < 5; ++t) {
    for (index_t h = 0; h < 3; ++h) {
      for (index_t c = 0; c < 4; ++c) {
        const float expected = constant.view()(t, h, c);
        CHECK(eigen_rows(constant.view())(t, h * 4 + c) == expected);
        CHECK(eigen_map(constant.view(), h)(t, c) == expected);
        CHECK(eigen_map(constant.view()[t])(h, c) == expected);
        CHECK(eigen_rows(constant.view()[t])(h, c) == expected);
      }
    }
  }
  // What Eigen computes with a map is what it computes with a copy.
  const Rows copy = eigen_rows(x.view());
  CHECK((eigen_rows(x.view()) * copy.transpose() - copy * copy.transpose()).norm() == 0);
  eigen_map(x.view(), 2).setConstant(3);
  CHECK(x.view()(4, 2, 1) == 3);
  CHECK(x.view()(4, 1, 3) == copy(4, 7));

  // heads_view undoes eigen_rows.
  auto map = eigen_rows(x.view());
  CHECK(heads_view(map, 3).strides() == x.view().strides());

  // Strides that a contiguous row cannot have.
  const TensorView<float, 2> transposed(x.data(), {4, 5}, {1, 12});
  CHECK(eigen_map(transposed)(3, 2) == copy(2, 3));
  CHECK(outcome_of([&] { eigen_rows(transposed); }) == "usage");
  const HeadsView<float> other_order(x.data(), {5, 3, 4}, {4, 20, 1});
  CHECK(outcome_of([&] { eigen_rows(other_order); }) == "usage");
  CHECK(eigen_map(other_order, 1)(2, 3) == x.data()[2 * 4 + 20 + 3]);
  CHECK(outcome_of([&] { eigen_map(x.view(), 3); }) == "usage");
  CHECK(outcome_of([&] { eigen_map(x.view(), -1); }) == "usage");
}

TEST_CASE("adapt/eigen: what a view cannot express is refused, with the way out") {
  Rows m(4, 12);
  for (const index_t count : {index_t{0}, index_t{-1}, index_t{5}, index_t{24}}) {
    CAPTURE(count);
    const ErrorInfo error = error_of([&] { heads_view(m, count); });
    CHECK(error.kind == ErrorClass::usage);
    CHECK(error.field == "num_heads");
    CHECK(error.found == std::to_string(count));
    CHECK(error.expected.find("12 columns") != std::string::npos);
  }
  const Eigen::Map<Rows, 0, AnyStride> spread(m.data(), 2, 6, {24, 2});
  const ErrorInfo error = error_of([&] { heads_view(spread, 3); });
  CHECK(error.kind == ErrorClass::usage);
  CHECK(error.field == "inner stride of the matrix");
  CHECK(error.found == "2");
  CHECK(error.fix == "Copy the map into a row-major matrix, and view that");
  // One column has no neighbours, so any inner stride will do.
  const Eigen::Map<Rows, 0, AnyStride> narrow(m.data(), 4, 1, {12, 2});
  CHECK(&heads_view(narrow, 1)(3, 0, 0) == &m(3, 0));
}
