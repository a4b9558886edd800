// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"

#include <cstdio>

#include <fmt/format.h>
#include <unistd.h>

namespace cli {

std::string duration_text(double seconds) {
  if (!(seconds >= 0 && seconds < 1e10)) return "?";
  const auto s = static_cast<std::int64_t>(seconds + 0.5);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

Progress::Progress(bool quiet, std::string what, std::int64_t cells, double work)
    : quiet_(quiet),
      live_(::isatty(STDERR_FILENO) == 1),
      what_(std::move(what)),
      cells_(cells),
      work_(work) {}

Progress::~Progress() { clear(); }

void Progress::add(std::int64_t tokens, double work, const std::string& note) {
  tokens_done_ += tokens;
  work_done_ += work;
  const std::chrono::milliseconds pause(live_ ? 200 : 20000);
  if (Clock::now() - shown_ >= pause) show(note);
}

void Progress::skip(double work) { work_ -= work; }

void Progress::add_cells(std::int64_t cells) { cells_done_ += cells; }

void Progress::clear() {
  if (line_is_open_) std::fputs("\r\x1b[K", stderr);
  line_is_open_ = false;
}

double Progress::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

double Progress::seconds_left() const {
  return work_done_ > 0 ? (work_ - work_done_) / work_done_ * seconds() : -1;
}

void Progress::show(const std::string& note) {
  shown_ = Clock::now();
  if (quiet_) return;
  const std::string line =
      fmt::format("{}: {} of {} cells, {:.0f} tokens/s, {}{} left", what_, cells_done_, cells_,
                  static_cast<double>(tokens_done_) / seconds(), note.empty() ? note : note + ", ",
                  duration_text(seconds_left()));
  fmt::print(stderr, "{}{}{}", live_ ? "\r" : "", line, live_ ? "\x1b[K" : "\n");
  std::fflush(stderr);
  line_is_open_ = live_;
}

}  // namespace cli
