"""The parts of a comparison that decide: what is asked, what counts as equal, what may be read."""

import json

import numpy as np
import pytest
import transformers
from sluice_pipeline import Failure, ParityReport
from sluice_pipeline.params import Wrong

from conversion import checkpoint, language, signature, tensors, texts


def llama(**changes):
    return transformers.MistralConfig(**{"sliding_window": None, "max_position_embeddings": 2048} | changes)


@pytest.mark.parametrize(
    ("config", "window", "lengths"),
    [
        (llama(), 0, [24, 96, 400]),
        (llama(sliding_window=32), 32, [24, 96, 400]),
        (llama(sliding_window=1000), 1000, [24, 96, 400, 1064]),
        # As long as the context: there is nothing behind it.
        (llama(sliding_window=4096), 4096, [24, 96, 400]),
        (llama(max_position_embeddings=128), 0, [24, 64]),
        (transformers.Qwen2Config(sliding_window=512, use_sliding_window=False), 0, [24, 96, 400]),
    ],
)
def test_prompts_are_longer_than_any_window_within_the_context(config, window, lengths):
    assert language.window_of(config) == window
    assert language.prompt_lengths(config, 64) == lengths


def test_of_a_large_vocabulary_the_end_and_a_spread_are_kept():
    positions = language.kept_positions(prompt=4096, new=64, vocabulary=150_000)
    assert len(positions) < 500 and positions[0] == 0
    assert set(range(4095, 4160)) <= set(positions.tolist())
    assert np.diff(positions).max() < 20
    assert language.kept_positions(400, 64, 32_000).tolist() == list(range(464))


def answer(logits, prompt=2):
    logits = np.array(logits, np.float32)
    tokens = [int(token) for token in logits[prompt - 1 : -1].argmax(-1)]
    return language.Answer([0] * prompt, tokens, np.arange(len(logits)), logits)


def test_a_probe_asks_greedy_tokens_only_as_far_as_they_lead():
    said = answer([[0, 0, 9, 0], [0, 5, 0, 0], [3, 0, 0, 0], [0, 0, 1.1, 1], [9, 0, 0, 0]])
    assert said.greedy == [1, 0, 2]
    probe = language.probe_prompt(said, atol=0.1)
    assert probe["greedy"] == [1, 0]
    assert probe["logits"]["positions"] == [1]
    assert probe["logits"]["values"][0][probe["logits"]["token_ids"].index(1)] == 5.0


@pytest.mark.parametrize(
    ("want", "got", "relative"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.0, 4.0], [1.0, 4.0], 0.25),
        ([np.inf, 1.0], [np.inf, 1.0], 0.0),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
    ],
)
def test_errors_are_relative_to_the_largest_value(want, got, relative):
    assert tensors.compare(np.array(want), np.array(got))["relative_error_max"] == relative


def test_a_number_that_became_none_fails():
    report = ParityReport("tensor", "source", "fp32")
    limits = signature.LIMITS["fp32"]
    tensors.measure(
        report, lambda _: [np.array([1.0])], lambda _: [np.array([np.nan])], ["y"], [{"x": np.zeros(1)}], limits
    )
    assert not report.passed


def test_another_shape_fails():
    with pytest.raises(Failure, match=r"shape \[2\], its source \[1\]"):
        tensors.compare(np.zeros(1), np.zeros(2))


def test_sizes_that_the_source_refuses_are_left_out_and_others_count():
    def source(feeds):
        if len(feeds["x"]) < 3:
            raise ValueError("too small")
        return [feeds["x"]]

    report = ParityReport("tensor", "source", "fp32")
    feeds = [{"x": np.ones(size, np.float32)} for size in (1, 3)]
    skipped = tensors.measure(report, source, lambda feeds: [feeds["x"]], ["y"], feeds, signature.LIMITS["fp32"])
    assert len(skipped) == 1 and "too small" in skipped[0]
    assert report.passed and len(report.cases) == 1
    with pytest.raises(Failure, match="no input of any size"):
        tensors.measure(ParityReport("tensor", "s", "fp32"), source, source, ["y"], feeds[:1], signature.LIMITS["fp32"])


def test_an_export_that_refuses_what_its_source_takes_fails():
    def refuses(feeds):
        raise RuntimeError("fixed size")

    report = ParityReport("tensor", "source", "fp32")
    tensors.measure(report, lambda feeds: [feeds["x"]], refuses, ["y"], [{"x": np.ones(1)}], signature.LIMITS["fp32"])
    assert not report.passed


def test_examples_have_the_declared_sizes_and_ranges():
    inputs = signature.check_inputs(
        [
            {"name": "ids", "dtype": "int64", "shape": ["batch", 4], "low": 2, "high": 5},
            {"name": "flags", "dtype": "bool", "shape": ["batch"]},
        ]
    )
    examples = tensors.Examples(inputs, {"batch": (2, 3)})
    sizes = set()
    for feeds in examples.for_parity():
        assert feeds["ids"].dtype == np.int64 and feeds["ids"].min() >= 2 and feeds["ids"].max() < 5
        assert feeds["flags"].dtype == bool
        sizes.add(feeds["ids"].shape)
    assert sizes == {(2, 4), (3, 4)}


@pytest.mark.parametrize("value", [[], {}, [1], [{"name": "x"}], [{"name": "x", "shape": ["a b"]}], [{"shape": [1]}]])
def test_inputs_that_say_too_little_are_refused(value):
    with pytest.raises(Wrong):
        signature.check_inputs(value)


def test_only_what_may_be_read_is_staged(tmp_path):
    source, target = tmp_path / "source", tmp_path / "staged"
    (source / "1_Pooling").mkdir(parents=True)
    (source / ".git").mkdir()
    for name in ("model.safetensors", "pytorch_model.bin", "modeling.py", "1_Pooling/config.json", ".git/config.json"):
        (source / name).write_text("{}")
    (source / "config.json").write_text(json.dumps({"model_type": "llama"}))
    checkpoint.stage(source, target, allow_pickle=False, trust_remote_code=False)
    staged = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert staged == {"model.safetensors", "config.json", "1_Pooling/config.json"}


def test_texts_are_long_enough_and_never_the_same():
    class Letters:
        def encode(self, text, add_special_tokens):
            return list(text.encode())

    assert len(texts.token_stream(Letters(), 5000, 256)) >= 5000
    sentences = texts.long_text(300).split(". ")
    assert len(set(sentences)) == len(sentences)
