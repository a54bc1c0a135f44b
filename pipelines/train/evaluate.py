"""Score ONNX folders on the held-out test set: exact tickets and single fields, greedy decoding.

evaluate.py examples/helpdesk/models/v1 examples/helpdesk/models/v2
"""

import argparse
import json
import re
import time
from collections import defaultdict
from pathlib import Path

import dataset
import numpy as np
from conversion.onnx_lm import OnnxModel

FIELDS = ["intent", "resource", "ids", "urgency", "reply"]
LIMIT = 160


def answers(folder: Path, rows: list[dict], threads: int, tools: list[dict] | None) -> list[str]:
    tokenizer = dataset.load_tokenizer(folder)
    model = OnnxModel(folder, threads)
    # Rows of one prompt length share a batch, so that no padding touches the result.
    by_length = defaultdict(list)
    for index, row in enumerate(rows):
        prompt = tokenizer.apply_chat_template(row["messages"], tools=tools, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        by_length[len(ids)].append((index, ids))
    texts = [""] * len(rows)
    for group in by_length.values():
        prompts = np.array([ids for _, ids in group])
        spoken = model.greedy(prompts, LIMIT, tokenizer.eos_token_id)
        for (index, _), ids in zip(group, spoken, strict=True):
            texts[index] = tokenizer.decode(ids, skip_special_tokens=False)
    return texts


def parse(text: str) -> dict | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def called_with(text: str) -> str:
    """The arguments of a `create_ticket` call, or nothing that parses."""
    call = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", text, re.DOTALL)
    value = parse(call.group(1)) if call else None
    if value is None or value.get("name") != "create_ticket":
        return ""
    return json.dumps(value.get("arguments"))


def score(rows: list[dict], texts: list[str]) -> dict[str, float]:
    """Shares of rows. A text that is no JSON object counts as wrong in every field."""
    total = dict.fromkeys(["exact", "json", *FIELDS], 0)
    for row, text in zip(rows, texts, strict=True):
        ticket = parse(text)
        total["json"] += ticket is not None
        total["exact"] += ticket == row["ticket"]
        for field in FIELDS:
            total[field] += ticket is not None and ticket.get(field) == row["ticket"][field]
    return {name: round(count / len(rows), 4) for name, count in total.items()}


def record(folder: Path, test: Path, scores: dict) -> None:
    path = folder / "version.json"
    version = json.loads(path.read_text(encoding="utf-8"))
    version["scores"] = {"test": test.name, **scores}
    path.write_text(json.dumps(version, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--test", type=Path, default=dataset.EXAMPLE / "test.jsonl")
    parser.add_argument("--rows", type=int, help="only the first rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wrong", type=int, default=0, help="print this many wrong answers")
    parser.add_argument("--tools", action="store_true", help="offer `create_ticket` and score its arguments")
    parser.add_argument("--record", action="store_true", help="write the scores into each folder's version.json")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.test.read_text(encoding="utf-8").splitlines()][: args.rows]
    columns = ["exact", "json", *FIELDS]
    print("| model | " + " | ".join(columns) + " | seconds |")
    print("|---|" + "---|" * (len(columns) + 1))
    for folder in args.folders:
        start = time.monotonic()
        if args.tools:
            texts = [called_with(text) for text in answers(folder, rows, args.threads, [dataset.CREATE_TICKET])]
        else:
            texts = answers(folder, rows, args.threads, None)
        shares = score(rows, texts)
        cells = [f"{100 * shares[column]:.1f} %" for column in columns]
        print(f"| {folder.name} | " + " | ".join(cells) + f" | {time.monotonic() - start:.0f} |", flush=True)
        wrong = [(row, text) for row, text in zip(rows, texts, strict=True) if parse(text) != row["ticket"]]
        for row, text in wrong[: args.wrong]:
            want = dataset.generate.compact(row["ticket"])
            print(f"    {row['messages'][-1]['content']}\n      want {want}\n      got  {text}")
        if args.record:
            record(folder, args.test, {"rows": len(rows), **shares})


if __name__ == "__main__":
    main()
