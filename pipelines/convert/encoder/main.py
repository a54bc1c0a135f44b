"""A Hugging Face text encoder → ONNX by torch.onnx, with the files that say how it is pooled.

Two kinds come out: vectors (embeddings), and logits (a classifier; with one label, a
cross-encoder for reranking). Both are held against the source one text at a time, and in one
padded batch on the side of the export, as the server runs it.
"""

import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from conversion import checkpoint, graphs
from sluice_pipeline import (
    Failure,
    Job,
    ParityReport,
    Pipeline,
    choice,
    flag,
    folder,
    integer,
    limits_of,
    number,
    path,
    run,
)

STEPS = ("source", "export", "parity", "probe")
TASKS = ("auto", "embedding", "classification")
POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "last": "pooling_mode_lasttoken",
}
# Measured on random weights and on all-MiniLM-L6-v2; logits in their own unit.
LIMITS = {
    "fp32": {"min_cosine": 0.9999, "min_mean_cosine": 0.9999, "max_error": 1e-3, "mean_error": 1e-4},
    "int8": {"min_cosine": 0.95, "min_mean_cosine": 0.98, "max_error": 0.5, "mean_error": 0.2},
}
OTHER_FILES = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
# Long enough for the wrong positions to show, short enough for a small machine.
LONG_TEXT_WORDS = 250

PARAMS = (
    checkpoint.source(
        "folder of the checkpoint: config.json, *.safetensors, tokenizer, pooling files",
        config={"is_encoder_decoder": False, "is_decoder": False},
        needs={
            "pooling": {
                "files": ["modules.json", "1_Pooling/config.json"],
                "architectures": ["*ForSequenceClassification"],
                "params": {"task": ["classification"]},
            }
        },
    ),
    choice("task", "what comes out; auto goes by the checkpoint's architecture", TASKS, "auto"),
    choice("precision", "int8 quantises the weights and, as they come, the activations", graphs.PRECISIONS, "fp32"),
    choice("pooling", "how vectors of tokens become one, where no modules.json says", tuple(POOLINGS), None),
    flag("normalize", "scale embeddings to length 1, where no modules.json says"),
    integer("max_tokens", "longest text; default: what the checkpoint says", 4, 1 << 20, None),
    folder("tokenizer", "folder to take the tokenizer from, where the checkpoint has none", None),
    path("texts", "texts to check parity on, one a line; by default a few of ours", None),
    number("min_cosine", "embeddings: least cosine of any text; default by precision", -1, 1, None),
    number("min_mean_cosine", "embeddings: least mean cosine; default by precision", -1, 1, None),
    number("max_error", "logits: largest difference; default by precision", 0, 1e9, None),
    number("mean_error", "logits: mean difference; default by precision", 0, 1e9, None),
    checkpoint.ALLOW_PICKLE,
    checkpoint.TRUST_REMOTE_CODE,
)


def convert(job: Job) -> dict[str, Any]:
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1")
    job.events.step("source")
    source = job.scratch / "source"
    config = checkpoint.stage(
        job.params.source,
        source,
        allow_pickle=job.params.allow_pickle,
        trust_remote_code=job.params.trust_remote_code,
    )
    if job.params.tokenizer:
        checkpoint.stage_tokenizer(job.params.tokenizer, source)
    architecture = (config.get("architectures") or ["?"])[0]
    task = job.params.task
    if task == "auto":
        task = "classification" if architecture.endswith("ForSequenceClassification") else "embedding"
    tokenizer = load_tokenizer(source, job.params)
    write_files(job, source, tokenizer, task)
    encoder = load_source(source, job.params, task, tokenizer)

    job.events.step("export")
    export(job, encoder)
    if job.params.precision == "int8":
        graphs.quantise(job.folder, job.scratch)
    report = check_parity(job, encoder)
    return {
        "kind": "encoder",
        "task": task,
        "architecture": architecture,
        "labels": encoder.labels,
        "precision": job.params.precision,
        "parity": report.as_json(),
    }


def load_tokenizer(source: Path, params: Any) -> Any:
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(source), local_files_only=True, trust_remote_code=params.trust_remote_code
        )
    except (ValueError, OSError, ImportError) as reason:
        raise Failure("bad_source", f"the tokenizer of `source` cannot be loaded: {reason}", param="source") from reason
    if not tokenizer.is_fast:
        raise Failure(
            "unsupported_model", "`source` has a tokenizer that exists in Python only; a tokenizer.json is needed"
        )
    return tokenizer


def load_source(source: Path, params: Any, task: str, tokenizer: Any) -> Any:
    import torch
    import transformers
    from conversion import encoders

    torch.set_num_threads(os.cpu_count() or 1)
    kind = transformers.AutoModelForSequenceClassification if task == "classification" else transformers.AutoModel
    try:
        model = kind.from_pretrained(
            str(source),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=params.trust_remote_code,
            use_safetensors=None if params.allow_pickle else True,
            # The plainest form of attention: no mask of its own making, no kernels to choose from.
            attn_implementation="eager",
        ).eval()
    except (ValueError, OSError, ImportError) as reason:
        raise Failure("bad_source", f"`source` cannot be loaded: {reason}", param="source") from reason
    if model.config.is_encoder_decoder or getattr(model.config, "is_decoder", False):
        raise Failure("unsupported_model", f"{type(model).__name__} is no encoder; see the pipeline causal_lm")
    return encoders.SourceEncoder(model, tokenizer, task, encoders.Settings.read(source))


def write_files(job: Job, source: Path, tokenizer: Any, task: str) -> None:
    """Everything beside the graph, completed in `source` first, so that both sides go by the same files."""
    if task == "embedding" and not (source / "modules.json").is_file():
        write_pooling(source, job.params)
    elif job.params.pooling:
        raise Failure("bad_params", "`pooling` is given, and the checkpoint has a pooling of its own", param="pooling")
    if job.params.max_tokens:
        (source / "sentence_bert_config.json").unlink(missing_ok=True)
        write_json(source / "sentence_bert_config.json", {"max_seq_length": job.params.max_tokens})
    if not (source / "tokenizer.json").is_file():
        tokenizer.save_pretrained(source)
    pooling = [str(path.relative_to(source)) for path in source.glob("*_Pooling/config.json")]
    for name in ("config.json", *checkpoint.TOKENIZER_FILES, *OTHER_FILES, *pooling):
        if (source / name).is_file():
            (job.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, job.folder / name)


def write_pooling(source: Path, params: Any) -> None:
    pooling = source / "1_Pooling" / "config.json"
    if not pooling.is_file():
        if params.pooling is None:
            raise Failure(
                "bad_params",
                f"`pooling` is needed, as the checkpoint has no modules.json: one of {', '.join(POOLINGS)}",
                param="pooling",
            )
        pooling.parent.mkdir(exist_ok=True)
        write_json(pooling, {POOLINGS[params.pooling]: True})
    modules = ["Transformer", "Pooling"] + ["Normalize"] * params.normalize
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    write_json(
        source / "modules.json",
        [
            {"idx": index, "name": str(index), "path": paths[kind], "type": f"sentence_transformers.models.{kind}"}
            for index, kind in enumerate(modules)
        ],
    )


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def export(job: Job, encoder: Any) -> None:
    import torch

    # Two texts of unlike lengths: sizes of 0 and 1 would be taken for constants.
    batch = encoder.batch(["one text", "another text, which is somewhat longer than the first"])
    axes = {0: "batch", 1: "tokens"}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                encoder.exportable(),
                kwargs=batch,
                dynamo=True,
                input_names=list(batch),
                output_names=[encoder.output],
                dynamic_shapes={"inputs": dict.fromkeys(batch, axes)},
                verbose=False,
            )
        program.save(job.folder / graphs.GRAPH, external_data=True)
    except (torch.onnx.OnnxExporterError, RuntimeError) as reason:
        raise Failure("export_failed", f"torch.onnx cannot export the encoder: {first_line(reason)}") from reason


def first_line(reason: BaseException) -> str:
    root = reason
    while root.__cause__ is not None:
        root = root.__cause__
    return str(root).strip().splitlines()[0] if str(root).strip() else type(root).__name__


def check_parity(job: Job, encoder: Any) -> ParityReport:
    import transformers
    from conversion import encoders, texts

    job.events.step("parity")
    precision = job.params.precision
    limits = limits_of(job.params, LIMITS)
    own = texts.read_texts(job.params.texts) if job.params.texts else texts.SENTENCES
    singles = [*own, texts.long_text(LONG_TEXT_WORDS)]
    cases: list[Any] = list(singles)
    if encoder.task == "classification":
        cases += texts.PAIRS
    expected = encoder.answers(cases)
    found = encoders.ExportedEncoder(job.folder, encoder).answers(cases)
    report = ParityReport("encoder", f"transformers {transformers.__version__}, float32", precision)
    encoders.measure(report, encoder, cases, expected, found, limits)
    report.settle(job.events, job.output, job.folder)

    job.events.step("probe")
    bounds = {"min_cosine": limits["min_cosine"], "max_difference": limits["max_error"]}
    answers = zip(singles, expected[: len(singles)], strict=True)
    encoders.write_probe(job.folder, report.reference, answers, bounds)
    return report


PIPELINE = Pipeline(
    home=Path(__file__).resolve().parent,
    steps=STEPS,
    params=PARAMS,
    work=convert,
    examples=(
        "--source bge-small-en --output out",
        "--source bert-base --pooling mean --normalize --precision int8 --output out",
        "--source ms-marco-MiniLM-L6 --output out     # a cross-encoder, for /v1/rerank",
    ),
)

if __name__ == "__main__":
    sys.exit(run(PIPELINE))
