"""Embeddings: all-MiniLM-L6-v2 in fp32, one text a request, beside peers and the in-process limit.

    python embed.py --sluice BINARY --data DATA --work WORK [--infinity VENV] [--seconds 6] [--rounds 3] [--clients 1,8,32,128]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import urllib.request
from pathlib import Path

import numpy as np
from encoder import Encoder, limit
from load import wrk
from processes import running
from tokenizers import Tokenizer

HERE = Path(__file__).parent
SOURCES = ("/usr/share/common-licenses/*", "/usr/share/doc/*/copyright")


def texts(folder: Path, count: int = 2000) -> list[str]:
    """Texts of 8–200 tokens, log-uniform so that short ones dominate, cut from Debian's licence texts."""
    words = []
    for pattern in SOURCES:
        for path in sorted(Path("/").glob(pattern[1:])):
            words += path.read_text(errors="ignore").encode("ascii", "ignore").decode().split()
            if len(words) > 300_000:
                break
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    generator, made = random.Random(7), []
    while len(made) < count:
        wanted = int(math.exp(generator.uniform(math.log(8), math.log(200))))
        start = generator.randrange(len(words) - 256)
        text = " ".join(words[start : start + wanted])
        offsets = tokenizer.encode(text).offsets
        made.append(text[: offsets[min(wanted, len(offsets)) - 2][1]])
    return made


def peers(a: argparse.Namespace) -> dict[str, dict]:
    model = a.data / "models" / "all-minilm-l6-v2"
    python = sys.executable
    config = a.work / "embed.toml"
    config.write_text(f'listen = "127.0.0.1:8101"\n[[deployment]]\nname = "m"\npath = "{model}"\n')
    path = {"PYTHONPATH": str(HERE), "MODEL": str(model)}
    every = {
        "sluice": dict(command=[str(a.sluice), "serve", "--config", str(config)], port=8101, ready="/health/ready", env={"SLUICE_DATA": str(a.data)}),
        "FastAPI + ONNX Runtime": dict(
            command=[python, "-m", "uvicorn", "fastapi_embed:app", "--port", "8102", "--log-level", "warning"],
            port=8102, ready="/health", env=path, cwd=HERE / "peers",
        ),
        "LitServe, batch 32": dict(command=[python, "litserve_embed.py"], port=8103, ready="/health", env={**path, "PORT": "8103"}, cwd=HERE / "peers"),
    }
    if a.infinity:
        every["infinity"] = infinity(a, model)
    return every


def infinity(a: argparse.Namespace, model: Path) -> dict:
    # It writes an optimised model next to the one it is given, so it gets a copy.
    copy = a.work / "infinity-model"
    shutil.copytree(model, copy, dirs_exist_ok=True)
    return dict(
        command=[str(a.infinity / "bin" / "infinity_emb"), "v2", "--model-id", str(copy), "--served-model-name", "m", "--engine", "optimum",
                 "--pooling-method", "mean", "--device", "cpu", "--host", "127.0.0.1", "--port", "8104", "--url-prefix", "/v1", "--no-bettertransformer"],
        port=8104, ready="/health", env={"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"},
    )


def smallest_cosine(base: str, sample: list[str], reference: np.ndarray) -> float:
    def embed(text: str):
        body = json.dumps({"model": "m", "input": text}).encode()
        request = urllib.request.Request(f"{base}/v1/embeddings", body, {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request, timeout=60))["data"][0]["embedding"]

    vectors = np.array([embed(text) for text in sample])
    return float(((vectors * reference).sum(1) / np.linalg.norm(vectors, axis=1)).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("sluice", "data", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--infinity", type=Path, help="environment with infinity-emb")
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,8,32,128")
    a = parser.parse_args()
    model = a.data / "models" / "all-minilm-l6-v2"
    corpus = texts(model)
    bodies = a.work / "embed-bodies.jsonl"
    bodies.write_text("".join(json.dumps({"model": "m", "input": text}) + "\n" for text in corpus))
    one = Encoder(model, 1)
    reference = np.concatenate([one([text]) for text in corpus[:64]])
    with (a.work / "embed.jsonl").open("w") as out:
        for number in range(a.rounds):
            # The limit is measured in every round: the machine's speed drifts.
            best = max(limit(model, corpus, a.seconds / 2, batch=batch) for batch in (4, 8))
            for name, peer in peers(a).items():
                base = f"http://127.0.0.1:{peer['port']}"
                log = a.work / f"embed-{peer['port']}.log"
                with running(peer["command"], log, base + peer["ready"], env=peer["env"], cwd=peer.get("cwd")) as server:
                    cosine = smallest_cosine(base, corpus[:64], reference)
                    wrk(base, "/v1/embeddings", bodies, 8, 2, None)
                    for clients in map(int, a.clients.split(",")):
                        row = wrk(base, "/v1/embeddings", bodies, clients, a.seconds, server.pid)
                        row = {"round": number, "peer": name, "limit": round(best, 1), "min_cosine": round(cosine, 6), **row}
                        print(json.dumps(row), flush=True)
                        out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
