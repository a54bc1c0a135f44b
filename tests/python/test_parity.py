"""Greedy tokens equal those of `transformers`, whatever else the server is doing."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import random_models
import sluice

TOKENS = 64
LENGTHS = (5, 17, 93, 200)
RIGHT = ["llama", "qwen2", "qwen3", "mistral", "phi3", "gemma2"]


@pytest.fixture(scope="module", params=RIGHT)
def served(request, tmp_path_factory):
    model = random_models.make(request.param)
    server = sluice.start(
        tmp_path_factory.mktemp(model.name),
        # Small chunks force every long prompt through chunked prefill.
        [{"name": model.name, "path": model.folder, "slots": 6, "context": 512, "prefill_chunk": 32}],
    )
    generator = random.Random(3)
    prompts = [[generator.randrange(3, random_models.VOCABULARY) for _ in range(length)] for length in LENGTHS]
    yield model, server, prompts, model.greedy(prompts, TOKENS)
    server.stop()


def complete(server, name, prompt, tokens=TOKENS):
    body = {
        "model": name,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    answer = server.client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["token_ids"]


def test_one_at_a_time(served):
    model, server, prompts, reference = served
    assert [complete(server, model.name, prompt) for prompt in prompts] == reference


def test_mixed_batch_with_cancellations(served):
    """All prompts at once, several times, among requests whose clients hang up."""
    model, server, prompts, reference = served
    stop = threading.Event()

    def hang_up():
        generator = random.Random(9)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not stop.is_set():
                prompt = [generator.randrange(3, random_models.VOCABULARY) for _ in range(generator.randrange(3, 150))]
                body = {"model": model.name, "prompt": prompt, "max_tokens": 200, "ignore_eos": True, "stream": True}
                with client.stream("POST", "/v1/completions", json=body) as answer:
                    for _ in zip(range(generator.randrange(1, 6)), answer.iter_lines()):
                        pass

    noise = threading.Thread(target=hang_up)
    noise.start()
    try:
        order = [index for _ in range(4) for index in range(len(prompts))]
        random.Random(1).shuffle(order)
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda index: complete(server, model.name, prompts[index]), order))
    finally:
        stop.set()
        noise.join()
    assert got == [reference[index] for index in order]


def test_prefix_reuse_changes_nothing(served):
    """A prompt that continues an earlier one starts from its K/V, with the same tokens."""
    model, server, prompts, reference = served
    prompt, tokens = prompts[2], reference[2]
    before = server.gauge("vllm:prefix_cache_hits_total", model_name=model.name)
    for cut in (16, 40):
        rest = complete(server, model.name, prompt + tokens[:cut], TOKENS - cut)
        assert rest == tokens[cut:]
    assert server.gauge("vllm:prefix_cache_hits_total", model_name=model.name) > before


@pytest.mark.parametrize("name", ["mistral-window", "olmo"])
def test_wrong_exports_are_refused(name, tmp_path):
    model = random_models.make(name)
    with pytest.raises(sluice.StartFailed, match="parity probe"):
        sluice.start(tmp_path, [{"name": name, "path": model.folder, "slots": 2, "context": 512}])
