#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/hf_decoding.hpp: what transformers does while it decodes.

    python3 make_hf_decoding.py > hf_decoding.hpp    # needs numpy, torch, transformers

Losses of the small random Llama of make_tiny_llama.py under Dynamic NTK, beyond its trained length:
token by token with transformers' cache, whose keys keep the base of the step that made them, and by
a fresh pass for every length. The model runs in float64; transformers computes angles and norms in
float32 within it. And the probabilities that its logits processors leave, on logits that
tests/model/test_sampling_golden.cpp repeats.
"""
import torch
import transformers
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

import make_tiny_llama as tiny

FACTOR, PROMPT = 2.0, 30
VOCAB = 50


def make_model():
    config = transformers.LlamaConfig(
        hidden_size=tiny.HIDDEN, intermediate_size=tiny.INTERMEDIATE,
        num_hidden_layers=tiny.LAYERS, num_attention_heads=tiny.HEADS,
        num_key_value_heads=tiny.KV_HEADS, head_dim=tiny.HEAD_DIM, vocab_size=tiny.VOCAB,
        max_position_embeddings=tiny.TRAINED_LENGTH, rms_norm_eps=tiny.EPS,
        tie_word_embeddings=False, attn_implementation="sdpa",
        rope_parameters={"rope_type": "dynamic", "rope_theta": tiny.THETA, "factor": FACTOR})
    model = transformers.LlamaForCausalLM(config).double().eval()
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in tiny.parameters().items()})
    return model


def loss(logits, target):
    return torch.nn.functional.cross_entropy(logits[None], target[None]).item()


@torch.no_grad()
def cached(ids):
    model = make_model()
    out = model(ids[None, :PROMPT], use_cache=True)
    losses = [loss(out.logits[0, -1], ids[PROMPT])]
    for t in range(PROMPT, len(ids) - 1):
        out = model(ids[None, t : t + 1], past_key_values=out.past_key_values, use_cache=True)
        losses.append(loss(out.logits[0, -1], ids[t + 1]))
    return losses


@torch.no_grad()
def fresh(ids):
    model = make_model()  # lengths ascend: its buffer of frequencies is then that of each length
    return [loss(model(ids[None, :n]).logits[0, -1], ids[n]) for n in range(PROMPT, len(ids))]


def warped(penalty, temperature, top_k, top_p):
    """Logits are multiples of 1/64, exact in float; no two are equal."""
    raw = torch.tensor([((i * 37 + 11) % 101 - 50) / 16 + i / 64 for i in range(VOCAB)])
    ids = torch.tensor([[3, 7, 7, 20, 41, 3]])
    z = RepetitionPenaltyLogitsProcessor(penalty)(ids, raw[None].double())
    z = TemperatureLogitsWarper(temperature)(ids, z)
    z = TopKLogitsWarper(top_k)(ids, z)
    z = TopPLogitsWarper(top_p)(ids, z)
    return torch.softmax(z[0], -1).tolist()


def print_array(comment, name, values):
    print(f"/// {comment}\ninline constexpr std::array<double, {len(values)}> {name}{{")
    for i in range(0, len(values), 4):
        print("    " + " ".join(f"{v:.17g}," for v in values[i : i + 4]))
    print("};")


def main():
    ids = torch.from_numpy(tiny.tokens())
    print(f"""// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \\file
/// Decoding by transformers {transformers.__version__} (torch {torch.__version__.split("+")[0]}), made by make_hf_decoding.py.

#include <array>

namespace ropewalk::golden {{

// clang-format off""")
    print_array(f"Nats of token {PROMPT} + i after a prompt of {PROMPT} and cached decoding, dynamic "
                "NTK of factor 2.", "hf_dynamic_cached", cached(ids))
    print_array("The same by a fresh pass for every length.", "hf_dynamic_fresh", fresh(ids))
    print_array("Penalty 1.5, temperature 0.8, top-k 20, top-p 0.9.", "hf_warped_sharp",
                warped(1.5, 0.8, 20, 0.9))
    print_array("Penalty 0.7, temperature 3, top-k 45, top-p 0.97.", "hf_warped_flat",
                warped(0.7, 3.0, 45, 0.97))
    print("""// clang-format on

}  // namespace ropewalk::golden""")


if __name__ == "__main__":
    main()
