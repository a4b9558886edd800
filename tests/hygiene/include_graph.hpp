// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The arrows of docs/design.md as data, and the check of a set of headers against them. It works
/// on text alone, so that the rules can be tried on headers that do not exist.

#include <algorithm>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ropewalk::hygiene {

/// Relative path under include/ropewalk ("rope/yarn.hpp") -> the header's text.
using Headers = std::map<std::string, std::string, std::less<>>;

/// What one group of headers may include.
struct LayerRule {
  std::string_view layer;
  std::vector<std::string_view> own;       ///< other layers
  std::vector<std::string_view> packages;  ///< third-party headers, by the path's beginning
};

inline bool starts_with_any(std::string_view text,
                            const std::vector<std::string_view>& beginnings) {
  return std::any_of(beginnings.begin(), beginnings.end(),
                     [&](std::string_view b) { return text.substr(0, b.size()) == b; });
}

/// The layer of a header. Two folders hold two layers each: what of rope/ and attention/ touches
/// SIMD is apart from what must compile without it.
inline std::string layer_of(std::string_view header) {
  const std::size_t slash = header.find('/');
  if (slash == std::string_view::npos) {
    if (header == "ropewalk.hpp") return "umbrella";
    return std::string(header.substr(0, header.find('.')));  // rope.hpp has the rules of rope/
  }
  const std::string_view folder = header.substr(0, slash);
  const std::string_view name = header.substr(slash + 1);
  if (folder == "rope" && starts_with_any(name, {"rotate"})) return "rope_kernels";
  if (folder == "attention" &&
      !starts_with_any(name, {"mask", "concepts", "block_plan", "softmax_state"})) {
    return "attention_kernels";
  }
  if (folder == "model" && (name == "config.hpp" || name == "weights.hpp")) return "model_data";
  return std::string(folder);
}

inline const std::vector<LayerRule>& layer_rules() {
  static const std::vector<LayerRule> rules = {
      {"core", {}, {"xxhash.h", "sys/mman.h"}},
      {"rope", {"core"}, {}},
      {"attention", {"core"}, {}},
      {"simd", {"core"}, {"xsimd/", "immintrin.h", "arm_neon.h"}},
      {"linalg", {"core", "simd"}, {}},
      {"rope_kernels", {"core", "simd", "rope"}, {}},
      {"attention_kernels", {"core", "simd", "linalg", "attention"}, {}},
      {"model_data", {"core", "linalg", "rope", "attention"}, {}},
      {"model",
       {"core", "simd", "linalg", "rope", "rope_kernels", "attention", "attention_kernels",
        "model_data"},
       {}},
      {"train",
       {"core", "simd", "linalg", "rope", "rope_kernels", "attention", "attention_kernels",
        "model_data", "model", "eval", "parallel"},
       {}},
      {"eval",
       {"core", "simd", "linalg", "rope", "rope_kernels", "attention", "attention_kernels",
        "model_data", "model"},
       {}},
      {"parallel", {"core"}, {"mpi.h", "nccl.h"}},
      {"io", {"core"}, {"nlohmann/", "fcntl.h", "sys/", "unistd.h"}},
      {"text", {"core", "io"}, {"pcre2.h", "utf8proc.h"}},
      {"hub",
       {"core", "rope", "attention", "linalg", "model_data", "model", "io", "text"},
       {"nlohmann/", "fcntl.h", "sys/", "unistd.h"}},
      {"adapt", {"core"}, {"Eigen/"}},
      {"analysis", {"core", "rope"}, {"Eigen/"}},
      {"oracle", {"core", "rope", "attention", "linalg", "model_data"}, {"Eigen/"}},
      {"umbrella",
       {"core", "simd", "linalg", "rope", "rope_kernels", "attention", "attention_kernels",
        "model_data", "model", "train", "eval"},
       {}},
  };
  return rules;
}

/// Standard headers that no header of ours may include: they cost more than they give
/// (0.3 to 0.6 s each), or give a result that differs between standard libraries (<random>).
inline const std::vector<std::string_view>& banned_headers() {
  static const std::vector<std::string_view> banned = {"iostream",   "regex",  "random",
                                                       "filesystem", "ranges", "cassert"};
  return banned;
}

/// What a line includes: `path` between the quotes or brackets; empty if it includes nothing.
struct Include {
  std::string path;
  bool quoted = false;
};

inline Include parse_include(std::string_view line) {
  const auto skip_blanks = [&] {
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  };
  skip_blanks();
  if (line.empty() || line.front() != '#') return {};
  line.remove_prefix(1);
  skip_blanks();
  constexpr std::string_view keyword = "include";
  if (line.substr(0, keyword.size()) != keyword) return {};
  line.remove_prefix(keyword.size());
  skip_blanks();
  if (line.empty() || (line.front() != '"' && line.front() != '<')) return {};
  const bool quoted = line.front() == '"';
  line.remove_prefix(1);
  const std::size_t end = line.find(quoted ? '"' : '>');
  if (end == std::string_view::npos) return {};
  return {.path = std::string(line.substr(0, end)), .quoted = quoted};
}

inline std::vector<Include> includes_of(std::string_view text) {
  std::vector<Include> out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (Include found = parse_include(text.substr(0, end)); !found.path.empty()) {
      out.push_back(std::move(found));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

/// Every header of ours that `header` reaches, itself included.
inline std::set<std::string, std::less<>> reachable(const Headers& headers,
                                                    const std::string& header) {
  std::set<std::string, std::less<>> seen{header};
  std::vector<std::string> todo{header};
  while (!todo.empty()) {
    const std::string current = todo.back();
    todo.pop_back();
    const auto found = headers.find(current);
    if (found == headers.end()) continue;
    for (const Include& include : includes_of(found->second)) {
      constexpr std::string_view prefix = "ropewalk/";
      if (!include.quoted || include.path.substr(0, prefix.size()) != prefix) continue;
      std::string target = include.path.substr(prefix.size());
      if (seen.insert(target).second) todo.push_back(std::move(target));
    }
  }
  return seen;
}

/// One sentence per violation; empty if the headers keep to the arrows.
inline std::vector<std::string> include_violations(const Headers& headers) {
  std::vector<std::string> out;
  const auto rule_of = [](const std::string& layer) -> const LayerRule* {
    for (const LayerRule& rule : layer_rules()) {
      if (rule.layer == layer) return &rule;
    }
    return nullptr;
  };
  for (const auto& [header, text] : headers) {
    const std::string layer = layer_of(header);
    const LayerRule* rule = rule_of(layer);
    if (rule == nullptr) {
      out.push_back(header + ": folder '" + layer + "' has no rule in tests/hygiene");
      continue;
    }
    for (const Include& include : includes_of(text)) {
      constexpr std::string_view prefix = "ropewalk/";
      const bool ours = include.path.substr(0, prefix.size()) == prefix;
      if (ours != include.quoted) {
        out.push_back(header + ": write \"ropewalk/...\" in quotes and everything else in <>: " +
                      include.path);
      } else if (ours) {
        const std::string target = include.path.substr(prefix.size());
        const std::string target_layer = layer_of(target);
        if (headers.find(target) == headers.end()) {
          out.push_back(header + ": includes " + target + ", which does not exist");
        } else if (target_layer != layer &&
                   std::find(rule->own.begin(), rule->own.end(), target_layer) == rule->own.end()) {
          out.push_back(header + " (" + layer + ") may not include " + target + " (" +
                        target_layer + ")");
        }
      } else if (std::find(banned_headers().begin(), banned_headers().end(), include.path) !=
                     banned_headers().end() &&
                 !(include.path == "filesystem" && layer == "hub")) {
        out.push_back(header + ": <" + include.path + "> is not used in include/");
      } else if (include.path.find_first_of("/.") != std::string::npos &&
                 !starts_with_any(include.path, rule->packages)) {
        out.push_back(header + " (" + layer + ") may not include <" + include.path + ">");
      }
    }
    // Masks and rope must stay cheap and portable whatever the way to xsimd or Eigen would be.
    if (layer == "rope" || layer == "attention" || layer == "core") {
      for (const std::string& other : reachable(headers, header)) {
        const auto found = headers.find(other);
        if (found == headers.end() || other == header) continue;
        for (const Include& include : includes_of(found->second)) {
          if (starts_with_any(include.path, {"xsimd/", "Eigen/", "immintrin.h", "arm_neon.h"})) {
            out.push_back(header + " reaches <" + include.path + "> through " + other);
          }
        }
      }
    }
    for (const Include& include : includes_of(text)) {
      if (include.path.substr(0, std::min<std::size_t>(9, include.path.size())) != "ropewalk/") {
        continue;
      }
      const std::string target = include.path.substr(9);
      if (target != header && reachable(headers, target).count(header) != 0) {
        out.push_back(header + " and " + target + " include each other");
      }
    }
  }
  return out;
}

}  // namespace ropewalk::hygiene
