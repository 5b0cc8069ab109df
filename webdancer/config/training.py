"""Settings of the policy and of its training."""

from typing import Literal

from pydantic import Field

from webdancer.config.base import Settings


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
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; the trained weights and the optimizer are float32. `auto` is bfloat16 on CUDA and on processors
    that multiply it faster (with AMX; AMD's with AVX512_BF16), else float32: elsewhere bfloat16 is slower, up to many times."""
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
