#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/torch_training.hpp: ten steps of AdamW on a small Llama by torch, in float64.

    python3 make_torch_training.py > torch_training.hpp    # needs torch, transformers

transformers' Llama, with its norms and angles in float64 too (as shipped it computes both in
float32). Weights and batches are uniform numbers of core/rng.hpp, which
tests/golden/torch_training_problem.hpp repeats in C++; every weight is exact in float.
"""
import math
import sys

import torch
import torch.nn.functional as functional
import transformers

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 32, 48, 2, 4, 2, 8, 64
EPS, THETA = 1e-5, 100.0
TOKENS, STEPS = 64, 10
BETAS, ADAM_EPS, WEIGHT_DECAY, MAX_NORM = (0.9, 0.95), 1e-8, 0.1, 1.0
PEAK, WARMUP = 0.01, 3  # learning rate; then a cosine to a tenth of it at step STEPS
SEED, TOKEN_STREAM = 2026, 1000
SAMPLES = 4  # elements of each tensor whose values are written: (601 i + 7) mod size

# By name: where documents begin and end, what the model is, and what is not scored.
CASES = {
    "plain": dict(documents=[0, 32, 64]),
    "weighted": dict(documents=[0, 64], weighted=True),
    "documents": dict(documents=[0, 7, 8, 40, 64], tied=True, score_ends=False),
    "norm_head": dict(documents=[0, 32, 64], norm_head=True),
}


def philox(counter, key):
    """Philox4x32-10."""
    c, k, low = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & low, (a >> 32) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


def random_bits(stream, step, element):
    low = 0xFFFFFFFF
    r = philox([element & low, element >> 32, stream, step], [SEED & low, SEED >> 32])
    return r[1] << 32 | r[0]


def uniform(stream, element):
    return (random_bits(stream, 0, element) >> 11) * 2.0**-53


def parameter_names(case):
    """In the order in which the library visits them."""
    names = ["model.embed_tokens"]
    for l in range(LAYERS):
        names += [f"model.layers.{l}." + part for part in (
            "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
            "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj",
            "mlp.down_proj")]
    names += ["model.norm"] + ([] if case.get("tied") else ["lm_head"])
    return [name + ".weight" for name in names]


def fill(case, model):
    """Gives each parameter the numbers of a stream of its own, and returns all by name.
    Matrices: uniform in [-1/4, 1/4); norms: in [3/4, 5/4)."""
    of_model = dict(model.named_parameters())
    state = {name: of_model.pop(name) for name in parameter_names(case)}
    assert not of_model
    for stream, parameter in enumerate(state.values()):
        values = [0.25 * (2 * uniform(stream, i) - 1) for i in range(parameter.numel())]
        values = torch.tensor(values, dtype=torch.float64).reshape(parameter.shape)
        if parameter.dim() == 1:
            values = 1 + values
        with torch.no_grad():
            parameter.copy_(values.float())
    return state


def batch(case, step):
    """Ids in which one follows from the one before, but for every eighth or so."""
    ids = [random_bits(TOKEN_STREAM, step, 0) % VOCAB]
    for t in range(1, TOKENS + 1):
        bits = random_bits(TOKEN_STREAM, step, t)
        ids.append((bits >> 8) % VOCAB if bits % 8 == 0 else (5 * ids[-1] + 3) % VOCAB)
    targets, weights = ids[1:], [1 / TOKENS] * TOKENS
    if case.get("weighted"):
        targets = [-1 if t % 7 == 3 else targets[t] for t in range(TOKENS)]
        weights = [3 * (t % 5) / 1024 for t in range(TOKENS)]  # norms on both sides of 1
    if not case.get("score_ends", True):
        for end in case["documents"][1:]:
            targets[end - 1] = -1
    return (torch.tensor(ids[:-1]), torch.tensor(targets), torch.tensor(weights).double())


def learning_rate(step):
    if step < WARMUP:
        return PEAK * (step + 1) / WARMUP
    turn = math.pi * (step - WARMUP) / (STEPS - WARMUP)
    return PEAK * (0.1 + 0.45 * (1 + math.cos(turn)))


def make_model(case, as_shipped=False):
    config = transformers.LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM,
        vocab_size=VOCAB, max_position_embeddings=TOKENS, rms_norm_eps=EPS,
        tie_word_embeddings=case.get("tied", False), attn_implementation="sdpa",
        rope_parameters={"rope_type": "default", "rope_theta": THETA}, use_cache=False)
    model = transformers.LlamaForCausalLM(config).double()
    if as_shipped:
        return model
    inv_freq = THETA ** (-torch.arange(0, HEAD_DIM, 2).double() / HEAD_DIM)

    def angles(x, position_ids):
        angle = position_ids[..., None].double() * inv_freq
        angle = torch.cat([angle, angle], -1)
        return angle.cos(), angle.sin()

    model.model.rotary_emb.forward = angles
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = lambda x, m=module: m.weight * x * torch.rsqrt(
                x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon)
    return model


def logits_of(case, model, ids, documents):
    """One pass over packed documents -> (tokens, VOCAB)."""
    positions, owner = [], []
    for d, (begin, end) in enumerate(zip(documents, documents[1:])):
        positions += range(end - begin)
        owner += [d] * (end - begin)
    owner = torch.tensor(owner)
    sees = (owner[:, None] == owner[None, :]).tril()
    mask = torch.where(sees, 0.0, -torch.inf).double()[None, None]
    hidden = model.model(ids[None], attention_mask=mask, position_ids=torch.tensor([positions]))
    head = model.lm_head.weight
    if case.get("norm_head"):
        head = head / head.norm(dim=1, keepdim=True)
    return functional.linear(hidden.last_hidden_state[0], head)


def loss_of(case, model, step):
    ids, targets, weights = batch(case, step)
    logits = logits_of(case, model, ids, case["documents"])
    nll = functional.cross_entropy(logits, targets, reduction="none", ignore_index=-1)
    return (weights * nll).sum()


def separate_loss(case, model, step):
    """The same with a pass for each document."""
    ids, targets, weights = batch(case, step)
    total = 0
    for begin, end in zip(case["documents"], case["documents"][1:]):
        logits = logits_of(case, model, ids[begin:end], [0, end - begin])
        nll = functional.cross_entropy(
            logits, targets[begin:end], reduction="none", ignore_index=-1)
        total = total + (weights[begin:end] * nll).sum()
    return total


def samples(tensor):
    flat = tensor.detach().reshape(-1)
    return [flat[(601 * i + 7) % flat.numel()].item() for i in range(SAMPLES)]


def train(case, as_shipped=False):
    model = make_model(case, as_shipped)
    state = fill(case, model)
    before = {name: p.detach().clone() for name, p in state.items()}
    groups = [
        {"params": [p for p in state.values() if p.dim() == 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in state.values() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=BETAS, eps=ADAM_EPS)
    result = {"loss": [], "grad_norm": [], "tensors": {name: {} for name in state}}
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.zero_grad()
        loss = loss_of(case, model, step)
        loss.backward()
        if step == 0:
            for name, p in state.items():
                result["tensors"][name]["gradient_norm"] = p.grad.norm().item()
                result["tensors"][name]["gradient"] = samples(p.grad)
            packed = {name: p.grad.clone() for name, p in state.items()}
            optimizer.zero_grad()
            separate = separate_loss(case, model, step)
            separate.backward()
            assert abs(separate.item() - loss.item()) < 1e-13
            for name, p in state.items():
                assert (p.grad - packed[name]).abs().max() < 1e-13, name
        result["loss"].append(loss.item())
        norm = torch.nn.utils.clip_grad_norm_(state.values(), MAX_NORM)
        result["grad_norm"].append(norm.item())
        optimizer.step()
    for name, p in state.items():
        result["tensors"][name]["distance"] = (p.detach() - before[name]).norm().item()
        result["tensors"][name]["value"] = samples(p)
    return result


def numbers(values):
    return ", ".join(f"{v:.17g}" for v in values)


def main():
    results = {name: train(case) for name, case in CASES.items()}
    shipped = 0
    for name, case in CASES.items():
        for a, b in zip(train(case, as_shipped=True)["loss"], results[name]["loss"]):
            shipped = max(shipped, abs(a - b))
    for name, r in results.items():
        print(name, "loss", [f"{v:.4f}" for v in r["loss"]],
              "norm", [f"{v:.3f}" for v in r["grad_norm"]], file=sys.stderr)
    version = torch.__version__.split("+")[0]
    print(f"""// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \\file
/// Ten steps of training by torch {version} and transformers {transformers.__version__} in float64, made by
/// make_torch_training.py.
///
/// Angles and norms in float64; as shipped, transformers computes both in float32, and its losses
/// are at most {shipped:.1e} apart from these. For each case packed documents and a pass for each of
/// them had the same loss and gradient to 1e-13.

#include <array>
#include <span>

namespace ropewalk::golden {{

/// One parameter. Samples i = 0 .. {SAMPLES - 1} are its elements (601 i + 7) mod size, row-major.
struct TorchTensor {{
  const char* name;
  double gradient_norm;            ///< step 1, before clipping
  std::array<double, {SAMPLES}> gradient;  ///< samples, step 1, before clipping
  double distance;                 ///< norm of what {STEPS} steps changed
  std::array<double, {SAMPLES}> value;     ///< samples after step {STEPS}
}};

/// One run. Losses and norms are those of a step's batch before its update.
struct TorchTraining {{
  const char* name;
  std::array<double, {STEPS}> loss;       ///< sum of loss weight times nats
  std::array<double, {STEPS}> grad_norm;  ///< of all gradients, before clipping
  std::span<const TorchTensor> tensors;
}};

inline constexpr double torch_beta1 = {BETAS[0]}, torch_beta2 = {BETAS[1]}, torch_eps = {ADAM_EPS};
inline constexpr double torch_weight_decay = {WEIGHT_DECAY};  ///< of matrices, embeddings included
inline constexpr double torch_max_grad_norm = {MAX_NORM};

// clang-format off
/// Of each step: {WARMUP} steps of linear warm-up to {PEAK}, then a cosine down to a tenth of it.
inline constexpr std::array<double, {STEPS}> torch_learning_rate{{
    {numbers(map(learning_rate, range(STEPS)))},
}};""")
    for name, r in results.items():
        print(f"inline constexpr TorchTensor torch_{name}_tensors[]{{")
        for tensor, t in r["tensors"].items():
            print(f'    {{"{tensor}", {t["gradient_norm"]:.17g},')
            print(f'     {{{numbers(t["gradient"])}}},')
            print(f'     {t["distance"]:.17g}, {{{numbers(t["value"])}}}}},')
        print("};")
    print("inline constexpr TorchTraining torch_trainings[]{")
    for name, r in results.items():
        print(f'    {{"{name}",')
        print(f'     {{{numbers(r["loss"])}}},')
        print(f'     {{{numbers(r["grad_norm"])}}},')
        print(f"     torch_{name}_tensors}},")
    print("""};
// clang-format on

}  // namespace ropewalk::golden""")


if __name__ == "__main__":
    main()
