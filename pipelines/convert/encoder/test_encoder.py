"""Encoders end to end: converted by the command line, served by the real server, held against sentence-transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

TEXTS = ["The printer is on floor 3.", "打印机坏了", "VPN", "a much longer text about routers and the weather " * 5]
SHAPE = {
    "vocab_size": 1024,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 130,
}


def tokenizer(folder: Path) -> None:
    """A byte-level BPE that marks texts and pairs as BERT's does."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([Path(__file__).read_text(encoding="utf-8")], trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **names
    ).save_pretrained(folder)


def checkpoint(folder: Path, kind: str, **config) -> Path:
    """A random model; biases and norms are moved off their neutral values, which would hide mistakes."""
    torch.manual_seed(5)
    settings = SHAPE | {"pad_token_id": 0} | config
    model = getattr(transformers, kind)(getattr(transformers, kind).config_class(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval().save_pretrained(folder)
    tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("bert"), "BertModel")


@pytest.fixture(scope="module")
def cross(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("cross"), "BertForSequenceClassification", num_labels=1)


def embeddings(server, name: str) -> np.ndarray:
    answer = server.client.post("/v1/embeddings", json={"model": name, "input": TEXTS})
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]])


def reference(source: Path, *modules) -> np.ndarray:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts

    network = parts.Transformer(str(source))
    pooling = [make(network.get_embedding_dimension()) for make in modules]
    return SentenceTransformer(modules=[network, *pooling], device="cpu").encode(TEXTS)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_embeddings_are_those_of_sentence_transformers(convert, serve, bert, pooling):
    from sentence_transformers.sentence_transformer import modules as parts

    normalize = pooling == "mean"
    run = convert("encoder", source=bert, pooling=pooling, normalize=normalize).succeeded()
    assert run.measure("cosine_min") > 0.99999
    assert run.json("result.json")["task"] == "embedding"
    steps = [lambda width: parts.Pooling(width, pooling_mode=pooling)]
    if normalize:
        steps.append(lambda _: parts.Normalize())
    served = embeddings(serve(**{f"bert_{pooling}": run.model}), f"bert-{pooling}")
    np.testing.assert_allclose(served, reference(bert, *steps), atol=2e-5)


def test_roberta_with_its_shifted_positions(convert, serve, tmp_path):
    source = checkpoint(tmp_path, "RobertaModel", pad_token_id=1, type_vocab_size=2)
    run = convert("encoder", source=source, pooling="mean").succeeded()
    longest = max(case["tokens"] for case in run.json("parity.json")["cases"])
    assert longest == 128
    embeddings(serve(roberta=run.model), "roberta")


def test_a_cross_encoder_ranks_as_its_source(command, serve, cross):
    run = command("encoder", source=cross).succeeded()
    assert run.json("result.json")["task"] == "classification"
    assert run.measure("logit_error_max") < 1e-4
    query, documents = "How do I restart the router?", TEXTS[:3]
    body = {"model": "cross", "query": query, "documents": documents}
    answer = serve(cross=run.model).client.post("/v1/rerank", json=body)
    assert answer.status_code == 200, answer.text
    scores = {item["index"]: item["relevance_score"] for item in answer.json()["results"]}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(cross).eval()
    words = transformers.AutoTokenizer.from_pretrained(cross)
    with torch.no_grad():
        expected = [
            torch.sigmoid(model(**words(query, document, return_tensors="pt")).logits)[0, 0].item()
            for document in documents
        ]
    np.testing.assert_allclose([scores[index] for index in range(len(documents))], expected, atol=1e-5)
    assert len({round(score, 4) for score in expected}) == len(expected), "equal scores would hide a mistake"


def test_int8_is_smaller_passes_and_is_served(convert, serve, bert):
    run = convert("encoder", source=bert, pooling="mean", precision="int8", min_cosine=0.9).succeeded()
    assert 0.9 < run.measure("cosine_min") < 0.999999
    embeddings(serve(int8=run.model), "int8")


def test_a_worse_result_than_allowed_is_refused_with_the_numbers(convert, bert):
    run = convert("encoder", source=bert, pooling="mean", precision="int8", min_cosine=1)
    error = run.failed("parity_failed", "cosine_min is", "at least 1 is allowed")
    assert error["details"]["parity"]["measures"]["cosine_min"]["value"] < 1


def test_the_server_refuses_an_export_that_its_probe_contradicts(convert, serve, bert):
    import sluice

    run = convert("encoder", source=bert, pooling="mean").succeeded()
    (run.model / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    with pytest.raises(sluice.StartFailed, match="cosine"):
        serve(wrong=run.model)


def test_pooling_has_to_be_known(convert, bert):
    error = convert("encoder", source=bert).failed("bad_params", "`pooling` is needed", "cls, mean, max")
    assert error["details"]["param"] == "pooling"


def test_a_decoder_is_sent_elsewhere(convert, tmp_path):
    source = checkpoint(tmp_path, "BertModel", is_decoder=True)
    convert("encoder", source=source, pooling="mean").failed("unsupported_model", "is no encoder", "causal_lm")


def test_pickles_are_refused(convert, tmp_path):
    source = checkpoint(tmp_path, "BertModel")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    convert("encoder", source=source, pooling="mean").failed("unsafe_source", "`allow_pickle`")
