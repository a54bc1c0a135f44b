"""Run with `python3 -m unittest discover examples/helpdesk`; needs the standard library only."""

import itertools
import json
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402  (the folder is on the path only now)
import phrases  # noqa: E402


def take(split: str, seed: int, count: int) -> list[dict]:
    return list(itertools.islice(generate.rows(split, seed), count))


def combination(row: dict) -> tuple[str, str, str]:
    ticket = row["ticket"]
    return ticket["intent"], ticket["resource"], ticket["urgency"]


class Generation(unittest.TestCase):
    def test_the_committed_test_set_is_what_the_script_writes(self):
        fresh = [generate.compact(row) for row in take("test", generate.TEST_SEED, generate.TEST_ROWS)]
        committed = (HERE / "test.jsonl").read_text(encoding="utf-8").splitlines()
        self.assertEqual(fresh, committed)

    def test_the_splits_share_no_combination_no_id_and_no_message(self):
        train, test = take("train", 1, 5_000), take("test", 1, 1_000)
        self.assertFalse(set(map(combination, train)) & set(map(combination, test)))
        texts = [{row["messages"][-1]["content"] for row in rows} for rows in (train, test)]
        self.assertFalse(texts[0] & texts[1])
        ids = [{value for row in rows for value in row["ticket"]["ids"]} for rows in (train, test)]
        self.assertFalse(ids[0] & ids[1])

    def test_training_shows_every_pair_and_every_urgency(self):
        seen = generate.combinations("train")
        pairs = {(intent, resource) for intent, (resources, *_) in phrases.INTENTS.items() for resource in resources}
        self.assertEqual({(item.intent, item.resource) for item in seen}, pairs)
        self.assertEqual({item.urgency for item in seen}, set(phrases.URGENCIES))

    def test_ids_stand_in_the_message_in_the_order_of_the_ticket(self):
        for row in take("train", 2, 2_000):
            text, position = row["messages"][-1]["content"], 0
            for value in row["ticket"]["ids"]:
                position = text.index(value, position) + len(value)

    def test_an_alias_names_one_resource_in_its_language(self):
        for language in (generate.EN, generate.ZH):
            aliases = [alias for entry in phrases.RESOURCES.values() for alias in entry[2 + language]]
            self.assertEqual(len(aliases), len(set(aliases)))

    def test_rows_survive_json(self):
        for row in take("test", 3, 50):
            self.assertEqual(json.loads(generate.compact(row)), row)


if __name__ == "__main__":
    unittest.main()
