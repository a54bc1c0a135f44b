"""docs/fields.md is right: each field that a client or another server documents has a row, and what the row says is so."""

import ast
import collections.abc
import functools
import importlib.util
import json
import re
import shutil
import types
import typing
from pathlib import Path

import pytest
import sluice
import typing_extensions
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

PAGE = sluice.ROOT / "docs" / "fields.md"
PEERS = json.loads((sluice.ROOT / "tests/python/fields/peers.json").read_text())
TICKET = "Ticket REQ-76109. My password for VPN no longer works!"

# Where each table's requests go, and the request that its examples are laid over.
ENDPOINTS = {
    "chat": (
        "/v1/chat/completions",
        {"model": "helpdesk", "messages": [{"role": "user", "content": TICKET}], "temperature": 0, "max_tokens": 3},
    ),
    "completions": ("/v1/completions", {"model": "helpdesk", "prompt": "VPN", "temperature": 0, "max_tokens": 3}),
    "embeddings": ("/v1/embeddings", {"model": "all-minilm-l6-v2", "input": "The VPN is down"}),
    "rerank": ("/v1/rerank", {"model": "all-minilm-l6-v2", "query": "VPN", "documents": ["tunnel", "cake"]}),
    "classify": ("/v1/classify", {"model": "classifier", "input": "alpha"}),
    "tokenize": ("/tokenize", {"model": "helpdesk", "prompt": "VPN"}),
    "detokenize": ("/detokenize", {"model": "helpdesk", "tokens": [5, 6]}),
}


def rows():
    """The page's tables: {endpoint: {field: (state, example, note)}}."""
    tables, table = {}, None
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            found = [name for name, (path, _) in ENDPOINTS.items() if f"`POST {path}`" in line]
            table = tables.setdefault(found[0], {}) if found else None
        row = re.fullmatch(r"\| `(\S+)` \| [^|]* \| (\w+) \| (?:`(.*)`)? ?\| (.+) \|", line)
        if row and table is not None:
            field, state, example, note = row.groups()
            assert field not in table, f"{field} stands there twice"
            table[field] = (state, json.loads(example) if example else None, note)
    return tables


ROWS = rows()


def objects(annotation):
    """The TypedDicts within a type, each with the brackets of the lists that it stands in."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if typing_extensions.is_typeddict(annotation):
        yield "", annotation
    elif origin in (typing.Required, typing.NotRequired, typing_extensions.Required, typing.Annotated):
        yield from objects(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from objects(argument)
    elif isinstance(origin, type) and issubclass(origin, collections.abc.Iterable) and not issubclass(origin, collections.abc.Mapping):
        for argument in arguments:
            for brackets, found in objects(argument):
                yield "[]" + brackets, found


def fields_of(parameters, within="", depth=6):
    """Every field of a TypedDict, at any depth: `messages[].content[].text`."""
    for name, annotation in typing_extensions.get_type_hints(parameters, include_extras=True).items():
        yield within + name
        for brackets, found in objects(annotation) if depth else ():
            yield from fields_of(found, f"{within}{name}{brackets}.", depth - 1)


def fields_of_litellm():
    """Those of its rerank requests. They are read from the file: importing LiteLLM takes longer than all of these tests."""
    package = Path(importlib.util.find_spec("litellm").origin).parent
    module = ast.parse((package / "types" / "rerank.py").read_text())
    request = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "RerankRequest")
    return {node.target.id for node in request.body if isinstance(node, ast.AnnAssign)}


@functools.cache
def documented():
    """{endpoint: fields} of OpenAI's and LiteLLM's types and of the other servers' lists."""
    parameters = {
        "chat": [chat_create_params.CompletionCreateParamsNonStreaming, chat_create_params.CompletionCreateParamsStreaming],
        "completions": [
            completion_create_params.CompletionCreateParamsNonStreaming,
            completion_create_params.CompletionCreateParamsStreaming,
        ],
        "embeddings": [embedding_create_params.EmbeddingCreateParams],
    }
    fields = {name: {field for one in found for field in fields_of(one)} for name, found in parameters.items()}
    fields["rerank"] = fields_of_litellm()
    for lists in PEERS.values():
        for endpoint, names in lists.items():
            fields.setdefault(endpoint, set()).update(names)
    return fields


def parents(field):
    """The objects that a field stands in, by their own names."""
    while "." in field:
        field = field.rpartition(".")[0].removesuffix("[]")
        yield field
        yield field + "[]"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_documented_field_has_a_row(endpoint):
    fields, table = documented()[endpoint], ROWS[endpoint]
    assert len(fields) >= 2
    whole = {field for field, (state, _, _) in table.items() if state != "done"}
    lacking = [field for field in fields if field not in table and whole.isdisjoint(parents(field))]
    assert not lacking, f"no row in docs/fields.md: {sorted(lacking)}"


def test_what_is_done_names_a_test_that_exists():
    for table in ROWS.values():
        for field, (state, _, note) in table.items():
            assert state in ("done", "refused", "ignored"), field
            if state == "done":
                file, test = re.match(r"`([\w/.]+)::(\w+)`", note).groups()
                assert re.search(rf"\b(fn|def) {test}\b", (sluice.ROOT / file).read_text()), f"{field}: {file} has no {test}"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The example models, a classifier, and one whose template reads what that of `helpdesk` does not."""
    folder = tmp_path_factory.mktemp("fields")
    reader = folder / "reader"
    shutil.copytree(sluice.HELPDESK / "v2", reader)
    config = json.loads((reader / "tokenizer_config.json").read_text())
    config["chat_template"] = (
        "{% for m in messages %}{{ m.role }}:{{ m.reasoning_content }}:{{ m.content }}\n{% endfor %}"
        "{{ documents[0].text if documents }} {{ reasoning_effort }} {{ tools | tojson if tools }}"
    )
    (reader / "tokenizer_config.json").write_text(json.dumps(config))
    running = sluice.start(
        folder / "server",
        [
            {"name": "helpdesk", "path": sluice.HELPDESK / "v2", "slots": 4},
            {"name": "reader", "path": reader, "slots": 1},
            {"name": "all-minilm-l6-v2", "path": sluice.MINILM},
            {"name": "classifier", "path": sluice.ROOT / "engine/tests/fixtures/tiny-classifier"},
        ],
    )
    yield running
    running.stop()


def ask(served, endpoint, changes):
    path, base = ENDPOINTS[endpoint]
    return served.client.post(path, json={**base, **changes})


def said(answer):
    """What does not differ between two answers to the same question."""
    answer = answer.json()
    return answer.get("choices") or answer.get("data") or answer.get("results") or answer


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_is_refused_is_named(served, endpoint):
    refused = {field: row for field, row in ROWS[endpoint].items() if row[0] == "refused"}
    for field, (_, example, _) in refused.items():
        answer = ask(served, endpoint, example)
        assert answer.status_code == 400, f"{field}: {answer.text}"
        error, name = answer.json()["error"], field.rpartition(".")[2]
        assert name in (error["param"] or "") or f"'{name}'" in error["message"], f"{field}: {error}"
        # Nothing is asked for.
        if list(example) == [field]:
            assert ask(served, endpoint, {field: None}).status_code == 200, field


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_is_ignored_changes_nothing(served, endpoint):
    ignored = {field: row for field, row in ROWS[endpoint].items() if row[0] == "ignored"}
    for field, (_, example, _) in ignored.items():
        answer = ask(served, endpoint, example)
        assert answer.status_code == 200, f"{field}: {answer.text}"
        same = {key: value for key, value in example.items() if key not in (field, field.split(".")[0])}
        if field.split(".")[0] in ("response_format", "structured_outputs"):
            same = {"response_format": {"type": "json_object"}}
        if "messages" in same or "messages" in example:
            same = {"messages": [{"role": "user", "content": "x"}]}
        assert said(answer) == said(ask(served, endpoint, same)), field


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_is_done_is_taken(served, endpoint):
    for field, (state, example, _) in ROWS[endpoint].items():
        if state == "done" and example:
            answer = ask(served, endpoint, example)
            assert answer.status_code == 200, f"{field}: {answer.text}"


def test_a_field_that_nobody_documents_is_ignored(served):
    for endpoint in ENDPOINTS:
        assert ask(served, endpoint, {"of_my_own": [1]}).status_code == 200, endpoint


def choice(served, endpoint, **changes):
    answer = ask(served, endpoint, {"max_tokens": 40, **changes})
    assert answer.status_code == 200, answer.text
    answer = answer.json()
    first = answer["choices"][0]
    text = first["message"]["content"] if endpoint == "chat" else first["text"]
    return text, first["finish_reason"], answer["usage"]["completion_tokens"]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_sampling_fields_change_what_is_said(served, endpoint):
    question = f"<|im_start|>user\n{TICKET}<|im_end|>\n<|im_start|>assistant\n"

    def ask(**changes):
        return choice(served, endpoint, **{"prompt": question, **changes} if endpoint == "completions" else changes)

    greedy, reason, count = ask(max_tokens=120)
    wild = {"temperature": 2, "seed": 4, "max_tokens": 120}
    assert ask(**wild)[0] != greedy
    for calm in ({"top_p": 1e-6}, {"top_k": 1}, {"min_p": 1}):
        assert ask(**wild, **calm)[0] == greedy, calm
    for penalty in ({"presence_penalty": 2}, {"frequency_penalty": 2}, {"repetition_penalty": 5}):
        assert ask(**wild, **penalty)[0] != ask(**wild)[0], penalty
    assert reason == "stop" and count > 12
    assert ask(max_tokens=count + 9, min_tokens=count + 5)[2] >= count + 5
    text, reason, longer = ask(max_tokens=count + 9, ignore_eos=True, skip_special_tokens=False)
    assert (reason, longer) == ("length", count + 9) and "<|im_end|>" in text
    assert "<|im_end|>" not in ask(max_tokens=count + 9, ignore_eos=True)[0]
    stop = greedy[8:12]
    assert stop not in ask(stop=[stop])[0]
    assert ask(stop=[stop], include_stop_str_in_output=True)[0].endswith(stop)
    tokens = served.client.post("/tokenize", json={"model": "helpdesk", "prompt": greedy}).json()["tokens"]
    assert ask(stop_token_ids=tokens[3:])[2] < count


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_constraints_hold(served, endpoint):
    def ask(**changes):
        return choice(served, endpoint, **changes)[0]

    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    named = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    for changes in (
        {"response_format": named},
        {"guided_json": schema},
        {"structured_outputs": {"json": schema}},
    ):
        assert json.loads(ask(**changes))["a"] in (1, 2), changes
    for changes in ({"guided_regex": "ab?c"}, {"structured_outputs": {"regex": "ab?c"}}):
        assert ask(**changes) in ("ac", "abc"), changes
    for changes in ({"guided_choice": ["yes", "no"]}, {"structured_outputs": {"choice": ["yes", "no"]}}):
        assert ask(**changes) in ("yes", "no"), changes
    for changes in ({"guided_grammar": 'start: "x" | "y"'}, {"structured_outputs": {"grammar": 'start: "x" | "y"'}}):
        assert ask(**changes) in ("x", "y"), changes
    for changes in ({"response_format": {"type": "json_object"}}, {"structured_outputs": {"json_object": True}}):
        assert ask(**changes).lstrip().startswith("{"), changes


def test_a_tier_is_told_back(served):
    for tier in ("default", "flex", "priority"):
        assert ask(served, "chat", {"service_tier": tier}).json()["service_tier"] == tier


def prompt(served, **changes):
    tokens = served.client.post("/tokenize", json={"model": "reader", **changes}).json()["tokens"]
    answer = served.client.post("/v1/chat/completions", json={"model": "reader", "max_tokens": 1, **changes})
    assert answer.json()["usage"]["prompt_tokens"] == len(tokens), answer.text
    return served.client.post("/detokenize", json={"model": "reader", "tokens": tokens}).json()["prompt"]


def test_thoughts_of_earlier_turns_reach_the_template(served):
    user = {"role": "user", "content": "x"}
    for name in ("reasoning_content", "reasoning"):
        messages = [{"role": "assistant", "content": "y", name: "because"}, user]
        assert prompt(served, messages=messages).startswith("assistant:because:y\n"), name


def test_a_prompt_is_told_with_its_tools(served):
    tool = {"type": "function", "function": {"name": "restart", "parameters": {"type": "object"}}}
    text = prompt(
        served,
        messages=[{"role": "user", "content": "x"}],
        tools=[tool],
        documents=[{"text": "the handbook"}],
        reasoning_effort="high",
    )
    assert "restart" in text and "the handbook high" in text, text


def test_special_tokens_are_added_as_asked(served):
    """`all-minilm-l6-v2` puts [CLS] and [SEP] around a text; the example model adds nothing."""

    def count(**changes):
        return served.client.post("/tokenize", json={"model": "all-minilm-l6-v2", "prompt": "VPN", **changes}).json()["count"]

    assert count() == count(add_special_tokens=False) + 2
    for endpoint in ("chat", "completions"):
        one, other = (ask(served, endpoint, {"add_special_tokens": add}).json()["usage"] for add in (True, False))
        assert one["prompt_tokens"] >= other["prompt_tokens"]


def test_special_tokens_are_left_out_as_asked(served):
    ids = served.client.post("/tokenize", json={"model": "all-minilm-l6-v2", "prompt": "VPN"}).json()["tokens"]

    def text(**changes):
        return served.client.post("/detokenize", json={"model": "all-minilm-l6-v2", "tokens": ids, **changes}).json()["prompt"]

    assert "[CLS]" in text() and "[CLS]" not in text(skip_special_tokens=True)


def test_inputs_are_cut_where_it_is_asked_for(served):
    long = "beta " * 3000
    for endpoint, key in (("embeddings", "input"), ("classify", "input"), ("rerank", "documents")):
        text = {key: [long]}
        assert ask(served, endpoint, {**text, "truncate": False}).status_code == 400, endpoint
        assert ask(served, endpoint, {**text, "truncate": True}).status_code == 200, endpoint
        refused = ask(served, endpoint, {"truncate_prompt_tokens": 3}).json()["error"]
        assert refused["param"] == "truncate_prompt_tokens", endpoint
    assert ask(served, "embeddings", {"input": long, "truncate_prompt_tokens": -1}).status_code == 200
    assert ask(served, "rerank", {"max_tokens_per_doc": 3}).json()["error"]["param"] == "max_tokens_per_doc"


def test_vectors_are_scaled_as_asked(served):
    def length(**changes):
        vector = ask(served, "embeddings", changes).json()["data"][0]["embedding"]
        return sum(x * x for x in vector) ** 0.5

    for name in ("normalize", "use_activation"):
        assert length(**{name: True}) == pytest.approx(1, abs=1e-3)
        assert length(**{name: False}) != pytest.approx(1, abs=1e-2), name


def test_fields_are_passed_on_to_where_the_model_is(served, start):
    """A request for an upstream's model is not read here: what it takes, and what it refuses, is its own."""
    far = start([{"name": "helpdesk", "upstream": [served.v1]}])
    _, base = ENDPOINTS["chat"]
    url = "/v1/chat/completions"
    refused = far.client.post(url, json={**base, "mirostat": 2})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "mirostat")
    body = {**base, "max_tokens": 40, "bad_words": ["vpn"], "of_my_own": 1}
    there, here = (server.client.post(url, json=body).json()["choices"][0] for server in (served, far))
    assert there == here and "vpn" not in here["message"]["content"]
