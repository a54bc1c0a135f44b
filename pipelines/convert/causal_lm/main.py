"""A Hugging Face causal language model → ONNX by onnxruntime-genai's builder, held against its source.

The builder is silently wrong for some architectures (Mistral's attention window, OLMo). That is
what the parity report at the end is for, and why there is no way to skip it.
"""

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from conversion import checkpoint
from sluice_pipeline import (
    Failure,
    Job,
    Param,
    ParityReport,
    Pipeline,
    choice,
    flag,
    folder,
    integer,
    limits_of,
    number,
    path,
    refused,
    run,
    run_beside,
)

STEPS = ("source", "export", "parity", "probe")
GREEDY_TOKENS = 64
# What is still taken for the same model, in logits and shares of positions or tokens. Measured on
# the example models and on random weights of eight architectures, with room to spare.
LIMITS = {
    "fp32": {"max_logit_error": 0.02, "mean_logit_error": 0.002, "min_top1": 0.99, "min_greedy": 0.98},
    "fp16": {"max_logit_error": 0.5, "mean_logit_error": 0.05, "min_top1": 0.97, "min_greedy": 0.5},
    "int8": {"max_logit_error": None, "mean_logit_error": 0.2, "min_top1": 0.95, "min_greedy": None},
    "int4": {"max_logit_error": None, "mean_logit_error": 1.0, "min_top1": 0.75, "min_greedy": None},
}
# How far the server's batches may be from one sequence alone: int8 activations of quantised
# weights depend on the rows that are computed together.
PROBE_ATOL = {"fp32": 1e-3, "fp16": 0.1, "int8": 0.5, "int4": 0.5}

# What onnxruntime-genai's builder knows, of the version in the lock file, but for those that do not write text.
ARCHITECTURES = (
    "LlamaForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "MistralForCausalLM",
    "Gemma3ForCausalLM",
    "Phi3ForCausalLM",
    "GptOssForCausalLM",
    "GraniteForCausalLM",
    "ChatGLMForConditionalGeneration",
    "ChatGLMModel",
    "Ernie4_5ForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForConditionalGeneration",
    "Gemma4ForConditionalGeneration",
    "Gemma4UnifiedForConditionalGeneration",
    "GemmaForCausalLM",
    "GraniteMoeHybridForCausalLM",
    "HunYuanDenseV1ForCausalLM",
    "InternLM2ForCausalLM",
    "Lfm2ForCausalLM",
    "Lfm2MoeForCausalLM",
    "Lfm2VlForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    "NemotronForCausalLM",
    "OlmoForCausalLM",
    "Phi3SmallForCausalLM",
    "Phi3VForCausalLM",
    "Phi4MMForCausalLM",
    "PhiForCausalLM",
    "PhiMoEForCausalLM",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForConditionalGeneration",
    "SmolLM3ForCausalLM",
    "VideoChatFlashQwenForCausalLM",
)


def quantised(param: Param) -> Param:
    return refused(param, "is for `precision` int4 and int8", beside={"precision": ("fp32", "fp16")})


PARAMS = (
    checkpoint.source(
        "folder of the checkpoint: config.json, *.safetensors, tokenizer", architectures=ARCHITECTURES
    ),
    choice("precision", "weights of the result", tuple(LIMITS), "fp32"),
    refused(
        choice("device", "what the graph is made for; default: cuda for fp16, else cpu", ("cpu", "cuda"), None),
        "is cpu; for `precision` fp16 it must be cuda or absent",
        beside={"precision": ("fp16",)},
        value="cpu",
    ),
    folder("tokenizer", "folder to take the tokenizer from, where the checkpoint has none", None),
    path("texts", "texts to check parity on, one a line; by default a few of ours", None),
    quantised(integer("block_size", "int4, int8: weights that share a scale; a power of 2", 16, 256, None)),
    quantised(integer("accuracy_level", "int4, int8: 4 computes in int8, 1 in float32", 0, 4, None)),
    quantised(flag("asymmetric", "int4, int8: a zero point in each block")),
    number("max_logit_error", "largest difference of a logit; default by precision", 0, 1e9, None),
    number("mean_logit_error", "mean difference of the logits; default by precision", 0, 1e9, None),
    number("min_top1", "share of positions with the same best token; default by precision", 0, 1, None),
    number("min_greedy", "share of greedy tokens that agree; default by precision", 0, 1, None),
    checkpoint.ALLOW_PICKLE,
    checkpoint.TRUST_REMOTE_CODE,
)


def convert(job: Job) -> dict[str, Any]:
    # A source is a folder; nothing is ever fetched.
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
    job.events.step("export")
    build(job, source)
    restore_files(source, job.folder)
    report = check_parity(job, source)
    return {
        "kind": "generative",
        "architecture": architecture,
        "precision": job.params.precision,
        "parity": report.as_json(),
    }


def device_of(params: Any) -> str:
    """The builder's fp16 graph for CPUs has no GroupQueryAttention, which the server's K/V slots need, and is refused;
    the one for CUDA runs on CPUs too."""
    return params.device or ("cuda" if params.precision == "fp16" else "cpu")


def build(job: Job, source: Path) -> None:
    params = job.params
    options = {"hf_remote": str(params.trust_remote_code).lower(), "hf_token": "false"}
    if params.precision in ("int4", "int8"):
        options["is_symmetric"] = str(not params.asymmetric).lower()
        if params.block_size is not None:
            options["block_size"] = params.block_size
        if params.accuracy_level is not None:
            options["accuracy_level"] = params.accuracy_level
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", source, "-o", job.folder]
    command += ["-c", job.scratch / "cache", "-p", params.precision, "-e", device_of(params)]
    command += ["--extra_options", *(f"{key}={value}" for key, value in options.items())]
    log = job.scratch / "builder.log"
    with log.open("w") as sink:
        done = run_beside(command, stdout=sink, stderr=sink)
    lines = log.read_text(errors="replace").splitlines()
    print("\n".join(lines), flush=True)
    if done.returncode != 0:
        reason = next((line for line in reversed(lines) if line.strip()), "no output")
        raise Failure("export_failed", f"the model builder refused the checkpoint: {reason}", log=lines[-40:])


def restore_files(source: Path, target: Path) -> None:
    """The builder rewrites the tokenizer in its library's own dialect; what was trained is what is served."""
    if not (source / "chat_template.jinja").is_file():
        (target / "chat_template.jinja").unlink(missing_ok=True)
    for name in ("config.json", *checkpoint.TOKENIZER_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def check_parity(job: Job, source: Path) -> ParityReport:
    import transformers
    from conversion import language
    from conversion.onnx_lm import OnnxModel

    job.events.step("parity")
    params, limits = job.params, limits_of(job.params, LIMITS)
    model = load_source(source, params)
    lengths = language.prompt_lengths(model.config, GREEDY_TOKENS)
    stream = prompts_from(source, params, model, max(lengths) + language.ATTEMPTS)
    onnx = OnnxModel(job.folder, threads=os.cpu_count() or 1, capacity=max(lengths) + GREEDY_TOKENS)
    reference = f"transformers {transformers.__version__}, float32"
    report = ParityReport("generative", reference, params.precision)
    report_window(report, language.window_of(model.config), max(lengths))
    atol, probes, seen = PROBE_ATOL[params.precision], [], []
    for done, length in enumerate(lengths, start=1):
        answer = language.ask(model, stream[:length], GREEDY_TOKENS)
        agreement, logits = language.compare(onnx, answer, tie=2 * (limits["max_logit_error"] or 0.0))
        report.cases.append(dataclasses.asdict(agreement))
        seen.append(agreement)
        # Less than float32 has no other source for its very numbers than the export that just passed.
        own = answer if params.precision == "fp32" else dataclasses.replace(answer, logits=logits)
        probes.append(own)
        job.events.progress(done / len(lengths), f"{length} tokens")
    add_measures(report, seen, limits)
    report.settle(job.events, job.output, job.folder)

    job.events.step("probe")
    if params.precision == "fp32":
        # An architecture that the builder computes a little differently is asked for no more than it keeps.
        atol = max(atol, 5 * report.measures["logit_error_max"]["value"])
    else:
        reference = f"this {params.precision} export, which passed against {reference}"
    prompts = [language.probe_prompt(confirmed(own), atol) for own in probes]
    language.write_probe(job.folder, reference, prompts, atol)
    return report


def load_source(source: Path, params: Any) -> Any:
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(source),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=params.trust_remote_code,
            use_safetensors=None if params.allow_pickle else True,
        )
    except (ValueError, OSError, ImportError) as reason:
        raise Failure("bad_source", f"`source` cannot be loaded: {reason}", param="source") from reason
    return model.eval()


def prompts_from(source: Path, params: Any, model: Any, length: int) -> list[int]:
    import transformers
    from conversion import texts

    vocabulary = model.config.get_text_config().vocab_size
    tokenizer = None
    if any((source / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(source), local_files_only=True, trust_remote_code=params.trust_remote_code
        )
    own = texts.read_texts(params.texts) if params.texts else ()
    return texts.token_stream(tokenizer, length, vocabulary, own)


def report_window(report: ParityReport, window: int, longest: int) -> None:
    if window:
        report.add("attention_window", window)
    report.add("longest_prompt", longest)


def add_measures(report: ParityReport, seen: list[Any], limits: dict[str, float | None]) -> None:
    positions = sum(one.positions for one in seen)
    compared = sum(one.greedy_compared for one in seen)
    mean = sum(one.logit_error_mean * one.positions for one in seen) / positions
    top1 = sum(one.top1 * one.positions for one in seen) / positions
    greedy = sum(min(one.greedy_agreed, one.greedy_compared) for one in seen) / compared if compared else 1.0
    report.add("logit_error_max", max(one.logit_error_max for one in seen), most=limits["max_logit_error"])
    report.add("logit_error_mean", mean, most=limits["mean_logit_error"])
    report.add("top1_agreement", top1, least=limits["min_top1"])
    report.add("greedy_agreement", greedy, least=limits["min_greedy"])


def confirmed(answer: Any) -> Any:
    """The answer as far as its own logits choose its tokens: an export of less precision may choose others."""
    length = len(answer.prompt)
    for index, token in enumerate(answer.greedy):
        if int(answer.after(length - 1 + index).argmax()) != token:
            return dataclasses.replace(answer, greedy=answer.greedy[:index])
    return answer


PIPELINE = Pipeline(
    home=Path(__file__).resolve().parent,
    steps=STEPS,
    params=PARAMS,
    work=convert,
    examples=(
        "--source qwen3-0.6b --output out",
        "--source qwen3-0.6b --precision int4 --block-size 32 --output out",
        "--params params.json --output out",
    ),
)

if __name__ == "__main__":
    sys.exit(run(PIPELINE))
