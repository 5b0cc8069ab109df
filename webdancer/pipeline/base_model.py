"""Makes the tiny base model that ships with the package: corpus of other webs, tokenizer, pre-training."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from webdancer.config import PretrainSettings, WorldSettings
from webdancer.pipeline.base_corpus import FIRST_SEED, Document, Web, documents, read_web, tokenizer_texts
from webdancer.world.facts import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from webdancer.train.pretrain import Exercise

REPRODUCED_SEEDS = (7, 8, 17, 18, 27, 28)
"""Seeds of the default webs and of those of `webdancer reproduce`."""
_MAX_TOKENS = 640
_NUM_TOKENIZER_WEBS = 12
_NUM_VALIDATION = 300


def make_base(
    out: Path, settings: PretrainSettings, *, seed: int, on_step: Callable[[dict[str, float]], None]
) -> dict[str, float]:
    """Train the base model into `out`, a Hugging Face folder; returns its last metrics."""
    from webdancer.train.pretrain import pretrain
    from webdancer.train.tokenizer import build_tokenizer

    seeds = [FIRST_SEED + 7919 * number for number in range(settings.num_webs + 1)]
    texts: list[str] = []
    for number in seeds[:_NUM_TOKENIZER_WEBS]:
        texts += tokenizer_texts(clean_web(number, settings.pages_per_web), Random(f"texts/{seed}/{number}"))
    tokenizer = build_tokenizer(texts, vocab_size=settings.vocab_size)
    exercises: list[Exercise] = []
    for number in seeds[1:]:
        exercises += _exercises(tokenizer, number, settings, settings.documents_per_web, seed)
    validation = list(_exercises(tokenizer, seeds[0], settings, _NUM_VALIDATION, seed))
    return pretrain(exercises, validation, tokenizer, settings=settings, out=out, seed=seed, on_step=on_step)


def clean_web(seed: int, num_pages: int) -> Web:
    """A web to pre-train on, without the pages and facts that bear a full name of a default web."""
    return read_web(seed, num_pages).without(default_names())


@cache
def default_names() -> frozenset[str]:
    """Names of all things of the webs that the default run and the reproduction train and test on."""
    sizes = WorldSettings()
    names: set[str] = set()
    for seed, num_pages in product(REPRODUCED_SEEDS, (sizes.num_pages, sizes.num_heldout_pages)):
        graph = World(seed, num_pages).graph
        for number in range(graph.plan.num_regions):
            region = graph.region(number)
            names |= {entity.name for entities in region.by_type.values() for entity in entities}
    return frozenset(names)


def _exercises(
    tokenizer: "PreTrainedTokenizerFast", web_seed: int, settings: PretrainSettings, num: int, seed: int
) -> "Iterator[Exercise]":
    web, rng = clean_web(web_seed, settings.pages_per_web), Random(f"exercises/{seed}/{web_seed}")
    for document in documents(web, rng, num):
        yield encode(tokenizer, document)


def encode(tokenizer: "PreTrainedTokenizerFast", document: Document) -> "Exercise":
    """Token ids of a document, and the mask of what is learnt: pages, and the answers of exercises."""
    from webdancer.train.pretrain import Exercise

    start, end, stop = (
        tokenizer.added_tokens_encoder[name] for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    )
    ids: list[int] = []
    mask: list[bool] = []

    def add(tokens: list[int], *, learnt: bool) -> None:
        ids.extend(tokens)
        mask.extend([learnt] * len(tokens))

    for turn in document:
        if turn.role == "text":
            add([*tokenizer.encode(turn.text), stop], learnt=True)
        else:
            add([start, *tokenizer.encode(f"{turn.role}\n")], learnt=False)
            add([*tokenizer.encode(turn.text), end], learnt=turn.role == "assistant")
            add(tokenizer.encode("\n"), learnt=False)
    mask[0] = False  # nothing comes before it
    return Exercise(ids[:_MAX_TOKENS], mask[:_MAX_TOKENS])
