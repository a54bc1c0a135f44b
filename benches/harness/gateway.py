"""What a gateway adds in front of a canned upstream: proxies with nothing but routing, and LLM gateways.

    python gateway.py --sluice BINARY --mock BINARY --data DATA --work WORK [--seconds 8] [--rounds 3]

The gateway runs alone on CPU 0; the upstream and the load share CPU 1. Ours has authentication,
routing, metrics and the access log on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from load import wrk
from processes import running

CONFIGS = Path(__file__).parent / "gateways"
KEY = "sk-bench-not-a-secret"
PATH = "/v1/chat/completions"
UPSTREAM = "127.0.0.1:9000"


def gateways(a: argparse.Namespace) -> dict[str, dict | None]:
    config = a.work / "gateway.toml"
    config.write_text(
        'listen = "127.0.0.1:9001"\n[auth]\nrequired = true\n'
        f'[[deployment]]\nname = "mock"\nupstream = "http://{UPSTREAM}/v1"\n'
    )
    prefix = a.work / "nginx"
    prefix.mkdir(exist_ok=True)
    every: dict[str, dict | None] = {
        "direct": None,
        "sluice": dict(
            command=[str(a.sluice), "serve", "--config", str(config)], port=9001, ready="/health/ready",
            env={"SLUICE_DATA": str(a.data), "SLUICE_API_KEYS": f"bench:{KEY}"},
        ),
        "nginx": dict(command=["nginx", "-p", str(prefix), "-c", str(CONFIGS / "nginx.conf")], port=9002, ready="/health"),
        "haproxy": dict(command=["haproxy", "-db", "-f", str(CONFIGS / "haproxy.cfg")], port=9003, ready="/health"),
    }
    envoy = Path(sys.prefix).glob("lib/python3*/site-packages/envoy/_bin/envoy")
    for binary in envoy:
        every["envoy"] = dict(
            command=[str(binary), "-c", str(CONFIGS / "envoy.yaml"), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"],
            port=9004, ready="/health",
        )
    if a.litellm:
        every["LiteLLM"] = dict(
            command=[str(a.litellm), "--config", str(CONFIGS / "litellm.yaml"), "--host", "127.0.0.1", "--port", "9005", "--num_workers", "1", "--telemetry", "False"],
            port=9005, ready="/health/liveliness",
            env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_MASTER_KEY": KEY},
        )
    return {name: peer for name, peer in every.items() if peer is None or shutil.which(peer["command"][0])}


def measure(a: argparse.Namespace, name: str, port: int, pid: int | None) -> list[dict]:
    base, headers, rows = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {KEY}"}, []
    for mode in ("json", "sse"):
        bodies = a.work / f"gateway-{mode}.jsonl"
        for kind, clients in (("most", 32), ("one", 1)):
            row = wrk(base, PATH, bodies, clients, a.seconds, pid, cpus="1", headers=headers)
            rows.append({"gateway": name, "mode": mode, "kind": kind, **row})
    rate = 25 if name == "LiteLLM" else 1000
    options = ["chat", "--url", base, "--key", KEY, "-m", "mock", "--input", str(a.work / "prompt.jsonl")]
    done = subprocess.run(
        ["taskset", "-c", "1", str(a.sluice), "bench", *options, "-c", "64", "--rate", str(rate), "--duration", str(a.seconds), "-o", "json"],
        capture_output=True, text=True, check=True,
    )
    report = json.loads(done.stdout)
    rows.append({"gateway": name, "mode": "sse", "kind": "rate", "rate": rate, "failed": report["failed"], **report["latency_ms"]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("sluice", "mock", "data", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--litellm", type=Path)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    message = {"model": "mock", "messages": [{"role": "user", "content": "Tell me something about rivers. " * 4}], "max_tokens": 64}
    (a.work / "gateway-json.jsonl").write_text(json.dumps(message) + "\n")
    (a.work / "gateway-sse.jsonl").write_text(json.dumps({**message, "stream": True}) + "\n")
    (a.work / "prompt.jsonl").write_text(json.dumps({"messages": message["messages"]}) + "\n")
    mock = subprocess.Popen(["taskset", "-c", "1", str(a.mock), UPSTREAM, "32"], stdin=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        with (a.work / "gateway.jsonl").open("w") as out:
            for number in range(a.rounds):
                for name, peer in gateways(a).items():
                    if peer is None:
                        rows = measure(a, name, 9000, None)
                    else:
                        ready = f"http://127.0.0.1:{peer['port']}{peer['ready']}"
                        with running(peer["command"], a.work / f"gateway-{name}.log", ready, cpus="0", env=peer.get("env")) as server:
                            rows = measure(a, name, peer["port"], server.pid)
                    for row in rows:
                        print(json.dumps(row), flush=True)
                        out.write(json.dumps({"round": number, **row}) + "\n")
    finally:
        mock.kill()
        mock.wait()


if __name__ == "__main__":
    main()
