"""Texts for parity checks: ordinary English, Chinese and code, so that a model is asked what it knows."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PARAGRAPHS = (
    "The harbour of the old town was built for sailing ships. Today ferries leave for the islands every "
    "half hour, and on market days the quay is full of people who buy fish straight from the boats.",
    "Please restart the router, wait until the second light is green, and try again. If the connection "
    "still drops, send us the serial number and the time at which you noticed it.",
    "水是由氢和氧组成的。它在零度结冰，在一百度沸腾，地球表面的大部分被海洋覆盖。",
    'def area(width, height):\n    if width < 0 or height < 0:\n        raise ValueError("negative size")\n'
    "    return width * height\n",
    "In 1869 the chemist Dmitri Mendeleev arranged the known elements by weight and left gaps for those "
    "that had not been found; three of them were discovered within twenty years.",
    "您的订单已于今天下午发出，预计三天内送达。如有问题，请在工作日九点到十七点之间联系客服。",
    '{"name": "Ada", "born": 1815, "languages": ["en", "fr"], "active": false}',
    "A recipe for four: boil 400 g of potatoes, fry two onions in butter, add salt, pepper and a little "
    "milk, and bake everything for 25 minutes at 180 degrees.",
)
# Each guards against a mistake that the others let pass: case and accents, one token, a long text.
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "ok",
    "Ünïcode, ACCENTS & CASE: naïve café. 密码过期了，无法登录 VPN。",
    *PARAGRAPHS[:4],
)
PAIRS = (
    ("How do I restart the router?", PARAGRAPHS[1]),
    ("How do I restart the router?", PARAGRAPHS[0]),
    ("水在多少度沸腾？", PARAGRAPHS[2]),
    ("periodic table", PARAGRAPHS[4]),
)
SEED = 5


def long_text(words: int) -> str:
    """No two sentences alike, so that a text cut too early gives another vector."""
    rng = random.Random(SEED)
    sentences, count = [], 0
    while count < words:
        floor, error = rng.randrange(1, 30), rng.randrange(100, 1000)
        sentences.append(f"Ticket {len(sentences) + 1}: the printer on floor {floor} reports error {error}.")
        count += 9
    return " ".join(sentences)


def token_stream(tokenizer: Any | None, length: int, vocabulary: int, own: Sequence[str] = ()) -> list[int]:
    """At least `length` token ids: of the caller's own texts, of ours, or drawn where nothing can read text."""
    rng = random.Random(SEED)
    if tokenizer is None:
        return [rng.randrange(vocabulary) for _ in range(length)]
    ids: list[int] = []
    paragraphs = list(own) or list(PARAGRAPHS)
    while len(ids) < length:
        before = len(ids)
        for paragraph in paragraphs:
            ids += tokenizer.encode(paragraph + "\n\n", add_special_tokens=False)
        if len(ids) == before:
            return token_stream(None, length, vocabulary)
        rng.shuffle(paragraphs)
    return ids


def read_texts(file: Path) -> list[str]:
    """One text a line."""
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
