"""The tiny base model: what it is trained on, and that its training can be interrupted."""

import ast
import re
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from webdancer.config import PretrainSettings
from webdancer.pipeline.base_corpus import documents, tokenizer_texts
from webdancer.pipeline.base_model import REPRODUCED_SEEDS, clean_web, default_names, encode, make_base, web_seeds
from webdancer.pipeline.base_web import FIRST_SEED, Turn, read_web
from webdancer.pipeline.reproduce import _WORLD_SEEDS
from webdancer.train.model import resolve_base
from webdancer.train.pretrain import evaluate
from webdancer.train.tokenizer import CONTROL_TOKENS, TAG_TOKENS, build_tokenizer
from webdancer.world.facts import World

ROOT = Path(__file__).parents[2]
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


CALL_PARTS = ('{"', '"name"', '"arguments"', "tool_call")
"""What every tool call holds, with or without tags."""


def names_of(web_seed: int, num_pages: int) -> set[str]:
    graph = World(web_seed, num_pages).graph
    return {entity.name for entities in graph.region(0).by_type.values() for entity in entities}


def test_the_names_kept_out_are_those_of_the_default_webs():
    assert names_of(7, 3400) | names_of(8, 2720) <= default_names()


def assert_separate(web_seed: int) -> None:
    """No document of the web bears a full name of a default web, or anything of an agent's turn."""
    web = clean_web(web_seed, PretrainSettings().pages_per_web)
    learnt = [turn.text for document in documents(web, Random(1), 400) for turn in document]
    texts = learnt + tokenizer_texts(web, Random(2))
    shared = names_of(web_seed, PretrainSettings().pages_per_web) & default_names()
    assert not [name for name in shared if any(name in text for text in texts)]
    assert not [text for text in texts if any(token in text for token in (*TAG_TOKENS, *CONTROL_TOKENS))]
    assert not [text for text in learnt if any(part in text for part in CALL_PARTS)]


def test_documents_bear_no_name_of_a_default_web_and_no_turn_of_an_agent():
    seeds = web_seeds(PretrainSettings())
    assert min(seeds) >= FIRST_SEED
    shared = [seed for seed in seeds[:8] if names_of(seed, PretrainSettings().pages_per_web) & default_names()]
    assert shared, "none of the webs shares a name, so that nothing would be tested"
    assert_separate(shared[0])


def test_the_corpus_is_made_without_an_agent():
    """Nothing that plays, samples or stores episodes is within reach of what makes the documents."""
    agents = (
        "agent.loop",
        "agent.format",
        "scribe.model",
        "scribe.agent",
        "trajectories",
        "llm",
        "train.tokens",
        "eval",
    )
    for path in (ROOT / "webdancer" / "pipeline").glob("base_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith(tuple(f"webdancer.{name}" for name in agents)), (
                    path,
                    node.module,
                )


def test_the_webs_of_all_seeds_are_kept_out():
    assert set(REPRODUCED_SEEDS) == {seed for pair in _WORLD_SEEDS for seed in pair}


def test_the_base_in_the_package_fits_its_tokenizer_and_reads_a_web_it_never_saw():
    """A few megabytes of bfloat16 that know more than chance."""
    base = resolve_base("tiny")
    file = base / "model.safetensors"
    assert file.stat().st_size < 8e6
    with safe_open(file, framework="pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert model.config.model_type == "qwen3"
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    unseen = clean_web(FIRST_SEED + 500_000, 120)
    exercises = encode(tokenizer, list(documents(unseen, Random(6), 40)))
    with torch.no_grad():
        assert evaluate(model, exercises)["validation_accuracy"] > 0.85


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
