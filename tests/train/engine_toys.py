"""Very small random models of the supported architectures, and plain forward passes to compare the engine with."""

import asyncio
import random
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from webdancer.train.engine import Generation, TokenSampling, TorchEngine

VOCAB = 120
_SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def toy_model(family: str = "qwen3", *, seed: int = 0, **changes: object) -> PreTrainedModel:
    """Random weights, norms and biases too, of a size that makes the distributions neither flat nor sharp."""
    torch.manual_seed(seed)
    model: PreTrainedModel
    if family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**{**_SHAPE, "head_dim": 16, **changes}))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**{**_SHAPE, **changes}))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.08 * torch.randn_like(weight))
    return model.eval()


def toy_engine(model: PreTrainedModel, **changes: object) -> TorchEngine:
    arguments: dict[str, object] = {"stop_ids": [5], "max_context": 256, "max_batch": 8, **changes}
    return TorchEngine(model, **arguments)  # type: ignore[arg-type]


def some_ids(num: int, seed: int) -> list[int]:
    """Random ids that are no stop ids."""
    rng = random.Random(seed)
    return [rng.randrange(6, VOCAB) for _ in range(num)]


@torch.no_grad()
def forward_logprobs(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """[L, V] log-softmax of the logits at each position, by one plain forward pass."""
    logits = model(torch.tensor([list(ids)])).logits
    return logits[0].float().log_softmax(-1)


def largest_gap(model: PreTrainedModel, ids: Sequence[int], generation: Generation) -> float:
    """Between the log-probabilities of a turn behind `ids` and those of a plain forward pass."""
    expected = forward_logprobs(model, [*ids, *generation.token_ids])
    return max(
        abs(float(expected[len(ids) + n - 1, id_]) - logprob)
        for n, (id_, logprob) in enumerate(zip(generation.token_ids, generation.logprobs, strict=True))
    )


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until `condition` holds."""
    while not condition():  # noqa: ASYNC110 - the engine has no event for what is waited for here
        await asyncio.sleep(0)


def plain(max_tokens: int = 8, *, seed: int = 0, temperature: float = 1.0, top_p: float = 1.0) -> TokenSampling:
    return TokenSampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
