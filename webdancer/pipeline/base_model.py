"""Makes the tiny base model that ships with the package: corpus of other webs, tokenizer, pre-training."""

from array import array
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from webdancer.config import PretrainSettings, WorldSettings
from webdancer.pipeline.base_corpus import documents, tokenizer_texts
from webdancer.pipeline.base_web import FIRST_SEED, Document, Web, read_web
from webdancer.world.facts import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from webdancer.train.pretrain import Exercise

REPRODUCED_SEEDS = (7, 8, 17, 18, 27, 28)
"""Seeds of the default webs and of those of `webdancer reproduce`."""
_MAX_TOKENS = 1024
_NUM_TOKENIZER_WEBS = 12
_NUM_VALIDATION = 150


def make_base(
    out: Path, settings: PretrainSettings, *, seed: int, on_step: Callable[[dict[str, float]], None]
) -> dict[str, float]:
    """Train the base model into `out`, a Hugging Face folder; returns its last metrics."""
    from webdancer.train.pretrain import pretrain
    from webdancer.train.tokenizer import build_tokenizer

    seeds = web_seeds(settings)
    texts: list[str] = []
    for number in seeds[:_NUM_TOKENIZER_WEBS]:
        texts += tokenizer_texts(clean_web(number, settings.pages_per_web), Random(f"texts/{seed}/{number}"))
    tokenizer = build_tokenizer(texts, vocab_size=settings.vocab_size)
    exercises: list[Exercise] = []
    for number in seeds[1:]:
        exercises += _exercises(tokenizer, number, settings, settings.documents_per_web, seed)
    validation = _exercises(tokenizer, seeds[0], settings, _NUM_VALIDATION, seed)
    return pretrain(exercises, validation, tokenizer, settings=settings, out=out, seed=seed, on_step=on_step)


def web_seeds(settings: PretrainSettings) -> list[int]:
    """Seeds of the webs: the first is for validation, the others for training."""
    return [FIRST_SEED + 7919 * number for number in range(settings.num_webs + 1)]


def clean_web(seed: int, num_pages: int) -> Web:
    """A web to pre-train on, without the pages and facts that bear a full name of a default web."""
    return read_web(seed, num_pages).without(default_names())


@cache
def default_names() -> frozenset[str]:
    """Names of all things of the default webs, for every seed of the reproduction, whose own training webs are larger."""
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
) -> "list[Exercise]":
    web, rng = clean_web(web_seed, settings.pages_per_web), Random(f"exercises/{seed}/{web_seed}")
    return encode(tokenizer, list(documents(web, rng, num)))


def encode(tokenizer: "PreTrainedTokenizerFast", many: Sequence[Document]) -> "list[Exercise]":
    """Token ids of documents, and the masks of what is learnt: pages, and the answers of exercises.

    <|im_start|>user\\n TASK <|im_end|>\\n<|im_start|>assistant\\n ANSWER <|im_end|>\\n        TEXT <|endoftext|>
                0  0   0      0     0         0          0    0   1       1      0          0 1      1
    """
    from webdancer.train.pretrain import Exercise

    start, end, stop = (
        tokenizer.added_tokens_encoder[name] for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    )
    heads = {role: [start, *tokenizer.encode(f"{role}\n")] for role in ("user", "assistant")}
    newline = tokenizer.encode("\n")
    encoded = iter(tokenizer.backend_tokenizer.encode_batch([turn.text for document in many for turn in document]))
    exercises = []
    for document in many:
        ids: list[int] = []
        mask: list[bool] = []
        for turn in document:
            text, head = next(encoded).ids, heads.get(turn.role, [])
            learnt = turn.role != "user"
            body = [*text, end, *newline] if head else [*text, stop]
            ids += [*head, *body]
            mask += [*[False] * len(head), *[learnt] * len(body)]
            if head:
                mask[-len(newline) :] = [False] * len(newline)
        mask[0] = False  # nothing comes before it
        exercises.append(Exercise(array("i", ids[:_MAX_TOKENS]), array("b", mask[:_MAX_TOKENS])))
    return exercises
