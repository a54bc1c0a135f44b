"""What nobody has approved runs in a process of its own: models, templates, tokenizers and prompts that mean harm end
their own run, with a reason, while a neighbour's requests go on."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
import sluice
from onnx import TensorProto, helper

DEEP = "{% set ns=namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l=[ns.l] %}{% endfor %}{{ ns.l|tojson|length }}"
# Small enough to be loaded; it doubles a text until it is asked no more.
DOUBLING = "{% set ns=namespace(s='x') %}{% for i in range(60) %}{% set ns.s=ns.s~ns.s %}{% endfor %}{{ ns.s|length }}"


class House:
    """A server with a neighbour that `sluice.toml` names, and a model whose versions are evaluated."""

    def __init__(self, start, tmp_path: Path, **options):
        self.folder = tmp_path
        # Children are nice: beside what else a machine does, a load takes many times what it takes alone.
        sandbox = {"memory": "700MiB", "load_timeout": "100s", "request_timeout": "100s"} | options
        neighbour = {"name": "neighbour", "path": sluice.HELPDESK / "v2", "slots": 4, "threads": 1}
        data = tmp_path / "data"
        data.mkdir()
        (data / "lib").symlink_to(sluice.DATA / "lib")
        sections = {"sandbox": sandbox, "control.tasks": {"drain": "1s"}}
        self.server = start([neighbour], sections=sections, env={"SLUICE_DATA": str(data), "SLUICE_TEST_SECRET": "s3cr3t"})
        self.server.wait_until(lambda: self.ask("GET", "/models").status_code == 200, what="the control plane")
        self.post("/models", {"name": "m"})
        rows = tmp_path / "rows.jsonl"
        row = {"messages": [{"role": "user", "content": "My VPN is down"}], "word": "x", "reference": "alpha"}
        rows.write_text((json.dumps(row) + "\n") * 2)
        self.post("/datasets", {"name": "rows"})
        self.post("/datasets/rows/versions", {"artifact": self.push(rows, "dataset"), "row_count": 2})
        ask = {"ask": {"kind": "chat", "sampling": {"max_tokens": 4}}}
        rules = {"rules": [{"metric": "token_f1", "min": 0}], "min_samples": 2}
        measure = {"measure": [{"kind": "token_f1"}]} | ask
        self.post("/evaluations", {"model": "m", "name": "e", "test_set": "rows@v1", "metrics": measure, "thresholds": rules})

    def ask(self, method, path, body=None):
        return self.server.client.request(method, f"/api/v1{path}", json=body)

    def post(self, path, body):
        answer = self.ask("POST", path, body)
        assert answer.status_code in (200, 201), (path, answer.text)
        return answer.json()

    def push(self, path, kind):
        command = [sluice.BINARY, "artifact", "push", path, "--name", path.name, "--kind", kind, "--url", self.server.url]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()[-1]

    def begin(self, folder, **run):
        """Registers a folder as a version and asks for its evaluation; the run's id."""
        number = self.post("/models/m/versions", {})["number"]
        self.post(f"/models/m/versions/v{number}/register", {"artifact": self.push(folder, "model")})
        return self.post("/evaluations/e/runs", {"model_version": f"m@v{number}"} | run)["id"]

    def ended(self, run, seconds=60):
        found = {}

        def look():
            found.update(self.ask("GET", f"/evaluation_runs/{run}").json())
            return found["status"] in ("failed", "succeeded")

        self.server.wait_until(look, seconds, "the end of the run")
        return found

    def model(self, name, source="v2", **edits):
        """A copy of an example model; `edits` (NAME=function) change its JSON files."""
        to = self.folder / name
        shutil.copytree(sluice.HELPDESK / source, to)
        (to / "version.json").unlink(missing_ok=True)
        for stem, edit in edits.items():
            file = to / f"{stem}.json"
            file.write_text(json.dumps(edit(json.loads(file.read_text()))))
        return to

    def graph(self, name, nodes):
        """A graph of one input of four numbers."""
        to = self.folder / name
        to.mkdir()
        value = helper.make_tensor_value_info
        graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, [4])], [value("y", TensorProto.FLOAT, None)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, to / "model.onnx")
        return to

    def children(self):
        pids = subprocess.run(["pgrep", "-P", str(self.server.process.pid)], capture_output=True, text=True).stdout
        return [int(pid) for pid in pids.split()]


@pytest.fixture
def house(start, tmp_path):
    return House(start, tmp_path)


def with_template(source):
    return {"tokenizer_config": lambda config: config | {"chat_template": source}}


def concat():
    """40 times the input twice: 2^40 numbers."""
    names = ["x", *(f"a{n}" for n in range(39)), "y"]
    return [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in zip(names, names[1:])]


def loop():
    """2^62 rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c_out"]), helper.make_node("Add", ["v", "v"], ["v_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [4]),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, [4]),
        ],
    )
    rounds = helper.make_node("Constant", [], ["n"], value=helper.make_tensor("n", TensorProto.INT64, [], [1 << 62]))
    true = helper.make_node("Constant", [], ["t"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True]))
    return [rounds, true, helper.make_node("Loop", ["n", "t", "x"], ["y"], body=body)]


def growing(tokenizer):
    """Twelve replacements, each of one byte by ten."""
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    return tokenizer | {"normalizer": {"type": "Sequence", "normalizers": [replace] * 12}}


@contextmanager
def asked_all_the_while(house):
    """A neighbour's requests, one after another: each is answered."""
    failed, stop = [], threading.Event()

    def neighbour():
        body = {"model": "neighbour", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        while not stop.is_set():
            answer = house.server.client.post("/v1/chat/completions", json=body)
            if answer.status_code != 200:
                failed.append(answer.text)

    asking = threading.Thread(target=neighbour)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join()
    assert failed == []


def assert_ends_its_own_run(house, folder, reason):
    run = house.ended(house.begin(folder), seconds=150)
    assert run["status"] == "failed", (folder.name, run)
    assert re.search(reason, run["error"]), (folder.name, run["error"])
    # Not tried again: the next process would end as this one did.
    task = house.ask("GET", f"/tasks/{run['task']}").json()
    assert task["attempt"] == 1, (folder.name, task)
    house.server.wait_until(lambda: house.server.gauge("sluice_model_processes") == 0, what="the end of the children")


def test_hostile_content_ends_its_own_run_with_a_reason(house):
    with asked_all_the_while(house):
        for folder, reason in [
            (house.model("growing", tokenizer=growing), "normalizer can make a text 1000000000000 times as long"),
            (house.graph("concat", concat()), r"memory|alloc"),
        ]:
            assert_ends_its_own_run(house, folder, reason)


def test_what_never_ends_is_ended(start, tmp_path):
    house = House(start, tmp_path, load_timeout="4s", request_timeout="4s")
    with asked_all_the_while(house):
        assert_ends_its_own_run(house, house.graph("loop", loop()), r"took longer than 4 s (to load|for one request)")


@pytest.mark.parametrize(
    "template, reason",
    [(DEEP, "more than 200 levels deep"), (DOUBLING, "a text of more than 16777216 bytes")],
    ids=["nests too deep", "doubles"],
)
def test_a_template_that_takes_too_much_answers_nothing(house, template, reason):
    """It does not even end its process: the limits of templates hold there as they do for what was approved."""
    run = house.ended(house.begin(house.model("greedy", **with_template(template))))
    assert run["verdict"] != "passed", run
    errors = [sample["error"] for sample in house.ask("GET", f"/evaluation_runs/{run['id']}/samples").json()["items"]]
    assert len(errors) == 2 and all(reason in error for error in errors), errors
    assert house.server.gauge("sluice_model_process_ends_total", reason="crashed") == 0


def test_a_prompt_version_that_doubles_ends_its_own_run(house):
    template = "{% set ns=namespace(s=word) %}{% for i in range(60) %}{% set ns.s=ns.s~ns.s %}{% endfor %}{{ ns.s|length }}"
    house.post("/models/m/prompts", {"name": "p", "template": template})
    run = house.ended(house.begin(house.model("plain"), prompt_versions=["p@v1"]))
    assert run["status"] == "failed", run
    assert "the process that renders the prompts" in run["error"] and "memory" in run["error"], run["error"]
    assert house.server.gauge("sluice_model_process_ends_total", reason="memory") >= 1
    assert house.server.client.get("/health/live").status_code == 200


def test_an_ordinary_model_is_measured_as_if_it_were_here(house):
    """The same words, tokens and scores as the same files give in the serving process."""
    house.post("/models/m/prompts", {"name": "p", "template": "{{ messages[0].content }}"})
    run = house.ended(house.begin(house.model("plain"), prompt_versions=["p@v1"]))
    assert run["status"] == "succeeded", run
    sample = house.ask("GET", f"/evaluation_runs/{run['id']}/samples").json()["items"][0]
    body = {"model": "neighbour", "messages": [{"role": "user", "content": "My VPN is down"}], "max_tokens": 4, "temperature": 0}
    here = house.server.client.post("/v1/chat/completions", json=body).json()
    assert sample["output"] in (here["choices"][0]["message"]["content"], {"text": here["choices"][0]["message"]["content"]})
    assert (sample["input_tokens"], sample["output_tokens"]) == (here["usage"]["prompt_tokens"], here["usage"]["completion_tokens"])
    assert 0 < sample["first_token_us"] <= sample["latency_us"]


def test_a_child_has_no_secret_no_file_and_no_socket(house):
    house.begin(house.graph("loop", loop()))
    house.server.wait_until(lambda: house.children(), what="the child")
    child = house.children()[0]
    house.server.wait_until(lambda: "Seccomp:\t2" in Path(f"/proc/{child}/status").read_text(), what="the child to be confined")
    environment = Path(f"/proc/{child}/environ").read_bytes()
    assert b"s3cr3t" not in environment and b"HOME" not in environment
    status = Path(f"/proc/{child}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    limits = Path(f"/proc/{child}/limits").read_text()
    assert re.search(r"Max core file size +0 +0", limits) and re.search(r"Max file size +0 +0", limits)
    # Nothing of the server's is open in it: no database, no log, no listener.
    for name in os.listdir(f"/proc/{child}/fd"):
        try:
            target = os.readlink(f"/proc/{child}/fd/{name}")
        except FileNotFoundError:
            continue
        assert "sluice.db" not in target and "sluice.log" not in target, target


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_load_does_not_outlive_the_server(house, how):
    house.begin(house.graph("loop", loop()))
    house.server.wait_until(lambda: house.children(), what="the child")
    child = house.children()[0]
    began = time.monotonic()
    house.server.stop(how)
    assert time.monotonic() - began < 15
    end = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.02)
