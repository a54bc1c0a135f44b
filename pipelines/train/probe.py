"""Write `sluice_probe.json`: what the source checkpoint says, for the server to compare at load.

    probe.py .cache/train/checkpoints/v2 examples/helpdesk/models/v2

The ONNX model is teacher-forced here already; on a difference above the tolerance nothing is
written. Works with every decoder that transformers loads; prompts are helpdesk conversations, or
random ids where the ONNX folder has no tokenizer. `pipelines/convert/causal_lm` writes the same
file at the end of each conversion.
"""

import argparse
import random
from pathlib import Path

import dataset
import torch
import transformers
from conversion import language
from conversion.onnx_lm import OnnxModel
from transformers import AutoModelForCausalLM


def token_stream(folder: Path, length: int, vocabulary: int) -> list[int]:
    """At least `length` tokens of text like the model's own, or of random ids."""
    rng = random.Random(language.SEED)
    if not (folder / "tokenizer.json").is_file():
        return [rng.randrange(vocabulary) for _ in range(length)]
    tokenizer = dataset.load_tokenizer(folder)
    rows, ids = dataset.generate.rows("train", language.SEED), []
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


def check(onnx: OnnxModel, name: str, answer: language.Answer, atol: float) -> None:
    worst = language.compare(onnx, answer, tie=0.0)[0].logit_error_max
    print(f"{name}: {len(answer.prompt)} tokens, largest difference {worst:.2e}", flush=True)
    if not worst <= atol:
        raise SystemExit(f"{name} differs from its source by more than {atol}: no probe written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="transformers checkpoint folder")
    parser.add_argument("folder", type=Path, help="ONNX model folder")
    parser.add_argument("--atol", type=float, default=1e-3)
    unchecked = "write the probe without running the ONNX model; the server compares"
    parser.add_argument("--unchecked", action="store_true", help=unchecked)
    parser.add_argument("--lengths", type=int, nargs="+", default=language.LENGTHS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(str(args.checkpoint), dtype=torch.float32, local_files_only=True)
    model.eval()
    longest = max(args.lengths)
    onnx = None if args.unchecked else OnnxModel(args.folder, capacity=longest + language.PROBE_TOKENS)
    stream = token_stream(args.folder, longest + language.ATTEMPTS, model.config.get_text_config().vocab_size)
    prompts = []
    for length in args.lengths:
        answer = language.clearest(
            lambda prompt: language.ask(model, prompt, language.PROBE_TOKENS),
            stream,
            length,
            lead=language.LEAD * args.atol,
            attempts=language.ATTEMPTS,
        )
        if onnx:
            check(onnx, args.folder.name, answer, args.atol)
        prompts.append(language.probe_prompt(answer, args.atol))
    language.write_probe(args.folder, f"transformers {transformers.__version__}", prompts, args.atol)


if __name__ == "__main__":
    main()
