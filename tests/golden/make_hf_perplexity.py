#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/hf_perplexity.hpp: what transformers says of TinyStories-656K's perplexity.

    python3 make_hf_perplexity.py MODEL_FOLDER > hf_perplexity.hpp    # needs torch, transformers

The ids are stories that the model itself told (sampled, BOS before each), so that no text is
needed. The loops are those that the peers publish, with the loss that transformers computes from
labels: the sliding window of Hugging Face's page "Perplexity of fixed-length models", the one of
the yarn repository (unweighted window means, BOS before every window) and the one of LongLoRA
(every token of overlapping windows, mean of batches, 2.71828 ** x). The model runs in float64;
transformers computes angles, norms and the loss in float32 within it.
"""
import sys

import torch
import transformers

TOKENS, CUT, BOS, EOS = 1300, 700, 1, 2


def tell_stories(model):
    generator = torch.Generator().manual_seed(20240229)
    ids = []
    while len(ids) < TOKENS:
        story = [BOS]
        while len(story) < 400 and story[-1] != EOS:
            logits = model(torch.tensor([story])).logits[0, -1]
            story.append(torch.multinomial(torch.softmax(logits, -1), 1, generator=generator).item())
        ids += story
    return ids[:TOKENS]


def mean_loss(model, ids, labels):
    """transformers' own: mean over labels that are not -100, after its shift by one."""
    return model(ids, labels=labels).loss


def hugging_face(model, ids, max_length, stride):
    x = torch.tensor([ids])
    nll_sum, n_tokens, prev_end = 0.0, 0, 0
    for begin in range(0, x.size(1), stride):
        end = min(begin + max_length, x.size(1))
        target_length = end - prev_end
        window = x[:, begin:end]
        labels = window.clone()
        labels[:, :-target_length] = -100
        loss_tokens = (labels != -100).sum().item() - 1
        nll_sum += mean_loss(model, window, labels).item() * loss_tokens
        n_tokens += loss_tokens
        prev_end = end
        if end == x.size(1):
            break
    return torch.exp(torch.tensor(nll_sum / n_tokens, dtype=torch.float64)).item()


def yarn(model, documents, max_length, sliding_window):
    nlls = []
    for document in documents:
        x = torch.tensor([document])
        prev_end = 0
        for begin in range(0, x.size(1), sliding_window):
            end = min(begin + max_length - 1, x.size(1))
            target_length = end - prev_end
            window = torch.cat([torch.tensor([[BOS]]), x[:, begin:end]], dim=1)
            labels = window.clone()
            labels[:, :-target_length] = -100
            nlls.append(mean_loss(model, window, labels).double())
            prev_end = end
            if end == x.size(1):
                break
    return torch.exp(torch.stack(nlls).mean()).item()


def longlora(model, ids, seq_len, stride, batch_size):
    starts = list(range(0, len(ids) - seq_len, stride))
    starts.pop()
    losses = []
    for at in range(0, len(starts), batch_size):
        x = torch.tensor([ids[i : i + seq_len] for i in starts[at : at + batch_size]])
        losses.append(mean_loss(model, x, x.clone()).item())
    return 2.71828 ** torch.as_tensor(losses, dtype=torch.float64).mean().item()


def main():
    folder = sys.argv[1]
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    torch.set_grad_enabled(False)
    ids = tell_stories(model)
    print("// SPDX-License-Identifier: Apache-2.0")
    print("#pragma once")
    print("/// \\file")
    print("/// Perplexities of TinyStories-656K on stories of its own, made by make_hf_perplexity.py")
    print(f"/// (transformers {transformers.__version__}, torch {torch.__version__}, float64).")
    print()
    print("#include <array>\n#include <cstdint>\n")
    print("namespace ropewalk::golden {\n")
    print("// clang-format off")
    for name, value in [
        ("hf_256_128", hugging_face(model, ids, 256, 128)),
        ("hf_256_100", hugging_face(model, ids, 256, 100)),
        ("hf_512_512", hugging_face(model, ids, 512, 512)),
        ("yarn_256_128", yarn(model, [ids[:CUT], ids[CUT:]], 256, 128)),
        ("yarn_256_256", yarn(model, [ids[:CUT], ids[CUT:]], 256, 256)),
        ("longlora_256_100_batch_4", longlora(model, ids, 256, 100, 4)),
    ]:
        print(f"inline constexpr double {name} = {value:.17g};")
    print(f"\n/// Two documents of {CUT} and {TOKENS - CUT} ids for the protocols that tell them apart.")
    print(f"inline constexpr std::int32_t story_cut = {CUT};")
    print(f"inline constexpr std::array<std::int32_t, {TOKENS}> story_ids{{")
    for at in range(0, TOKENS, 20):
        print("    " + " ".join(f"{i}," for i in ids[at : at + 20]))
    print("};")
    print("// clang-format on")
    print("\n}  // namespace ropewalk::golden")


if __name__ == "__main__":
    main()
