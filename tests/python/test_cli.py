"""The verbs of the command line as a user runs them: real processes against a real server."""

import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
import sluice
from terminal import Terminal

RELEASE_VERBS = ["start", "status", "pause", "resume", "promote", "abort", "history", "replay", "pairs", "simulate"]
VERBS = ["serve", "chat", "embed", "models", "top", "bench", "config check", "doctor", "engine build", "engine show", "completions", "rollback"]
VERBS += [f"release {verb}" for verb in RELEASE_VERBS]
TICKET = "asset PC081745. Our new colleague needs access to ERP"
RESOURCE = "erp"


def environment(**variables) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return {**clean, **variables}


def run(*arguments: str, stdin: str | None = "", url: str | None = None, cwd=None, **variables):
    return subprocess.run(
        [str(sluice.BINARY), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=environment(**({"SLUICE_URL": url} if url else {}), **variables),
    )


def succeeded(done) -> str:
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def failed(done) -> str:
    """Status 1 and one line on standard error, nothing on standard output."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == "" and done.stderr.startswith("error: "), done.stderr
    assert "panicked" not in done.stderr
    return done.stderr


# --- help and version


def test_help_shows_every_verb_and_its_examples():
    for verb in [[], *(verb.split() for verb in VERBS)]:
        text = succeeded(run(*verb, "--help"))
        assert "Examples:\n" in text, verb
        examples = text.split("Examples:\n")[1]
        assert f"  sluice {' '.join(verb)}".rstrip() in examples, text
    listed = succeeded(run("--help"))
    assert all(f"  {verb.split()[0]} " in listed for verb in VERBS)


def test_version_is_that_of_the_package():
    manifest = (sluice.ROOT / "Cargo.toml").read_text()
    version = re.search(r'\[workspace\.package\]\nversion = "(.+?)"', manifest)[1]
    assert succeeded(run("--version")) == f"sluice {version}\n"


def test_a_wrong_option_is_named_and_ends_with_2():
    done = run("chat", "--temprature", "1", "hi")
    assert done.returncode == 2 and "--temprature" in done.stderr and "--temperature" in done.stderr


def test_without_a_verb_the_help_is_shown():
    done = run()
    assert done.returncode == 2 and "Usage: sluice" in done.stderr


# --- chat


def test_chat_one_message(server):
    answer = succeeded(run("chat", "-m", "helpdesk", *TICKET.split(), url=server.url))
    assert json.loads(answer)["resource"] == RESOURCE
    # The only chat model need not be named, and the message may come through a pipe.
    assert succeeded(run("chat", stdin=TICKET + "\n", url=server.url)) == answer


def test_chat_as_json_is_the_whole_answer(server):
    answer = json.loads(succeeded(run("chat", "-o", "json", TICKET, url=server.url)))
    assert answer["object"] == "chat.completion" and answer["usage"]["completion_tokens"] > 0
    json.loads(answer["choices"][0]["message"]["content"])


def test_chat_options_reach_the_server(server):
    answer = json.loads(succeeded(run("chat", "-o", "json", "--max-tokens", "3", "-s", "Be brief.", TICKET, url=server.url)))
    assert answer["choices"][0]["finish_reason"] == "length"
    longer = json.loads(succeeded(run("chat", "-o", "json", "--max-tokens", "3", TICKET, url=server.url)))
    assert answer["usage"]["prompt_tokens"] > longer["usage"]["prompt_tokens"]


class Dictation(http.server.BaseHTTPRequestHandler):
    """A chat model that says its next word when it is told to: our own would be done before
    anyone could see whether its answer comes in pieces."""

    told = threading.Semaphore(0)

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        for word in ["one ", "two ", "three"]:
            self.told.acquire()
            self.wfile.write(f"data: {json.dumps({'choices': [{'delta': {'content': word}}]})}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass


def test_chat_streams_to_a_terminal():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dictation) as model:
        threading.Thread(target=model.serve_forever).start()
        url = f"http://127.0.0.1:{model.server_port}"
        terminal = Terminal([str(sluice.BINARY), "chat", "-m", "any", "hello"], environment(SLUICE_URL=url))
        for so_far in ["one", "one two", "one two three"]:
            Dictation.told.release()
            terminal.wait_until(lambda screen, so_far=so_far: screen.strip() == so_far)
        assert terminal.finish() == 0
        terminal.close()
        model.shutdown()


def test_chat_conversation_on_a_terminal(server):
    terminal = Terminal([str(sluice.BINARY), "chat"], environment(SLUICE_URL=server.url))
    terminal.wait_until(lambda screen: "helpdesk" in screen and "/help" in screen)
    terminal.type("/help\n")
    terminal.wait_until(lambda screen: "/reset" in screen)
    terminal.type("/nonsense\n")
    terminal.wait_until(lambda screen: "unknown command /nonsense" in screen)
    terminal.type(TICKET + "\n")
    terminal.wait_until(lambda screen: f'"resource":"{RESOURCE}"' in screen.replace("\n", ""))
    terminal.type("/quit\n")
    assert terminal.finish() == 0 and terminal.restored()
    terminal.close()


def test_chat_says_what_is_missing(server):
    assert "standard input is empty" in failed(run("chat", stdin="  \n", url=server.url))
    error = failed(run("chat", "-m", "nope", "hi", url=server.url))
    assert "`nope` does not exist" in error and "404" in error
    assert "not a chat model" in failed(run("chat", "-m", "all-minilm-l6-v2", "hi", url=server.url))


# --- embed


def test_embed_texts(server):
    lines = succeeded(run("embed", "The VPN drops every hour", "VPN 每小时掉线", url=server.url)).splitlines()
    assert lines[0].split() == ["TEXT", "DIMENSIONS", "VECTOR", "COSINE", "TO", "FIRST"]
    assert len(lines) == 3 and " 384 " in lines[1] and lines[1].endswith("1.0000")


def test_embed_lines_of_standard_input_as_json(server):
    answer = json.loads(succeeded(run("embed", "-o", "json", "--dimensions", "8", stdin="one\ntwo\nthree\n", url=server.url)))
    assert [len(item["embedding"]) for item in answer["data"]] == [8, 8, 8]
    assert answer["model"] == "all-minilm-l6-v2"


def test_embed_says_what_is_missing(server):
    assert "nothing to embed" in failed(run("embed", url=server.url))
    assert "dimensions" in failed(run("embed", "--dimensions", "999", "x", url=server.url))


# --- models


def test_models_as_table_and_json(server):
    rows = [line.split() for line in succeeded(run("models", url=server.url)).splitlines()]
    assert rows[0] == ["MODEL", "KIND", "REVISION", "CONTEXT"]
    assert rows[1][:2] == ["helpdesk", "chat"] and rows[2][:2] == ["all-minilm-l6-v2", "embedding"]
    listed = json.loads(succeeded(run("models", "-o", "json", url=server.url)))
    assert listed == server.client.get("/v1/models").json()
    # The option wins over the variable, and clients' habit of ending in /v1 does no harm.
    assert succeeded(run("models", "--url", server.v1 + "/", url="http://127.0.0.1:1"))


# --- top


def load(server, stop: threading.Event):
    body = {"model": "helpdesk", "messages": [{"role": "user", "content": TICKET}], "max_tokens": 32}
    while not stop.is_set():
        assert server.client.post("/v1/chat/completions", json=body).status_code == 200


def row_of(screen: str, name: str) -> list[str]:
    line = next(line for line in screen.splitlines() if f" {name} " in f" {line.strip('│')} " and "│" in line)
    return line.strip("│ ").split()


def test_top_shows_a_server_at_work_and_gives_the_terminal_back(server):
    stop = threading.Event()
    workers = [threading.Thread(target=load, args=(server, stop)) for _ in range(3)]
    terminal = Terminal([str(sluice.BINARY), "top", "-i", "0.2"], environment(SLUICE_URL=server.url))
    try:
        terminal.wait_until(lambda screen: "helpdesk" in screen and "all-minilm-l6-v2" in screen)
        assert terminal.alternate
        heading = " ".join(next(line for line in terminal.screen().splitlines() if "DEPLOYMENT" in line).split())
        for name in ["QPS", "ERR/S", "RT P50 P90 P99", "TTFT P50 P99", "TOK/S", "BATCH", "RUN", "WAIT", "K/V"]:
            assert name in heading
        for worker in workers:
            worker.start()
        seen = set()

        def moves(screen: str) -> bool:
            # DEPLOYMENT REVISION QPS ERR/S P50 P90 P99 TTFT P99 TOK/S BATCH RUN WAIT K/V
            row = row_of(screen, "helpdesk")
            busy = float(row[2]) > 0 and row[4][0].isdigit() and float(row[9]) > 0 and float(row[10]) >= 1
            if busy:
                seen.add((row[2], row[9]))
            return len(seen) >= 3 and re.search(r"QPS [1-9]", screen) is not None

        terminal.wait_until(moves)
        row = row_of(terminal.screen(), "helpdesk")
        assert all(re.fullmatch(r"[0-9.]+(µs|ms|s)", cell) for cell in row[4:9]), row
        assert re.fullmatch(r"[0-9]+%", row[13]), row
        terminal.type("q")
        assert terminal.finish() == 0
        assert terminal.restored()
    finally:
        stop.set()
        for worker in workers:
            if worker.ident:
                worker.join()
        terminal.close()


def test_top_outlives_the_server(start):
    server = start([{"name": "elsewhere", "upstream": "http://127.0.0.1:1/v1"}])
    terminal = Terminal([str(sluice.BINARY), "top", "-i", "0.2"], environment(SLUICE_URL=server.url))
    terminal.wait_until(lambda screen: "elsewhere" in screen)
    server.stop()
    terminal.wait_until(lambda screen: "trying again" in screen)
    # Ctrl-C as the terminal sends it in raw mode.
    terminal.type("\x03")
    assert terminal.finish() == 0 and terminal.restored()
    terminal.close()


def test_top_once_and_without_a_terminal(server):
    stats = json.loads(succeeded(run("top", "--once", "-o", "json", url=server.url)))
    names = [deployment["name"] for deployment in stats["deployments"]]
    assert names == ["helpdesk", "all-minilm-l6-v2"] and stats["uptime_seconds"] > 0
    assert json.loads(succeeded(run("top", "-o", "json", url=server.url)))["deployments"]
    for arguments in [["top", "--once"], ["top"]]:
        table = succeeded(run(*arguments, url=server.url))
        assert table.startswith("DEPLOYMENT") and "helpdesk" in table and "\x1b" not in table


def test_top_refuses_a_senseless_interval():
    done = run("top", "--interval", "0")
    assert done.returncode == 2 and "between 0.1 and 3600" in done.stderr


# --- bench


@pytest.mark.parametrize("kind", ["chat", "completions", "embed"])
def test_bench_as_json(server, kind):
    report = json.loads(succeeded(run("bench", kind, "-c", "2", "-n", "8", "--max-tokens", "8", "-o", "json", url=server.url)))
    assert report["succeeded"] == 8 and report["failed"] == 0 and report["errors"] == {}
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"] <= report["latency_ms"]["max"]
    assert report["prompt_tokens_per_second"] > 0
    if kind != "embed":
        assert report["ttft_ms"]["p50"] > 0 and report["completion_tokens_per_second"] > 0


def test_bench_as_text_with_prompts_of_a_file(server, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('"The VPN is down"\n{"messages": [{"role": "user", "content": "No printer"}]}\n{"text": "x"}\n')
    text = succeeded(run("bench", "chat", "-n", "6", "-c", "2", "--max-tokens", "4", "--input", str(prompts), url=server.url))
    assert "helpdesk: 6 answered, 0 failed" in text and "P99" in text and "time to first token" in text


def test_bench_does_not_wait_for_ever():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = "http://127.0.0.1:%d" % silent.getsockname()[1]
        assert "no whole answer within 300ms" in failed(run("bench", "chat", "-m", "any", "--timeout", "0.3", url=url))
        assert "--timeout must be" in failed(run("bench", "chat", "-m", "any", "--timeout", "0", url=url))


def test_bench_says_what_is_wrong(server, tmp_path):
    assert "--rate must be" in failed(run("bench", "chat", "--rate=-1", url=server.url))
    assert "does not exist" in failed(run("bench", "chat", "-m", "nope", "-n", "1", url=server.url))
    # Not even a warm-up request, so that the report itself is of failures only.
    assert "every request failed" in failed(run("bench", "chat", "-m", "nope", "-n", "2", "--warmup", "0", url=server.url))
    missing = tmp_path / "none.jsonl"
    assert "none.jsonl" in failed(run("bench", "chat", "--input", str(missing), url=server.url))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('"fine"\n{broken\n')
    assert "broken.jsonl" in failed(run("bench", "chat", "--input", str(broken), url=server.url))
    assert "--words" in failed(run("bench", "chat", "--words", "nine", url=server.url))


# --- config check

GOOD = f"""listen = "127.0.0.1:9000"
[[deployment]]
name = "helpdesk"
path = "{sluice.HELPDESK / "v2"}"
[[deployment]]
name = "far"
upstream = ["http://10.0.0.5:8000/v1", "http://10.0.0.6:8000/v1"]
"""

BAD = {
    "not TOML": ("listen = \n", "1", ["sluice.toml:1"]),
    "unknown section": ("[sever]\nthreads = 1\n", "1", ["sever", "server"]),
    "unknown field": ("[server]\nmax_bdy = '1MiB'\n", "2", ["max_bdy", "max_body"]),
    "wrong type": ("[server]\nthreads = 'many'\n", "2", ["`server.threads`", "a whole number"]),
    "no address": ("listen = 'localhost'\n", "1", ["socket address"]),
    "no duration": ("[limits]\ndefault_deadline = '10 minutes'\n", "2", ['"30s"']),
    "no size": ("[server]\nmax_body = '8 Megs'\n", "2", ['"8MiB"']),
    "out of range": ("[upstream]\nmax_ejected = 1.5\n", "2", ["upstream.max_ejected", "between 0 and 1"]),
    "zero": ("[server]\nmax_connections = 0\n", "2", ["server.max_connections", "at least 1"]),
    "half of TLS": ("[server]\ntls_cert = 'c.pem'\n", "1", ["server.tls_key", "missing"]),
    "deadlines crossed": ("[limits]\ndefault_deadline = '2h'\n", "2", ["limits.default_deadline", "limits.max_deadline"]),
    "buckets": ("[metrics]\nbuckets = [2.0, 1.0]\n", "2", ["metrics.buckets", "ascending"]),
    "origin": ("[server]\ncors_origins = ['example.com']\n", "2", ["server.cors_origins.0", "https://app.example.com"]),
    "log format": ("[log]\nformat = 'xml'\n", "2", ["xml", "json"]),
    "no source": ("[[deployment]]\nname = 'a'\n", "1", ["path", "upstream"]),
    "two sources": ("[[deployment]]\nname = 'a'\npath = 'm'\nupstream = 'http://h/v1'\n", "4", ["exclude each other"]),
    "twice": ("[[deployment]]\nname = 'a'\npath = 'm'\n[[deployment]]\nname = 'a'\npath = 'n'\n", "5", ["deployment.1.name", "unique"]),
    "no URL": ("[[deployment]]\nname = 'a'\nupstream = 'host:80'\n", "3", ["upstream", "http://host:port/v1"]),
    "no slots": ("[[deployment]]\nname = 'a'\npath = 'm'\nslots = 0\n", "4", ["slots", "at least 1"]),
    "provider": ("[[deployment]]\nname = 'a'\npath = 'm'\nprovider = 'tpu'\n", "4", ["tpu", "cuda"]),
}


def test_config_check_of_a_good_file(tmp_path):
    (tmp_path / "sluice.toml").write_text(GOOD)
    # With ONNX Runtime, for the model that is a folder.
    check = lambda *arguments, **variables: succeeded(run("config", "check", *arguments, cwd=tmp_path, SLUICE_DATA=str(sluice.DATA), **variables))
    text = check()
    assert "127.0.0.1:9000" in text and "helpdesk" in text and "10.0.0.6" in text
    whole = json.loads(check("-o", "json"))
    assert whole["server"]["max_body"] == "8MiB" and whole["deployment"][1]["name"] == "far"
    overridden = json.loads(check("-o", "json", SLUICE_LISTEN="127.0.0.1:1"))
    assert overridden["listen"] == "127.0.0.1:1"
    succeeded(run("config", "check", str(sluice.ROOT / "sluice.example.toml")))


@pytest.mark.parametrize("kind", BAD)
def test_config_check_of_a_bad_file(tmp_path, kind):
    text, line, words = BAD[kind]
    (tmp_path / "sluice.toml").write_text(text)
    error = failed(run("config", "check", cwd=tmp_path))
    assert f"sluice.toml:{line}:" in error, error
    assert all(word in error for word in words), error


# What is wrong with a value, a file, a variable and a folder, and the field that is named for it.
WRONG = """listen = "0.0.0.0:1"
[server]
max_body = "much"
tls_cert = "none.pem"
tls_key = "none.key"
[auth]
keys_file = "none.toml"
[upstream]
eject_for = "1h"
[log]
file = "none/access.log"
[control.artifacts]
location = "ftp://x"
[control.artifacts.upload]
part_bytes = 0
[control.releases]
webhooks = [{ url = "http://127.0.0.1:1/h", secret_file = "none" }]
[[deployment]]
name = "a"
path = "/nowhere"
[[deployment]]
name = "b"
upstream = "http://127.0.0.1:1/v1"
api_key_env = "SLUICE_TEST_UNSET"
"""
NAMED = {
    "listen": 1,
    "server.max_body": 3,
    "server.tls_cert": 4,
    "server.tls_key": 5,
    "auth.keys_file": 7,
    "upstream.eject_for": 9,
    "log.file": 11,
    "control.artifacts.location": 13,
    "control.artifacts.upload.part_bytes": 15,
    "control.releases.webhooks.0.secret_file": 17,
    "deployment.0.path": 20,
    "deployment.1.api_key_env": 24,
}


def test_config_check_and_serve_say_the_same_and_all_of_it(tmp_path):
    (tmp_path / "sluice.toml").write_text(WRONG)
    checked = run("config", "check", "-o", "json", cwd=tmp_path)
    assert checked.returncode == 1, checked.stderr
    problems = json.loads(checked.stdout)["problems"]
    assert {problem["field"]: problem["line"] for problem in problems} == NAMED
    told = failed(run("config", "check", cwd=tmp_path))
    refused = failed(run("serve", cwd=tmp_path))
    assert told == refused and len(told.splitlines()) == len(NAMED)
    for field, line in NAMED.items():
        assert f"sluice.toml:{line}: `{field}` " in told
    assert [it.name for it in tmp_path.iterdir()] == ["sluice.toml"], "something was made"
    # A server that is told at the command line is looked at in the same way.
    for arguments, named in ((["--listen", "0.0.0.0:1"], "listen"), (["a=/nowhere"], "deployment.0.path"), (["--data", "sluice.toml"], "data")):
        refused = failed(run("serve", "--config", "/dev/null", *arguments, cwd=tmp_path))
        assert f"`{named}` " in refused, refused


def test_config_check_of_no_file(tmp_path):
    assert "sluice.toml" in failed(run("config", "check", cwd=tmp_path))
    (tmp_path / "sluice.toml").write_text(GOOD)
    error = failed(run("config", "check", cwd=tmp_path, SLUICE_LISTEN="everywhere"))
    assert "SLUICE_LISTEN" in error and "127.0.0.1:8080" in error


# --- records

RECORDS = """kind: department
name: it
---
kind: principal
name: robot
department: it
role: operator
---
kind: model
name: m
department: it
---
kind: version
model: m
number: 1
note: first
---
kind: grant
model: m
principal: robot
access: read
---
kind: key
name: ci
principal: robot
"""


@pytest.fixture
def firm(start, tmp_path):
    """What runs `sluice` as the administrator of a server with authentication and records."""
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nname = "root"\nsha256 = "{hashlib.sha256(b"sk-root").hexdigest()}"\nrole = "admin"\n')
    server = start([], sections={"auth": {"required": True, "keys_file": keys}})
    server.wait_until(lambda: server.client.get("/health/ready?of=control").status_code == 200, what="the control plane")
    return lambda *arguments, key="sk-root": run(*arguments, url=server.url, SLUICE_API_KEY=key)


def test_records_as_code_are_applied_whole_and_listed_by_their_names(firm, tmp_path):
    file = tmp_path / "records.yaml"
    file.write_text(RECORDS)
    planned = succeeded(firm("apply", "-f", str(file), "--dry-run"))
    assert planned.count("would be created") == 6 and "sk-sluice-" not in planned, planned
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(RECORDS + "---\nkind: model\nname: n\ndesciption: x\n")
    error = failed(firm("apply", "-f", str(wrong)))
    line = wrong.read_text().splitlines().index("desciption: x") + 1
    assert error.startswith(f"error: {wrong}:{line}: records[6]") and "nothing was applied" in error, error
    assert json.loads(succeeded(firm("model", "list", "-o", "json"))) == []

    made = succeeded(firm("apply", "-f", str(file)))
    assert made.count(" created\n") == 6, made
    key = re.search(r"sk-sluice-\S+", made)[0]
    succeeded(firm("model", "list", key=key))
    again = succeeded(firm("apply", "-f", str(file)))
    assert again.count(" unchanged\n") == 6 and "sk-sluice-" not in again, again

    # Anyone's keys, and whose; one goes by its name.
    listed = succeeded(firm("key", "list"))
    assert re.search(r"^ci +robot ", listed, re.M) and "usr_" not in listed, listed
    assert json.loads(succeeded(firm("key", "list", "-o", "json")))[0]["principal"].startswith("usr_")
    grants = succeeded(firm("grant", "list"))
    assert re.search(r" model +m +robot +- +read$", grants, re.M), grants
    people = succeeded(firm("principal", "list"))
    assert re.search(r"^robot +operator +\S+ +it ", people, re.M), people
    succeeded(firm("key", "delete", "ci"))
    assert "ci" not in succeeded(firm("key", "list"))
    assert failed(firm("model", "list", key=key))


def test_a_failed_task_says_why_in_the_list(firm):
    succeeded(firm("artifact", "import", "http://127.0.0.1:1/x", "--name", "x"))
    end = time.monotonic() + 20
    while "failed" not in (listed := succeeded(firm("task", "list"))) and time.monotonic() < end:
        time.sleep(0.05)
    assert "failed" in listed and "private address" in listed, listed


# --- completions


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_of_each_shell(tmp_path, shell):
    script = succeeded(run("completions", shell))
    assert "config" in script and "temperature" in script
    if shutil.which(shell):
        path = tmp_path / f"sluice.{shell}"
        path.write_text(script)
        subprocess.run([shell, "-n", str(path)], check=True)


def complete(script: str, *words: str) -> list[str]:
    """What bash would offer for the last of `words`."""
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n_sluice sluice '{words[-1]}' '{words[-2]}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    # By standard input: the script is longer than an argument may be.
    return subprocess.run(["bash", "--norc", "-s"], input=ask, capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes():
    script = succeeded(run("completions", "bash"))
    assert complete(script, "sluice", "mo") == ["models", "model"]
    assert complete(script, "sluice", "chat", "--temp") == ["--temperature"]
    assert complete(script, "sluice", "models", "-o", "") == ["table", "json"]
    assert "check" in complete(script, "sluice", "config", "")


# --- what goes wrong around a verb


@pytest.mark.parametrize("verb", [["models"], ["chat", "hi"], ["embed", "hi"], ["top", "--once"], ["bench", "chat", "-n", "1"]])
def test_no_server_is_said_in_one_line(verb):
    url = f"http://127.0.0.1:{sluice.free_port()}"
    error = failed(run(*verb, url=url))
    assert f"no server answers at {url}" in error and "sluice serve" in error and error.count("\n") == 1


def test_no_url_is_said():
    assert "http://" in failed(run("models", url="127.0.0.1:8080"))


def test_not_a_sluice_is_said():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer():
            connection, _ = other.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert "not JSON" in failed(run("models", url=f"http://127.0.0.1:{other.getsockname()[1]}"))
        thread.join()


def test_keys_are_asked_for_and_never_shown(start):
    server = start(
        [{"name": "helpdesk", "path": sluice.HELPDESK / "v2", "slots": 1}],
        sections={"auth": {"required": True}},
        env={"SLUICE_API_KEYS": "ada:sk-ada-secret"},
    )
    assert "API key" in failed(run("models", url=server.url))
    error = failed(run("models", "--key", "sk-wrong-one", url=server.url))
    assert "Incorrect API key" in error and "sk-wrong-one" not in error
    assert "helpdesk" in succeeded(run("models", url=server.url, SLUICE_API_KEY="sk-ada-secret"))
    assert "sk-ada-secret" not in succeeded(run("models", "--help", SLUICE_API_KEY="sk-ada-secret"))
    assert "sk-ada-secret" not in server.log.read_text()


@pytest.mark.parametrize("verb", ["models", "models -o json", "top --once", "completions bash", "--help", "chat hello"])
def test_a_closed_pipe_is_no_failure(server, verb):
    script = f"set -o pipefail; '{sluice.BINARY}' {verb} | head -0"
    for _ in range(3):
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(SLUICE_URL=server.url))
        assert done.stderr == "" and done.returncode in (0, 141), done


def test_interrupting_an_answer_gives_it_up(start):
    # An upstream that takes the request and never answers.
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        server = start([{"name": "helpdesk", "upstream": "http://127.0.0.1:%d/v1" % upstream.getsockname()[1]}])
        process = subprocess.Popen(
            [str(sluice.BINARY), "chat", "-m", "helpdesk", TICKET],
            env=environment(SLUICE_URL=server.url), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        try:
            server.wait_until(lambda: server.gauge("sluice_upstream_in_flight") == 1, what="the chat's arrival")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) in (130, -signal.SIGINT)
            assert process.stderr.read() == b""
        finally:
            process.kill()
            process.wait()
        server.wait_until(lambda: server.gauge("sluice_upstream_in_flight") == 0, what="the end of the chat")


def test_the_port_being_taken_is_said_at_once():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = "127.0.0.1:%d" % other.getsockname()[1]
        error = failed(run("serve", "--listen", address, f"helpdesk={sluice.HELPDESK / 'v2'}", SLUICE_DATA=str(sluice.DATA)))
        assert f"cannot listen on {address}" in error and "SLUICE_LISTEN" in error
        assert error.count("in use") == 1


def test_an_open_address_needs_keys():
    model = f"helpdesk={sluice.HELPDESK / 'v2'}"
    error = failed(run("serve", model, SLUICE_LISTEN="0.0.0.0:0", SLUICE_DATA=str(sluice.DATA)))
    assert "auth.required" in error and "SLUICE_API_KEYS" in error and "127.0.0.1" in error


def test_serve_says_what_it_cannot_serve(tmp_path):
    # Without models, there may still be those of the control plane; unless that is off, too.
    (tmp_path / "sluice.toml").write_text("[control]\nenabled = false\n")
    assert "nothing to serve" in failed(run("serve", cwd=tmp_path))
    port = f"127.0.0.1:{sluice.free_port()}"
    done = run("serve", "--listen", port, f"x={tmp_path}", SLUICE_DATA=str(sluice.DATA))
    assert done.returncode == 1 and "error: `deployment.0.path` of `x`" in done.stderr and str(tmp_path) in done.stderr
