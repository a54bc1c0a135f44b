"""Generation over HTTP: a random-weight Llama on this machine's CPU, beside llama.cpp's server.

    python generate.py --sluice BINARY --data DATA --work WORK --models MODELS [--rounds 3]

MODELS holds what `random_llama.py` wrote: hf/ (checkpoint), onnx/ (for us), model.gguf. Every answer is
exactly 32 tokens long; the text is noise, speed and scheduling are what is measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from processes import running, usage

HERE = Path(__file__).parent
TOKENS = 32


def peers(a: argparse.Namespace) -> dict[str, dict]:
    config = a.work / "generate.toml"
    config.write_text(f'listen = "127.0.0.1:8201"\n[[deployment]]\nname = "bench"\npath = "{a.models / "onnx"}"\nslots = 16\ncontext = 512\n')
    return {
        "sluice": dict(command=[str(a.sluice), "serve", "--config", str(config)], port=8201, ready="/health/ready", model="bench", env={"SLUICE_DATA": str(a.data)}),
        "llama.cpp": dict(command=[sys.executable, str(HERE / "peers" / "llamacpp.py"), str(a.models / "model.gguf"), "8202", "16"], port=8202, ready="/health", model="bench"),
    }


def bench(a: argparse.Namespace, base: str, model: str, clients: int) -> dict:
    done = subprocess.run(
        [str(a.sluice), "bench", "chat", "--url", base, "-m", model, "-c", str(clients), "--duration", str(a.seconds),
         "--max-tokens", str(TOKENS), "--ignore-eos", "--words", "16..32", "-o", "json"],
        capture_output=True, text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("sluice", "data", "work", "models"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,8,16")
    a = parser.parse_args()
    with (a.work / "generate.jsonl").open("w") as out:
        for number in range(a.rounds):
            for name, peer in peers(a).items():
                base = f"http://127.0.0.1:{peer['port']}"
                log = a.work / f"generate-{peer['port']}.log"
                with running(peer["command"], log, base + peer["ready"], env=peer.get("env")) as server:
                    for clients in map(int, a.clients.split(",")):
                        before = usage(server.pid)[0]
                        report = bench(a, base, peer["model"], clients)
                        used, resident = usage(server.pid)
                        # Tokens per request times requests: peers differ in whether they count usage in streams.
                        rate = report["requests_per_second"] * TOKENS
                        row = {
                            "round": number, "peer": name, "clients": clients, "tokens_per_second": round(rate, 1),
                            "reported_tokens_per_second": round(report["completion_tokens_per_second"], 1),
                            "ttft_p50_ms": report["ttft_ms"]["p50"], "ttft_p99_ms": report["ttft_ms"]["p99"],
                            "failed": report["failed"], "cpu_s": round(used - before, 2), "resident_mb": round(resident / 2**20),
                        }
                        print(json.dumps(row), flush=True)
                        out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
