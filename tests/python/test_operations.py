"""What operators meet: a full disk, a database that is taken away, kill -9 in the middle of a write, file modes, rotated logs."""

import json
import os
import resource
import signal
import socket
import struct
import subprocess
import time
import uuid
from pathlib import Path

import pytest
import sluice

CHAT = {"model": "helpdesk", "messages": [{"role": "user", "content": "The VPN is down"}], "max_tokens": 2}
HELPDESK = {"name": "helpdesk", "path": sluice.HELPDESK / "v2", "slots": 2}


def records(start, deployments=(), **options):
    """A server with records, ready for writes; its data lies beside its configuration."""
    server = start(list(deployments), **options)
    server.wait_until(lambda: server.client.get("/health/ready?of=control").status_code == 200, what="the control plane")
    return server


def make(server, name, **headers):
    return server.client.post("/api/v1/departments", json={"name": name}, headers=headers)


def control(server):
    """The status of the control plane, and its word for what is wrong."""
    answer = server.client.get("/health/ready?of=control")
    return answer.status_code, answer.json().get("codes")


def problem(answer):
    return answer.status_code, answer.json()["type"].rsplit(":", 1)[-1]


class Full:
    """A disk that is full: the size of the server's files is limited, which a write meets as it meets a full disk."""

    def __init__(self, server):
        self.pid = server.process.pid

    def __enter__(self):
        self.free = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (4096, self.free[1]))

    def __exit__(self, *_):
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, self.free)


def test_a_full_disk_refuses_writes_and_nothing_else(start):
    server = records(start, [HELPDESK])
    assert make(server, "before").status_code == 201
    for turn in range(2):
        with Full(server):
            refused = make(server, f"refused-{turn}")
            assert problem(refused) == (503, "storage_full") and refused.headers["retry-after"]
            assert control(server) == (503, ["storage_full"])
            assert server.client.get("/health/ready").status_code == 200
            assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
            assert server.client.get("/api/v1/departments").status_code == 200, "what is written can be read"
            metrics = server.client.get("/metrics").text
            assert "sluice_control_ready 0" in metrics and 'sluice_control_fault{reason="storage_full"} 1' in metrics
            upload = {"path": "x.bin", "bytes": 1 << 20}
            assert problem(server.client.post("/api/v1/uploads", json=upload)) == (503, "storage_full")
        assert make(server, f"after-{turn}").status_code == 201, "without a restart, at once"
        assert control(server) == (200, None)
    # Without anybody writing, too.
    with Full(server):
        server.wait_until(lambda: control(server)[0] == 503, what="the heartbeat to notice")
    server.wait_until(lambda: control(server)[0] == 200, what="the heartbeat to notice")
    assert "sluice_control_ready 1" in server.client.get("/metrics").text


def test_a_part_of_an_upload_on_a_full_disk_can_be_sent_again(start):
    server = records(start)
    data = os.urandom(100_000)
    upload = server.client.post("/api/v1/uploads", json={"path": "x.bin", "bytes": len(data)}).json()["id"]
    part = f"/api/v1/uploads/{upload}/parts/0"
    octets = {"content-type": "application/octet-stream"}
    with Full(server):
        assert problem(server.client.put(part, content=data, headers=octets)) == (503, "storage_full")
    assert server.client.put(part, content=data, headers=octets).status_code == 200
    assert server.client.post(f"/api/v1/uploads/{upload}/complete", json={}).status_code == 200


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_database_that_is_taken_away_takes_no_writes(start, suffix):
    server = records(start)
    database = server.log.parent / "sluice.db"
    assert make(server, "before").status_code == 201
    victim, aside = Path(f"{database}{suffix}"), server.log.parent / "aside"
    victim.rename(aside)
    assert problem(make(server, "lost")) == (503, "database_replaced")
    assert control(server) == (503, ["database_replaced"])
    assert server.client.get("/health/ready").status_code == 200
    # Another file in its place is not taken for it.
    victim.write_bytes(b"")
    assert problem(make(server, "lost")) == (503, "database_replaced")
    aside.rename(victim)
    assert make(server, "after").status_code == 201
    assert control(server) == (200, None)
    names = {it["name"] for it in server.client.get("/api/v1/departments").json()["items"]}
    assert {"before", "after"} <= names and "lost" not in names


def dropped(server, name, token, seconds):
    """A write whose client resets the connection a moment later."""
    body = json.dumps({"name": name}).encode()
    head = (
        f"POST /api/v1/departments HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(seconds)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_write_whose_client_left_is_answered_when_it_asks_again(start):
    server = records(start)
    sent = []
    for number in range(60):
        name, token = f"left-{number}", uuid.uuid4().hex
        dropped(server, name, token, (number % 20) * 0.0003)
        sent.append((name, token))
    began = time.monotonic()
    for name, token in sent:
        answers = [make(server, name, **{"idempotency-key": token}) for _ in range(2)]
        assert [it.status_code for it in answers] == [201, 201], answers[0].text
        assert answers[0].json()["id"] == answers[1].json()["id"]
    assert time.monotonic() - began < 20, "none had to wait for a claim to run out"


def test_a_write_that_was_killed_is_done_once(start, tmp_path):
    sections = {"control": {"database": f"sqlite:{tmp_path / 'kept.db'}", "idempotency_lease": "500ms"}}
    sent = []
    for turn in range(3):
        server = records(start, sections=sections)
        for number in range(12):
            name, token = f"killed-{turn}-{number}", uuid.uuid4().hex
            dropped(server, name, token, 0)
            sent.append((name, token))
        server.stop(signal.SIGKILL)
    server = records(start, sections=sections)
    for name, token in sent:
        answer = make(server, name, **{"idempotency-key": token})
        assert answer.status_code == 201, f"{name}: {answer.text}"
    found = [it["name"] for it in server.client.get("/api/v1/departments?limit=500").json()["items"]]
    assert sorted(it for it in found if it.startswith("killed-")) == sorted(name for name, _ in sent)


def modes(folder):
    """What others may do with the files in a folder, links aside: nothing."""
    paths = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): oct(path.stat().st_mode & 0o077) for path in paths if not path.is_symlink() and path.stat().st_mode & 0o077}


def test_files_are_their_owners_alone(start, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "lib").symlink_to(sluice.DATA / "lib")
    options = {"env": {"SLUICE_DATA": str(data)}, "sections": {"control": {}}}
    server = records(start, [HELPDESK], **options)
    body = b"x" * 5000
    upload = server.client.post("/api/v1/uploads", json={"path": "x.bin", "bytes": len(body)}).json()["id"]
    octets = {"content-type": "application/octet-stream"}
    assert server.client.put(f"/api/v1/uploads/{upload}/parts/0", content=body, headers=octets).status_code == 200
    assert server.client.post(f"/api/v1/uploads/{upload}/complete", json={}).status_code == 200
    made = server.client.post("/api/v1/artifacts", json={"name": "a", "kind": "model", "files": [{"upload": upload}]})
    assert made.status_code == 201, made.text
    assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
    backup = tmp_path / "backup.jsonl"
    environment = {**os.environ, "SLUICE_DATA": str(data)}
    config = ["--config", str(server.log.parent / "sluice.toml")]
    subprocess.run([sluice.BINARY, "backup", *config, backup], env=environment, check=True, capture_output=True)
    assert oct(backup.stat().st_mode & 0o777) == "0o600"
    restored = tmp_path / "restored.db"
    url = ["--database", f"sqlite:{restored}"]
    subprocess.run([sluice.BINARY, "restore", *config, *url, backup], env=environment, check=True, capture_output=True)
    assert oct(restored.stat().st_mode & 0o777) == "0o600"
    server.stop()
    private = [data / "sluice.db", data / "control", data / "artifacts"]
    opened = {path.name: modes(path) for path in private if modes(path)}
    assert not opened
    # Those of an earlier version are tightened by the next start.
    for path in [data / "control", *(data / "control").rglob("*"), data / "artifacts", *(data / "artifacts").rglob("*"), data / "sluice.db"]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    server = records(start, [HELPDESK], **options)
    server.wait_until(lambda: not any(modes(path) for path in private), what="files that are private")


def test_an_older_binary_leaves_a_newer_database_alone(start, tmp_path):
    import sqlite3

    server = records(start)
    database = server.log.parent / "sluice.db"
    server.stop()
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE novelties (id TEXT PRIMARY KEY)")
        connection.execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) "
            "SELECT 9000, 'novelties', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1"
        )
    url = ["--database", f"sqlite:{database}"]
    backup = tmp_path / "b.jsonl"
    for verb in (["backup", *url, backup], ["migrate", *url]):
        done = subprocess.run([sluice.BINARY, *verb], capture_output=True, text=True)
        assert done.returncode == 1 and "9000" in done.stderr and "schemas up to" in done.stderr, done
    assert not backup.exists()
    sections = {"control": {"database": f"sqlite:{database}"}}
    server = start([HELPDESK], sections=sections)
    server.wait_until(lambda: control(server) == (503, ["schema_newer"]), what="the refusal")
    reason = server.client.get("/health/ready?of=control").json()["reasons"][0]
    assert "9000" in reason
    assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert make(server, "x").status_code == 503


def test_readiness_is_asked_of_what_there_is(start):
    server = start([HELPDESK], sections={"control": {"enabled": False}})
    assert control(server) == (503, ["no_control_plane"])
    assert server.client.get("/health/ready?of=models").status_code == 200
    assert server.client.get("/health/ready?of=everything").status_code == 400
    assert "sluice_control_ready" not in server.client.get("/metrics").text


def test_what_people_wrote_is_printed_harmless(start):
    server = records(start)
    evil = "\x1b[2J\x1b]0;pwn\x07\x1b[31mFAKE: approved\u202e\x9b2J"
    made = server.client.post("/api/v1/models", json={"name": "ansi", "description": evil})
    assert made.status_code == 201, made.text

    def printed(*arguments):
        done = subprocess.run([sluice.BINARY, *arguments, "--url", server.url], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    for arguments in (["model", "show", "ansi"], ["model", "list"], ["model", "list", "-o", "json"]):
        shown = printed(*arguments)
        assert not set(shown) & set("\x1b\x07\x9b\u202e"), shown
    assert "\\u001b[2J" in printed("model", "show", "ansi")
    listed = json.loads(printed("model", "list", "-o", "json"))
    listed = listed["items"] if isinstance(listed, dict) else listed
    assert listed[0]["description"] == evil, "what a program reads says the same"
    key = server.client.post("/api/v1/keys", json={"name": "a\x1b[2Jb"})
    assert key.status_code == 422 and key.json()["errors"][0]["field"] == "name"


def test_the_access_log_can_be_moved_away(start, tmp_path):
    log, moved = tmp_path / "access.log", tmp_path / "access.1"
    server = start([HELPDESK], sections={"log": {"format": "json", "file": str(log)}})
    server.client.post("/v1/chat/completions", json=CHAT)
    server.wait_until(lambda: log.stat().st_size, what="a line")
    old = [moved, tmp_path / "access.2"]
    # Nobody has to ask for anything before the new file is there, and none of these ends the server.
    for away, told in zip(old, (signal.SIGHUP, signal.SIGUSR1)):
        log.rename(away)
        length = away.stat().st_size
        server.process.send_signal(signal.SIGUSR2)
        server.process.send_signal(told)
        server.wait_until(log.exists, what="the new file")
        server.client.post("/v1/chat/completions", json=CHAT)
        server.wait_until(lambda: log.stat().st_size, what="a line in the new file")
        assert away.stat().st_size == length, "the old file is written to"
    for file in (log, *old):
        assert all(json.loads(line) for line in file.read_text().splitlines())


def test_metrics_of_the_process(server):
    found = server.stats()
    for name in ("process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds", "process_max_fds"):
        assert found[name] > 0
    assert found["process_cpu_seconds_total"] > 0
    assert abs(found["process_start_time_seconds"] - time.time()) < 3600 * 24
    assert found["process_resident_memory_bytes"] / (1 << 20) == pytest.approx(server.resident_mb(), rel=0.5)
