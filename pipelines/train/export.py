"""Convert a version's checkpoint to an ONNX folder by the onnxruntime-genai model builder.

export.py --version v2 --work .cache/train --out examples/helpdesk
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import dataset
import tokenizer

NAME = "helpdesk"
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]


def run_builder(source: Path, out: Path, cache: Path, precision: str, options: list[str]) -> None:
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", source, "-o", out, "-c", cache]
    command += ["-p", precision, "-e", "cpu"]
    if options:
        command += ["--extra_options", *options]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the model builder failed:\n{done.stderr[-2000:]}")


def convert(version: dict, checkpoint: Path, work: Path, out: Path) -> None:
    precision, options = version.get("precision", "fp32"), []
    if precision == "int4":
        # accuracy_level 1 keeps activations in float32: the only error is the weights', and the
        # scores do not depend on the processor's int8 instructions.
        options = [f"block_size={version['block_size']}", "accuracy_level=1", "is_symmetric=true"]
    with tempfile.TemporaryDirectory() as scratch:
        # The builder wants weights and tokenizer in one folder.
        source = Path(scratch) / "source"
        shutil.copytree(checkpoint, source)
        for name in TOKENIZER_FILES:
            shutil.copy(work / "tokenizer" / name, source / name)
        shutil.rmtree(out, ignore_errors=True)
        run_builder(source, out, Path(scratch) / "cache", precision, options)
    # The builder writes the tokenizer anew in its library's own dialect; ours is the one that was trained.
    (out / "chat_template.jinja").unlink(missing_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(work / "tokenizer" / name, out / name)
    shutil.copy(checkpoint / "config.json", out / "config.json")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe(name: str, version: dict, training: dict, out: Path) -> None:
    files = sorted(path for path in out.iterdir() if path.name.startswith("model.onnx"))
    record = {
        "name": NAME,
        "version": name,
        "seed": training["seed"],
        "recipe": version,
        "training": training,
        "sha256": {path.name: sha256(path) for path in files},
    }
    (out / "version.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="gets models/ and checkpoints/")
    args = parser.parse_args()
    version = dataset.read_recipe()[args.version]
    checkpoint = args.work / "checkpoints" / args.version
    training = json.loads((checkpoint / "training.json").read_text(encoding="utf-8"))
    out = args.out / "models" / args.version
    convert(version, checkpoint, args.work, out)
    describe(args.version, version, training, out)
    if "precision" not in version:
        kept = args.out / "checkpoints" / args.version
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("model.safetensors", "config.json", "generation_config.json"):
            shutil.copyfile(checkpoint / name, kept / name)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{args.version}: {size / 1e6:.1f} MB in {out.name}/, vocabulary {tokenizer.VOCABULARY}")


if __name__ == "__main__":
    main()
