"""A very small random Qwen3 with a tokenizer of its own, and samples for it, shared by the tests of reinforcement learning."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from webdancer.llm.prompts import load_prompt
from webdancer.records import Reward, Sample, Status
from webdancer.train.dapo import group_advantages
from webdancer.train.learner import Learner
from webdancer.train.tokenizer import build_tokenizer

TEXTS = (load_prompt("agent_brief"), "Which word is it?", "<think>\nguess\n</think>\n<answer>\nred\n</answer>", "blue")


def toy_tokenizer(texts: Iterable[str] = TEXTS, *, vocab_size: int = 360) -> PreTrainedTokenizerFast:
    return build_tokenizer(list(texts) * 4, vocab_size=vocab_size)


def toy_model(*, vocab_size: int = 360, hidden: int = 32, num_layers: int = 2, seed: int = 0) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,  # larger than usual: random log-probabilities shall differ
    )
    return Qwen3ForCausalLM(config).float().train()


def toy_samples(
    rewards: Sequence[Sequence[float]], *, seed: int = 0, vocab_size: int = 360, logprob: float | None = None
) -> list[Sample]:
    """One group for each list of rewards; random tokens, two turns of the policy with an observation between them.

    `logprob`: of every sampled token; None draws them between -7 and -4, near what a random model says.
    """
    rng = random.Random(seed)
    samples = []
    for group, group_rewards in enumerate(rewards):
        advantages = group_advantages(group_rewards)
        for number, (reward, advantage) in enumerate(zip(group_rewards, advantages, strict=True)):
            sizes = [rng.randint(3, 9) for _ in range(4)]
            mask = [False] * sizes[0] + [True] * sizes[1] + [False] * sizes[2] + [True] * sizes[3]
            logprobs = [(rng.uniform(-7, -4) if logprob is None else logprob) if m else 0.0 for m in mask]
            samples.append(
                Sample(
                    id=f"g{group}-r{number}",
                    group_id=f"g{group}",
                    token_ids=tuple(rng.randrange(vocab_size) for _ in mask),
                    mask=tuple(mask),
                    logprobs=tuple(logprobs),
                    reward=Reward(total=reward, format=1.0, answer=float(reward > 0.5)),
                    advantage=advantage,
                    status=Status.ANSWERED,
                    policy_version=0,
                )
            )
    return samples


def step_by_sgd(learner: Learner, model: nn.Module) -> dict[str, Tensor]:
    """Put SGD in AdamW's place; the dictionary gets the gradients of each step, as the optimizer finds them."""
    learner._optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # type: ignore[assignment]
    gradients: dict[str, Tensor] = {}
    step = learner.step

    def keep_gradients(learning_rate: float) -> float:
        gradients.update({n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None})
        return step(learning_rate)

    learner.step = keep_gradients  # type: ignore[method-assign]
    return gradients


def run_processes(script: Path, *arguments: str, num_processes: int, timeout_s: float = 120.0) -> None:
    """Run a script in so many processes that find each other, as a launcher would start them."""
    root = Path(__file__).parents[2]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    if num_processes > 1:
        shared |= {"WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        shared |= {"GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true"}
    children = []
    for rank in range(num_processes):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if num_processes > 1 else {}
        command = [sys.executable, str(script), *arguments]
        children.append(
            subprocess.Popen(command, env=shared | ranks, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    try:
        for child in children:
            output, _ = child.communicate(timeout=timeout_s)
            assert child.returncode == 0, output.decode()[-3000:]
    finally:
        for child in children:
            child.kill()
            child.communicate()
