"""LangChain's and LiteLLM's clients, unmodified."""

import json

import pytest

MESSAGE = "My laptop LT-2207 cannot connect to the VPN, urgent"


@pytest.fixture(scope="module")
def langchain(server):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=server.v1, api_key="unused", model="helpdesk", temperature=0, max_retries=0)


def test_langchain_chat_and_stream(langchain):
    whole = langchain.invoke(MESSAGE)
    assert set(json.loads(whole.content)) == {"intent", "resource", "ids", "urgency", "reply"}
    assert whole.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in langchain.stream(MESSAGE)) == whole.content


def test_langchain_structured_output(langchain):
    from pydantic import BaseModel, Field

    class Triage(BaseModel):
        urgent: bool
        floor: int = Field(ge=0, le=99)

    for method in ("json_schema", "function_calling"):
        made = langchain.with_structured_output(Triage, method=method).invoke(MESSAGE)
        assert isinstance(made, Triage)


def test_langchain_tools(langchain):
    from typing import Annotated

    from langchain_core.tools import tool
    from pydantic import Field

    @tool
    def restart(count: Annotated[int, Field(ge=0, le=9)]) -> str:
        """Restart a machine."""
        return str(count)

    answer = langchain.bind_tools([restart], tool_choice="restart").invoke(MESSAGE)
    assert answer.tool_calls[0]["name"] == "restart" and isinstance(answer.tool_calls[0]["args"]["count"], int)


def test_langchain_embeddings(server):
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(base_url=server.v1, api_key="unused", model="all-minilm-l6-v2", check_embedding_ctx_length=False)
    assert [len(vector) for vector in embeddings.embed_documents(["a", "b"])] == [384, 384]


def test_litellm_chat_stream_and_embeddings(server):
    import litellm

    options = dict(model="openai/helpdesk", api_base=server.v1, api_key="unused", temperature=0)
    messages = [{"role": "user", "content": MESSAGE}]
    whole = litellm.completion(messages=messages, **options).choices[0].message.content
    parts = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(messages=messages, stream=True, **options)]
    assert "".join(parts) == whole and json.loads(whole)["intent"]
    vectors = litellm.embedding(model="openai/all-minilm-l6-v2", input=["a"], api_base=server.v1, api_key="unused")
    assert len(vectors.data[0]["embedding"]) == 384


def test_litellm_errors(server):
    import litellm

    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/nope", api_base=server.v1, api_key="unused", messages=[{"role": "user", "content": "x"}], max_retries=0)
