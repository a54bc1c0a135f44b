"""Who may use, list and count what: recorded deployments of two departments and a configured one, by keys of everybody."""

import hashlib

import httpx
import pytest
import sluice
from conftest import STRATEGY
from stage import ENDPOINT, Stage

ADMIN, APPROVER = "sk-admin", "sk-approver"
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


class Guarded(Stage):
    """A stage where keys are asked for. The stage itself acts as the administrator of the keys file."""

    def serve(self, folder, port=None):
        keys = folder / "keys.toml"
        admin = 'role = "admin"\nclearance = "secret"'
        those = {ADMIN: admin, APPROVER: admin, "sk-board": "metrics = true\nmodels = []"}
        of = lambda key: hashlib.sha256(key.encode()).hexdigest()  # noqa: E731
        keys.write_text("".join(f'[[key]]\nname = "{key}"\nsha256 = "{of(key)}"\n{more}\n' for key, more in those.items()))
        sections = {
            "auth": {"required": True, "keys_file": keys, "open_metrics": True},
            "control": {"database": self.database},
            "control.allow": {"upstreams": ["127.0.0.0/8"]},
            "control.artifacts.import": {"folders": [str(self.outside)]},
        }
        open_to_all = {"name": "common", "upstream": [self.upstream("v1").url]}
        server = sluice.start(folder, [open_to_all], sections=sections, env={"SLUICE_DATA": str(folder / "data")}, port=port)
        server.client.headers["authorization"] = f"Bearer {ADMIN}"
        return server

    def ask(self, method, path, body=None):
        # Nobody approves what is his own.
        key = APPROVER if path.endswith("/approve") else ADMIN
        headers = {"authorization": f"Bearer {key}"}
        return self.server.client.request(method, f"/api/v1{path}", json=body, headers=headers)


@pytest.fixture
def guarded(tmp_path):
    stage = Guarded(tmp_path / "stage")
    try:
        stage.furnish()
        stage.go_live(STRATEGY)
        yield stage
    finally:
        stage.close()


class Person:
    def __init__(self, stage: Stage, name: str, department: str, clearance: str = "internal", **limits):
        self.stage, self.name = stage, name
        self.id = stage.post("/principals", {"name": name, "department": department, "role": "developer", "clearance": clearance})["id"]
        self.secret = self.key(**limits)["secret"]

    def key(self, **limits) -> dict:
        return self.stage.post("/keys", {"name": f"{self.name}'s", "principal": self.id, "scopes": ["inference", "read"]} | limits)

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.secret}"}
        return httpx.get(self.stage.server.url + path, headers=headers, trust_env=False)

    def chat(self, model: str = ENDPOINT, key: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.secret}"}
        url = self.stage.server.url + "/v1/chat/completions"
        return httpx.post(url, json=CHAT | {"model": model}, headers=headers, trust_env=False)

    def models(self) -> list[str]:
        return sorted(it["id"] for it in self.get("/v1/models").json()["data"])

    def may(self, seconds: float = 2.0):
        self.stage.wait(f"{self.name} to be let in", lambda: self.chat().status_code == 200, seconds)

    def may_not(self, seconds: float = 2.0):
        self.stage.wait(f"{self.name} to be kept out", lambda: self.chat().status_code == 404, seconds)
        unknown, refused = self.chat("nowhere"), self.chat()
        assert unknown.status_code == refused.status_code
        assert unknown.text.replace("nowhere", ENDPOINT) == refused.text, "it is told from an unknown one"
        assert ENDPOINT not in self.models()


def deployment(stage: Stage, **changes):
    answer = stage.server.client.patch(f"/api/v1/deployments/{ENDPOINT}", json=changes)
    assert answer.status_code == 200, answer.text


def test_a_deployment_is_for_whom_it_is(guarded):
    home = guarded.get(f"/deployments/{ENDPOINT}")["department"]
    guarded.post("/departments", {"name": "sales"})
    ann, sam = Person(guarded, "ann", home), Person(guarded, "sam", "sales")

    ann.may()
    assert ann.models() == ["common", ENDPOINT] and sam.models() == ["common"]
    sam.may_not()
    assert sam.chat("common").status_code == 200, "what the configuration serves is open to all"

    # What each reads of it in numbers; a monitoring system reads all, and nobody only what is of no department.
    for who, sees in ((ann, True), (sam, False)):
        assert (ENDPOINT in who.get("/api/v1/stats").text) is sees
        assert (f'deployment="{ENDPOINT}"' in who.get("/metrics").text) is sees
    assert f'deployment="{ENDPOINT}"' in sam.get("/metrics", key="sk-board").text
    assert sam.chat("common", key="sk-board").status_code in (401, 403, 404)
    plain = httpx.get(guarded.server.url + "/metrics", trust_env=False).text
    assert 'deployment="common"' in plain and f'deployment="{ENDPOINT}"' not in plain

    # Opened, closed, granted to the department, taken back, above the clearance: each within two seconds.
    deployment(guarded, open_to_all=True)
    sam.may()
    deployment(guarded, open_to_all=False)
    sam.may_not()
    grant = guarded.post("/grants", {"deployment": ENDPOINT, "department": "sales", "access": "use"})
    sam.may()
    deployment(guarded, clearance="secret")
    sam.may_not()
    ann.may_not()
    deployment(guarded, clearance="internal")
    sam.may()
    guarded.server.client.delete(f"/api/v1/grants/{grant['id']}").raise_for_status()
    sam.may_not()


def test_keys_are_limited_and_rotated(guarded):
    home = guarded.get(f"/deployments/{ENDPOINT}")["department"]
    kim = Person(guarded, "kim", home)
    kim.may()

    only = kim.key(name="only", models=["common"])["secret"]
    guarded.wait("the key", lambda: kim.chat("common", key=only).status_code == 200, 3)
    assert kim.chat(ENDPOINT, key=only).status_code == 404

    slow = kim.key(name="slow", requests_per_minute=2)["secret"]
    guarded.wait("the key", lambda: kim.chat(key=slow).status_code == 200, 3)
    assert 429 in {kim.chat(key=slow).status_code for _ in range(3)}

    # A rotation with an overlap: both count, then the new one alone; without an overlap at once.
    old = kim.key(name="line")
    new = guarded.post(f"/keys/{old['key']['id']}/rotate", {"overlap_seconds": 3})
    guarded.wait("both keys", lambda: all(kim.chat(key=it["secret"]).status_code == 200 for it in (old, new)), 2)
    guarded.wait("the old key's end", lambda: kim.chat(key=old["secret"]).status_code == 401, 6)
    assert kim.chat(key=new["secret"]).status_code == 200

    gone = kim.key(name="gone")
    guarded.wait("the key", lambda: kim.chat(key=gone["secret"]).status_code == 200, 3)
    guarded.server.client.delete(f"/api/v1/keys/{gone['key']['id']}").raise_for_status()
    guarded.wait("the key's end", lambda: kim.chat(key=gone["secret"]).status_code == 401, 2)
