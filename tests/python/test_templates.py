"""Chat templates: what the engine's tests hold to be transformers' rendering is that of the transformers at hand, and a
server tokenises the same text.

`python tests/python/test_templates.py` writes the expectations anew."""

import copy
import json
import shutil
from pathlib import Path

import jinja2
import sluice

TESTDATA = Path(__file__).parents[2] / "engine/src/tokenizer/template/testdata"
EXPECTED = TESTDATA / "families.json"
# What the engine finds out about a template by itself: which join arguments as a text, which walk over content parts.
ARGUMENTS_AS_TEXT = {"deepseek-v3", "deepseek-r1"}
WALK_PARTS = {"llama4", "gemma3", "glm4", "mistral-v7", "parts"}


def as_the_template_takes_it(message, family, none=None):
    message = copy.deepcopy(message)
    if message["content"] is None:
        message["content"] = none
    if isinstance(message["content"], list) and family not in WALK_PARTS:
        message["content"] = "\n".join(part["text"] for part in message["content"])
    for call in message.get("tool_calls", []):
        if family not in ARGUMENTS_AS_TEXT:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return message


SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def render(source, family, conversation, special=SPECIAL):
    """The text, what the template raised, or nothing where Python itself fails in it. Null is an empty text to a template
    that does not take it."""
    rendered = render_with(source, family, conversation, special, None)
    if not rendered or "raised" in rendered:
        rendered = render_with(source, family, conversation, special, "")
    return rendered


def render_with(source, family, conversation, special, none):
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, _ = render_jinja_template(
            [[as_the_template_takes_it(message, family, none) for message in conversation["messages"]]],
            tools=conversation.get("tools"),
            chat_template=source,
            add_generation_prompt=conversation.get("add_generation_prompt", True),
            **{**special, "date_string": "1 Jan 2026", **conversation.get("kwargs", {})},
        )
        return {"text": texts[0]}
    except jinja2.exceptions.UndefinedError:
        return None
    except jinja2.exceptions.TemplateError as error:
        return {"raised": str(error)}
    except (TypeError, AttributeError):
        return None


def families(conversations):
    paths = [*TESTDATA.glob("*.jinja"), *TESTDATA.glob("families/*.jinja")]
    rendered = {}
    for path in sorted(paths, key=lambda path: path.stem):
        source = path.read_text()
        each = {name: render(source, path.stem, one) for name, one in conversations.items()}
        rendered[path.stem] = {name: text for name, text in each.items() if text}
    return rendered


def test_expectations_are_those_of_transformers():
    stored = json.loads(EXPECTED.read_text())
    assert stored["families"] == families(stored["conversations"])


def folder(tmp_path, name, template):
    """The helpdesk model with another chat template."""
    to = tmp_path / "models" / name
    to.mkdir(parents=True)
    for file in (sluice.HELPDESK / "v2").iterdir():
        if file.name not in ("version.json", "tokenizer_config.json"):
            # ONNX Runtime reads weights only beside their graph, and a link does not make them stand there.
            shutil.copyfile(file, to / file.name)
    config = json.loads((sluice.HELPDESK / "v2" / "tokenizer_config.json").read_text())
    (to / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return to


def prompt(server, model, conversation):
    """What the server makes of a conversation in OpenAI's form; or its refusal."""
    body = {
        "model": model,
        "messages": conversation["messages"],
        "add_generation_prompt": conversation.get("add_generation_prompt", True),
        "chat_template_kwargs": {"date_string": "1 Jan 2026", **conversation.get("kwargs", {})},
    }
    if "tools" in conversation:
        body["tools"] = conversation["tools"]
    tokens = server.client.post("/tokenize", json=body)
    if tokens.status_code != 200:
        return tokens
    text = server.client.post("/detokenize", json={"model": model, "tokens": tokens.json()["tokens"]})
    return text.json()["prompt"]


# The first message picks an expression over the second.
WORDS = ["m[::-1]", "m.find('a')", "m.rfind('a')", "m[2:0:-1]", "m[::2]", "m.split('a')[::-1] | join('-')", "m.upper().index('A')"]
PICKED = "".join("{%% if messages[0].content == '%d' %%}{{ %s }}{%% endif %%}" % picked for picked in enumerate(WORDS))
DOUBLING = "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"


def test_a_server_renders_as_transformers(start, tmp_path):
    from transformers import AutoTokenizer

    names = ["deepseek-v3", "gpt-oss", "qwen3-coder", "glm4"]
    templates = {name: (TESTDATA / f"families/{name}.jinja").read_text() for name in names}
    templates |= {"words": "{% set m = messages[1].content %}" + PICKED, "doubling": DOUBLING}
    folders = {name: folder(tmp_path, name, template) for name, template in templates.items()}
    server = start([{"name": name, "path": path, "slots": 1} for name, path in folders.items()])
    tokenizer = AutoTokenizer.from_pretrained(folders["words"])
    conversations = json.loads(EXPECTED.read_text())["conversations"]
    for name in names:
        for which in ["system", "tools", "call", "calls", "parts", "thinking"]:
            one = conversations[which]
            # `apply_chat_template` itself takes a null content out of messages, which these templates ask for.
            expected = render(templates[name], name, one, tokenizer.special_tokens_map)
            assert prompt(server, name, one) == expected["text"], (name, which)
    for number, expression in enumerate(WORDS):
        for text in ["", "a", "中文a", "a😀b a"]:
            messages = [{"role": "user", "content": str(number)}, {"role": "user", "content": text}]
            try:
                expected = tokenizer.apply_chat_template(messages, chat_template=templates["words"], tokenize=False)
            except ValueError:
                expected = None
            rendered = prompt(server, "words", {"messages": messages})
            if expected is None:
                assert rendered.status_code == 400, (expression, text)
            elif expected:
                assert rendered == expected, (expression, text)
    refused = prompt(server, "doubling", {"messages": [{"role": "user", "content": "x"}]})
    assert refused.status_code == 400
    assert "more than 16777216 bytes" in refused.json()["error"]["message"]
    assert server.resident_mb() < 1500


def test_limits_are_those_of_the_configuration(start, tmp_path):
    path = folder(tmp_path, "repeats", "{{ 'x' * messages[0].content | length * 100 }}")
    server = start([{"name": "repeats", "path": path, "slots": 1}], sections={"templates": {"max_text": "4KiB"}})
    asked = {"model": "repeats", "messages": [{"role": "user", "content": "y" * 40}]}
    assert server.client.post("/tokenize", json=asked).status_code == 200
    asked["messages"][0]["content"] = "y" * 41
    refused = server.client.post("/tokenize", json=asked)
    assert refused.status_code == 400
    assert "more than 4096 bytes" in refused.json()["error"]["message"]


if __name__ == "__main__":
    kept = json.loads(EXPECTED.read_text())["conversations"]
    written = {"conversations": kept, "families": families(kept)}
    EXPECTED.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
