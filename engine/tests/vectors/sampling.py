#!/usr/bin/env python3
"""Writes sampling.json: what every implementation of the sampler must agree with.

A naive sampler in double precision, independent of the Rust one. Draws that fall
close to a border of the cumulated distribution are moved to the token's middle, so
that single precision cannot change the answer.

    python3 engine/tests/vectors/sampling.py
"""

import json
import math
import pathlib
import random
import struct


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def row(vocab, number):
    """Exact in single precision, with ties; the tests compute the same."""
    return [((i * (2 * number + 1) * 2654435761 % 2**32) >> 20) / 256 - 8 for i in range(vocab)]


def adjusted(case):
    logits = row(case["vocab"], case["row"])
    for token in dict.fromkeys(case["prompt"] + case["output"]):
        penalty = case["repetition_penalty"]
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        if count := case["output"].count(token):
            logits[token] -= case["frequency_penalty"] * count + case["presence_penalty"]
    for token, bias in case["logit_bias"]:
        logits[token] += bias
    if len(case["output"]) < case["min_tokens"]:
        for token in case["eos"]:
            logits[token] = -math.inf
    if case["mask"] is not None:
        for token in range(len(logits)):
            word = token // 32
            if word >= len(case["mask"]) or not case["mask"][word] >> token % 32 & 1:
                logits[token] = -math.inf
    return logits


def ranking(logits):
    return sorted((i for i in range(len(logits)) if logits[i] > -math.inf), key=lambda i: (-logits[i], i))


def survivors(case, logits):
    """{token: weight} after temperature, top_k, top_p and min_p."""
    ranked = ranking(logits)
    if case["top_k"]:
        ranked = ranked[: case["top_k"]]
    weights = {i: math.exp((logits[i] - logits[ranked[0]]) / case["temperature"]) for i in ranked}
    if case["top_p"] < 1:
        total, mass, kept = math.fsum(weights.values()), 0.0, []
        for i in ranked:
            kept.append(i)
            mass += weights[i]
            if mass >= case["top_p"] * total:
                break
        weights = {i: weights[i] for i in kept}
    return {i: w for i, w in weights.items() if w >= case["min_p"]}


def expect(case):
    logits = adjusted(case)
    if case["temperature"] == 0:
        case["id"] = ranking(logits)[0]
    else:
        weights = survivors(case, logits)
        total = math.fsum(weights.values())
        before = 0.0
        for token in sorted(weights):
            after = before + weights[token] / total
            if case["uniform"] < after:
                break
            before = after
        case["id"], case["uniform"] = token, (before + after) / 2
    raw = row(case["vocab"], case["row"])
    log_sum = math.log(math.fsum(math.exp(x - 8) for x in raw)) + 8
    case["logprob"] = raw[case["id"]] - log_sum
    case["top_ids"] = ranking(raw)[: case["top"]]
    case["top_logprobs"] = [raw[i] - log_sum for i in case["top_ids"]]
    return case


def cases():
    rng = random.Random(20240607)
    base = dict(vocab=1000, row=0, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0,
                frequency_penalty=0.0, repetition_penalty=1.0, logit_bias=[], min_tokens=0, eos=[2], prompt=[1, 5, 9],
                output=[7, 7, 8], mask=None, top=3, uniform=0.5)
    settings = {
        "plain": {},
        "greedy": dict(temperature=0.0),
        "cold": dict(temperature=f32(0.3)),
        "hot": dict(temperature=1.75),
        "top_k": dict(top_k=40),
        "top_k of one": dict(top_k=1),
        "top_p": dict(top_p=f32(0.9)),
        "top_p, tiny": dict(top_p=f32(1e-6)),
        "min_p": dict(min_p=f32(0.02)),
        "all filters": dict(top_k=200, top_p=f32(0.95), min_p=f32(0.01), temperature=1.25),
        "penalties": dict(presence_penalty=1.5, frequency_penalty=0.5, repetition_penalty=1.25, top_k=50),
        "negative penalties": dict(presence_penalty=-2.0, frequency_penalty=-2.0, top_p=f32(0.7)),
        "bias": dict(logit_bias=[[3, 9.5], [4, -100.0], [7, 6.0]], top_k=30),
        "greedy with bias": dict(temperature=0.0, logit_bias=[[11, 100.0]]),
        "min_tokens": dict(temperature=0.0, min_tokens=4, logit_bias=[[2, 50.0]]),
        "min_tokens reached": dict(temperature=0.0, min_tokens=3, logit_bias=[[2, 50.0]]),
        "mask": dict(mask=[rng.getrandbits(32) for _ in range(32)]),
        "short mask": dict(mask=[rng.getrandbits(32) for _ in range(3)], top_p=f32(0.8)),
        "greedy mask": dict(temperature=0.0, mask=[0, 0, 1 << 7 | 1 << 3]),
        "large": dict(vocab=32000, top_p=f32(0.95), top=20),
        "large top_k": dict(vocab=32000, top_k=64, top=0),
        "large plain": dict(vocab=32000),
    }
    for name, changes in settings.items():
        greedy = changes.get("temperature") == 0.0
        for index, uniform in enumerate([0.5] if greedy else [0.001, 0.5, 0.97]):
            yield expect(base | dict(name=f"{name} {index}", row=rng.randrange(1000), uniform=uniform) | changes)


def main():
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases()) + "\n]\n")


if __name__ == "__main__":
    main()
