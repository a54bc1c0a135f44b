"""The official `openai` client, unmodified: only `base_url` is ours."""

import json

import openai
import pytest

MESSAGE = "Hi, my laptop LT-2207 cannot connect to the VPN since this morning, it is urgent."
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "open_ticket",
            "description": "Open a ticket",
            "parameters": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "maxLength": 12},
                    "urgency": {"enum": ["low", "normal", "high"]},
                },
                "required": ["title", "urgency"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "reset_password",
            "parameters": {
                "type": "object",
                "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 9}},
                "required": ["count"],
                "additionalProperties": False,
            },
        },
    },
]


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.v1, api_key="unused", max_retries=0)


def ask(client, **options):
    return client.chat.completions.create(
        model="helpdesk", messages=[{"role": "user", "content": MESSAGE}], **{"temperature": 0, **options}
    )


def test_chat_answers_a_ticket(client):
    answer = ask(client)
    assert answer.object == "chat.completion" and answer.model == "helpdesk"
    choice = answer.choices[0]
    assert choice.finish_reason == "stop" and choice.message.role == "assistant"
    ticket = json.loads(choice.message.content)
    assert set(ticket) == {"intent", "resource", "ids", "urgency", "reply"}
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_equals_whole(client):
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({c.id for c in chunks}) == 1


def test_seed_makes_sampling_repeatable(client):
    first, second = (ask(client, temperature=1.5, seed=11, max_tokens=40).choices[0].message.content for _ in range(2))
    other = ask(client, temperature=1.5, seed=12, max_tokens=40).choices[0].message.content
    assert first == second and first != other


def test_n_gives_independent_choices(client):
    answer = ask(client, n=3, temperature=1.8, seed=5, max_tokens=30)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_n_streams_interleaved(client):
    texts = {0: "", 1: ""}
    reasons = {}
    for chunk in ask(client, n=2, temperature=1.5, seed=5, max_tokens=20, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    whole = ask(client, n=2, temperature=1.5, seed=5, max_tokens=20)
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert set(reasons.values()) <= {"stop", "length"}


def test_stop_string_never_leaks(client):
    whole = ask(client).choices[0].message.content
    stop = whole[10:16]
    cut = whole.index(stop)
    for stream in (False, True):
        answer = ask(client, stop=[stop], stream=stream)
        if stream:
            text = "".join(c.choices[0].delta.content or "" for c in answer if c.choices)
        else:
            assert answer.choices[0].finish_reason == "stop"
            text = answer.choices[0].message.content
        assert text == whole[:cut]


def test_length_limit(client):
    answer = ask(client, max_completion_tokens=5)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 5


def test_text_held_for_a_stop_string_is_flushed_at_the_limit(client):
    whole = ask(client, max_tokens=6).choices[0].message.content
    held = ask(client, max_tokens=6, stop=[whole[-2:] + "\u0000never"]).choices[0]
    assert held.message.content == whole and held.finish_reason == "length"


def test_logprobs_line_up_with_the_text(client):
    answer = ask(client, logprobs=True, top_logprobs=3, max_tokens=12)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == 12
    joined = b"".join(bytes(entry.bytes) for entry in entries)
    assert joined.decode(errors="ignore").startswith(answer.choices[0].message.content[:8])
    for entry in entries:
        assert len(entry.top_logprobs) == 3 and entry.logprob <= 0
        best = [top.logprob for top in entry.top_logprobs]
        assert best == sorted(best, reverse=True) and entry.logprob == pytest.approx(best[0])


def test_logit_bias_forbids_a_token(client):
    first = ask(client, max_tokens=1, logprobs=True, top_logprobs=1)
    token = first.choices[0].logprobs.content[0].token
    found = client.with_options().post("/../tokenize", cast_to=object, body={"model": "helpdesk", "prompt": token, "add_special_tokens": False})
    ids = found["tokens"]
    assert len(ids) == 1
    other = ask(client, max_tokens=1, logit_bias={str(ids[0]): -100})
    assert other.choices[0].message.content != first.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_json_object_holds_with_any_sampling(client, stream):
    answer = ask(client, response_format={"type": "json_object"}, temperature=2.0, seed=3, max_tokens=300, stream=stream)
    if stream:
        text = "".join(c.choices[0].delta.content or "" for c in answer if c.choices)
    else:
        if answer.choices[0].finish_reason == "length":
            return
        text = answer.choices[0].message.content
    if text.endswith("}"):
        assert isinstance(json.loads(text), dict)


def test_json_schema_holds_with_any_sampling(client):
    schema = {
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "green", "蓝"]},
            "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 2, "maxItems": 3},
            "ok": {"type": "boolean"},
        },
        "required": ["colour", "sizes", "ok"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "thing", "strict": True, "schema": schema}}
    for seed in range(8):
        choice = ask(client, response_format=form, temperature=2.0, seed=seed, max_tokens=200).choices[0]
        assert choice.finish_reason == "stop"
        thing = json.loads(choice.message.content)
        assert list(thing) == ["colour", "sizes", "ok"] and thing["colour"] in ("red", "green", "蓝")
        assert 2 <= len(thing["sizes"]) <= 3 and all(0 <= size <= 99 for size in thing["sizes"])


def check_call(call, names):
    assert call.type == "function" and call.id and call.function.name in names
    arguments = json.loads(call.function.arguments)
    if call.function.name == "open_ticket":
        assert set(arguments) == {"title", "urgency"} and arguments["urgency"] in ("low", "normal", "high")
    else:
        assert 0 <= arguments["count"] <= 9


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "reset_password"}}])
def test_forced_tools_hold_with_any_sampling(client, choice):
    names = {"open_ticket", "reset_password"} if choice == "required" else {"reset_password"}
    for seed in range(4):
        answer = ask(client, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, temperature=2.0, seed=seed, max_tokens=300)
        found = answer.choices[0]
        assert found.finish_reason in ("tool_calls", "stop") and len(found.message.tool_calls) == 1
        check_call(found.message.tool_calls[0], names)


def test_streamed_tool_calls_equal_whole(client):
    options = dict(tools=TOOLS, tool_choice="required", parallel_tool_calls=False, temperature=1.0, seed=2, max_tokens=300)
    whole = ask(client, **options).choices[0].message.tool_calls[0]
    name, arguments, ids, content = "", "", set(), ""
    for chunk in ask(client, stream=True, **options):
        for choice in chunk.choices:
            content += choice.delta.content or ""
            for call in choice.delta.tool_calls or []:
                assert call.index == 0
                ids |= {call.id} - {None}
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    assert (name, arguments, content) == (whole.function.name, whole.function.arguments, "") and len(ids) == 1


def test_tool_results_go_back_through_the_template(client):
    call = {"id": "call_1", "type": "function", "function": {"name": "reset_password", "arguments": '{"count": 1}'}}
    answer = client.chat.completions.create(
        model="helpdesk",
        tools=TOOLS,
        messages=[
            {"role": "user", "content": MESSAGE},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "done"},
        ],
        max_tokens=8,
    )
    assert answer.usage.prompt_tokens > 20


def test_completions_echo_and_logprobs(client):
    answer = client.completions.create(model="helpdesk", prompt="The printer is", max_tokens=0, echo=True, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == "The printer is" and "".join(logprobs.tokens) == "The printer is"
    assert logprobs.token_logprobs[0] is None and all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert logprobs.text_offset[0] == 0 and len(logprobs.top_logprobs) == len(logprobs.tokens)


def test_completions_accept_every_form_of_prompt(client, server):
    ids = server.client.post("/tokenize", json={"model": "helpdesk", "prompt": "Hello there"}).json()["tokens"]
    forms = ["Hello there", ["Hello there", "Bye"], ids, [ids, ids]]
    counts = [len(client.completions.create(model="helpdesk", prompt=form, max_tokens=3).choices) for form in forms]
    assert counts == [1, 2, 1, 2]


def test_tokenize_round_trip(server):
    text = "VPN 每小时掉线 🙂"
    tokens = server.client.post("/tokenize", json={"model": "helpdesk", "prompt": text}).json()
    assert tokens["count"] == len(tokens["tokens"])
    back = server.client.post("/detokenize", json={"model": "helpdesk", "tokens": tokens["tokens"]}).json()
    assert back["prompt"] == text


def test_embeddings(client):
    texts = ["The VPN drops", "VPN keeps dropping", "I like tea"]
    answer = client.embeddings.create(model="all-minilm-l6-v2", input=texts)
    vectors = [item.embedding for item in answer.data]
    assert [len(vector) for vector in vectors] == [384] * 3 and [item.index for item in answer.data] == [0, 1, 2]
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    assert dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2])
    plain = client.embeddings.create(model="all-minilm-l6-v2", input=texts, encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(vectors[0], abs=1e-6)
    short = client.embeddings.create(model="all-minilm-l6-v2", input=texts[0], dimensions=64)
    assert len(short.data[0].embedding) == 64 and dot(short.data[0].embedding, short.data[0].embedding) == pytest.approx(1, abs=1e-3)


def test_embeddings_of_token_ids(client, server):
    ids = server.client.post("/tokenize", json={"model": "all-minilm-l6-v2", "prompt": "The VPN drops"}).json()["tokens"]
    by_text = client.embeddings.create(model="all-minilm-l6-v2", input="The VPN drops").data[0].embedding
    by_ids = client.embeddings.create(model="all-minilm-l6-v2", input=[ids]).data[0].embedding
    assert by_ids == pytest.approx(by_text, abs=1e-4)


def test_rerank(server):
    body = {"model": "all-minilm-l6-v2", "query": "reset my password", "documents": ["lunch menu", "How to change a password", "VPN"], "top_n": 2}
    results = server.client.post("/v1/rerank", json=body).json()["results"]
    assert len(results) == 2 and results[0]["index"] == 1
    assert results[0]["relevance_score"] >= results[1]["relevance_score"]


def test_models(client):
    assert {model.id for model in client.models.list()} == {"helpdesk", "all-minilm-l6-v2"}
    assert client.models.retrieve("helpdesk").id == "helpdesk"


def test_errors_are_openais(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "x"}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")
    with pytest.raises(openai.BadRequestError) as long:
        ask(client, max_tokens=100_000_000)
    with pytest.raises(openai.BadRequestError) as prompt:
        client.chat.completions.create(model="helpdesk", messages=[{"role": "user", "content": "word " * 20_000}])
    assert prompt.value.code == "context_length_exceeded" and prompt.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as hot:
        ask(client, temperature=3)
    assert hot.value.param == "temperature" and hot.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="helpdesk", messages=[])
    assert empty.value.param == "messages"


def test_keys(start):
    server = start([{"name": "m", "path": "examples/helpdesk/models/v1"}], env={"SLUICE_API_KEYS": "alice:sk-alice-123456"}, sections={"auth": {"required": True}})
    good, bad = (openai.OpenAI(base_url=server.v1, api_key=key, max_retries=0) for key in ("sk-alice-123456", "sk-wrong"))
    assert good.models.list().data
    with pytest.raises(openai.AuthenticationError) as refused:
        bad.models.list()
    assert refused.value.code == "invalid_api_key"
    assert "sk-alice" not in server.log.read_text()
