"""Settings of the agent and of the stages that make its data."""

from typing import Literal

from pydantic import Field, field_validator

from webdancer.config.base import Settings
from webdancer.records import CotMode, QAKind


class AgentSettings(Settings):
    """Limits of one episode."""

    max_steps: int = Field(24, ge=1)
    max_tokens: int = Field(32_000, ge=1)
    """Prompt and completion tokens of the longest call of an episode, as the model's usage counts them."""
    max_seconds: float = Field(600.0, gt=0)
    max_turn_tokens: int = Field(4096, ge=1)
    max_invalid_turns: int = Field(3, ge=1)
    """Invalid turns in a row before the episode ends."""
    force_answer: bool = True
    """Demand an answer once when a limit is reached."""
    num_results: int = Field(10, ge=1)
    max_queries: int = Field(3, ge=1)
    """Queries (or URLs) used of one call."""
    max_page_chars: int = Field(30_000, ge=100)
    """Characters of a page that the summariser is shown."""
    passages: Literal["lexical", "dense"] = "lexical"
    """How the passages of a longer page are chosen for the goal: by words, or the best of these by meaning (English; needs the
    extra `dense`, and half a second a page)."""
    tool_timeout_s: float = Field(60.0, gt=0)
    prompt: Literal["agent", "agent_brief"] = "agent"
    """The system prompt; the brief one suits a policy with a small context that has learnt its tools."""
    observations: Literal["full", "brief"] = "full"
    """Shape of the observations: as in the authors' release, or the same in fewer words."""
    max_snippet_chars: int | None = Field(None, ge=20)
    """A longer snippet is cut to the sentences nearest to the query."""
    max_evidence_chars: int | None = Field(None, ge=50)
    """Longer evidence is cut after a whole line."""


class SynthSettings(Settings):
    """How questions are made."""

    num_questions: dict[str, int] = {"count": 360, "multi_hop": 360, "intersection": 360, "easy_to_hard": 360}
    """Kept questions per kind that are aimed at, on the training web."""
    num_heldout_questions: dict[str, int] = {"count": 110, "multi_hop": 110, "intersection": 110, "easy_to_hard": 110}
    pages_per_group: int = Field(4, ge=2)
    max_page_chars: int = Field(20_000, ge=1000)
    """Longer pages are not asked about: they would have to be cut for the writer, and a list that is cut is counted wrongly. Not
    more than `agent.max_page_chars`, or the agent sees less of a page than the writer did."""
    max_groups_per_question: float = Field(6.0, gt=0)
    """Page groups tried per question aimed at, before a kind is given up."""
    questions_per_group: int = Field(2, ge=1)
    """Questions asked for in one call of the writer."""
    concurrency: int = Field(32, ge=1)
    """Page groups under way at once."""
    max_reasks: int = Field(2, ge=0)
    min_rewrites: int = Field(1, ge=1)
    max_rewrites: int = Field(5, ge=1)
    heldout_share: float = Field(0.2, gt=0, lt=1)
    """On a single site: share of the questions that is held out."""
    max_answer_share: float = Field(0.04, gt=0, le=1)
    """Largest share of a kind's questions that one answer may have."""
    drop_easy: bool = True
    """Drop questions that a closed-book answer or one search already gets right."""

    @field_validator("num_questions", "num_heldout_questions")
    @classmethod
    def _kinds_are_known(cls, numbers: dict[str, int]) -> dict[str, int]:
        for kind, number in numbers.items():
            if kind not in tuple(QAKind) or number < 0:
                raise ValueError(f"{kind} = {number}: expected a number of 0 or more for one of {', '.join(QAKind)}")
        return numbers


class SampleSettings(Settings):
    """How trajectories are sampled from the teacher."""

    mode: CotMode = CotMode.SHORT
    max_attempts: int = Field(5, ge=1)
    concurrency: int = Field(64, ge=1)
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    sft_share: float = Field(0.5, gt=0, lt=1)
    """Share of the training questions that are put to the teacher; the others wait for RL."""


class FunnelSettings(Settings):
    """Thresholds of the quality rules (paper, section 3.2)."""

    ngram: int = Field(10, ge=2)
    max_ngram_repeats: int = Field(4, ge=1)
    max_action_repeats: int = Field(2, ge=1)
    """How often the very same call may be made."""
    min_actions: int = Field(2, ge=0)
    max_tool_errors: int = Field(3, ge=0)
    use_critic: bool = True


class EvalSettings(Settings):
    """How held-out questions are scored."""

    systems: tuple[Literal["base", "sft", "sft_more", "rl", "scribe", "closed_book", "guess", "one_search"], ...] = (
        "base",
        "sft",
        "rl",
        "scribe",
        "closed_book",
        "guess",
        "one_search",
    )
    """`scribe` is the teacher's model without planted faults; where that is another model, its results are called `teacher`."""
    temperature: float = Field(0.0, ge=0)
    """Of the checkpoints `base`, `sft` and `rl`; 0 takes the likeliest token. The teacher keeps the settings of `sample`."""
    top_p: float = Field(1.0, gt=0, le=1)
    concurrency: int = Field(64, ge=1)
