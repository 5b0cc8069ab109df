"""Which questions are for SFT, for RL, and held out. The three sets are disjoint (paper, sections 3 and 4).

Held-out questions come from a web of their own where there is one. A user who has one site only gets a split of its
questions in which no answer chain is on both sides.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from webdancer.records import QA, QAKind, QASplit
from webdancer.synth.checks import fold
from webdancer.synth.seeds import derive_seed

MIN_FILLED = 0.8
"""Share of the wanted held-out questions that is enough; to fill up the rest, more pages would become hubs."""


def mark_heldout(qas: Sequence[QA]) -> list[QA]:
    """All of them held out."""
    return [_with_split(qa, QASplit.HELDOUT) for qa in qas]


def split_sft_rl(qas: Sequence[QA], *, sft_share: float, seed: int) -> list[QA]:
    """The questions in their order, of every kind a share of `sft_share` for SFT (rounded) and the others for RL."""
    by_kind: dict[QAKind, list[QA]] = defaultdict(list)
    for qa in qas:
        by_kind[qa.kind].append(qa)
    for_sft: set[str] = set()
    for same_kind in by_kind.values():
        drawn = sorted(same_kind, key=lambda qa: (derive_seed(seed, "split", qa.id), qa.id))
        for_sft |= {qa.id for qa in drawn[: round(sft_share * len(drawn))]}
    return [_with_split(qa, QASplit.SFT if qa.id in for_sft else QASplit.RL) for qa in qas]


class SiteSplit(NamedTuple):
    """The questions of one site, parted."""

    train: list[QA]
    heldout: list[QA]
    hubs: list[str]
    """Evidence pages that both sides may use, because so many questions do that nothing could be parted else."""


def split_single_site(qas: Sequence[QA], *, heldout_share: float, seed: int) -> SiteSplit:
    """Part the questions of one site so that no answer chain is on both sides.

    A chain is a question's answer with its evidence pages; chains that share an answer or a page belong together (a
    number is no common answer: that two lists have seven entries connects nothing). Hub pages do not connect either.
    Hubs are the pages with the most questions, as few of them as needed for groups that can be parted: the held-out side
    is filled with the groups in seeded order, as long as they fit in `heldout_share` of the questions.
    """
    wanted = round(heldout_share * len(qas))
    uses = Counter(url for qa in qas for url in set(qa.evidence_urls))
    ranked = sorted(uses, key=lambda url: (-uses[url], url))
    num_hubs = 0
    while True:
        hubs = set(ranked[:num_hubs])
        heldout = _fill(_chains(qas, hubs), wanted, seed)
        if len(heldout) >= MIN_FILLED * wanted or num_hubs == len(ranked):
            break
        num_hubs = min(len(ranked), num_hubs + max(1, num_hubs // 4))
    train = [qa for qa in qas if qa.id not in heldout]
    held = [_with_split(qa, QASplit.HELDOUT) for qa in qas if qa.id in heldout]
    return SiteSplit(train, held, _shared(train, held))


def _shared(train: Iterable[QA], heldout: Iterable[QA]) -> list[str]:
    """The pages that both sides do use."""
    ours, theirs = ({url for qa in side for url in qa.evidence_urls} for side in (train, heldout))
    return sorted(ours & theirs)


def _fill(chains: list[list[QA]], wanted: int, seed: int) -> set[str]:
    """Ids of the questions of whole chains, in seeded order, at most `wanted` of them."""
    chosen: set[str] = set()
    for chain in sorted(chains, key=lambda chain: derive_seed(seed, "site", chain[0].id)):
        if len(chosen) + len(chain) <= wanted:
            chosen |= {qa.id for qa in chain}
    return chosen


def _chains(qas: Sequence[QA], hubs: set[str]) -> list[list[QA]]:
    """The questions grouped by what connects them (union-find over their answers and pages)."""
    parent: dict[str, str] = {}

    def find(item: str) -> str:
        root = item
        while parent.setdefault(root, root) != root:
            root = parent[root]
        while parent[item] != root:
            parent[item], item = root, parent[item]
        return root

    for qa in qas:
        for item in _links(qa, hubs):
            parent[find(item)] = find(f"question {qa.id}")
    chains: dict[str, list[QA]] = defaultdict(list)
    for qa in qas:
        chains[find(f"question {qa.id}")].append(qa)
    return list(chains.values())


def _links(qa: QA, hubs: set[str]) -> list[str]:
    """What connects a question with others."""
    answer = fold(qa.answer)
    pages = [f"page {url}" for url in qa.evidence_urls if url not in hubs]
    return pages if answer.isdecimal() else [*pages, f"answer {answer}"]


def _with_split(qa: QA, split: QASplit) -> QA:
    return qa.model_copy(update={"split": split})
