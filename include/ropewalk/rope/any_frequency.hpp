// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// AnyFrequency: a frequency policy chosen at run time, and the list of all of them.

#include <type_traits>
#include <utility>
#include <variant>

#include "ropewalk/rope/adjusted_base.hpp"
#include "ropewalk/rope/dynamic_ntk.hpp"
#include "ropewalk/rope/linear.hpp"
#include "ropewalk/rope/llama3.hpp"
#include "ropewalk/rope/longrope.hpp"
#include "ropewalk/rope/modifiers.hpp"
#include "ropewalk/rope/ntk_aware.hpp"
#include "ropewalk/rope/ntk_by_parts.hpp"
#include "ropewalk/rope/proportional.hpp"
#include "ropewalk/rope/yarn.hpp"
#include "ropewalk/rope/yarn_paper.hpp"

namespace ropewalk::inline ROPEWALK_ABI {

template <class... Policies>
struct MethodList {
  using Variant = std::variant<Policies...>;
  template <class P>
  static constexpr bool contains = (std::is_same_v<P, Policies> || ...);
  /// Calls f(P{}) for every P in order.
  template <class F>
  static void for_each(F&& f) {
    (f(Policies{}), ...);
  }
};

/// Every method that specs and configuration files can name. A new method: its header above, and
/// its name here.
using FrequencyMethods = MethodList<AdjustedBase,         //
                                    LinearInterpolation,  //
                                    NtkAware,             //
                                    DynamicNtk,           //
                                    NtkByParts,           //
                                    Yarn,                 //
                                    YarnPaper,            //
                                    Llama3,               //
                                    LongRope,             //
                                    Proportional,         //
                                    PRope>;

/// One policy of a list; itself a FrequencyPolicy. A program with methods of its own uses
/// AnyFrequencyOf with a list that names them.
template <class Methods>
class AnyFrequencyOf {
 public:
  static constexpr std::string_view name = "any";

  AnyFrequencyOf() = default;  ///< the list's first policy with its defaults
  template <class P>
  requires(Methods::template contains<P>)
      AnyFrequencyOf(P policy)  // NOLINT(google-explicit-constructor): a policy is one of any
      : policy_(std::move(policy)) {}
  template <class P>
  requires(Methods::template contains<P>) AnyFrequencyOf(P policy, RopeModifiers modifiers)
      : policy_(std::move(policy)), modifiers_(modifiers) {}
  friend bool operator==(const AnyFrequencyOf&, const AnyFrequencyOf&) = default;

  /// Calls f with the policy held.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), policy_);
  }
  template <class F>
  decltype(auto) visit(F&& f) {
    return std::visit(std::forward<F>(f), policy_);
  }
  /// The policy held if it is a P, else null.
  template <class P>
  const P* get_if() const {
    return std::get_if<P>(&policy_);
  }
  /// Which channels rotate and how logits are scaled; the functions below are of the method alone,
  /// whose rotary_dim is that of the rotated part. make_frequency_plan applies both.
  const RopeModifiers& modifiers() const { return modifiers_; }
  /// Name of the method held, as in specs.
  std::string_view method() const {
    return visit([](const auto& p) { return std::string_view(p.name); });
  }

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor&& visitor) {
    self.visit([&visitor](auto& p) { std::remove_cvref_t<decltype(p)>::fields(p, visitor); });
  }
  void check(RotaryShape shape) const {
    visit([&](const auto& p) { p.check(shape); });
  }
  void fill(RotaryShape shape, std::span<double> inv_freq) const {
    visit([&](const auto& p) { p.fill(shape, inv_freq); });
  }
  double attention_factor(RotaryShape shape) const {
    return visit([&](const auto& p) -> double { return p.attention_factor(shape); });
  }
  std::int64_t length_key(std::int64_t seq_len) const {
    return visit([&](const auto& p) { return p.length_key(seq_len); });
  }

 private:
  typename Methods::Variant policy_;
  RopeModifiers modifiers_ = {};
};

/// One of FrequencyMethods. Needed only where the method is chosen at run time: every call takes
/// any policy.
using AnyFrequency = AnyFrequencyOf<FrequencyMethods>;

/// Name of a policy's method; for AnyFrequency that of the method held.
template <FrequencyPolicy P>
std::string_view method_name(const P& policy) {
  if constexpr (requires { policy.method(); }) {
    return policy.method();
  } else {
    return P::name;
  }
}

}  // namespace ropewalk::inline ROPEWALK_ABI
