"""The two sides of an encoder's parity: its checkpoint in PyTorch, and its export in ONNX Runtime."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sluice_pipeline import Failure, ParityReport

from conversion import graphs

PROBE_FILE = "sluice_probe.json"
# A text, or a query with a document.
Case = str | tuple[str, str]


@dataclass(frozen=True)
class Settings:
    """What sentence-transformers' files say beside the network."""

    # A key of `POOL`; None for a classifier.
    pooling: str | None
    normalize: bool
    max_tokens: int | None

    @classmethod
    def read(cls, folder: Path) -> "Settings":
        pooling, normalize = None, False
        for module in _json(folder / "modules.json") or ():
            kind = str(module.get("type", "")).rsplit(".", 1)[-1]
            if kind == "Pooling":
                pooling = _pooling(_json(folder / module["path"] / "config.json") or {})
            elif kind == "Normalize":
                normalize = True
            elif kind not in ("Transformer", "Dropout"):
                raise Failure(
                    "unsupported_model", f"modules.json lists `{kind}`: only pooling and normalisation are served"
                )
        length = (_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
        return cls(pooling, normalize, length)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


# [tokens, hidden] → [hidden], for one text without padding.
POOL = {
    "pooling_mode_cls_token": lambda states: states[0],
    "pooling_mode_mean_tokens": lambda states: states.mean(axis=0),
    "pooling_mode_max_tokens": lambda states: states.max(axis=0),
    "pooling_mode_mean_sqrt_len_tokens": lambda states: states.sum(axis=0) / np.sqrt(len(states)),
    "pooling_mode_lasttoken": lambda states: states[-1],
}


def _pooling(settings: dict[str, Any]) -> str:
    modes = [name for name, on in settings.items() if name.startswith("pooling_mode_") and on is True]
    # Newer folders write one word instead of a row of switches.
    word = settings.get("pooling_mode")
    if isinstance(word, str):
        modes = [
            name
            for name in POOL
            if name in (f"pooling_mode_{word}", f"pooling_mode_{word}_token", f"pooling_mode_{word}_tokens")
        ]
    if len(modes) != 1 or modes[0] not in POOL:
        raise Failure("unsupported_model", f"pooling by {modes or settings}; one of {', '.join(POOL)} is served")
    return modes[0]


class _Wrapped(torch.nn.Module):
    """The network with one output, which `torch.onnx` then names."""

    def __init__(self, model: torch.nn.Module, output: str):
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**inputs)[self.output]


class SourceEncoder:
    """The checkpoint, asked one text at a time: no padding enters its answers."""

    def __init__(self, model: torch.nn.Module, tokenizer: Any, task: str, settings: Settings):
        self.model = model
        self.tokenizer = tokenizer
        self.task = task
        self.settings = settings
        self.output = "logits" if task == "classification" else "last_hidden_state"
        names = model.config.id2label if task == "classification" else {}
        self.labels = [names[index] for index in sorted(names)]
        positions = getattr(model.config, "max_position_embeddings", None) or 512
        # RoBERTa's positions start after the padding index.
        if model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            positions -= (model.config.pad_token_id or 0) + 1
        self.max_tokens = min(settings.max_tokens or positions, positions)

    def exportable(self) -> torch.nn.Module:
        return _Wrapped(self.model, self.output).eval()

    def batch(self, cases: Sequence[Case]) -> dict[str, torch.Tensor]:
        """Tensors of several texts, padded on the right to the longest."""
        first = [case if isinstance(case, str) else case[0] for case in cases]
        second = None if isinstance(cases[0], str) else [case[1] for case in cases]
        encoded = self.tokenizer(
            first,
            second,
            padding=True,
            truncation="longest_first",
            max_length=self.max_tokens,
            return_tensors="pt",
            padding_side="right",
        )
        known = ("input_ids", "attention_mask", "token_type_ids")
        return {name: encoded[name] for name in known if name in encoded}

    @torch.no_grad()
    def answers(self, cases: Sequence[Case]) -> list[np.ndarray]:
        return [self.finish(self.model(**self.batch([case]))[self.output][0].float().numpy()) for case in cases]

    def finish(self, row: np.ndarray) -> np.ndarray:
        """What the server makes of one text's output."""
        if self.task == "classification":
            return row
        vector = POOL[self.settings.pooling](row)
        return vector / np.linalg.norm(vector) if self.settings.normalize else vector


class ExportedEncoder:
    """The export, asked all texts of a kind in one padded batch, as the server asks."""

    def __init__(self, folder: Path, source: SourceEncoder):
        self.session = graphs.session(folder / graphs.GRAPH)
        self.inputs = [item.name for item in self.session.get_inputs()]
        self.source = source

    def answers(self, cases: Sequence[Case]) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for kind in (str, tuple):
            group = [case for case in cases if isinstance(case, kind)]
            if group:
                found += self._batch(group)
        return found

    def _batch(self, cases: Sequence[Case]) -> list[np.ndarray]:
        batch = {name: tensor.numpy() for name, tensor in self.source.batch(cases).items()}
        lengths = batch["attention_mask"].sum(axis=1)
        (rows,) = self.session.run([self.source.output], {name: batch[name] for name in self.inputs})
        if self.source.task == "classification":
            return [self.source.finish(row) for row in rows]
        return [self.source.finish(row[:length]) for row, length in zip(rows, lengths, strict=True)]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def measure(
    report: ParityReport,
    source: SourceEncoder,
    cases: Sequence[Case],
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    limits: dict[str, float],
) -> None:
    for case, one, other in zip(cases, expected, found, strict=True):
        tokens = int(source.batch([case])["input_ids"].shape[1])
        error = np.abs(one - other)
        entry = {"tokens": tokens, "error_max": float(error.max()), "error_mean": float(error.mean())}
        if source.task == "embedding":
            entry["cosine"] = cosine(one, other)
        report.cases.append(entry)
    worst = max(case["error_max"] for case in report.cases)
    mean = sum(case["error_mean"] for case in report.cases) / len(report.cases)
    if source.task == "classification":
        report.add("logit_error_max", worst, most=limits["max_error"])
        report.add("logit_error_mean", mean, most=limits["mean_error"])
        return
    cosines = [case["cosine"] for case in report.cases]
    report.add("cosine_min", min(cosines), least=limits["min_cosine"])
    report.add("cosine_mean", sum(cosines) / len(cosines), least=limits["min_mean_cosine"])
    report.add("element_error_max", worst)


def write_probe(folder: Path, source: str, answers: Iterable[tuple[str, np.ndarray]], bounds: dict[str, float]) -> None:
    prompts = [{"text": text, "embedding": [round(float(x), 7) for x in answer]} for text, answer in answers]
    probe = {"format": 1, "kind": "encoder", "source": source, **bounds, "prompts": prompts}
    (folder / PROBE_FILE).write_text(json.dumps(probe, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
