#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/tiny_llama.hpp: per-token losses of a small random Llama in float64.

    python3 make_tiny_llama.py > tiny_llama.hpp             # needs numpy
    python3 make_tiny_llama.py --compare-with-transformers  # needs torch and transformers too

Weights and tokens come from an integer hash that tests/golden/tiny_llama_weights.hpp repeats in
C++; every weight is exact in float. The forward pass below is written apart from the library's.
"""
import sys

import numpy as np

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 48, 80, 2, 6, 2, 8, 70
TRAINED_LENGTH, EPS, THETA, YARN_FACTOR = 64, 1e-5, 10000.0, 4.0
TOKENS = 129  # 128 losses: twice the trained length


def hash16(tensor, element):
    """16 bits for each element of a tensor."""
    x = np.asarray(element, np.uint64) * np.uint64(2654435761) + np.uint64(tensor * 40503 + 1)
    x &= np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(15)
    x = (x * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(13)
    return x & np.uint64(0xFFFF)


def parameters():
    """(name, array) in the order in which the library visits them. Matrices: uniform in
    [-1/2, 1/2); norms: in [3/4, 5/4)."""
    shapes = [("model.embed_tokens.weight", (VOCAB, HIDDEN))]
    for l in range(LAYERS):
        p = f"model.layers.{l}."
        shapes += [
            (p + "input_layernorm.weight", (HIDDEN,)),
            (p + "self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN)),
            (p + "self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)),
            (p + "self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)),
            (p + "self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM)),
            (p + "post_attention_layernorm.weight", (HIDDEN,)),
            (p + "mlp.gate_proj.weight", (INTERMEDIATE, HIDDEN)),
            (p + "mlp.up_proj.weight", (INTERMEDIATE, HIDDEN)),
            (p + "mlp.down_proj.weight", (HIDDEN, INTERMEDIATE)),
        ]
    shapes += [("model.norm.weight", (HIDDEN,)), ("lm_head.weight", (VOCAB, HIDDEN))]
    result = {}
    for tensor, (name, shape) in enumerate(shapes):
        u = hash16(tensor, np.arange(np.prod(shape))).astype(np.float64) / 65536 - 0.5
        result[name] = (1 + u / 2 if len(shape) == 1 else u).reshape(shape)
    return result


def tokens():
    return (hash16(1000, np.arange(TOKENS)) % VOCAB).astype(np.int64)


def default_frequencies():
    return THETA ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM), 1.0


def yarn_frequencies():
    """arXiv:2309.00071 as released code has it: ramp over the pair index, bounds rounded."""
    w, _ = default_frequencies()
    d, length = HEAD_DIM, TRAINED_LENGTH

    def pair_that_turns(rotations):
        return d * np.log(length / (2 * np.pi * rotations)) / (2 * np.log(THETA))

    low = max(np.floor(pair_that_turns(32)), 0)
    high = min(np.ceil(pair_that_turns(1)), d - 1)
    interpolate = np.clip((np.arange(d // 2) - low) / (high - low), 0, 1)
    return w / YARN_FACTOR * interpolate + w * (1 - interpolate), 0.1 * np.log(YARN_FACTOR) + 1


def rms_norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def rotate(x, cos, sin):
    """x: (tokens, heads, head_dim), pairs (i, i + head_dim / 2)."""
    u, v = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
    c, s = cos[:, None, :], sin[:, None, :]
    return np.concatenate([u * c - v * s, v * c + u * s], -1)


def losses(weights, ids, frequencies, norm_head):
    w, attention_factor = frequencies
    inputs, targets = ids[:-1], ids[1:]
    n = len(inputs)
    angle = np.arange(n)[:, None] * w[None, :]
    cos, sin = np.cos(angle) * attention_factor, np.sin(angle) * attention_factor
    hidden_future = np.triu(np.full((n, n), -np.inf), 1)
    x = weights["model.embed_tokens.weight"][inputs]
    for l in range(LAYERS):
        get = lambda name: weights[f"model.layers.{l}.{name}.weight"]
        a = rms_norm(x, get("input_layernorm"))
        q = rotate((a @ get("self_attn.q_proj").T).reshape(n, HEADS, HEAD_DIM), cos, sin)
        k = rotate((a @ get("self_attn.k_proj").T).reshape(n, KV_HEADS, HEAD_DIM), cos, sin)
        v = (a @ get("self_attn.v_proj").T).reshape(n, KV_HEADS, HEAD_DIM)
        k, v = (np.repeat(m, HEADS // KV_HEADS, axis=1) for m in (k, v))
        logits = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(HEAD_DIM) + hidden_future
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + np.einsum("hij,jhd->ihd", p, v).reshape(n, -1) @ get("self_attn.o_proj").T
        b = rms_norm(x, get("post_attention_layernorm"))
        gate = b @ get("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (b @ get("mlp.up_proj").T)) @ get("mlp.down_proj").T
    z = rms_norm(x, weights["model.norm.weight"]) @ head_of(weights, norm_head).T
    largest = z.max(-1, keepdims=True)
    lse = np.log(np.exp(z - largest).sum(-1)) + largest[:, 0]
    return lse - z[np.arange(n), targets]


def head_of(weights, norm_head):
    head = weights["lm_head.weight"]
    return head / np.linalg.norm(head, axis=1, keepdims=True) if norm_head else head


def variants():
    for norm_head in (False, True):
        for name, frequencies in (("default", default_frequencies()), ("yarn", yarn_frequencies())):
            yield name + ("_norm_head" if norm_head else ""), frequencies, norm_head


def compare_with_transformers():
    import torch
    import transformers

    weights, ids = parameters(), tokens()
    print("torch", torch.__version__, "transformers", transformers.__version__)
    for name, (w, factor), norm_head in variants():
        rope = {"rope_type": "default", "rope_theta": THETA}
        if name.startswith("yarn"):
            rope = {"rope_type": "yarn", "rope_theta": THETA, "factor": YARN_FACTOR,
                    "original_max_position_embeddings": TRAINED_LENGTH}
        config = transformers.LlamaConfig(
            hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM,
            vocab_size=VOCAB, max_position_embeddings=4 * TRAINED_LENGTH, rms_norm_eps=EPS,
            tie_word_embeddings=False, rope_parameters=rope, attn_implementation="sdpa")
        model = transformers.LlamaForCausalLM(config).double().eval()
        state = {k: torch.from_numpy(v.copy()) for k, v in weights.items()}
        state["lm_head.weight"] = torch.from_numpy(head_of(weights, norm_head).copy())
        model.load_state_dict(state, strict=True)
        rotary = model.model.rotary_emb
        inputs = torch.from_numpy(ids[:-1])[None]

        def hf_losses():
            with torch.no_grad():
                z = model(inputs).logits[0]
            targets = torch.from_numpy(ids[1:])
            return torch.nn.functional.cross_entropy(z, targets, reduction="none").numpy()

        ours = losses(weights, ids, (w, factor), norm_head)
        as_shipped = np.abs(hf_losses() - ours).max()
        frequencies = np.abs(rotary.inv_freq.numpy() / w - 1).max()

        def forward(x, position_ids):  # the same angles in float64: HF computes them in float32
            angle = position_ids[..., None].double() * torch.from_numpy(w)
            angle = torch.cat([angle, angle], -1)
            return angle.cos() * rotary.attention_scaling, angle.sin() * rotary.attention_scaling

        rotary.forward = forward
        for module in model.modules():  # and norms in float64: HF casts their input to float32
            if type(module).__name__ == "LlamaRMSNorm":
                module.forward = lambda x, m=module: m.weight * x * torch.rsqrt(
                    x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon)
        print(f"{name}: inv_freq relative {frequencies:.1e}, attention factor "
              f"{abs(rotary.attention_scaling - factor):.1e}, losses as shipped {as_shipped:.1e}, "
              f"with its angles and norms in float64 {np.abs(hf_losses() - ours).max():.1e}")


def print_header():
    weights, ids = parameters(), tokens()
    print(f"""// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \\file
/// Losses of a small random Llama, made by make_tiny_llama.py in float64 (numpy).
///
/// Compared with transformers 5.23.0 (torch 2.15.0) in double: at most 2.1e-14 apart with its
/// angles and norms computed in float64, 1.5e-5 as shipped (it computes both in float32).

#include <array>

namespace ropewalk::golden {{

// clang-format off
/// Nats of token t + 1 after tokens 0 .. t.""")
    for name, frequencies, norm_head in variants():
        nll = losses(weights, ids, frequencies, norm_head)
        print(f"inline constexpr std::array<double, {len(nll)}> tiny_llama_{name}{{")
        for i in range(0, len(nll), 4):
            print("    " + " ".join(f"{v:.17g}," for v in nll[i : i + 4]))
        print("};")
    print("""// clang-format on

}  // namespace ropewalk::golden""")


if __name__ == "__main__":
    if sys.argv[1:] == ["--compare-with-transformers"]:
        compare_with_transformers()
    else:
        print_header()
