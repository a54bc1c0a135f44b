"""Checkpoints are untrusted: a pipeline sees a staged folder that holds only what may be read.

Pickles run code when they are opened, and Python files when a config names them. What was not
allowed by name is simply not there, whatever a library would have preferred.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sluice_pipeline import Failure, Param, flag, folder

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
CODE = {".py"}
PLAIN = {".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken"}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
# Files of which one holds a tokenizer.
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "*.tiktoken",
)
# Deeper than any published checkpoint.
MAX_DEPTH = 3

ALLOW_PICKLE: Param = flag("allow_pickle", "read weights from pickles (.bin, .pt), which can run code")
TRUST_REMOTE_CODE: Param = flag("trust_remote_code", "run Python code that comes with the source")


def source(
    help: str,
    *,
    architectures: Sequence[str] = (),
    config: dict[str, Any] | None = None,
    needs: dict[str, Any] | None = None,
) -> Param:
    """The checkpoint's folder. Whoever sends it asks for what `x-checkpoint` says before the first byte: the first of
    config.json's `architectures` is one of these, its fields are not otherwise, a tokenizer is there or named, and
    parameters are given where no file says the same."""
    wanted = {"architectures": list(architectures), "config": config, "tokenizer": list(TOKENIZERS), "needs": needs}
    param = folder("source", help)
    return dataclasses.replace(
        param, schema={**param.schema, "x-checkpoint": {name: said for name, said in wanted.items() if said}}
    )


def stage(source: Path, target: Path, *, allow_pickle: bool, trust_remote_code: bool) -> dict[str, Any]:
    """Links what may be read of `source` into `target`; returns its config.json."""
    allowed = PLAIN | (PICKLES if allow_pickle else set()) | (CODE if trust_remote_code else set())
    target.mkdir(parents=True)
    names = []
    for path in sorted(source.rglob("*")):
        place = path.relative_to(source)
        hidden = any(part.startswith(".") for part in place.parts)
        if len(place.parts) > MAX_DEPTH or hidden or not path.is_file():
            continue
        names.append(str(place))
        if path.suffix in allowed:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).symlink_to(path.resolve())
    config = read_object(source, "config.json")
    require_weights(names, allow_pickle)
    require_no_code(source, config, trust_remote_code)
    return config


def stage_tokenizer(folder: Path, target: Path) -> None:
    """The tokenizer of another folder in place of the checkpoint's own."""
    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
        raise Failure("bad_params", f"`tokenizer` names {folder}, which holds no tokenizer.json", param="tokenizer")
    for name in TOKENIZER_FILES:
        (target / name).unlink(missing_ok=True)
        if (folder / name).is_file():
            (target / name).symlink_to((folder / name).resolve())


def require_weights(names: list[str], allow_pickle: bool) -> None:
    top = [Path(name) for name in names if "/" not in name]
    if any(path.suffix == ".safetensors" for path in top):
        return
    pickles = [path.name for path in top if path.suffix in PICKLES and path.name != "training_args.bin"]
    if not pickles:
        raise Failure("bad_source", "`source` holds no weights: expected *.safetensors", param="source")
    if not allow_pickle:
        raise pickle_refused(", ".join(pickles))


def pickle_refused(names: str) -> Failure:
    return Failure(
        "unsafe_source",
        f"the weights are pickled ({names}), and opening a pickle can run any code: convert them to "
        "safetensors, or set `allow_pickle` to true if you trust the source",
        param="allow_pickle",
    )


def require_no_code(source: Path, config: dict[str, Any], trust_remote_code: bool) -> None:
    """Refuses a checkpoint that `transformers` can only load by running the checkpoint's own code."""
    if trust_remote_code or "auto_map" not in config:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config.get("model_type") in CONFIG_MAPPING:
        return
    names = ", ".join(sorted(str(name) for name in config["auto_map"].values()))
    raise Failure(
        "unsafe_source",
        f"{source.name}/config.json wants Python code of the checkpoint to run ({names}): read that code, "
        "and set `trust_remote_code` to true if you trust it",
        param="trust_remote_code",
    )


def read_object(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Failure("bad_source", f"`source` holds no {name}", param="source") from None
    except ValueError as reason:
        raise Failure("bad_source", f"`source` holds a {name} that is no JSON: {reason}", param="source") from None
    if not isinstance(value, dict):
        raise Failure("bad_source", f"`source` holds a {name} that is no JSON object", param="source")
    return value
