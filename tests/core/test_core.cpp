// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "ropewalk/core/checked.hpp"
#include "ropewalk/core/hash.hpp"
#include "ropewalk/core/rng.hpp"
#include "ropewalk/core/tensor.hpp"
#include "ropewalk/core/thread_pool.hpp"

using namespace ropewalk;

TEST_CASE("core/error: the message names everything that is known, in one line") {
  const Error e({.kind = ErrorClass::config,
                 .file = "config.json",
                 .where = "/rope_theta",
                 .field = "rope_theta",
                 .found = "0.5",
                 .expected = "a number above 1",
                 .fix = "Set it to the base of training."});
  CHECK(std::string(e.what()) ==
        "config.json: /rope_theta: rope_theta: found 0.5, expected a number above 1. Set it to the "
        "base of training.");
  CHECK(exit_code(e.kind()) == 3);
  CHECK(escaped("a\n\"\x1b[31m\xff") == "\"a\\x0a\\\"\\x1b[31m\\xff\"");
  CHECK(escaped(std::string(500, 'x')).size() < 130);
}

TEST_CASE("core/checked: overflow is an error that names the quantity") {
  CHECK(checked_mul<index_t>(1 << 20, 1 << 20, "x") == index_t{1} << 40);
  CHECK_THROWS_WITH_AS(checked_mul<std::uint64_t>(1ull << 32, 1ull << 32, "tensor a"),
                       doctest::Contains("tensor a"), Error);
  CHECK_THROWS_AS(checked_add<std::uint64_t>(~0ull, 1ull, "x"), Error);
  CHECK_THROWS_AS(checked_cast<std::int32_t>(std::int64_t{1} << 31, "x"), Error);
  CHECK_THROWS_AS(checked_cast<std::uint32_t>(-1, "x"), Error);
}

TEST_CASE("core/tensor: views, slices, alignment and zero initialisation") {
  Tensor<float, 3> t({4, 3, 2});
  for (const float x : std::span(t.data(), 24)) REQUIRE(x == 0.0f);
  CHECK(reinterpret_cast<std::uintptr_t>(t.data()) % storage_alignment == 0);
  t.view()(2, 1, 1) = 5;
  CHECK(t.view()[2](1, 1) == 5);
  CHECK(t.view().slice({2, 4})(0, 1, 1) == 5);
  CHECK(t.data()[2 * 6 + 1 * 2 + 1] == 5);
  const TensorView<const float, 3> constant = t.view();
  CHECK(constant(2, 1, 1) == 5);
  CHECK_THROWS_AS((Tensor<float, 2>({-1, 2})), Error);
}

TEST_CASE(
    "core/tensor: large buffers start with a huge page, are zero, move and free as small ones") {
  for (const std::size_t bytes : {huge_page - 1, huge_page, huge_page + 1, 5 * huge_page - 7}) {
    errno = EDOM;
    Buffer<char> buffer(static_cast<index_t>(bytes));
    CHECK(errno == EDOM);
    const auto address = reinterpret_cast<std::uintptr_t>(buffer.data());
    CHECK(address % (bytes < huge_page ? storage_alignment : huge_page) == 0);
    CHECK(buffer.size() == static_cast<index_t>(bytes));
    CHECK(std::count(buffer.data(), buffer.data() + bytes, 0) ==
          static_cast<std::ptrdiff_t>(bytes));
    buffer[0] = buffer[buffer.size() - 1] = 3;
    Buffer<char> moved = std::move(buffer);
    CHECK(reinterpret_cast<std::uintptr_t>(moved.data()) == address);
    moved = Buffer<char>(10);  // frees the large one
    CHECK(moved[9] == 0);
  }
}

TEST_CASE("core/tensor: a workspace allocates in its first pass only") {
  Workspace workspace;
  const auto pass = [&workspace] {
    workspace.reset();
    float* a = workspace.take<float>(1000).data();
    double* b = workspace.take<double>(10).data();
    CHECK(reinterpret_cast<std::uintptr_t>(b) % storage_alignment == 0);
    a[999] = 1;
    b[9] = 2;
    CHECK(a[999] == 1);
    return a;
  };
  pass();
  const float* second = pass();
  const float* third = pass();
  CHECK(second == third);
  CHECK(workspace.peak_bytes() == 4032 + 128);
}

TEST_CASE("core/executor: every task runs once, on any number of threads") {
  for (const index_t threads : {1, 2, 3, 7, 70}) {  // more than 64 share runs
    ThreadPool pool(threads);
    for (const index_t tasks : {0, 1, 2, 5, 100}) {
      std::vector<std::atomic<int>> dealt(static_cast<std::size_t>(tasks)), runs(dealt.size());
      for_each_dealt(pool.executor(), tasks, [&](index_t t, index_t worker) {
        CHECK(worker < threads);
        ++dealt[static_cast<std::size_t>(t)];
      });
      for_each_in_runs(pool.executor(), tasks,
                       [&](index_t t, index_t) { ++runs[static_cast<std::size_t>(t)]; });
      for (const auto& n : dealt) REQUIRE(n == 1);
      for (const auto& n : runs) REQUIRE(n == 1);
    }
  }
  CHECK_THROWS_AS(ThreadPool(0), Error);
}

TEST_CASE("core/executor: workers that are done take over tasks of one that is held up") {
  ThreadPool pool(3);
  for (const bool dealt : {false, true}) {
    constexpr index_t tasks = 30;
    std::atomic<index_t> done = 0;
    std::atomic<bool> first = true;
    bool alone = false;  // of whoever comes first
    // It waits until all other tasks are done, also those of its own run; or a minute.
    const auto task = [&](index_t, index_t) {
      if (first.exchange(false)) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
        while (done < tasks - 1 && std::chrono::steady_clock::now() < end) {
          std::this_thread::yield();
        }
        alone = done < tasks - 1;
      }
      ++done;
    };
    if (dealt) {
      for_each_dealt(pool.executor(), tasks, task);
    } else {
      for_each_in_runs(pool.executor(), tasks, task);
    }
    CHECK(done == tasks);
    CHECK(!alone);
  }
}

TEST_CASE("core/executor: workers of which one follows the other keep to their own tasks") {
  const auto one_by_one = [](void*, WorkerTask task) {
    for (index_t w = 0; w < 100; ++w) task(w, 100);
  };
  const Executor executor(nullptr, 100, one_by_one, false);
  for (const index_t tasks : {5, 100, 1000}) {
    std::vector<index_t> dealt(static_cast<std::size_t>(tasks), -1), runs(dealt);
    for_each_dealt(executor, tasks,
                   [&](index_t t, index_t w) { dealt[static_cast<std::size_t>(t)] = w; });
    for_each_in_runs(executor, tasks,
                     [&](index_t t, index_t w) { runs[static_cast<std::size_t>(t)] = w; });
    for (index_t t = 0; t < tasks; ++t) {
      CHECK(dealt[static_cast<std::size_t>(t)] == t % 100);
      const index_t w = runs[static_cast<std::size_t>(t)];
      CHECK((tasks * w / 100 <= t && t < tasks * (w + 1) / 100));
    }
  }
}

TEST_CASE("core/thread_pool: regions and pauses of all lengths lose no task and no wake-up") {
  // Pauses around the time after which threads sleep; more threads than processors; what a region
  // wrote is seen by the next one without further ado.
  for (const index_t threads : {2, 3, 5}) {
    ThreadPool pool(threads);
    const Executor executor = pool.executor();
    std::vector<std::int64_t> sums(static_cast<std::size_t>(threads * 16), 0);
    std::int64_t expected = 0;
    for (std::int64_t region = 1; region <= 2000; ++region) {
      executor.run([&](index_t worker, index_t workers) {
        const auto next = static_cast<std::size_t>((worker + region) % workers * 16);
        sums[next] += region;
        if (region % 97 == worker) std::this_thread::sleep_for(std::chrono::microseconds(60));
      });
      expected += region;
      if (region % 50 == 0) {
        std::this_thread::sleep_for(std::chrono::microseconds(region % 7 * 20));
      }
    }
    for (index_t w = 0; w < threads; ++w) {
      REQUIRE(sums[static_cast<std::size_t>(w * 16)] == expected);
    }
  }
  for (int i = 0; i < 50; ++i) {
    ThreadPool unused(3);  // stops in whatever state its workers are
  }
}

TEST_CASE("core/rng: Philox4x32-10 gives the published vectors") {
  // Random123 distribution, kat_vectors: philox4x32 10 rounds.
  CHECK(philox({0, 0, 0, 0}, {0, 0}) ==
        std::array<std::uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  CHECK(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        std::array<std::uint32_t, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  CHECK(philox({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}) ==
        std::array<std::uint32_t, 4>{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("core/rng: normal numbers have mean 0, variance 1 and a fourth moment of 3") {
  const Random random{.seed = 3, .stream = 1, .step = 2};
  constexpr int n = 200000;
  double m1 = 0, m2 = 0, m4 = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    const double x = random.normal(i);
    m1 += x, m2 += x * x, m4 += x * x * x * x;
  }
  CHECK(std::fabs(m1 / n) < 4 / std::sqrt(n));            // four standard errors each:
  CHECK(std::fabs(m2 / n - 1) < 4 * std::sqrt(2.0 / n));  // var x^2 = 2, var x^4 = 96
  CHECK(std::fabs(m4 / n - 3) < 4 * std::sqrt(96.0 / n));
}

TEST_CASE("core/hash: pieces do not matter, lengths and values do") {
  const std::string text = "the quick brown fox jumps over the lazy dog, twice";
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  CHECK(Hasher().bytes(bytes.first(7)).bytes(bytes.subspan(7)).digest() == content_hash(bytes));
  CHECK(Hasher().text("ab").text("c").digest() != Hasher().text("a").text("bc").digest());
  CHECK(Hasher().value(0.0).digest() != Hasher().value(-0.0).digest());
  CHECK(hash_text(content_hash({})) == "ef46db3751d8e999");  // XXH64 of nothing, seed 0
}
