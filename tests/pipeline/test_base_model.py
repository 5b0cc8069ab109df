"""The tiny base model: what it is trained on, and that its training can be interrupted."""

import re
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM

from webdancer.config import PretrainSettings
from webdancer.pipeline.base_corpus import documents, tokenizer_texts
from webdancer.pipeline.base_model import clean_web, default_names, encode, make_base, web_seeds
from webdancer.pipeline.base_web import FIRST_SEED, Turn, read_web
from webdancer.train.tokenizer import CONTROL_TOKENS, TAG_TOKENS, build_tokenizer
from webdancer.world.facts import World

SMALL = PretrainSettings(
    num_webs=2,
    pages_per_web=120,
    documents_per_web=60,
    vocab_size=640,
    hidden_size=64,
    num_layers=1,
    intermediate_size=64,
    num_steps=6,
    eval_every_steps=3,
    warmup_steps=2,
)


def names_of(web_seed: int, num_pages: int) -> set[str]:
    graph = World(web_seed, num_pages).graph
    return {entity.name for entities in graph.region(0).by_type.values() for entity in entities}


def test_the_names_kept_out_are_those_of_the_default_webs():
    assert names_of(7, 3400) | names_of(8, 2720) <= default_names()


def assert_separate(web_seed: int) -> None:
    """No document of the web bears a full name of a default web, or anything of an agent's turn."""
    web = clean_web(web_seed, PretrainSettings().pages_per_web)
    texts = [turn.text for document in documents(web, Random(1), 400) for turn in document]
    texts += tokenizer_texts(web, Random(2))
    shared = names_of(web_seed, PretrainSettings().pages_per_web) & default_names()
    assert not [name for name in shared if any(name in text for text in texts)]
    turns = [text for text in texts if any(token in text for token in (*TAG_TOKENS, *CONTROL_TOKENS))]
    assert not turns


def test_documents_bear_no_name_of_a_default_web_and_no_turn_of_an_agent():
    seeds = web_seeds(PretrainSettings())
    assert min(seeds) >= FIRST_SEED
    shared = [seed for seed in seeds[:8] if names_of(seed, PretrainSettings().pages_per_web) & default_names()]
    assert shared, "none of the webs shares a name, so that nothing would be tested"
    assert_separate(shared[0])


def test_half_of_the_dialogues_are_long_and_take_turns():
    web = clean_web(FIRST_SEED, 120)
    dialogues = [d for d in documents(web, Random(3), 120) if d[0].role != "text"]
    for dialogue in dialogues:
        assert [turn.role for turn in dialogue] == ["user", "assistant"] * (len(dialogue) // 2)
    long = [d for d in dialogues if sum(len(turn.text) for turn in d) >= 2200]
    assert 0.35 < len(long) / len(dialogues) < 0.65


def test_compared_lists_have_one_entry_in_common():
    web, rng = clean_web(FIRST_SEED, 300), Random(4)
    dialogues = [d for d in documents(web, rng, 800) if d[0].text.endswith(("How many?", "Compare."))]
    dialogues = [d for d in dialogues if [turn.text.endswith("Compare.") for turn in d].index(True) == len(d) - 2]
    assert len(dialogues) > 20
    assert 0.1 < sum(len(d) == 2 for d in dialogues) / len(dialogues) < 0.7  # side by side
    for dialogue in dialogues:
        material = [turn.text for turn in dialogue[:-1] if turn.role == "user"]
        entries = re.findall(r"([^:?]+): (no|yes)\.", dialogue[-1].text)
        for name, verdict in entries:
            rows = sum(name.strip() in re.split(r"- | \| | \(", row) for row in "\n".join(material).splitlines())
            assert rows == (2 if verdict == "yes" else 1), (name, dialogue)


@pytest.mark.slow
def test_no_document_of_any_web_bears_a_name_of_a_default_web():
    for seed in web_seeds(PretrainSettings()):
        assert_separate(seed)


def test_the_webs_of_runs_are_refused():
    with pytest.raises(ValueError, match="got 7, expected 1000000 or more"):
        read_web(7, 100)


def test_answers_and_pages_are_learnt_tasks_are_not():
    tokenizer = build_tokenizer(["Who wrote it? Ana Velk wrote it. A page."] * 3, vocab_size=300)
    dialogue = [Turn("user", "Who?"), Turn("assistant", "Ana")]
    first, second = encode(tokenizer, [dialogue, [Turn("text", "A page.")]])
    shown = [
        tokenizer.decode([id_]) if learnt else "-" for id_, learnt in zip(first.token_ids, first.mask, strict=True)
    ]
    assert tokenizer.decode(list(first.token_ids)) == (
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nAna<|im_end|>\n"
    )
    assert "".join(shown).strip("-") == "Ana<|im_end|>"
    assert tokenizer.decode(list(second.token_ids)) == "A page.<|endoftext|>"
    assert list(second.mask) == [False, *[True] * (len(second.mask) - 1)]


class StoppedError(Exception):
    """Stands for a kill."""


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    last = make_base(whole, SMALL, seed=0, on_step=lambda numbers: None)

    def stop_at_5(numbers: dict[str, float]) -> None:
        if numbers["step"] == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        make_base(parted, SMALL, seed=0, on_step=stop_at_5)
    resumed = []
    make_base(parted, SMALL, seed=0, on_step=lambda numbers: resumed.append(numbers["step"]))
    assert resumed == [4, 5, 6]  # the state stands at step 3
    assert last["step"] == 6
    models = [AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (whole, parted)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert sum(weight.numel() for weight in models[0].values()) > 640 * 64
