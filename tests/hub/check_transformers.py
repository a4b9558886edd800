#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Opens a folder that `ropewalk train` wrote with transformers and compares the loss.

  check_transformers.py ROPEWALK FOLDER [LENGTH]

Random ids are scored by both, one window; the losses must agree to 1e-4. For developers: needs
torch and transformers.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    ropewalk, folder = sys.argv[1:3]
    length = int(sys.argv[3]) if len(sys.argv) == 4 else 256
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(1)
    ids = torch.randint(0, model.config.vocab_size, (1, length + 1))
    with torch.inference_mode():
        theirs = model(ids[:, :-1], use_cache=False).logits[0].float()
    theirs = torch.nn.functional.cross_entropy(theirs, ids[0, 1:]).item()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "ids.u16"
        path.write_bytes(b"".join(int(i).to_bytes(2, "little") for i in ids[0]))
        command = [ropewalk, "ppl", "--model", folder, "--tokens", path, "--length", str(length)]
        done = subprocess.run(
            [*command, "--format", "jsonl", "--quiet"], capture_output=True, text=True, check=True
        )
    ours = json.loads(done.stdout)["nll"]
    print(f"ropewalk {ours:.8f}, transformers {theirs:.8f}, difference {abs(ours - theirs):.1e}")
    if not abs(ours - theirs) < 1e-4:
        sys.exit("check_transformers.py: the losses differ")


if __name__ == "__main__":
    main()
