"""Generation over HTTP: a random-weight Llama on this machine's CPU, beside peers and our own engine without HTTP.

    python generate.py --sluice BINARY --in-process BINARY --data DATA --work WORK --models MODELS
                       [--serve VENV --extras SITE] [--vllm VENV] [--seconds 6] [--rounds 3]

MODELS holds what `random_llama.py` wrote (hf/, model.gguf, model-q4_0.gguf) and its exports for us (onnx/,
onnx-int4/). Every answer is exactly 32 tokens long; the text is noise, speed and scheduling are what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from processes import Meter, running
from tokenizers import Tokenizer

HERE = Path(__file__).parent
TOKENS, SLOTS, CONTEXT = 32, 16, 1024
# A long prompt fits into the context with its answer and its template.
LONG = 850
# Clients with short prompts whose first token is watched while one more client sends long ones.
WATCHED = 4


def peers(a: argparse.Namespace) -> dict[str, dict]:
    """In the order in which they are measured; `bits` says which belong together."""
    llama = lambda file, port: [sys.executable, str(HERE / "peers" / "llamacpp.py"), str(a.models / file), str(port), str(SLOTS), str(CONTEXT)]
    every = {
        "sluice": dict(bits=32, **ours(a, 8201, "onnx")),
        "llama.cpp": dict(bits=32, command=llama("model.gguf", 8202), port=8202, ready="/health"),
        "sluice, 4 bits": dict(bits=4, **ours(a, 8203, "onnx-int4")),
        "llama.cpp, Q4_0": dict(bits=4, command=llama("model-q4_0.gguf", 8204), port=8204, ready="/health"),
    }
    checkpoint = str(a.models / "hf")
    if a.serve:
        every["transformers serve"] = dict(
            bits=32, port=8205, ready="/health", model=checkpoint, env={"PYTHONPATH": str(a.extras)},
            # It refuses the field; random weights all but never draw the end-of-sequence token.
            ignore_eos=False,
            command=[str(a.serve / "bin" / "transformers"), "serve", checkpoint, "--host", "127.0.0.1", "--port", "8205",
                     "--device", "cpu", "--dtype", "float32", "--continuous-batching"],
        )
    if a.vllm:
        every["vLLM"] = dict(
            bits=32, port=8206, ready="/health",
            command=[str(a.vllm / "bin" / "vllm"), "serve", checkpoint, "--served-model-name", "bench", "--host", "127.0.0.1", "--port", "8206",
                     "--dtype", "float32", "--max-model-len", str(CONTEXT), "--enforce-eager"],
            env={"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_HOST_IP": "127.0.0.1",
                 "PATH": f"{a.vllm / 'bin'}:{os.environ['PATH']}"},
        )
    return every


def ours(a: argparse.Namespace, port: int, folder: str) -> dict:
    config = a.work / f"generate-{port}.toml"
    config.write_text(
        f'listen = "127.0.0.1:{port}"\n[[deployment]]\nname = "bench"\npath = "{a.models / folder}"\nslots = {SLOTS}\ncontext = {CONTEXT}\n'
    )
    return dict(
        command=[str(a.sluice), "serve", "--config", str(config)], port=port, ready="/health/ready",
        env={"SLUICE_DATA": str(a.data)}, folder=a.models / folder,
    )


def write_prompts(a: argparse.Namespace) -> tuple[Path, Path]:
    """Short prompts of 16–32 words and long ones of `LONG` tokens, all of them different from the first word on."""
    tokenizer = Tokenizer.from_file(str(a.models / "hf" / "tokenizer.json"))
    words = "printer laptop password reset network drive slow urgent cannot reach morning office floor email account server backup screen".split()
    generator = random.Random(3)
    draw = lambda count: " ".join(generator.choice(words) for _ in range(count))
    short, long = a.work / "generate-short.jsonl", a.work / "generate-long.jsonl"
    short.write_text("".join(json.dumps(draw(generator.randint(16, 32))) + "\n" for _ in range(512)))
    cut = lambda text: text[: tokenizer.encode(text).offsets[LONG - 1][1]]
    long.write_text("".join(json.dumps(cut(draw(LONG))) + "\n" for _ in range(64)))
    return short, long


def load(a: argparse.Namespace, peer: dict, prompts: Path, clients: int, seconds: float, tokens: int = TOKENS) -> subprocess.Popen:
    command = [
        str(a.sluice), "bench", "chat", "--url", f"http://127.0.0.1:{peer['port']}", "-m", peer.get("model", "bench"),
        "-c", str(clients), "--duration", str(seconds), "--max-tokens", str(tokens), "--input", str(prompts), "-o", "json",
        # A peer that loses a request loses that row, not the whole run.
        "--timeout", "30",
    ]
    if peer.get("ignore_eos", True):
        command.append("--ignore-eos")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report(process: subprocess.Popen) -> dict:
    out, error = process.communicate()
    if process.returncode:
        raise RuntimeError(error)
    return json.loads(out)


def row(found: dict, meter: Meter) -> dict:
    # What the server counted, and for those that do not count in streams what was asked for.
    rate = found["completion_tokens_per_second"] or found["requests_per_second"] * TOKENS
    first = found["ttft_ms"] or {"p50": None, "p99": None}
    return {
        "tokens_per_second": round(rate, 1), "ttft_p50_ms": first["p50"], "ttft_p99_ms": first["p99"],
        "failed": found["failed"], "errors": found["errors"], **meter.read(),
    }


def measure(a: argparse.Namespace, peer: dict, server: int, short: Path, long: Path):
    """Rates at several numbers of clients, then the first tokens of short prompts without and with a client of long ones."""
    for clients in map(int, a.clients.split(",")):
        meter = Meter(server)
        yield {"kind": "rate", "clients": clients, **row(report(load(a, peer, short, clients, a.seconds)), meter)}
    for kind in ("calm", "mixed"):
        meter = Meter(server)
        beside = load(a, peer, long, 1, a.seconds + 1, tokens=8) if kind == "mixed" else None
        time.sleep(0.5)
        found = report(load(a, peer, short, WATCHED, a.seconds))
        if beside:
            found["failed"] += report(beside)["failed"]
        yield {"kind": kind, "clients": WATCHED, **row(found, meter)}


def in_process(a: argparse.Namespace, folder: Path, prompts: Path, clients: int) -> dict:
    meter = Meter(None)
    done = subprocess.run(
        [str(a.in_process), str(folder), str(prompts), str(clients), str(TOKENS), str(a.seconds), str(SLOTS), str(CONTEXT)],
        env={**os.environ, "SLUICE_DATA": str(a.data)}, capture_output=True, text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return {"kind": "in process", "clients": clients, "failed": 0, **json.loads(done.stdout), **meter.read()}


def rounds(a: argparse.Namespace):
    short, long = write_prompts(a)
    for number in range(a.rounds):
        for name, peer in peers(a).items():
            about = {"round": number, "peer": name, "bits": peer["bits"]}
            ready = f"http://127.0.0.1:{peer['port']}{peer['ready']}"
            log = a.work / f"generate-{peer['port']}.log"
            try:
                with running(peer["command"], log, ready, env=peer.get("env")) as server:
                    for found in measure(a, peer, server.pid, short, long):
                        yield {**about, **found}
            except RuntimeError as error:
                # A peer that does not run here costs its own rows, not everybody's.
                if "folder" in peer:
                    raise
                print(f"{name} is left out: {error} (see {log})", file=sys.stderr)
            if "folder" in peer:
                for clients in map(int, a.clients.split(",")):
                    yield {**about, **in_process(a, peer["folder"], short, clients)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("sluice", "in-process", "data", "work", "models"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--serve", type=Path, help="environment with transformers and torch")
    parser.add_argument("--extras", type=Path, help="site-packages with what its server needs beside these")
    parser.add_argument("--vllm", type=Path, help="environment with vLLM for CPUs")
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,8,16")
    a = parser.parse_args()
    with (a.work / "generate.jsonl").open("w") as out:
        for found in rounds(a):
            print(json.dumps(found), flush=True)
            out.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
