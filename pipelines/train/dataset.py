"""From generated rows to token ids and loss masks."""

import json
import random
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent.parent / "examples" / "helpdesk"
# The example's generator, and the packages that all pipelines share.
sys.path[:0] = [str(EXAMPLE), str(HERE.parent)]

import generate  # noqa: E402  (the example's folder is on the path only now)

ANSWER = "<|im_start|>assistant\n"
END = "<|im_end|>"

CREATE_TICKET = {
    "type": "function",
    "function": {
        "name": "create_ticket",
        "description": "Open a helpdesk ticket.",
        "parameters": {
            "type": "object",
            "properties": {
                "intent": {"type": "string"},
                "resource": {"type": "string"},
                "ids": {"type": "array", "items": {"type": "string"}},
                "urgency": {"type": "string", "enum": ["low", "normal", "high", "critical"]},
                "reply": {"type": "string"},
            },
            "required": ["intent", "resource", "ids", "urgency", "reply"],
        },
    },
}


def read_recipe() -> dict:
    return tomllib.loads((HERE / "recipe.toml").read_text(encoding="utf-8"))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def with_tools(row: dict, rng: random.Random) -> tuple[list[dict], list[dict]]:
    """The same message where the client offers `create_ticket`: a call, and sometimes what follows it."""
    arguments = generate.compact(row["ticket"])
    call = {"type": "function", "function": {"name": "create_ticket", "arguments": arguments}}
    messages = [*row["messages"], {"role": "assistant", "content": None, "tool_calls": [call]}]
    if rng.random() < 0.5:
        result = {"status": "created"}
        messages.append({"role": "tool", "content": generate.compact(result)})
        messages.append({"role": "assistant", "content": row["ticket"]["reply"]})
    return messages, [CREATE_TICKET]


def conversations(rows: int, seed: int, tool_share: float) -> Iterator[tuple[list[dict], list[dict] | None]]:
    rng = random.Random(f"tools/{seed}")
    stream = generate.rows("train", seed)
    for _ in range(rows):
        row = next(stream)
        if rng.random() < tool_share:
            yield with_tools(row, rng)
        else:
            answer = {"role": "assistant", "content": generate.compact(row["ticket"])}
            yield [*row["messages"], answer], None


def plain_texts(rows: int, seed: int) -> list[str]:
    """Texts for the tokenizer: its own markers are added later and are not part of the statistics."""
    texts = []
    for messages, tools in conversations(rows, seed, tool_share=0.05):
        for message in messages:
            texts.append(message["content"] or message["tool_calls"][0]["function"]["arguments"])
        if tools:
            texts.append(json.dumps(tools[0]))
    return texts


def render(
    tokenizer: PreTrainedTokenizerFast, messages: list[dict], tools: list[dict] | None
) -> tuple[list[int], list[bool]]:
    """Token ids, and which of them the model must learn to say: each assistant turn and its end."""
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    ids: list[int] = []
    learned: list[bool] = []
    for index, part in enumerate(text.split(ANSWER)):
        if index == 0:
            said, rest = "", part
        else:
            said, _, rest = part.partition(END)
            said += END
        if index > 0:
            spoken = tokenizer.encode(said, add_special_tokens=False)
            ids += spoken
            learned += [True] * len(spoken)
        # The newline after a turn is the template's, not the model's.
        following = text.split(ANSWER)[index + 1 :]
        prompt = tokenizer.encode(rest + (ANSWER if following else ""), add_special_tokens=False)
        ids += prompt
        learned += [False] * len(prompt)
    return ids, learned


def encode(
    tokenizer: PreTrainedTokenizerFast, rows: int, seed: int, tool_share: float
) -> list[tuple[list[int], list[bool]]]:
    return [render(tokenizer, messages, tools) for messages, tools in conversations(rows, seed, tool_share)]
