"""Train one version of the helpdesk model and save its checkpoint.

    train.py --version v2 --work .cache/train

The saved weights are rounded to float16 values, so that the small float16 checkpoint and the
float32 ONNX model made from it are the same numbers.
"""

import argparse
import json
import platform
import random
import time
from collections.abc import Iterator
from pathlib import Path

import dataset
import torch
import transformers
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

Encoded = tuple[list[int], list[bool]]


def build_model(recipe: dict, vocabulary: int) -> LlamaForCausalLM:
    shape = dict(recipe["model"])
    theta = shape.pop("rope_theta")
    config = LlamaConfig(
        **shape,
        vocab_size=vocabulary,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0, do_sample=False)
    return model


def batches(rows: list[Encoded], tokens: int, rng: random.Random) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of similar lengths as (ids, labels).

    Rows are padded on the right only: under the causal mask no real token sees padding,
    so the model runs without an attention mask, on its fastest path.
    """
    while True:
        order = rng.sample(range(len(rows)), len(rows))
        groups = []
        # Sorting a window, not everything: batches stay mixed in all but length.
        for start in range(0, len(order), 2048):
            window = sorted(order[start : start + 2048], key=lambda index: len(rows[index][0]))
            group: list[int] = []
            for index in window:
                if group and (len(group) + 1) * len(rows[index][0]) > tokens:
                    groups.append(group)
                    group = []
                group.append(index)
            groups.append(group)
        rng.shuffle(groups)
        for group in groups:
            yield pad([rows[index] for index in group])


def pad(rows: list[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100)
    for row, (tokens, learned) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(tokens)] = torch.tensor([t if m else -100 for t, m in zip(tokens, learned, strict=True)])
    return ids, labels


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the learned tokens; the head runs at their positions only."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    target = labels[:, 1:]
    wanted = target != -100
    logits = model.lm_head(hidden[:, :-1][wanted])
    return functional.cross_entropy(logits.float(), target[wanted])


def optimizers(model: LlamaForCausalLM, settings: dict) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, Adam for the rest, as Muon's authors advise."""
    inner = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and ".layers." in name]
    rest = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or ".layers." not in name]
    return [
        torch.optim.Muon(
            inner,
            lr=settings["muon_learning_rate"],
            weight_decay=settings["weight_decay"],
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(rest, lr=settings["adam_learning_rate"], betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(step: int, steps: int, settings: dict) -> float:
    """Warm up, hold, then fall linearly to zero; a share of zero leaves that part out."""
    rise = (step + 1) / steps / settings["warmup"] if settings["warmup"] else 1.0
    fall = (1 - step / steps) / settings["decay"] if settings["decay"] else 1.0
    return min(rise, fall, 1.0)


def train(model: LlamaForCausalLM, rows: list[Encoded], version: dict, settings: dict) -> float:
    """Returns the wall seconds."""
    steps = version["steps"]
    stream = batches(rows, settings["tokens_per_batch"], random.Random(version["seed"]))
    chosen = optimizers(model, settings)
    base = [optimizer.param_groups[0]["lr"] for optimizer in chosen]
    # bfloat16 is faster only where the processor multiplies it natively.
    fast = torch.cpu._is_avx512_bf16_supported()
    start, seen, average = time.monotonic(), 0, None
    for step in range(steps):
        scale = schedule(step, steps, settings)
        for optimizer, rate in zip(chosen, base, strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
        ids, labels = next(stream)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = loss_of(model, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad()
        seen += ids.numel()
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            seconds = time.monotonic() - start
            rate = seen / seconds
            print(f"step {step + 1}/{steps}  loss {average:.4f}  {rate:.0f} tokens/s  {seconds:.0f} s", flush=True)
    return time.monotonic() - start


def save(model: LlamaForCausalLM, folder: Path, training: dict) -> None:
    """Writes the float16 checkpoint; what is loaded from it is what every later step sees."""
    model.half().save_pretrained(folder, safe_serialization=True)
    (folder / "training.json").write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", required=True)
    parser.add_argument("--work", type=Path, required=True)
    # Matrices this small gain little from a second thread, and one thread adds up in one order.
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = dataset.read_recipe()
    version = recipe[args.version]
    settings = recipe["training"] | version.get("training", {})

    tokenizer = dataset.load_tokenizer(args.work / "tokenizer")
    rows = dataset.encode(tokenizer, version["rows"], version["seed"], settings["tool_share"])
    torch.manual_seed(version["seed"])
    if "source" in version:
        source = args.work / "checkpoints" / version["source"]
        model = LlamaForCausalLM.from_pretrained(str(source), dtype=torch.float32, local_files_only=True)
    else:
        model = build_model(recipe, len(tokenizer))
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{args.version}: {parameters} parameters, {len(rows)} rows, {version['steps']} steps", flush=True)
    seconds = train(model, rows, version, settings)
    training = {
        "rows": len(rows),
        "steps": version["steps"],
        "seed": version["seed"],
        "parameters": parameters,
        "seconds": round(seconds),
        "threads": args.threads,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    save(model, args.work / "checkpoints" / args.version, training)


if __name__ == "__main__":
    main()
