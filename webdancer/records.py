"""The records that the stages hand to each other, one JSON object per line in a file.

Implements the vocabulary of the paper's sections 2 to 4: questions, ReAct steps, trajectories and the funnel's
verdicts. Everything is frozen, and an unknown field is an error, so that a file written by another version is noticed
rather than half read. This module imports nothing of ours.
"""

from datetime import date, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator


class Record(BaseModel):
    """Base of all records: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Page(Record):
    """One page of a snapshot, after extraction."""

    url: str
    title: str
    text: str
    """Main text. Headings are lines that open with `#`, list items open with `- `, table cells are joined by ` | `."""
    links: tuple[str, ...] = ()
    """Absolute, canonical URLs in the order of the page, each once."""
    published: date | None = None
    fetched_at: datetime
    content_hash: str
    """Hex SHA-256 of the body as received, after content decoding."""


class QAKind(StrEnum):
    """The question types of CRAWLQA, and E2HQA (paper, section 2)."""

    COUNT = "count"
    MULTI_HOP = "multi_hop"
    INTERSECTION = "intersection"
    EASY_TO_HARD = "easy_to_hard"


class QASplit(StrEnum):
    """What a question is for. The three sets are disjoint."""

    SFT = "sft"
    RL = "rl"
    HELDOUT = "heldout"


class QA(Record):
    """One question with its reference answer."""

    id: str
    question: str
    answer: str
    kind: QAKind
    evidence_urls: tuple[str, ...]
    parent_id: str | None = None
    """For easy_to_hard: the question that this one was rewritten from."""
    num_rewrites: int = 0
    split: QASplit | None = None


class ToolError(StrEnum):
    """Why a step has no ordinary observation. The first six are the model's mistakes, the others the tool's failures."""

    INVALID_JSON = "invalid_json"
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"
    INVALID_FORMAT = "invalid_format"
    INVENTED_OBSERVATION = "invented_observation"
    PAGE_NOT_FOUND = "page_not_found"
    """There is no page under the URL that the model gave."""
    TOOL_FAILED = "tool_failed"
    TOOL_TIMEOUT = "tool_timeout"


class Step(Record):
    """One round of thought, action and observation. The turn that holds the answer is a step without a tool."""

    thought: str
    tool: str | None = None
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    observation: str | None = None
    error: ToolError | None = None
    raw: str | None = None
    """The turn as the model wrote it, kept only where it does not follow the format."""
    cut: bool = False
    """The model did not end the turn: its token limit did, or a stop string."""
    seconds: float = 0.0


class Status(StrEnum):
    """How an episode ended."""

    ANSWERED = "answered"
    FORCED_ANSWER = "forced_answer"
    """Answered only when a limit was reached and the loop demanded an answer."""
    STEP_LIMIT = "step_limit"
    TOKEN_LIMIT = "token_limit"
    TIME_LIMIT = "time_limit"
    CONTEXT_FULL = "context_full"
    INVALID_FORMAT = "invalid_format"
    MODEL_ERROR = "model_error"


class CotMode(StrEnum):
    """Short CoT: thought and action in one text. Long CoT: the thought is the model's reasoning (paper, section 3)."""

    SHORT = "short"
    LONG = "long"


class Usage(Record):
    """What an episode or a call consumed."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Those of the prompt tokens that the endpoint had cached."""
    completion_tokens: int = 0
    """With the tokens of a reasoning model's thoughts."""
    llm_calls: int = 0
    tool_calls: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            llm_calls=self.llm_calls + other.llm_calls,
            tool_calls=self.tool_calls + other.tool_calls,
        )


class Trajectory(Record):
    """One episode. Text only: SFT, judge, report and app read it."""

    id: str
    qa_id: str
    question: str
    model: str
    seed: int
    mode: CotMode = CotMode.SHORT
    steps: tuple[Step, ...]
    answer: str | None
    status: Status
    usage: Usage = Usage()
    num_tokens: int = 0
    """Prompt and completion tokens of the longest call: the whole episode as the model read it."""
    detail: str = ""
    """What the endpoint said, where the model failed."""


class VerdictStage(StrEnum):
    """The funnel's stages in their order (paper, section 3.2)."""

    VALIDITY = "validity"
    CORRECTNESS = "correctness"
    RULES = "rules"
    CRITIC = "critic"


class VerdictReason(StrEnum):
    """Why a trajectory passed or fell."""

    PASSED = "passed"
    # validity
    NOT_ANSWERED = "not_answered"
    NO_THOUGHT = "no_thought"
    BROKEN_TAGS = "broken_tags"
    INVALID_JSON = "invalid_json"
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"
    TEXT_OUTSIDE_TAGS = "text_outside_tags"
    NO_ACTION = "no_action"
    # correctness
    WRONG_ANSWER = "wrong_answer"
    JUDGE_FAILED = "judge_failed"
    # rules
    SEVERAL_ACTIONS = "several_actions"
    INVENTED_OBSERVATION = "invented_observation"
    REPETITION = "repetition"
    REPEATED_ACTION = "repeated_action"
    TOO_FEW_ACTIONS = "too_few_actions"
    TOO_MANY_ERRORS = "too_many_errors"
    # critic
    REDUNDANT = "redundant"
    OFF_GOAL = "off_goal"
    ILLOGICAL = "illogical"
    INACCURATE = "inaccurate"
    CRITIC_FAILED = "critic_failed"


class Judgement(Record):
    """Does an answer equal the reference? The judge's word and the normalised exact match, both recorded."""

    correct: bool
    """The judge role's verdict."""
    exact_match: bool
    text: str
    """The judge's reason, verbatim."""


class Verdict(Record):
    """What one stage of the funnel says of one trajectory."""

    id: str
    """`TRAJECTORY_ID/STAGE`"""
    trajectory_id: str
    stage: VerdictStage
    keep: bool
    reason: VerdictReason
    score: float | None = None
    detail: str = ""
    judgement: Judgement | None = None
    """Only at the correctness stage."""


class EvalResult(Record):
    """One question put to one system."""

    id: str
    """`SYSTEM/QA_ID`"""
    system: str
    qa_id: str
    kind: QAKind
    num_rewrites: int
    answer: str | None
    correct: bool | None
    """The judge role's verdict; None where the judge failed."""
    exact_match: bool
    status: Status
    num_actions: int = 0
    """Tool calls."""
    num_turns: int = 0
    num_tokens: int = 0
    """Of the whole episode: the longest prompt and its completion."""
    num_hops: int = 0
    """Evidence pages of the question."""
    trajectory_id: str | None = None


class Reward(Record):
    """What one rollout earned (paper, section 4.2): format and answer, weighted, less any punishment for length."""

    total: float
    format: float
    """1 where the whole trajectory follows the format."""
    answer: float
    """1 where the judge role says that the answer is right."""
    judge_text: str = ""


class Sample(Record):
    """One rollout as the trainer reads it. `token_ids`, `mask` and `logprobs` have one length L."""

    id: str
    group_id: str
    """Rollouts of one question in one round."""
    token_ids: tuple[int, ...]
    mask: tuple[bool, ...]
    """True where the policy sampled the token."""
    logprobs: tuple[float, ...]
    """Log-probability under the distribution that sampled the token; 0.0 where the mask is False."""
    reward: Reward
    advantage: float = 0.0
    status: Status
    policy_version: int
    """Number of optimizer steps that the sampling policy had seen."""

    @model_validator(mode="after")
    def _lengths_agree(self) -> "Sample":
        if not len(self.token_ids) == len(self.mask) == len(self.logprobs):
            raise ValueError(
                f"sample {self.id}: got {len(self.token_ids)} tokens, {len(self.mask)} mask values and "
                f"{len(self.logprobs)} logprobs, expected equal numbers"
            )
        return self
