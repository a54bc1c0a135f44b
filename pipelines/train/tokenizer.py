"""Train the byte-level BPE tokenizer on generated training text and write its three files.

tokenizer.py --work .cache/train
"""

import argparse
import json
from pathlib import Path

import dataset
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
VOCABULARY = 2048
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Ordinary added tokens: a client must see them in decoded text to find the call.
MARKERS = ["<tool_call>", "</tool_call>"]


def train(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # Chinese runs into Latin without a space ("工单INC-48213"); one word across
            # the border would give an id another spelling in the message than in the ticket.
            # A range, because not every runtime's regular expressions know \p{Han}.
            pre_tokenizers.Split(Regex("[\u4e00-\u9fff]+"), behavior="isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKERS),
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        # Long Chinese clauses would otherwise become single tokens, tied to one template.
        max_token_length=15,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in MARKERS])
    return tokenizer


def settings() -> dict:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": (HERE / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n"),
    }


def write(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    for name, value in (("tokenizer_config.json", settings()), ("special_tokens_map.json", special)):
        text = json.dumps(value, ensure_ascii=False, indent=2)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what the pipeline builds")
    args = parser.parse_args()
    recipe = dataset.read_recipe()
    texts = dataset.plain_texts(recipe["tokenizer"]["rows"], recipe["tokenizer"]["seed"])
    # The template's own words stand in every prompt; as single tokens they cost least.
    texts += [f"{role}\n" for role in ("system", "user", "assistant")] * len(texts)
    tokenizer = train(texts)
    write(tokenizer, args.work / "tokenizer")
    sample = texts[0]
    if tokenizer.decode(tokenizer.encode(sample).ids, skip_special_tokens=False) != sample:
        raise SystemExit("the tokenizer does not give its own text back")
    print(f"tokenizer: {tokenizer.get_vocab_size()} tokens, {len(texts)} texts")


if __name__ == "__main__":
    main()
