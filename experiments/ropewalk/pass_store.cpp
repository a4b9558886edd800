// SPDX-License-Identifier: Apache-2.0
#include "pass_store.hpp"

#include "ropewalk/core/hash.hpp"
#include "ropewalk/io/atomic_file.hpp"

namespace cli {

namespace {

// A record: key, pass, number of losses, hash of the rest (four little-endian 64-bit numbers), the
// losses as float64, one byte a loss for top1.
constexpr std::size_t header_size = 4 * sizeof(std::uint64_t);
constexpr std::size_t loss_size = sizeof(double) + 1;

std::uint64_t record_hash(std::uint64_t key, std::size_t pass, std::span<const double> nll,
                          std::span<const std::uint8_t> top1) {
  return Hasher()
      .value(key)
      .value(static_cast<std::uint64_t>(pass))
      .bytes(std::as_bytes(nll))
      .bytes(std::as_bytes(top1))
      .digest();
}

}  // namespace

PassStore::PassStore(std::string path, std::uint64_t key, const std::vector<Pass>& passes,
                     std::chrono::milliseconds pause)
    : path_(std::move(path)), key_(key), pause_(pause), done_(passes.size()) {
  std::size_t total = 0;
  losses_.offset = {0};
  for (const Pass& pass : passes) {
    const auto n = checked_cast<std::size_t>(pass.num_tokens() - pass.first_scored, "losses");
    total = checked_add(total, n, "losses");
    losses_.offset.push_back(total);
  }
  losses_.nll.resize(total);
  losses_.top1.resize(total);
  if (!path_.empty() && file_exists(path_)) read();
}

void PassStore::read() {
  const FileSource file(path_);
  while (file_size_ + header_size <= file.size()) {
    std::uint64_t header[4] = {};
    file.read(file_size_, std::as_writable_bytes(std::span(header)));
    if (header[0] != key_ || header[1] >= done_.size()) return;
    const auto pass = static_cast<std::size_t>(header[1]);
    const std::size_t n = size_of(pass);
    const std::uint64_t end = file_size_ + header_size + n * loss_size;
    if (header[2] != n || end > file.size()) return;
    std::vector<double> nll(n);
    std::vector<std::uint8_t> top1(n);
    file.read(file_size_ + header_size, std::as_writable_bytes(std::span(nll)));
    file.read(end - n, std::as_writable_bytes(std::span(top1)));
    if (header[3] != record_hash(key_, pass, nll, top1)) return;
    const auto at = static_cast<std::ptrdiff_t>(losses_.offset[pass]);
    std::copy(nll.begin(), nll.end(), losses_.nll.begin() + at);
    std::copy(top1.begin(), top1.end(), losses_.top1.begin() + at);
    if (!done_[pass]) ++restored_;
    done_[pass] = true;
    file_size_ = end;
  }
}

void PassStore::add(std::size_t pass, std::span<const double> nll,
                    std::span<const std::uint8_t> top1) {
  require(pass < done_.size() && nll.size() == size_of(pass) && top1.size() == size_of(pass),
          "a loss and a hit for each scored token of a pass");
  const auto at = static_cast<std::ptrdiff_t>(losses_.offset[pass]);
  std::copy(nll.begin(), nll.end(), losses_.nll.begin() + at);
  std::copy(top1.begin(), top1.end(), losses_.top1.begin() + at);
  done_[pass] = true;
  pending_.push_back(pass);
  if (Clock::now() - written_ >= pause_) flush();
}

void PassStore::append_record(std::size_t pass, std::string& out) const {
  const auto nll = std::span(losses_.nll).subspan(losses_.offset[pass], size_of(pass));
  const auto top1 = std::span(losses_.top1).subspan(losses_.offset[pass], size_of(pass));
  const std::uint64_t header[4] = {key_, pass, size_of(pass), record_hash(key_, pass, nll, top1)};
  const auto append = [&out](const void* data, std::size_t size) {
    out.append(static_cast<const char*>(data), size);
  };
  append(header, sizeof header);
  append(nll.data(), nll.size_bytes());
  append(top1.data(), top1.size_bytes());
}

void PassStore::flush() {
  written_ = Clock::now();
  if (path_.empty() || pending_.empty()) return;
  std::string bytes;
  for (const std::size_t pass : pending_) append_record(pass, bytes);
  const FileDescriptor file(::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  if (file.get() < 0) ropewalk::detail::fail_write(path_, errno, "creating a file for losses");
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::pwrite(file.get(), bytes.data() + done, bytes.size() - done,
                               static_cast<off_t>(file_size_ + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) ropewalk::detail::fail_write(path_, errno, "keeping the losses of a pass");
    done += static_cast<std::size_t>(n);
  }
  if (::fdatasync(file.get()) != 0) ropewalk::detail::fail_write(path_, errno, "fdatasync");
  file_size_ += bytes.size();
  pending_.clear();
}

void PassStore::remove() {
  pending_.clear();
  if (!path_.empty()) ::unlink(path_.c_str());
}

}  // namespace cli
