#!/usr/bin/env python3
"""Generate the helpdesk data set: messages in English or Chinese with their gold triage ticket.

Only the standard library; the same seed gives the same bytes on every machine.

The test split is disjoint from the training split in three ways: its combinations of
(intent, resource, urgency) never occur in training, its ids come from a part of the id
space that training never uses, and some of its sentence templates are unseen.

    generate.py --split test --rows 800 --out test.jsonl
    generate.py --split train --rows 50000 --seed 7 --out train.jsonl
"""

import argparse
import hashlib
import json
import random
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

import phrases

EN, ZH = 0, 1
TEST_ROWS = 800
TEST_SEED = 20_001
UNSEEN_TEMPLATE_SHARE = 0.3
SYSTEM_PROMPT_SHARE = 0.15


class Combination(NamedTuple):
    intent: str
    resource: str
    urgency: str


def bucket(text: str, buckets: int) -> int:
    """A stable hash: `hash()` is salted per process, so it could not define a split."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % buckets


def combinations(split: str) -> list[Combination]:
    """The (intent, resource, urgency) triples of a split.

    One urgency of four is held out for half of the pairs, so every pair and every
    urgency is seen in training, and only their meeting is new.
    """
    chosen = []
    urgencies = list(phrases.URGENCIES)
    for intent, (resources, *_) in phrases.INTENTS.items():
        for resource in resources:
            draw = bucket(f"{intent}/{resource}", 8)
            for index, urgency in enumerate(urgencies):
                held_out = draw == index
                if held_out == (split == "test"):
                    chosen.append(Combination(intent, resource, urgency))
    return chosen


def expand(template: str, rng: random.Random) -> str:
    return re.sub(r"\(([^()]*)\)", lambda match: rng.choice(match.group(1).split("|")), template)


def draw_id(kind: str, rng: random.Random) -> str:
    if kind == "ticket":
        return f"{rng.choice(phrases.TICKET_PREFIXES)}-{rng.randrange(10_000, 100_000)}"
    if kind == "asset":
        return f"{rng.choice(phrases.ASSET_PREFIXES)}{rng.randrange(1_000, 1_000_000):06d}"
    if kind == "host":
        role, site = rng.choice(phrases.HOST_ROLES), rng.choice(phrases.HOST_SITES)
        return f"{role}-{site}-{rng.randrange(1, 10_000):04d}"
    if kind == "user":
        given, surname = rng.choice(phrases.GIVEN_NAMES), rng.choice(phrases.SURNAMES)
        return f"{given}.{surname}{rng.randrange(1, 100)}"
    return str(rng.randrange(2_000, 10_000))


def draw_ids(split: str, count: int, rng: random.Random) -> list[tuple[str, str]]:
    """`count` ids of distinct kinds as (kind, id), from the split's share of the id space."""
    drawn = []
    for kind in rng.sample(list(phrases.ID_CLAUSES), count):
        while True:
            value = draw_id(kind, rng)
            if (bucket(value, 8) == 0) == (split == "test"):
                drawn.append((kind, value))
                break
    return drawn


def misspell(text: str, rng: random.Random) -> str:
    """Swap, drop or double one letter in one longer Latin word, as hurried typists do."""
    words = [match.span() for match in re.finditer(r"(?<![\w.-])[a-z]{6,}(?![\w.-]*\d)(?![\w-])", text)]
    if not words:
        return text
    start, end = rng.choice(words)
    at = rng.randrange(start + 1, end - 2)
    style = rng.randrange(3)
    if style == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if style == 1:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at] + text[at:]


ZH_TYPOS = [("账号", "帐号"), ("登录", "登陆"), ("重置", "重制"), ("权限", "全限"), ("恢复", "回复"), ("需要", "须要")]


def add_noise(clause: str, language: int, rng: random.Random) -> str:
    """Only clauses without ids come here: an id must be copied as it was written."""
    if language == EN:
        if rng.random() < 0.08:
            clause = misspell(clause, rng)
        return clause.lower() if rng.random() < 0.12 else clause
    if rng.random() < 0.08:
        right, wrong = rng.choice(ZH_TYPOS)
        clause = clause.replace(right, wrong)
    return clause


def reply(combination: Combination, ids: list[str], language: int) -> str:
    """A function of intent, resource, urgency and first id, so that exact match means something."""
    _, english, chinese, *_ = phrases.INTENTS[combination.intent]
    english_name, chinese_name, *_ = phrases.RESOURCES[combination.resource]
    *_, english_end, chinese_end = phrases.URGENCIES[combination.urgency]
    mark = f"[{ids[0]}] " if ids else ""
    if language == EN:
        return f"{mark}{english.format(R=english_name)}, {english_end}."
    return f"{mark}{chinese.format(R=chinese_name)}，{chinese_end}。"


def join_clauses(clauses: list[str], language: int, rng: random.Random) -> str:
    if language == ZH:
        comma = rng.choice(["，", "，", "。", " "])
        return comma.join(clauses) + rng.choice(["。", "", "！"])
    comma = rng.choice([". ", ". ", ", ", " - "])
    if comma == ". ":
        clauses = [clause[:1].upper() + clause[1:] if rng.random() < 0.7 else clause for clause in clauses]
    return comma.join(clauses) + rng.choice([".", "", "!"])


def draw_message(split: str, combination: Combination, language: int, rng: random.Random) -> tuple[str, list[str]]:
    """The message's text and its ids in the order in which they appear."""
    templates = phrases.INTENTS[combination.intent][3 + language]
    unseen = split == "test" and rng.random() < UNSEEN_TEMPLATE_SHARE
    held_out = phrases.HELD_OUT_TEMPLATES
    template = rng.choice(templates[-held_out:] if unseen else templates[:-held_out])
    alias = rng.choice(phrases.RESOURCES[combination.resource][2 + language])
    core = add_noise(expand(template, rng).replace("{r}", alias), language, rng)

    body = [(core, None)]
    drawn = draw_ids(split, rng.choices([0, 1, 2, 3], [10, 48, 30, 12])[0], rng)
    for kind, value in drawn:
        clause = rng.choice(phrases.ID_CLAUSES[kind][language])
        body.append((clause.replace("{id}", value), value))
    cue = rng.choice(phrases.URGENCIES[combination.urgency][language])
    if cue:
        body.append((add_noise(cue, language, rng), None))
    if rng.random() < 0.2:
        remark = rng.choice(phrases.DISTRACTORS[language])
        numbers = {"n": rng.randrange(2, 30), "h": rng.randrange(7, 20), "m": f"{rng.randrange(60):02d}"}
        body.append((remark.format(**numbers), None))
    if rng.random() < 0.5:
        rng.shuffle(body)

    ids = [value for _, value in body if value]
    clauses = [clause for clause, _ in body]
    if rng.random() < 0.4:
        clauses.insert(0, rng.choice(phrases.GREETINGS[language]))
    if rng.random() < 0.3:
        clauses.append(rng.choice(phrases.CLOSINGS[language]))
    return join_clauses(clauses, language, rng), ids


def rows(split: str, seed: int) -> Iterator[dict]:
    """An endless stream of rows; messages never repeat within it."""
    rng = random.Random(f"{split}/{seed}")
    pool, seen = combinations(split), set()
    by_intent: dict[str, list[Combination]] = {}
    for combination in pool:
        by_intent.setdefault(combination.intent, []).append(combination)
    intents = list(by_intent)
    while True:
        combination = rng.choice(by_intent[rng.choice(intents)])
        language = EN if rng.random() < 0.55 else ZH
        text, ids = draw_message(split, combination, language, rng)
        if text in seen:
            continue
        seen.add(text)
        ticket = {
            "intent": combination.intent,
            "resource": combination.resource,
            "ids": ids,
            "urgency": combination.urgency,
            "reply": reply(combination, ids, language),
        }
        messages = [{"role": "user", "content": text}]
        if rng.random() < SYSTEM_PROMPT_SHARE:
            messages.insert(0, {"role": "system", "content": rng.choice(phrases.SYSTEM_PROMPTS)})
        yield {"messages": messages, "ticket": ticket}


def compact(value: object) -> str:
    """The one spelling of a ticket: no spaces, keys in the order of the schema, UTF-8 as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=["train", "test"], default="test")
    parser.add_argument("--rows", type=int, default=TEST_ROWS)
    parser.add_argument("--seed", type=int, default=TEST_SEED)
    parser.add_argument("--out", help="a file, or standard output")
    args = parser.parse_args()
    sink = open(args.out, "w", encoding="utf-8", newline="\n") if args.out else sys.stdout
    with sink:
        stream = rows(args.split, args.seed)
        for _ in range(args.rows):
            sink.write(compact(next(stream)) + "\n")


if __name__ == "__main__":
    main()
