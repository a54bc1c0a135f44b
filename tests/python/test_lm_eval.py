"""EleutherAI's lm-evaluation-harness, unmodified, against the endpoints: it runs in an environment of
its own, and its numbers are held to those of `transformers` for the checkpoint that is served."""

import json
import os
import subprocess

import pytest
import sluice

PYTHON = os.environ.get("SLUICE_LM_EVAL_PYTHON")
TASKS = sluice.ROOT / "tests" / "python" / "lm_eval"
TOKENIZER = sluice.HELPDESK / "v2"
ROWS = 16
# The window of the rolling log-likelihoods: most texts are longer.
WINDOW = 24

if PYTHON is None:
    pytest.skip("SLUICE_LM_EVAL_PYTHON names no Python with lm-eval (scripts/test.sh makes one)", allow_module_level=True)


@pytest.fixture(scope="module")
def harness(server, tmp_path_factory):
    """Runs tasks as one does on the command line. Gives their rows as the harness logged them."""

    def run(model, path, tasks, *options, **arguments):
        folder = tmp_path_factory.mktemp("harness")
        arguments = {"model": "helpdesk", "base_url": server.v1 + path, "max_retries": 1, **arguments}
        ran = subprocess.run(
            [
                PYTHON, "-m", "lm_eval", "run",
                "--model", model,
                "--model_args", ",".join(f"{name}={value}" for name, value in arguments.items()),
                "--include_path", TASKS,
                "--tasks", ",".join(tasks),
                "--limit", str(ROWS),
                "--output_path", folder / "results",
                "--log_samples",
                *options,
            ],
            # The tasks name their rows from here.
            cwd=sluice.ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")},
            capture_output=True,
            text=True,
            timeout=600,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        rows = {task: samples(folder / "results", task) for task in tasks}
        assert all(len(logged) == ROWS for logged in rows.values())
        return rows

    return run


def samples(folder, task):
    (path,) = folder.glob(f"*/samples_{task}_*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


class Reference:
    """The checkpoint that the served model was exported from."""

    def __init__(self):
        import torch
        import transformers

        checkpoint = sluice.HELPDESK.parent / "checkpoints" / "v2"
        # The model is small: more threads cost more than they bring.
        torch.set_num_threads(1)
        self.torch = torch
        self.model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)

    def tokens(self, text):
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def score(self, context, continuation):
        """The log-probability of the continuation's tokens, and whether each is the likeliest."""
        ids = self.torch.tensor([context + continuation])
        with self.torch.no_grad():
            rows = self.model(ids).logits[0, len(context) - 1 : -1].log_softmax(-1)
        chosen = rows[range(len(continuation)), continuation]
        return chosen.sum().item(), bool((chosen == rows.max(-1).values).all())

    def prompt(self, messages):
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def greedy(self, prompt, most=128):
        ids = self.torch.tensor([self.tokens(prompt)])
        with self.torch.no_grad():
            made = self.model.generate(
                ids, attention_mask=self.torch.ones_like(ids), max_new_tokens=most, do_sample=False, eos_token_id=2
            )
        return self.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)

    def rolling(self, text, window):
        """A text's log-likelihood in windows as the harness cuts them: after the first, each begins
        with a token of the one before it, and the last reaches back as far as a window is long."""
        tokens, prefix, done, total = self.tokens(text), [self.tokenizer.eos_token_id], 0, 0.0
        while done < len(tokens):
            end = min(done + window, len(tokens))
            context = tokens[end - window - 1 : done] if done else prefix
            total += self.score(context, tokens[done:end])[0]
            done = end
        return total


@pytest.fixture(scope="module")
def reference():
    return Reference()


@pytest.fixture(scope="module")
def completed(harness):
    """Token ids in arrays of prompts, several requests at once; the prompts are made by the harness
    with the model's template."""
    return harness(
        "local-completions",
        "/completions",
        ["helpdesk_intent", "helpdesk_ticket"],
        "--apply_chat_template",
        "--batch_size",
        "4",
        tokenizer=TOKENIZER,
        num_concurrent=4,
    )


def test_likelihoods_of_choices(completed, reference):
    """`echo` with `logprobs`."""
    rows, greedy = completed["helpdesk_intent"], 0
    for row in rows:
        for pair, (answer,) in zip(row["arguments"].values(), row["resps"], strict=True):
            context = reference.tokens(pair["arg_0"])
            whole = reference.tokens(pair["arg_0"] + pair["arg_1"])
            logprob, likeliest = reference.score(context, whole[len(context) :])
            assert float(answer[0]) == pytest.approx(logprob, abs=0.02), pair
            assert (answer[1] == "True") == likeliest, pair
            greedy += likeliest
    assert greedy > ROWS / 2
    assert share(rows, "acc") > 0.8


def test_answers_of_completions(completed, reference):
    rows = completed["helpdesk_ticket"]
    for row in rows:
        assert row["resps"][0][0] == reference.greedy(row["arguments"]["gen_args_0"]["arg_0"])
    assert share(rows, "exact_match") > 0.8


def test_answers_of_chat(harness, reference):
    """Messages instead of a prompt: the server fills the template in."""
    rows = harness(
        "local-chat-completions", "/chat/completions", ["helpdesk_ticket"], "--apply_chat_template", num_concurrent=4
    )["helpdesk_ticket"]
    for row in rows:
        sent = json.loads(row["arguments"]["gen_args_0"]["arg_0"][0])
        assert row["resps"][0][0] == reference.greedy(reference.prompt(sent))
    assert share(rows, "exact_match") > 0.8


def test_likelihoods_of_texts_in_windows(harness, reference):
    # Of the harness's `max_length`, one token is kept for an answer and one for the context.
    arguments = dict(tokenizer=TOKENIZER, max_length=WINDOW + 2)
    rows = harness("local-completions", "/completions", ["helpdesk_text"], **arguments)["helpdesk_text"]
    assert sum(len(reference.tokens(row["target"])) > WINDOW for row in rows) > ROWS / 2
    for row in rows:
        assert float(row["resps"][0][0]) == pytest.approx(reference.rolling(row["target"], WINDOW), abs=0.05)


def share(rows, metric):
    return sum(row[metric] for row in rows) / len(rows)
