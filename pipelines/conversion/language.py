"""Does an exported language model compute what its checkpoint does? The measures, and the server's probe.

Errors of exporters are silent: a dropped attention window is right until the window ends. So
prompts are longer than any window, every token is teacher-forced through prefill and decode,
and the reference is a whole pass without a cache: nothing but the weights and the definition of
the model enters it.
"""

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from conversion.onnx_lm import OnnxModel

PROBE_FORMAT = 1
PROBE_FILE = "sluice_probe.json"
PROBE_TOKENS = 16
CHOSEN = 8
LENGTHS = (24, 96, 400)
# Tokens that a prompt goes on for after the last window has closed.
PAST_THE_WINDOW = 64
# A greedy token is a fair question only where its lead over the next is far above the noise.
LEAD = 4.0
ATTEMPTS = 64
SEED = 5
# Positions whose logits are compared at once, and at most (evenly spread) where a vocabulary is large.
CHUNK = 128
MOST_LOGITS = 64_000_000


@dataclass
class Answer:
    """What a model says to one prompt: greedy tokens, and logits [positions, vocabulary]."""

    prompt: list[int]
    greedy: list[int]
    # Places in prompt + greedy after which `logits` hold.
    positions: np.ndarray
    logits: np.ndarray

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.greedy

    def after(self, position: int) -> np.ndarray:
        """The logits after one position, which must be among `positions`."""
        return self.logits[int(np.searchsorted(self.positions, position))]

    def lead(self, index: int) -> float:
        """How far greedy token `index` is ahead of the next best."""
        second, first = np.partition(self.after(len(self.prompt) - 1 + index), -2)[-2:]
        return float(first - second)


def window_of(config: Any) -> int:
    """The longest attention window of a transformers config; 0 if every layer sees everything."""
    config = config.get_text_config()
    if getattr(config, "use_sliding_window", True) is False:
        return 0
    names = ("sliding_window", "attention_window_size", "attention_chunk_size", "sliding_window_size")
    return max((value for name in names if isinstance(value := getattr(config, name, None), int)), default=0)


def prompt_lengths(config: Any, new_tokens: int) -> list[int]:
    """Lengths to ask, the longest past any window if the context allows."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or max(LENGTHS) + new_tokens
    room = context - new_tokens
    window = window_of(config)
    # A window as long as the context hides nothing.
    wanted = [*LENGTHS, window + PAST_THE_WINDOW] if 0 < window < room else LENGTHS
    return sorted({min(length, room) for length in wanted if min(length, room) > 0})


def kept_positions(prompt: int, new: int, vocabulary: int) -> np.ndarray:
    """All positions, or as many as fit: those of the new tokens, and others spread over the prompt."""
    most = max(MOST_LOGITS // vocabulary, new + 2)
    if prompt + new <= most:
        return np.arange(prompt + new)
    spread = np.linspace(0, prompt - 1, most - new).round().astype(int)
    return np.unique(np.concatenate([spread, np.arange(prompt - 1, prompt + new)]))


@torch.no_grad()
def ask(model: PreTrainedModel, prompt: list[int], new_tokens: int) -> Answer:
    """The source's answer. Tokens are found with a cache and confirmed by one whole pass without."""
    positions = kept_positions(len(prompt), new_tokens, model.config.get_text_config().vocab_size)
    all_fit = len(positions) == len(prompt) + new_tokens
    ids, cache, step = list(prompt), None, torch.tensor([prompt])
    last = {} if all_fit else {"logits_to_keep": 1}
    for _ in range(new_tokens):
        out = model(step, past_key_values=cache, use_cache=True, **last)
        cache = out.past_key_values
        ids.append(int(out.logits[0, -1].argmax()))
        step = torch.tensor([ids[-1:]])
    keep = {} if all_fit else {"logits_to_keep": torch.from_numpy(positions)}
    logits = model(torch.tensor([ids]), use_cache=False, **keep).logits[0].float().numpy()
    answer = Answer(prompt, ids[len(prompt) :], positions, logits)
    # Where a cache of the reference's own leads elsewhere, what follows is no answer of the definition.
    for index, token in enumerate(answer.greedy):
        if int(answer.after(len(prompt) - 1 + index).argmax()) != token:
            end = len(prompt) + index
            return Answer(prompt, answer.greedy[:index], positions[positions < end], logits[positions < end])
    return answer


def teacher_forced(onnx: OnnxModel, answer: Answer) -> np.ndarray:
    """The export's logits at the answer's positions: the prompt in chunks, then token by token."""
    cache, kept = onnx.empty_cache(1), []
    length = len(answer.prompt)
    wanted = set(answer.positions.tolist())
    bounds = [*range(0, length, CHUNK), *range(length, len(answer.tokens)), len(answer.tokens)]
    for start, end in itertools.pairwise(bounds):
        logits = onnx.step(np.array([answer.tokens[start:end]]), cache)[0]
        kept += [logits[place - start] for place in range(start, end) if place in wanted]
    return np.array(kept, np.float32)


@dataclass
class Agreement:
    """One prompt's comparison."""

    prompt_tokens: int
    positions: int
    logit_error_max: float
    logit_error_mean: float
    top1: float
    # Greedy tokens equal before the first difference, of those compared.
    greedy_agreed: int
    greedy_compared: int


def compare(onnx: OnnxModel, answer: Answer, tie: float) -> tuple[Agreement, np.ndarray]:
    """Measures, and the export's own logits. Where the source's lead is within `tie`, either token is right
    and greedy decoding is compared no further."""
    logits = teacher_forced(onnx, answer)
    error = np.abs(logits - answer.logits)
    same = logits.argmax(-1) == answer.logits.argmax(-1)
    (spoken,) = onnx.greedy(np.array([answer.prompt]), len(answer.greedy), stop=-1)
    agreed = next(
        (index for index, pair in enumerate(zip(spoken, answer.greedy, strict=True)) if pair[0] != pair[1]),
        len(answer.greedy),
    )
    differs = agreed < len(answer.greedy)
    compared = agreed if differs and answer.lead(agreed) <= tie else len(answer.greedy)
    measured = Agreement(
        prompt_tokens=len(answer.prompt),
        positions=len(answer.positions),
        logit_error_max=float(error.max()),
        logit_error_mean=float(error.mean()),
        top1=float(same.mean()),
        greedy_agreed=agreed,
        greedy_compared=compared,
    )
    return measured, logits


def probe_prompt(answer: Answer, atol: float) -> dict[str, Any]:
    """What the server asks: greedy tokens as long as they lead clearly, and some logits after the prompt."""
    length = len(answer.prompt)
    greedy = answer.greedy[:PROBE_TOKENS]
    clear = next((index for index in range(len(greedy)) if answer.lead(index) < LEAD * atol), len(greedy))
    last = answer.after(length - 1)
    # The largest logits decide; the others are drawn over the whole vocabulary.
    chosen = [int(token) for token in np.argsort(-last)[: CHOSEN // 2]]
    rng = random.Random(f"{SEED}/{length}")
    while len(chosen) < min(CHOSEN, len(last)):
        token = rng.randrange(len(last))
        if token not in chosen:
            chosen.append(token)
    values = [[round(float(last[token]), 5) for token in chosen]]
    expected = {"positions": [length - 1], "token_ids": chosen, "values": values}
    return {"input_ids": answer.prompt, "greedy": greedy[:clear], "logits": expected}


def write_probe(folder: Path, source: str, prompts: Sequence[dict[str, Any]], atol: float) -> None:
    probe = {"format": PROBE_FORMAT, "source": source, "prompts": list(prompts), "atol": atol}
    (folder / PROBE_FILE).write_text(json.dumps(probe, separators=(",", ":")) + "\n", encoding="utf-8")


def clearest(ask: Callable[[list[int]], Answer], stream: list[int], length: int, lead: float, attempts: int) -> Answer:
    """The first answer whose first tokens all lead by `lead`, or else the one that leads for longest."""
    best, longest = None, -1
    for attempt in range(attempts):
        answer = ask(stream[attempt : attempt + length])
        count = min(PROBE_TOKENS, len(answer.greedy))
        clear = next((index for index in range(count) if answer.lead(index) < lead), count)
        if clear > longest:
            best, longest = answer, clear
        if clear == count:
            break
    return best
