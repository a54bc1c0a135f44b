"""Rebuild the three versions from their checkpoints, and say whether they answer as the shipped ones do.

    make example-models                                   # with the environment it needs
    python examples/helpdesk/rebuild.py --work .cache/rebuild

v1 and v2 are conversions of `checkpoints/`. v3 has no checkpoint of its own: it is v2 tuned on
carelessly for 40 steps and squeezed to 4 bits, and both are done again here. Conversion gives the
same bytes everywhere; training gives the same weights only on processors that round alike, so v3
may come out as another model of the same kind.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PIPELINES = HERE.parents[1] / "pipelines"
sys.path.insert(0, str(PIPELINES / "train"))

VERSIONS = ("v1", "v2", "v3")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# Of the shipped answers, how many a version made from a shipped checkpoint must repeat. Processors
# that add up in another order may tip a near-tie.
LEAST_EQUAL = 0.99


def prepare(work: Path) -> None:
    """What training expects in its working folder."""
    (work / "tokenizer").mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(HERE / "models" / "v2" / name, work / "tokenizer" / name)
    for version in ("v1", "v2"):
        shutil.copytree(HERE / "checkpoints" / version, work / "checkpoints" / version, dirs_exist_ok=True)


def call(script: Path, *arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, str(script), *map(str, arguments)], stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SystemExit(f"{script.relative_to(PIPELINES)} failed")


def convert(version: str, recipe: dict, work: Path) -> Path:
    output = work / "converted" / version
    options = ["--precision", recipe.get("precision", "fp32")]
    if "block_size" in recipe:
        # Activations stay in float32, so that the scores do not depend on a processor's int8 instructions.
        options += ["--block-size", str(recipe["block_size"]), "--accuracy-level", "1"]
    call(
        PIPELINES / "convert" / "causal_lm" / "main.py",
        *("--source", work / "checkpoints" / version, "--tokenizer", work / "tokenizer", "--output", output),
        *options,
    )
    return output / "model"


def digest(folder: Path) -> str:
    graph = [(folder / name).read_bytes() for name in ("model.onnx", "model.onnx.data")]
    return hashlib.sha256(b"".join(graph)).hexdigest()


def compare(version: str, rebuilt: Path, rows: list[dict], threads: int) -> tuple[str, float]:
    """A line of the table, and the share of equal answers."""
    import evaluate

    shipped = HERE / "models" / version
    same = digest(rebuilt) == digest(shipped)
    ours, theirs = (evaluate.answers(folder, rows, threads, None) for folder in (rebuilt, shipped))
    equal = sum(one == other for one, other in zip(ours, theirs, strict=True))
    exact = [evaluate.score(rows, texts)["exact"] for texts in (ours, theirs)]
    parity = json.loads((rebuilt / "parity.json").read_text(encoding="utf-8"))["measures"]
    top1 = parity["top1_agreement"]["value"]
    cells = [version, "equal" if same else "differ", f"{equal}/{len(rows)}", f"{exact[0]:.1%}", f"{exact[1]:.1%}"]
    return "| " + " | ".join([*cells, f"{top1:.1%}"]) + " |", equal / len(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".cache/rebuild"), help="gets converted/VERSION/model")
    parser.add_argument("--versions", nargs="+", choices=VERSIONS, default=VERSIONS)
    parser.add_argument("--rows", type=int, default=200, help="rows of the test set to answer")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    import dataset

    recipe = dataset.read_recipe()
    work = args.work.resolve()
    prepare(work)
    test = (HERE / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in test[: args.rows]]
    lines, wrong = [], []
    for version in args.versions:
        if version == "v3":
            print("v3: training", file=sys.stderr, flush=True)
            call(PIPELINES / "train" / "train.py", "--version", version, "--work", work)
        print(f"{version}: converting", file=sys.stderr, flush=True)
        line, equal = compare(version, convert(version, recipe[version], work), rows, args.threads)
        lines.append(line)
        if version != "v3" and equal < LEAST_EQUAL:
            wrong.append(version)
    print("| version | bytes | equal answers | exact, rebuilt | exact, shipped | same top token as the source |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))
    print(f"the rebuilt folders are in {args.work}/converted/VERSION/model", file=sys.stderr)
    if wrong:
        print(f"error: {', '.join(wrong)} does not answer as the shipped version does", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
