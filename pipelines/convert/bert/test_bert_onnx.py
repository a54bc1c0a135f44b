"""The exporter against transformers and sentence-transformers; run by `make test`."""

import json
import subprocess
import sys
from pathlib import Path

import bert_numpy
import bert_onnx
import encoder
import minilm
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def session(model: Path | bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def padded_batch(lengths: list[int], vocabulary: int) -> dict[str, np.ndarray]:
    """Random tokens of both segments, padded on the right with a token that is not zero."""
    random = np.random.default_rng(7)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    ids = random.integers(1, vocabulary, mask.shape)
    kinds = random.integers(0, 2, mask.shape)
    return dict(zip(INPUTS, (ids, mask, kinds), strict=True))


def random_checkpoint(folder: Path, *, with_head: bool = False, **changes) -> torch.nn.Module:
    """A small BERT with random weights in the sentence-transformers layout."""
    settings = {
        "vocab_size": 40,
        "hidden_size": 48,
        "num_attention_heads": 6,
        "num_hidden_layers": 3,
        "intermediate_size": 80,
        "max_position_embeddings": 64,
        "layer_norm_eps": 1e-12,
    }
    config = transformers.BertConfig(**settings | changes)
    torch.manual_seed(3)
    model = transformers.BertForMaskedLM(config) if with_head else transformers.BertModel(config)
    with torch.no_grad():  # zero biases and unit norms would hide a mistake in either
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.eval().save_pretrained(folder)
    words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "printer", "is", "on"])}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_modules(folder, "Transformer", "Pooling", "Normalize")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    return model.bert if with_head else model


def write_modules(folder: Path, *kinds: str) -> None:
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))


@pytest.fixture(scope="module")
def served_minilm(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("models") / "all-minilm-l6-v2"
    subprocess.run([sys.executable, minilm.__file__, target], check=True)
    return target


@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
@pytest.mark.parametrize("with_head", [False, True])
def test_random_weights_match_transformers_on_padded_batches(tmp_path, activation, with_head):
    source, target = tmp_path / "source", tmp_path / "target"
    reference = random_checkpoint(source, with_head=with_head, hidden_act=activation)
    encoder.convert(source, target, "random")

    batch = padded_batch([3, 17, 1, 60], vocabulary=40)
    (states,) = session(target / "model.onnx").run(None, batch)
    with torch.no_grad():
        expected = reference(**{name: torch.from_numpy(array) for name, array in batch.items()})
    kept = batch["attention_mask"].astype(bool)
    np.testing.assert_allclose(states[kept], expected.last_hidden_state.numpy()[kept], atol=2e-5)


def test_a_row_of_padding_alone_is_finite(served_minilm):
    batch = padded_batch([5, 9], vocabulary=1000)
    batch["attention_mask"][0] = 0
    (states,) = session(served_minilm / "model.onnx").run(None, batch)
    assert np.isfinite(states).all()


def test_minilm_equals_sentence_transformers(served_minilm):
    from sentence_transformers import SentenceTransformer

    probe = json.loads((served_minilm / "sluice_probe.json").read_text(encoding="utf-8"))
    reference = SentenceTransformer(str(minilm.packaged_checkpoint()), device="cpu")
    expected = reference.encode([prompt["text"] for prompt in probe["prompts"]])
    found = np.array([prompt["embedding"] for prompt in probe["prompts"]])
    assert found.shape == (len(encoder.PROBE_TEXTS), 384)
    assert (found * expected).sum(axis=1).min() > 0.99999


def test_minilm_graph_passes_its_own_probe_in_one_padded_batch(served_minilm):
    probe = json.loads((served_minilm / "sluice_probe.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(served_minilm / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch([prompt["text"] for prompt in probe["prompts"]])
    ids = np.array([encoding.ids for encoding in encodings])
    mask = np.array([encoding.attention_mask for encoding in encodings])
    assert mask.sum(axis=1).max() > 128, "no probe would notice a tokenizer that cuts at 128"
    (states,) = session(served_minilm / "model.onnx").run(
        None, dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))
    )
    pooled = (states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    expected = np.array([prompt["embedding"] for prompt in probe["prompts"]])
    assert (pooled * expected).sum(axis=1).min() > 0.99999


def test_the_referee_notices_a_wrong_weight():
    source = minilm.packaged_checkpoint()
    raw_config = json.loads((source / "config.json").read_text())
    weights = bert_onnx.encoder_weights(load_file(source / "model.safetensors"))
    right = bert_numpy.Encoder(raw_config, weights).hidden_states([101, 7592, 2088, 102])
    name = "encoder.layer.2.attention.self.key.weight"
    wrong = bert_numpy.Encoder(raw_config, weights | {name: weights[name].T}).hidden_states([101, 7592, 2088, 102])
    cosine = (right * wrong).sum() / np.linalg.norm(right) / np.linalg.norm(wrong)
    assert cosine < encoder.MIN_COSINE


def test_onnx_runtime_fuses_gelu_and_the_attention_scale(served_minilm, tmp_path):
    """The measured speed rests on these two; a change of operators must not lose them unnoticed."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(served_minilm / "model.onnx", options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx", load_external_data=False).graph.node
    kinds = [node.op_type for node in nodes]
    assert kinds.count("BiasGelu") == 6
    assert kinds.count("FusedMatMul") == 6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "roberta"}, "model_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "causal"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"num_attention_heads": 5}, "does not divide"),
        ({"num_hidden_layers": 4}, "no tensor"),
    ],
)
def test_what_would_come_out_wrong_is_refused_and_leaves_nothing(tmp_path, change, reason):
    source, target = tmp_path / "source", tmp_path / "models" / "target"
    random_checkpoint(source)
    config = source / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(bert_onnx.UnsupportedCheckpoint, match=reason):
        encoder.convert(source, target, "random")
    assert not target.exists()
    assert not target.parent.exists() or not list(target.parent.iterdir())


def test_a_layer_after_pooling_is_refused(tmp_path):
    random_checkpoint(tmp_path / "source")
    write_modules(tmp_path / "source", "Transformer", "Pooling", "Dense")
    with pytest.raises(bert_onnx.UnsupportedCheckpoint, match="Dense"):
        encoder.convert(tmp_path / "source", tmp_path / "target", "random")


def test_a_second_conversion_replaces_the_first(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    random_checkpoint(source)
    encoder.convert(source, target, "first")
    (target / "stray").touch()
    encoder.convert(source, target, "second")
    assert json.loads((target / "sluice_probe.json").read_text())["source"] == "second"
    assert not (target / "stray").exists()
