// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Owning, cache-line aligned storage: Buffer, Tensor, and the Workspace arena of a forward pass.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "ropewalk/core/checked.hpp"
#include "ropewalk/core/tensor_view.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

/// Alignment of every allocation and of every workspace slice, in bytes: one cache line, which is
/// also the widest vector register.
inline constexpr std::size_t storage_alignment = 64;

/// Size and alignment of the pages that large allocations ask for, in bytes.
inline constexpr std::size_t huge_page = std::size_t{1} << 21;

namespace detail {

/// Alignment of an allocation: large ones start with a huge page.
constexpr std::size_t alignment_for(std::size_t bytes) {
  return bytes >= huge_page ? huge_page : storage_alignment;
}

/// Asks for huge pages where whole ones fit into the memory, so that no byte more is used than
/// without. Does nothing where the system has no such pages or refuses.
inline void advise_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes >= huge_page) {
    // 0 or an error, which changes nothing; errno is the caller's.
    const int before = errno;
    ::madvise(memory, bytes / huge_page * huge_page, MADV_HUGEPAGE);
    errno = before;
  }
#endif
}

}  // namespace detail

/// Zero-initialised, aligned, move-only array of trivially copyable elements. From 2 MiB on it asks
/// the system for huge pages, of which a processor remembers the places of many more bytes.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  /// \throws Error(resource) when the memory cannot be had.
  explicit Buffer(index_t size) : size_(size) {
    require(size >= 0, "size >= 0");
    const auto bytes =
        checked_mul(static_cast<std::size_t>(size), sizeof(T), "buffer size in bytes");
    if (bytes == 0) return;
    const std::size_t alignment = detail::alignment_for(bytes);
    void* p = ::operator new (bytes, std::align_val_t{alignment}, std::nothrow);
    if (p == nullptr) {
      fail({.kind = ErrorClass::resource,
            .field = "memory",
            .found = std::to_string(bytes) + " bytes refused",
            .expected = "an allocation that fits"});
    }
    detail::advise_huge_pages(p, bytes);
    std::memset(p, 0, bytes);
    data_ = {static_cast<T*>(p), Free{alignment}};
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  index_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](index_t i) { return data_.get()[i]; }
  const T& operator[](index_t i) const { return data_.get()[i]; }
  std::span<T> span() { return {data(), static_cast<std::size_t>(size_)}; }
  std::span<const T> span() const { return {data(), static_cast<std::size_t>(size_)}; }

 private:
  struct Free {
    std::size_t alignment = storage_alignment;
    void operator()(T* p) const { ::operator delete (p, std::align_val_t{alignment}); }
  };
  std::unique_ptr<T, Free> data_;
  index_t size_ = 0;
};

/// Contiguous owning tensor, last index fastest.
template <class T, int Rank>
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(std::array<index_t, std::size_t{Rank}> extents) : extents_(extents) {
    index_t n = 1;
    for (const index_t e : extents) {
      require(e >= 0, "extents >= 0");
      n = checked_mul(n, e, "tensor size");
    }
    storage_ = Buffer<T>(n);
  }
  TensorView<T, Rank> view() { return {storage_.data(), extents_}; }
  TensorView<const T, Rank> view() const { return {storage_.data(), extents_}; }
  T* data() { return storage_.data(); }
  const T* data() const { return storage_.data(); }
  index_t size() const { return storage_.size(); }
  index_t extent(int r) const { return extents_[static_cast<std::size_t>(r)]; }
  bool empty() const { return storage_.empty(); }

 private:
  std::array<index_t, std::size_t{Rank}> extents_{};
  Buffer<T> storage_;
};

/// Arena of a forward pass. take() hands out aligned slices that live until reset(); the arena
/// grows only between passes, so that after the first pass of a shape nothing is allocated.
/// Contents are unspecified; not thread-safe: take on one thread, use on any.
class Workspace {
 public:
  template <class T>
  std::span<T> take(index_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    require(count >= 0, "count >= 0");
    std::size_t bytes = checked_mul(static_cast<std::size_t>(count), sizeof(T), "workspace slice");
    bytes = checked_add(bytes, storage_alignment - 1, "workspace slice") / storage_alignment *
            storage_alignment;
    used_ = checked_add(used_, bytes, "workspace");
    peak_ = std::max(peak_, used_);
    if (offset_ + bytes <= static_cast<std::size_t>(block_.size())) {
      T* p = reinterpret_cast<T*>(block_.data() + offset_);
      offset_ += bytes;
      return {p, static_cast<std::size_t>(count)};
    }
    overflow_.emplace_back(static_cast<index_t>(bytes));
    return {reinterpret_cast<T*>(overflow_.back().data()), static_cast<std::size_t>(count)};
  }
  template <class T>
  TensorView<T, 2> take_matrix(index_t rows, index_t columns) {
    return {take<T>(checked_mul(rows, columns, "workspace matrix")).data(), {rows, columns}};
  }
  /// Invalidates all slices. If the last pass overflowed the block, the next one gets one that
  /// holds it whole.
  void reset() {
    if (!overflow_.empty()) {
      overflow_.clear();
      block_ = Buffer<std::byte>();
      block_ = Buffer<std::byte>(static_cast<index_t>(peak_));
    }
    offset_ = used_ = 0;
  }
  /// Largest number of bytes in use at once so far.
  std::size_t peak_bytes() const { return peak_; }

 private:
  Buffer<std::byte> block_;
  std::vector<Buffer<std::byte>> overflow_;
  std::size_t offset_ = 0;
  std::size_t used_ = 0;
  std::size_t peak_ = 0;
};

}  // namespace ropewalk::inline ROPEWALK_ABI
