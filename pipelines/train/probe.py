"""Write `sluice_probe.json`: what the source checkpoint says, for the server to compare at load.

    probe.py .cache/train/checkpoints/v2 examples/helpdesk/models/v2

A conversion can be silently wrong (a dropped attention window is right until the window
ends), so the probe holds one prompt of several hundred tokens. The ONNX model is
teacher-forced here already; on a difference above the tolerance nothing is written.
Works with every decoder that transformers loads; prompts come from the tokenizer in the
ONNX folder, or are random ids where there is none.
"""

import argparse
import json
import random
from pathlib import Path

import dataset
import numpy as np
import torch
import transformers
from onnx_model import OnnxModel
from transformers import AutoModelForCausalLM, PreTrainedModel

FORMAT = 1
NEW_TOKENS = 16
CHOSEN = 8
LENGTHS = (24, 96, 400)
# A greedy token is a fair question only where its lead over the next is far above the noise.
LEAD = 4.0
ATTEMPTS = 64
SEED = 5


def token_stream(folder: Path, length: int, vocabulary: int) -> list[int]:
    """At least `length` tokens of text like the model's own, or of random ids."""
    rng = random.Random(SEED)
    if not (folder / "tokenizer.json").is_file():
        return [rng.randrange(vocabulary) for _ in range(length)]
    tokenizer = dataset.load_tokenizer(folder)
    rows, ids = dataset.generate.rows("train", SEED), []
    while len(ids) < length:
        row = next(rows)
        answer = dataset.generate.compact(row["ticket"])
        if tokenizer.chat_template:
            turn = [*row["messages"], {"role": "assistant", "content": answer}]
            text = tokenizer.apply_chat_template(turn, tokenize=False)
        else:
            text = f"{row['messages'][-1]['content']}\n{answer}\n"
        ids += tokenizer.encode(text, add_special_tokens=False)
    return ids


@torch.no_grad()
def ask(model: PreTrainedModel, prompt: list[int]) -> tuple[list[int], np.ndarray, float]:
    """Greedy tokens, the logits at every position, and the smallest lead of a greedy token.

    Each token is chosen from a whole pass without a cache: nothing but the weights
    and the definition of the model enters the answer.
    """
    ids, lead = list(prompt), float("inf")
    for _ in range(NEW_TOKENS):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        best = logits[-1].topk(2)
        lead = min(lead, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    return ids[len(prompt) :], logits.float().numpy(), lead


def question(model: PreTrainedModel, stream: list[int], length: int, atol: float) -> tuple[dict, np.ndarray]:
    """The first prompt of this length whose greedy tokens lead clearly, and its logits."""
    for attempt in range(ATTEMPTS):
        prompt = stream[attempt : attempt + length]
        greedy, logits, lead = ask(model, prompt)
        if lead >= LEAD * atol:
            break
    else:
        raise SystemExit(f"no prompt of {length} tokens has a greedy continuation that leads by {LEAD * atol}")
    last = logits[length - 1]
    # The largest logits decide; the others are drawn over the whole vocabulary.
    chosen = [int(token) for token in np.argsort(-last)[: CHOSEN // 2]]
    rng = random.Random(f"{SEED}/{length}")
    while len(chosen) < CHOSEN:
        token = rng.randrange(len(last))
        if token not in chosen:
            chosen.append(token)
    values = [[round(float(last[token]), 5) for token in chosen]]
    answer = {"positions": [length - 1], "token_ids": chosen, "values": values}
    return {"input_ids": prompt, "greedy": greedy, "logits": answer}, logits


def difference(onnx: OnnxModel, prompt: dict, logits: np.ndarray) -> float:
    """The largest difference over all positions and tokens, teacher-forced through prefill and decode."""
    length = len(prompt["input_ids"])
    cache = onnx.empty_cache(1)
    seen = onnx.step(np.array([prompt["input_ids"]]), cache)
    worst = float(np.abs(seen[0] - logits[:length]).max())
    for offset, token in enumerate(prompt["greedy"]):
        seen = onnx.step(np.array([[token]]), cache)
        worst = max(worst, float(np.abs(seen[0, 0] - logits[length + offset]).max()))
    return worst


def check(onnx: OnnxModel, name: str, prompt: dict, logits: np.ndarray, atol: float) -> None:
    worst = difference(onnx, prompt, logits)
    print(f"{name}: {len(prompt['input_ids'])} tokens, largest difference {worst:.2e}", flush=True)
    if not worst <= atol:
        raise SystemExit(f"{name} differs from its source by more than {atol}: no probe written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="transformers checkpoint folder")
    parser.add_argument("folder", type=Path, help="ONNX model folder")
    parser.add_argument("--atol", type=float, default=1e-3)
    unchecked = "write the probe without running the ONNX model; the server compares"
    parser.add_argument("--unchecked", action="store_true", help=unchecked)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(str(args.checkpoint), dtype=torch.float32, local_files_only=True)
    model.eval()
    capacity = max(args.lengths) + NEW_TOKENS
    onnx = None if args.unchecked else OnnxModel(args.folder, capacity=capacity)
    stream = token_stream(args.folder, max(args.lengths) + ATTEMPTS, model.config.get_text_config().vocab_size)
    prompts = []
    for length in args.lengths:
        prompt, logits = question(model, stream, length, args.atol)
        if onnx:
            check(onnx, args.folder.name, prompt, logits, args.atol)
        prompts.append(prompt)
    probe = {
        "format": FORMAT,
        "source": f"transformers {transformers.__version__}",
        "prompts": prompts,
        "atol": args.atol,
    }
    text = json.dumps(probe, separators=(",", ":"))
    (args.folder / "sluice_probe.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
