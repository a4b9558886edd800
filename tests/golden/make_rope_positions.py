#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/rope_positions.hpp: LongRoPE, partial rotation and log-n in float64.

    python3 make_rope_positions.py > rope_positions.hpp       # standard library alone
    python3 make_rope_positions.py --compare-with-transformers  # needs torch and transformers

The formulas below are evaluated in float64, which transformers does in float32; the comparison
checks that both are the same formulas (1e-6: float32), switching and attention factors included.
"""
import math
import sys


def factors(kind, pairs):
    """Rising divisors, exact in binary; `short` stays near 1."""
    step = 1 / 64 if kind == "short" else 3 / 4
    return [1 + step * (i * i / pairs if kind == "long" else i) for i in range(pairs)]


def longrope(base, d, length, T, factor=None, attention_factor=None, maximum=None):
    lists = factors("long" if T > length else "short", d // 2)
    w = [1 / (f * base ** (2 * i / d)) for i, f in enumerate(lists)]
    s = factor if factor is not None else maximum / length
    if attention_factor is None:
        attention_factor = 1.0 if s <= 1 else math.sqrt(1 + math.log(s) / math.log(length))
    return w, attention_factor


def proportional(base, d, p, factor=1.0):
    k = int(p * d // 2)
    return [base ** (-2 * i / d) / factor if i < k else 0.0 for i in range(d // 2)]


def contiguous(base, d, p):
    r = int(d * p)
    return [base ** (-2 * i / r) for i in range(r // 2)]


LONGROPE = [  # base, d, L, T, factor, attention_factor, max_position_embeddings
    (10000.0, 96, 4096, 4096, None, None, 131072),  # Phi-3-mini's shape
    (10000.0, 96, 4096, 4097, None, None, 131072),
    (10000.0, 128, 8192, 131072, 16.0, None, 131072),
    (500000.0, 64, 2048, 2048, 8.0, 1.25, 16384),
    (500000.0, 64, 2048, 2049, 8.0, 1.25, 16384),
    (10000.0, 32, 1024, 5000, 1.0, None, 1024),
]
PROPORTIONAL = [(1e6, 128, 0.25, 1.0), (1e6, 512, 0.25, 8.0), (10000.0, 64, 0.75, 1.0),
                (10000.0, 10, 0.5, 1.0)]
CONTIGUOUS = [(10000.0, 128, 0.25), (10000.0, 80, 0.4), (1e6, 96, 0.75)]
LOGN = [(4096, (0, 4095, 4096, 8191, 16383, 32767, 131071)), (2048, (2047, 8191)), (512, (0, 1, 99))]


def numbers(values):
    return "{" + ", ".join(repr(float(v)) for v in values) + "}"


def rotate(x, w, offset, position, half):
    """x with channels [offset, offset + 2 len(w)) turned, half-split pairs `half` apart."""
    y = list(x)
    for i, f in enumerate(w):
        c, s = math.cos(position * f), math.sin(position * f)
        a, b = offset + i, offset + i + half
        y[a], y[b] = x[a] * c - x[b] * s, x[b] * c + x[a] * s
    return y


def emit():
    print("// SPDX-License-Identifier: Apache-2.0")
    print("// Made by make_rope_positions.py; do not edit.")
    print("#pragma once\n\n#include <cstdint>\n#include <vector>\n")
    print("namespace ropewalk::golden {\n\nusing List = std::vector<double>;\n")
    print("struct LongRopeCase {\n  double theta;\n  std::int64_t d, length, T;\n  double factor;\n"
          "  double given_attention_factor;  // 0: none\n  List short_factor, long_factor, inv_freq;\n"
          "  double attention_factor;\n};\n")
    print("inline const std::vector<LongRopeCase>& longrope() {\n  // clang-format off")
    print("  static const std::vector<LongRopeCase> cases = {")
    for base, d, length, T, factor, given, maximum in LONGROPE:
        w, attention = longrope(base, d, length, T, factor, given, maximum)
        s = factor if factor is not None else maximum / length
        print(f"    {{{base!r}, {d}, {length}, {T}, {s!r}, {given or 0},\n"
              f"     {numbers(factors('short', d // 2))},\n     {numbers(factors('long', d // 2))},\n"
              f"     {numbers(w)},\n     {attention!r}}},")
    print("  };\n  // clang-format on\n  return cases;\n}\n")
    print("struct PartialCase {\n  double theta;\n  std::int64_t head_dim;\n  double share, factor;\n"
          "  List inv_freq;\n};\n")
    for name, cases in (("proportional", [(b, d, p, s, proportional(b, d, p, s))
                                          for b, d, p, s in PROPORTIONAL]),
                        ("contiguous", [(b, d, p, 1.0, contiguous(b, d, p))
                                        for b, d, p in CONTIGUOUS])):
        print(f"inline const std::vector<PartialCase>& {name}() {{\n  // clang-format off")
        print("  static const std::vector<PartialCase> cases = {")
        for b, d, p, s, w in cases:
            print(f"    {{{b!r}, {d}, {p!r}, {s!r}, {numbers(w)}}},")
        print("  };\n  // clang-format on\n  return cases;\n}\n")
    x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    print("/// x = 1, 2, .., 8 at position 3, base 10000, half-split, half of the head turning: the three\n"
          "/// definitions (the offset one turns the last 4 channels).")
    print("// clang-format off")
    print(f"inline const List applied_contiguous = "
          f"{numbers(rotate(x, contiguous(1e4, 8, 0.5), 0, 3, 2))};")
    print(f"inline const List applied_proportional = "
          f"{numbers(rotate(x, proportional(1e4, 8, 0.5), 0, 3, 4))};")
    print(f"inline const List applied_offset = "
          f"{numbers(rotate(x, contiguous(1e4, 8, 0.5), 4, 3, 2))};")
    print("// clang-format on\n")
    print("struct LogNCase {\n  std::int64_t length, position;\n  double clipped, unclipped;\n};\n")
    print("inline const std::vector<LogNCase>& logn() {\n  static const std::vector<LogNCase> cases = {")
    for length, positions in LOGN:
        for m in positions:
            raw = math.log(m + 1) / math.log(length)
            print(f"      {{{length}, {m}, {max(1.0, raw)!r}, {raw!r}}},")
    print("  };\n  return cases;\n}\n\n}  // namespace ropewalk::golden")


def compare():
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    def check(name, got, want, got_scale=1.0, want_scale=1.0):
        got = [float(v) for v in got]
        assert len(got) == len(want), name
        worst = max((abs(a - b) / abs(b) if b else abs(a)) for a, b in zip(got, want))
        worst = max(worst, abs(got_scale / want_scale - 1))
        print(f"{name}: largest relative difference {worst:.1e}")
        assert worst < 1e-6, name

    def config(d, maximum, parameters):
        return LlamaConfig(hidden_size=4 * d, num_attention_heads=4, head_dim=d,
                           max_position_embeddings=maximum, rope_parameters=parameters)

    for base, d, length, T, factor, given, maximum in LONGROPE:
        parameters = {"rope_type": "longrope", "rope_theta": base,
                      "original_max_position_embeddings": length,
                      "short_factor": factors("short", d // 2),
                      "long_factor": factors("long", d // 2)}
        if factor is not None:
            parameters["factor"] = factor
        if given is not None:
            parameters["attention_factor"] = given
        w, scale = ROPE_INIT_FUNCTIONS["longrope"](config(d, maximum, parameters), "cpu", seq_len=T)
        want, want_scale = longrope(base, d, length, T, factor, given, maximum)
        check(f"longrope L={length} T={T}", w, want, scale, want_scale)
    for base, d, p, s in PROPORTIONAL:
        parameters = {"rope_type": "proportional", "rope_theta": base, "factor": s,
                      "partial_rotary_factor": p}
        w, scale = ROPE_INIT_FUNCTIONS["proportional"](config(d, 4096, parameters), "cpu")
        check(f"proportional d={d} p={p}", w, proportional(base, d, p, s), scale, 1.0)
    for base, d, p in CONTIGUOUS:  # through linear with factor 1, which takes the part
        parameters = {"rope_type": "linear", "rope_theta": base, "factor": 1.0,
                      "partial_rotary_factor": p}
        w, scale = ROPE_INIT_FUNCTIONS["linear"](config(d, 4096, parameters), "cpu")
        check(f"contiguous d={d} p={p}", w, contiguous(base, d, p), scale, 1.0)
    # What a head looks like after it: StableLM cuts it, as GPT-NeoX does.
    from transformers.models.stablelm.modeling_stablelm import apply_rotary_pos_emb
    x = torch.arange(1.0, 9.0, dtype=torch.float64)
    angle = 3 * torch.tensor(contiguous(1e4, 8, 0.5) * 2, dtype=torch.float64)
    turned, _ = apply_rotary_pos_emb(x[None, None, None, :4], x[None, None, None, :4],
                                     angle.cos()[None, None], angle.sin()[None, None])
    applied = turned.flatten().tolist() + x[4:].tolist()
    check("StableLM's head", applied, rotate(x.tolist(), contiguous(1e4, 8, 0.5), 0, 3, 2))
    angle = 3 * torch.tensor(proportional(1e4, 8, 0.5) * 2, dtype=torch.float64)
    turned, _ = apply_rotary_pos_emb(x[None, None, None], x[None, None, None],
                                     angle.cos()[None, None], angle.sin()[None, None])
    check("proportional head", turned.flatten(),
          rotate(x.tolist(), proportional(1e4, 8, 0.5), 0, 3, 4))


if __name__ == "__main__":
    compare() if "--compare-with-transformers" in sys.argv else emit()
