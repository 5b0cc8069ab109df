"""The settings of all stages: one frozen object that travels through them.

Every setting has a default; `configs/*.toml` show the settings in use (`tiny`: the default run), and `settings_file` reads such
files.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from webdancer.records import CotMode, QAKind


class Settings(BaseModel):
    """Base of all sections: frozen, no unknown keys, no silent conversions between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class WorldSettings(Settings):
    """The embedded web. Ignored where `crawl.urls` names real sites."""

    num_pages: int = Field(3400, ge=20)
    num_heldout_pages: int = Field(2720, ge=20)
    seed: int = 7
    heldout_seed: int = 8
    right_share: float = Field(0.5, ge=0, le=1)
    """Share of the posts on the talk host that are right."""


class CrawlSettings(Settings):
    """How sites are crawled."""

    urls: tuple[str, ...] = ()
    """Root URLs. Empty: the embedded web."""
    resolve: dict[str, str] = {}
    """Host name → `address:port`, used in place of DNS."""
    max_pages: int = Field(5000, ge=1)
    max_depth: int = Field(12, ge=0)
    max_pages_per_host: int = Field(5000, ge=1)
    same_host: bool = True
    """Stay on the hosts of the root URLs."""
    path_prefixes: tuple[str, ...] = ()
    """Only URLs whose path starts with one of these; empty: all."""
    include: tuple[str, ...] = ()
    """Regular expressions; a URL must match one of them, if there are any."""
    exclude: tuple[str, ...] = ()
    """Regular expressions; a URL that matches one of them is left out."""
    headers: dict[str, str] = {}
    user_agent: str = "webdancer/0.1"
    obey_robots: bool = True
    max_per_host: int = Field(8, ge=1)
    """Requests to one host under way at once."""
    delay_s: float = Field(0.0, ge=0)
    """Least time between two requests to one host; a longer Crawl-delay in robots.txt wins."""
    max_crawl_delay_s: float = Field(30.0, ge=0)
    timeout_s: float = Field(20.0, gt=0)
    max_bytes: int = Field(20_000_000, ge=1)
    """Largest body, after decompression."""
    max_compression_ratio: int = Field(200, ge=1)
    max_redirects: int = Field(5, ge=0)
    max_url_length: int = Field(2000, ge=10)
    max_path_repeats: int = Field(3, ge=1)
    """How often one path segment may recur in a URL before it counts as a trap."""
    max_per_pattern: int = Field(2000, ge=1)
    """Pages of one URL pattern (digits folded, query values dropped) on one host before the rest counts as a trap."""
    max_barren_per_pattern: int = Field(200, ge=1)
    """Pages of URLs that differ only in digits, that lead only to each other and say nothing new, before the rest counts
    as a trap (an endless calendar)."""


class EndpointSettings(Settings):
    """One chat model."""

    base_url: str = "scribe"
    """`scribe` for the built-in reader, or the root of an OpenAI-compatible API (`https://…/v1`)."""
    model: str = "scribe"
    api_key_env: str | None = None
    """Name of the environment variable that holds the key."""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    timeout_s: float = Field(120.0, gt=0)
    max_attempts: int = Field(5, ge=1)
    max_concurrent: int = Field(32, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)


class ScribeFaultSettings(Settings):
    """Shares of episodes in which the scribe, as teacher, commits one labelled fault."""

    broken_json: float = Field(0.03, ge=0, le=1)
    unknown_tool: float = Field(0.03, ge=0, le=1)
    two_actions: float = Field(0.03, ge=0, le=1)
    invented_observation: float = Field(0.03, ge=0, le=1)
    repetition: float = Field(0.03, ge=0, le=1)
    wrong_answer: float = Field(0.04, ge=0, le=1)
    giving_up: float = Field(0.03, ge=0, le=1)


class LlmSettings(Settings):
    """The model of each role; a role left out takes `default`."""

    default: EndpointSettings = EndpointSettings()
    teacher: EndpointSettings | None = None
    writer: EndpointSettings | None = None
    rewriter: EndpointSettings | None = None
    summariser: EndpointSettings | None = None
    judge: EndpointSettings | None = None
    critic: EndpointSettings | None = None
    faults: ScribeFaultSettings = ScribeFaultSettings()
    shortcuts: float = Field(0.0, ge=0, le=1)
    """Share of hops at which the scribe, as teacher, takes the word of a forum post and leaves the page unread."""
    vary_wording: bool = True
    """Whether the scribe, as teacher, says the same in various words. Learning them costs a tiny policy much of its training."""


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


class PretrainSettings(Settings):
    """The recipe of the tiny base model that ships with the package."""

    num_webs: int = Field(160, ge=1)
    """Webs of the embedded web's generator, none of them a run's own, that the model reads."""
    pages_per_web: int = Field(600, ge=20)
    documents_per_web: int = Field(500, ge=1)
    vocab_size: int = Field(2048, ge=512)
    """Small, so that SFT shows nearly every token: what it never shows, the policy unlearns to copy."""
    hidden_size: int = Field(192, ge=64, multiple_of=64)
    num_layers: int = Field(4, ge=1)
    intermediate_size: int = Field(512, ge=64)
    num_steps: int = Field(10_000, ge=1)
    batch_tokens: int = Field(4096, ge=256)
    """Tokens of one step, padding counted."""
    learning_rate: float = Field(2e-3, gt=0)
    """Of all that is no matrix; matrices learn at ten times that rate, by Muon."""
    warmup_steps: int = Field(100, ge=1)
    decay_share: float = Field(0.4, gt=0, le=1)
    eval_every_steps: int = Field(500, ge=1)


class PolicySettings(Settings):
    """The model that is trained, and how it generates."""

    base: str = "tiny"
    """`tiny` for the checkpoint that ships with the package, or a Hugging Face folder or name. `none`: no policy is trained,
    the stages sft and rl do nothing, and only the other systems are evaluated."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the computation; the trained weights and the optimizer are float32."""
    num_threads: int | None = Field(None, ge=1)
    """CPU threads; None takes torch's own number."""
    max_context: int = Field(2048, ge=64)
    """Tokens of one episode."""
    max_batch: int = Field(256, ge=1)
    """Episodes that the engine decodes at once."""
    lora_rank: int = Field(0, ge=0)
    """0 trains all weights."""
    lora_alpha: int = Field(32, ge=1)
    embedding_rate_share: float = Field(1.0, gt=0, le=1)
    """Learning rate of the embeddings as a share of the others'. AdamW moves the rows of names that training hardly shows as far
    as all others: a small model that learns fast forgets how to spell them."""
    gradient_checkpointing: bool = False


class SftSettings(Settings):
    """Supervised fine-tuning, the cold start."""

    num_epochs: float = Field(4.0, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    min_learning_rate_share: float = Field(0.05, ge=0, le=1)
    """Where the cosine ends, as a share of `learning_rate`."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    batch_tokens: int = Field(8192, ge=1)
    """Tokens (padding not counted) of one optimizer step, over all processes."""
    micro_batch_tokens: int = Field(8192, ge=1)
    """Tokens (padding counted) of one forward pass."""
    validation_share: float = Field(0.05, ge=0, lt=1)
    evals_per_epoch: int = Field(2, ge=1)
    patience: int = Field(3, ge=1)
    """Validations without a gain before training stops; the best weights are kept."""
    save_every_steps: int = Field(50, ge=1)


class RlSettings(Settings):
    """Reinforcement learning with DAPO."""

    num_steps: int = Field(10, ge=0)
    """Batches of rollouts."""
    groups_per_step: int = Field(32, ge=1)
    rollouts_per_group: int = Field(8, ge=2)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    updates_per_step: int = Field(2, ge=1)
    """Optimizer steps on one batch of rollouts; fewer where it has fewer groups."""
    micro_batch_tokens: int = Field(8192, ge=1)
    clip_low: float = Field(0.2, gt=0)
    clip_high: float = Field(0.28, gt=0)
    format_weight: float = Field(0.1, ge=0, le=1)
    dynamic_sampling: bool = True
    """Groups all right or all wrong are dropped, and others sampled in their place."""
    max_extra_rounds: int = Field(2, ge=0)
    """Further rounds of rollouts to fill a batch."""
    overlong: Literal["none", "soft", "filter"] = "none"
    overlong_buffer: int = Field(256, ge=1)
    """Soft: the punishment grows from 0 to 1 over the last so many tokens of the context."""
    importance_cap: float | None = Field(None, gt=0)
    """Truncated importance correction between the engine's and the trainer's log-probabilities; None leaves it out."""
    recompute_logprobs: bool = False
    """Take the old log-probabilities from the trainer instead of the engine."""
    deterministic: bool = False
    """Waves and seeds are fixed, so that a resumed run is bit-identical. On the CPU only, with as many threads."""
    concurrency: int = Field(512, ge=1)
    """Episodes under way at once; never more than `policy.max_batch`."""
    save_every_steps: int = Field(5, ge=1)
    num_kept_rollouts: int = Field(4, ge=0)
    """Groups of each step whose rollouts are kept for reading."""


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


class Config(Settings):
    """All settings of a run."""

    seed: int = 0
    world: WorldSettings = WorldSettings()
    crawl: CrawlSettings = CrawlSettings()
    llm: LlmSettings = LlmSettings()
    agent: AgentSettings = AgentSettings()
    synth: SynthSettings = SynthSettings()
    sample: SampleSettings = SampleSettings()
    funnel: FunnelSettings = FunnelSettings()
    pretrain: PretrainSettings = PretrainSettings()
    policy: PolicySettings = PolicySettings()
    sft: SftSettings = SftSettings()
    rl: RlSettings = RlSettings()
    eval: EvalSettings = EvalSettings()
