"""Checks and measures everything on a GPU, within ten minutes, with what `benches/gpu.sh prepare` made.

Each part has a time limit and goes on after another's failure. Results: OUT/gpu.json and OUT/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

try:
    import torch
except ModuleNotFoundError:
    sys.exit(f"error: {sys.executable} has no PyTorch; name a Python that has it for CUDA 13 in PYTHON")
from llama import Config, Llama, fill, random_weights

BATCHES = (1, 8, 64)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Below this lead of the likeliest token, rounding may decide: such a token is a near-tie, not an error.
NEAR = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1.5e-1}


class Bench:
    def __init__(self, arguments: argparse.Namespace):
        self.kit, self.out, self.small = arguments.kit, arguments.out, arguments.small
        self.device = arguments.device
        self.torch_device = "cuda" if self.device == "cuda" else "cpu"
        self.work = arguments.work
        self.results: dict = {"when": time.strftime("%Y-%m-%d %H:%M:%S"), "device": self.device, "parts": {}}
        library = str(self.kit / "lib")
        self.environment = dict(os.environ, ORT_DYLIB_PATH=f"{library}/libonnxruntime.so", RUST_BACKTRACE="1")
        self.environment["LD_LIBRARY_PATH"] = ":".join([library, *cuda_folders(), os.environ.get("LD_LIBRARY_PATH", "")])

    def run(self, *command: str, limit: float, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=limit, env=self.environment)
        if check and done.returncode:
            raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")
        return done

    # --- parts

    def doctor(self) -> dict:
        report = json.loads(self.run(self.kit / "bin/sluice", "doctor", "-o", "json", limit=60, check=False).stdout)
        if self.device == "cuda":
            self.results["gpu"] = torch.cuda.get_device_name()
            self.results["torch"] = f"{torch.__version__}, CUDA {torch.version.cuda}"
            smi = shutil.which("nvidia-smi")
            if smi:
                query = "--query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit"
                self.results["nvidia-smi"] = self.run(smi, query, "--format=csv,noheader", limit=30).stdout.strip()
        return {"report": report}

    def kernels(self) -> dict:
        """Each kernel against its reference, on the device."""
        done = self.run(self.kit / "bin/engine-tests", "cuda::tests::", "--nocapture", "--test-threads=1", limit=240)
        passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
        on_device = "not run on a GPU" not in done.stdout
        if self.device == "cuda" and not on_device:
            raise RuntimeError("the tests did not find the GPU")
        return {"passed": passed, "on the device": on_device}

    def sampling(self) -> dict:
        lines = self.run(self.kit / "bin/kernel_times", limit=90).stdout.splitlines()
        return {"lines": lines}

    def tokens(self) -> dict:
        return {dtype: self.tokens_of(dtype) for dtype in self.models()}

    def tokens_of(self, dtype: str) -> dict:
        """Greedy tokens against PyTorch's, given the same past: each token that differs is a near-tie or an error."""
        config, folder = self.model(dtype)
        count, new = (4, 16) if self.small else (6, 64)
        generator = torch.Generator().manual_seed(1)
        prompts = [torch.randint(3, config.vocab, (length,), generator=generator).tolist() for length in (5, 17, 60, 100, 200, 33)[:count]]
        file = self.work / "prompts.json"
        file.write_text(json.dumps(prompts))
        answer = self.decode(folder, "--prompts", file, "--tokens", str(new), "--slots", "4")
        weights = random_weights(config, DTYPES[dtype], self.torch_device)
        reference = Llama(config, weights, 1, 512)
        equal = near = 0
        for prompt, tokens in zip(prompts, answer["tokens"]):
            expected, leads = reference.greedy(prompt, new)
            same = next((i for i, pair in enumerate(zip(tokens, expected)) if pair[0] != pair[1]), new)
            equal += same == new
            if same < new:
                if leads[same] > NEAR[dtype]:
                    raise RuntimeError(f"{dtype}: token {same} after a prompt of {len(prompt)} differs, and PyTorch's leads by {leads[same]:.4f}")
                near += 1
        return {"prompts": count, "tokens each": new, "equal to the end": equal, "parted at a near-tie": near, "near-tie below": NEAR[dtype]}

    def decode_rates(self) -> dict:
        return {dtype: self.decode_rates_of(dtype) for dtype in self.models()}

    def decode_rates_of(self, dtype: str) -> dict:
        config, folder = self.model(dtype)
        past, steps = (64, 8) if self.small else (256, 32)
        batches = (1, 2) if self.small else BATCHES
        rates: dict = {}
        for way, extra in (("sluice", []), ("sluice, CUDA graphs", ["--graphs"])):
            if self.device != "cuda" and extra:
                continue
            asked = ",".join(map(str, batches))
            options = ["--rates", asked, "--past", str(past), "--steps", str(steps), "--slots", str(max(batches)), *extra]
            try:
                answer = self.decode(folder, *options)
                rates[way] = {int(batch): rate for batch, rate in answer["rates"].items()}
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                rates[way] = str(error)
        weights = random_weights(config, DTYPES[dtype], self.torch_device)
        rates["PyTorch, static cache, CUDA graph" if self.device == "cuda" else "PyTorch, static cache"] = {
            batch: torch_rate(config, weights, batch, past, steps) for batch in batches
        }
        bandwidth = copy_bandwidth(self.torch_device)
        size = torch.finfo(DTYPES[dtype]).bits // 8
        # The embedding is looked up, not read whole.
        read = sum(t.numel() for name, t in weights.items() if "embed" not in name) * size
        token = 2 * config.layers * config.kv_heads * config.head * size
        floor = {batch: bandwidth / (read + batch * (past + steps / 2) * token) * batch for batch in batches}
        shares = {way: {b: rate[b] / floor[b] for b in batches} for way, rate in rates.items() if isinstance(rate, dict)}
        return {"tokens/s": rates, "bandwidth GB/s": bandwidth / 1e9, "floor tokens/s": floor, "share of the floor": shares}

    def http(self) -> dict:
        """Time to the first token and tokens per second through HTTP."""
        dtype = self.models()[0]
        _, folder = self.model(dtype)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = self.work / "sluice.toml"
        provider = "cuda" if self.device == "cuda" else "cpu"
        config.write_text(
            f'listen = "127.0.0.1:{port}"\ndata = "{self.work}"\n[[deployment]]\nname = "llama"\npath = "{folder}"\n'
            f'provider = "{provider}"\nslots = {4 if self.small else 64}\ncontext = 512\n'
        )
        log = open(self.out / "serve.log", "w")
        server = subprocess.Popen([self.kit / "bin/sluice", "serve", "--config", config], env=self.environment, stdout=log, stderr=log)
        try:
            self.wait_for(port, server)
            lines = {}
            for clients in (1, 2) if self.small else BATCHES:
                seconds = 3 if self.small else 10
                command = ["bench", "completions", "--url", f"http://127.0.0.1:{port}", "--model", "llama", "-c", clients]
                command += ["--duration", seconds, "--max-tokens", 8 if self.small else 64, "--ignore-eos", "-o", "json"]
                lines[clients] = json.loads(self.run(self.kit / "bin/sluice", *map(str, command), limit=seconds + 60).stdout)
            return lines
        finally:
            server.terminate()
            try:
                server.wait(30)
            finally:
                # What still runs would hold the memory that the next part counts.
                server.kill()
                server.wait()

    def reload(self) -> dict:
        """A hundred loads of a small model: what the device has free at the end is what it had after the first."""
        folder = self.work / "models" / "tiny"
        config = Config.read(self.kit / "tiny" / "shape.json")
        if not (folder / "model.onnx.data").exists():
            shutil.copytree(self.kit / "tiny", folder, dirs_exist_ok=True)
            fill(folder, config, random_weights(config, DTYPES["fp16" if self.device == "cuda" else "fp32"], self.torch_device))
        answer = self.decode(folder, "--reloads", 10 if self.small else 100, "--slots", 4, "--capacity", 128)
        free = answer["free_bytes"]
        if self.device == "cuda" and free[0] - free[-1] > 4 << 20:
            raise RuntimeError(f"{free[0] - free[-1]} bytes of device memory are gone after {answer['reloads']} loads")
        return {"loads": answer["reloads"], "free bytes after the first and the last": free}

    def sanitizer(self) -> dict:
        tool = shutil.which("compute-sanitizer") or next((str(p) for p in Path("/usr/local/cuda/bin").glob("compute-sanitizer")), None)
        if not tool:
            return {"skipped": "compute-sanitizer is not installed"}
        results = {}
        for check in ("memcheck", "racecheck"):
            tests = ["cuda::tests::sampling::", "cuda::tests::copies::", "cuda::tests::pooling::", "--test-threads=1"]
            command = [tool, "--tool", check, "--error-exitcode", "9", self.kit / "bin/engine-tests", *tests]
            done = self.run(*command, limit=100, check=False)
            results[check] = "clean" if done.returncode == 0 else done.stdout[-800:]
        return results

    # --- what the parts share

    def models(self) -> list[str]:
        return sorted(path.name for path in (self.kit / "models").iterdir())

    def model(self, dtype: str) -> tuple[Config, Path]:
        """A folder with weights in it, made at the first use."""
        folder = self.work / "models" / dtype
        config = Config.read(self.kit / "models" / dtype / "shape.json")
        if not (folder / "model.onnx.data").exists():
            shutil.copytree(self.kit / "models" / dtype, folder, dirs_exist_ok=True)
            fill(folder, config, random_weights(config, DTYPES[dtype], self.torch_device))
        return config, folder

    def decode(self, folder: Path, *options: object) -> dict:
        provider = "cuda" if self.device == "cuda" else "cpu"
        done = self.run(self.kit / "bin/decode", folder, "--provider", provider, *map(str, options), limit=150)
        return json.loads(done.stdout)

    def wait_for(self, port: int, server: subprocess.Popen) -> None:
        import urllib.request

        until = time.monotonic() + 120
        while time.monotonic() < until:
            if server.poll() is not None:
                raise RuntimeError(f"the server ended: {(self.out / 'serve.log').read_text()[-1500:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2)
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError("the server was not ready in 120 s")


def cuda_folders() -> list[str]:
    """Where PyTorch's own CUDA libraries lie: cuBLAS, cuDNN and the runtime are not sent."""
    site = Path(torch.__file__).parent.parent
    folders = {str(path.parent) for path in site.glob("nvidia/**/lib*.so*")}
    return sorted(folders) + [str(Path(torch.__file__).parent / "lib"), "/usr/local/cuda/lib64"]


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def copy_bandwidth(device: str) -> float:
    """Bytes per second that a copy reads and writes: what memory gives in practice."""
    size = (1 << 30) if device.startswith("cuda") else (1 << 26)
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    best = 0.0
    for _ in range(8):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = max(best, 2 * size / (time.perf_counter() - start))
    return best


@torch.no_grad()
def torch_rate(config: Config, weights: dict, batch: int, past: int, steps: int) -> float:
    """Tokens per second of greedy decoding; on a GPU one captured graph a step."""
    model = Llama(config, weights, batch, 512)
    device = str(model.device)
    ids = torch.full((batch, 1), 7, device=device)
    positions = torch.full((batch, 1), past, device=device)
    graph = None
    if device.startswith("cuda"):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                model.step(ids, positions)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            ids.copy_(model.step(ids, positions).argmax(-1, keepdim=True))
    times = []
    for _ in range(5):
        positions.fill_(past)
        synchronize(device)
        start = time.perf_counter()
        for _ in range(steps):
            if graph:
                graph.replay()
            else:
                ids.copy_(model.step(ids, positions).argmax(-1, keepdim=True))
            positions.add_(1)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return batch * steps / sorted(times)[2]


PARTS = ["doctor", "kernels", "sampling", "tokens", "decode_rates", "http", "reload", "sanitizer"]


def table(results: dict) -> str:
    lines = [f"# {results.get('gpu', results['device'])}, {results['when']}", ""]
    for name, part in results["parts"].items():
        lines += [f"## {name.replace('_', ' ')}: {part['outcome']}, {part['seconds']} s", "", "```", json.dumps(part.get("result", part.get("error")), indent=1), "```", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", type=Path, required=True, help="folder that `pieces.py join` made")
    parser.add_argument("--work", type=Path, required=True, help="folder for weights and configurations")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="few and short rounds, to try the script")
    parser.add_argument("--only", help=f"parts, of {','.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=9.5)
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"--only: there is no {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: PyTorch finds no GPU here (see nvidia-smi); --device cpu --small tries the script without one")
    for folder in (arguments.out, arguments.work):
        folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments)
    started = time.monotonic()
    for name in wanted:
        began = time.monotonic()
        part: dict = {}
        if began - started > 60 * arguments.minutes:
            part["outcome"] = "no time was left"
        else:
            try:
                part = {"outcome": "done", "result": getattr(bench, name)()}
            except Exception as error:  # noqa: BLE001 - the next part runs whatever this one met
                part = {"outcome": "FAILED", "error": f"{type(error).__name__}: {error}"}
        part["seconds"] = round(time.monotonic() - began, 1)
        bench.results["parts"][name] = part
        print(f"{name}: {part['outcome']}, {part['seconds']} s", part.get("error", ""), flush=True)
        # After each part: what was measured is not lost with a later one.
        (arguments.out / "gpu.json").write_text(json.dumps(bench.results, indent=1) + "\n")
        (arguments.out / "gpu.md").write_text(table(bench.results))
    sys.exit(any(part["outcome"] == "FAILED" for part in bench.results["parts"].values()))


if __name__ == "__main__":
    main()
