// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"

#include <cstdio>

#include <fmt/format.h>
#include <unistd.h>

namespace cli {

Progress::Progress(bool quiet, std::string what, std::int64_t cells, std::int64_t tokens)
    : quiet_(quiet),
      live_(::isatty(STDERR_FILENO) == 1),
      what_(std::move(what)),
      cells_(cells),
      tokens_(tokens) {}

Progress::~Progress() { clear(); }

void Progress::add_tokens(std::int64_t tokens) {
  tokens_done_ += tokens;
  const std::chrono::milliseconds pause(live_ ? 200 : 20000);
  if (Clock::now() - shown_ >= pause) show();
}

void Progress::add_cells(std::int64_t cells) { cells_done_ += cells; }

void Progress::clear() {
  if (line_is_open_) std::fputs("\r\x1b[K", stderr);
  line_is_open_ = false;
}

void Progress::show() {
  shown_ = Clock::now();
  if (quiet_) return;
  const double seconds = std::chrono::duration<double>(shown_ - start_).count();
  const double rate = static_cast<double>(tokens_done_) / seconds;
  const auto left =
      static_cast<std::int64_t>(static_cast<double>(tokens_ - tokens_done_) / rate + 0.5);
  const std::string line =
      fmt::format("{}: {} of {} cells, {:.0f} tokens/s, {}:{:02}:{:02} left", what_, cells_done_,
                  cells_, rate, left / 3600, left / 60 % 60, left % 60);
  fmt::print(stderr, "{}{}{}", live_ ? "\r" : "", line, live_ ? "\x1b[K" : "\n");
  std::fflush(stderr);
  line_is_open_ = live_;
}

}  // namespace cli
