// SPDX-License-Identifier: Apache-2.0
/// \file
/// C = A W^T by OpenBLAS, from row-major operands: it packs both at every call. Built where
/// OpenBLAS is installed. Which of its kernels runs is chosen by OPENBLAS_CORETYPE in the
/// environment.

#include <cblas.h>

#include "linalg/product.hpp"

namespace bench {
namespace {

struct OpenBlasProduct {
  Operands<float> x;
  Threads threads;  // how many are measured; OpenBLAS has its own

  OpenBlasProduct(ProductShape s, index_t thread_count) : x(s), threads(thread_count) {}
  void run() {
    const ProductShape& s = x.shape;
    const auto size = [](index_t n) { return static_cast<blasint>(n); };
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, size(s.rows), size(s.outputs),
                size(s.inputs), 1.0f, x.a.data(), size(x.lda), x.w.data(), size(s.inputs), 0.0f,
                x.c.data(), size(x.ldc));
  }
  std::string fault() {
    openblas_set_num_threads(static_cast<int>(threads.count()));
    run();
    return x.fault();
  }
  Work work() const { return {.flops = x.shape.flops(), .executor = threads.executor()}; }
};

bool add_all() {
  for (const ProductShape s : compared_shapes) {
    for (const index_t threads : {1, 2}) {
      add("linalg/gemm_openblas/" + s.text() + "/" + dtype_and_threads<float>(threads),
          [=] { return OpenBlasProduct(s, threads); });
    }
  }
  benchmark::AddCustomContext("openblas", openblas_get_corename());
  return true;
}

[[maybe_unused]] const bool added = add_all();

}  // namespace
}  // namespace bench
