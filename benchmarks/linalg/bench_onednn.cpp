// SPDX-License-Identifier: Apache-2.0
/// \file
/// C = A W^T by oneDNN, weights reordered once into the layout that it prefers. Built where oneDNN
/// is installed with OpenMP as its threads.

#include <dnnl.hpp>
#include <omp.h>

#include "linalg/product.hpp"

namespace bench {
namespace {

template <class T>
struct OneDnnProduct {
  Operands<T> x;
  Threads threads;  // how many are measured; oneDNN has its own
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::matmul product;
  dnnl::memory a, w, c;

  OneDnnProduct(ProductShape s, index_t thread_count) : x(s), threads(thread_count) {
    using Tag = dnnl::memory::format_tag;
    using Type = dnnl::memory::data_type;
    omp_set_num_threads(static_cast<int>(thread_count));
    constexpr Type type = std::is_same_v<T, bf16> ? Type::bf16 : Type::f32;
    const dnnl::memory::desc a_desc({s.rows, s.inputs}, type, dnnl::memory::dims{x.lda, 1});
    const dnnl::memory::desc w_desc({s.inputs, s.outputs}, type, Tag::ba);
    const dnnl::memory::desc w_any({s.inputs, s.outputs}, type, Tag::any);
    const dnnl::memory::desc c_desc({s.rows, s.outputs}, type, dnnl::memory::dims{x.ldc, 1});
    const dnnl::matmul::primitive_desc chosen({a_desc, w_any, c_desc}, engine);
    product = dnnl::matmul(chosen);
    a = dnnl::memory(a_desc, engine, x.a.data());
    c = dnnl::memory(c_desc, engine, x.c.data());
    w = dnnl::memory(chosen.weights_desc(), engine);
    dnnl::memory plain(w_desc, engine, x.w.data());
    dnnl::reorder(plain, w).execute(stream, plain, w);
    stream.wait();
  }
  void run() {
    product.execute(stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, c}});
    stream.wait();
  }
  std::string fault() {
    run();
    return x.fault();
  }
  Work work() const {
    return {
        .flops = x.shape.flops(), .executor = threads.executor(), .bf16s = std::is_same_v<T, bf16>};
  }
};

template <class T>
void add_shape(ProductShape s) {
  for (const index_t threads : {1, 2}) {
    add("linalg/gemm_onednn/" + s.text() + "/" + dtype_and_threads<T>(threads),
        [=] { return OneDnnProduct<T>(s, threads); });
  }
}

bool add_all() {
  for (const ProductShape s : compared_shapes) {
    add_shape<float>(s);
    add_shape<bf16>(s);
  }
  const dnnl_version_t* version = dnnl_version();
  benchmark::AddCustomContext("onednn", std::to_string(version->major) + "." +
                                            std::to_string(version->minor) + "." +
                                            std::to_string(version->patch));
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
