"""SFT by ours and by TRL, and the checkpoint that rollouts start from."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback

from benchmarks.train_common import NEVER, SEED, Clock, Json, common_arguments, config_of, open_peer_model
from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.config import Config
from webdancer.records import Trajectory
from webdancer.store import read_records
from webdancer.train.sft import SftProgress, train_on_examples, train_sft
from webdancer.train.sft_data import Example
from webdancer.train.tokens import ChatTokens, encode_trajectory


def load_examples(run: Path, base: Path, num: int | None) -> tuple[Config, ChatTokens, list[Example]]:
    """The run's trajectories as sequences, without those that are longer than the context; the first `num`."""
    config, tokens = config_of(run), ChatTokens.load(base)
    examples = []
    for trajectory in read_records(run / "sft.jsonl", Trajectory):
        token_ids, mask = encode_trajectory(tokens, trajectory, TOOL_SCHEMAS, prompt=config.agent.prompt)
        if len(token_ids) <= config.policy.max_context:
            examples.append(Example(trajectory.id, trajectory.qa_id, token_ids, mask))
    return config, tokens, examples[:num]


class StepTimes:
    """What each finished optimizer step had read and used so far."""

    def __init__(self) -> None:
        self.clocks: list[Clock] = []
        self.num_tokens: list[int] = []

    def add(self, num_tokens: int) -> None:
        self.clocks.append(Clock.now())
        self.num_tokens.append(num_tokens)

    def between(self, first: int, last: int) -> Json:
        """From the end of step `first` to the end of step `last`, counted from 1."""
        if last <= first:
            raise SystemExit(
                f"too few trajectories: only {len(self.clocks)} optimizer steps, expected at least {first + 2}"
            )
        wall, cpu = self.clocks[last - 1].since(self.clocks[first - 1])
        num_tokens = self.num_tokens[last - 1] - self.num_tokens[first - 1]
        return {
            "steps": last - first,
            "tokens": num_tokens,
            "wall_s": wall,
            "cpu_s": cpu,
            "tokens_per_s": num_tokens / wall,
            "tokens_per_cpu_s": num_tokens / cpu,
            "tokens_per_step": num_tokens / (last - first),
        }


def sft_ours(*, run: str, base: str, num: int | None, warmup: int, out: str) -> Json:
    """One epoch; the last step is left out, because it also saves."""
    config, tokens, examples = load_examples(Path(run), Path(base), num)
    folder = Path(out)
    shutil.rmtree(folder, ignore_errors=True)
    changes = {"num_epochs": 1.0, "validation_share": 0.0, "save_every_steps": NEVER}
    times = StepTimes()

    def on_progress(progress: SftProgress) -> None:
        times.add(0)

    result = train_on_examples(
        examples,
        base=Path(base),
        tokenizer=tokens.tokenizer,
        out=folder,
        settings=config.sft.model_copy(update=changes),
        policy=config.policy,
        seed=SEED,
        on_progress=on_progress,
    )
    total = 0
    for number, line in enumerate((folder / "metrics.jsonl").read_text().splitlines()):
        total += int(json.loads(line)["tokens"])
        times.num_tokens[number] = total
    return times.between(warmup, result.num_steps - 1)


def sft_trl(*, run: str, base: str, num: int | None, warmup: int, setting: Json, out: str) -> Json:
    """One epoch of TRL's SFTTrainer over the same sequences, with as many tokens per optimizer step on average."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    config, tokens, examples = load_examples(Path(run), Path(base), num)
    rows = setting["rows"]  # sequences of a forward pass; blocks of `max_context` tokens where they are packed
    mean_length = sum(len(example.token_ids) for example in examples) / len(examples)
    row_tokens = config.policy.max_context if setting["layout"] == "packed" else mean_length
    layouts: dict[str, Json] = {
        "padded": {"max_length": config.policy.max_context, "train_sampling_strategy": "group_by_length"},
        "padding-free": {"max_length": None, "padding_free": True},
        "packed": {"max_length": config.policy.max_context, "packing": True, "packing_strategy": "bfd"},
    }
    arguments = SFTConfig(
        **common_arguments(setting, Path(out), config.sft.learning_rate),
        **layouts[setting["layout"]],
        pad_to_multiple_of=setting["pad_to_multiple_of"],
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=max(1, round(config.sft.batch_tokens / (rows * row_tokens))),
        num_train_epochs=1,
        lr_scheduler_type="cosine",
        weight_decay=config.sft.weight_decay,
    )
    data = Dataset.from_list(
        [
            {
                "input_ids": list(example.token_ids),
                "labels": [
                    token if written else -100 for token, written in zip(example.token_ids, example.mask, strict=True)
                ],
            }
            for example in examples
        ]
    )
    times = StepTimes()

    class Trainer(SFTTrainer):
        num_tokens = 0

        def training_step(self, model: Any, inputs: Json, *rest: Any, **named: Any) -> Any:
            mask = inputs.get("attention_mask")
            self.num_tokens += int(inputs["input_ids"].numel() if mask is None else mask.sum())
            return super().training_step(model, inputs, *rest, **named)  # type: ignore[no-untyped-call]

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.add(trainer.num_tokens)

    model = open_peer_model(Path(base), setting)
    gap = None if setting["layout"] == "padded" else leakage(model, examples[0].token_ids, examples[1].token_ids)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokens.tokenizer, callbacks=[Watch()]
    )
    trainer.train()
    return times.between(warmup, len(times.clocks) - 1) | {"leakage": gap}


@torch.no_grad()
def leakage(model: PreTrainedModel, first: Sequence[int], second: Sequence[int]) -> float:
    """How much a sequence's logits change (largest difference over largest logit) when another stands before it in a block.

    The block is given as TRL's collator gives it: positions start again, no attention mask. Rounding alone leaves some 1e-2 in
    bfloat16; a sequence that sees the other, more.
    """
    positions = torch.tensor([[*range(len(first)), *range(len(second))]])
    both = model(input_ids=torch.tensor([[*first, *second]]), position_ids=positions, use_cache=False).logits
    alone = model(input_ids=torch.tensor([list(second)]), use_cache=False).logits
    return float((both[:, len(first) :] - alone).abs().max() / alone.abs().max())


def make_checkpoint(*, run: str, base: str, epochs: float, num: int | None, out: str) -> Json:
    """A policy that follows the format, for rollouts of several turns."""
    config = config_of(Path(run))
    shutil.rmtree(out, ignore_errors=True)
    result = train_sft(
        list(read_records(Path(run) / "sft.jsonl", Trajectory))[:num],
        base=Path(base),
        out=Path(out),
        settings=config.sft.model_copy(update={"num_epochs": epochs}),
        policy=config.policy,
        prompt=config.agent.prompt,
        schemas=TOOL_SCHEMAS,
        seed=SEED,
    )
    return {"validation_loss": result.validation_loss, "seconds": result.seconds}
