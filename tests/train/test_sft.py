"""The masked loss and its one normaliser, what is trained and what is not, early stopping, errors, files."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from rl_toys import toy_model, toy_tokenizer
from safetensors.torch import load_file
from sft_toys import BF16, FP32, SETTINGS, plain_logprob, toy_base, toy_examples
from torch import Tensor
from transformers import AutoModelForCausalLM

from webdancer.config import PolicySettings, SftSettings
from webdancer.errors import TrainError
from webdancer.train import cpu_forward
from webdancer.train.batches import micro_batches
from webdancer.train.learner import Learner
from webdancer.train.model import cosine_share, token_logprobs
from webdancer.train.sft import EarlyStop, SftProgress, SftResult, train_on_examples
from webdancer.train.sft_data import Example, plan_steps, split_examples

ONE_STEP = SETTINGS.model_copy(
    update={"num_epochs": 1, "batch_tokens": 100_000, "validation_share": 0.0, "warmup_share": 0.0}
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return toy_base(tmp_path / "base")


def train(
    examples: list[Example],
    base: Path,
    out: Path,
    settings: SftSettings = SETTINGS,
    policy: PolicySettings = FP32,
    seen: list[SftProgress] | None = None,
    *,
    may_keep_start: bool = False,
) -> SftResult:
    return train_on_examples(
        examples,
        base=base,
        tokenizer=toy_tokenizer(),
        out=out,
        settings=settings,
        policy=policy,
        seed=5,
        may_keep_start=may_keep_start,
        on_progress=(lambda progress: None) if seen is None else seen.append,
    )


def metrics_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def gradients(examples: list[Example], *, max_tokens: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Of the loss over all examples, as one optimizer step of one process sees it."""
    model = toy_model()
    learner = Learner(model, Accelerator(cpu=True), dtype=dtype, weight_decay=0.0, max_grad_norm=math.inf)
    batches = micro_batches(examples, max_tokens=max_tokens)
    total = sum(batch.num_masked for batch in batches)
    for batch in batches:
        learner.backward(-token_logprobs(model, batch).sum() / total)
    found = {}
    for name, master in learner._masters.items():
        assert master.grad is not None
        found[name] = master.grad.clone()
    return found


# Written by the policy: three tokens of the first sequence, one of the second; L = -(a + b + c + d) / 4.
def test_loss_is_the_papers_sum_over_the_policys_tokens(base: Path, tmp_path: Path) -> None:
    examples = [
        Example("a", "a", [7, 1, 2, 3, 4, 5], [False, False, True, True, False, True]),
        Example("b", "b", [9, 8, 6], [False, True, False]),
    ]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    terms = [plain_logprob(model, [7, 1, 2, 3, 4, 5], t) for t in (2, 3, 5)] + [plain_logprob(model, [9, 8, 6], 1)]
    loss = -torch.stack(terms).sum() / 4
    train(examples, base, tmp_path / "out", ONE_STEP)
    (line,) = metrics_of(tmp_path / "out")
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert (line["tokens"], line["loss_tokens"], line["step"]) == (9, 4, 1)
    assert line["learning_rate"] == ONE_STEP.learning_rate
    loss.backward()
    norm = torch.cat([weight.grad.flatten() for weight in model.parameters()]).norm()
    assert line["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_the_learning_rate_warms_up_and_falls_and_is_what_the_optimizer_takes(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []
    step = Learner.step
    monkeypatch.setattr(Learner, "step", lambda self, rate: (taken.append(rate), step(self, rate))[1])
    update = {"learning_rate": 0.01, "warmup_share": 0.25, "min_learning_rate_share": 0.1, "num_epochs": 4}
    train(toy_examples(20), base, tmp_path / "out", SETTINGS.model_copy(update=update))
    num = len(taken)
    shown = [line["learning_rate"] for line in metrics_of(tmp_path / "out")]
    shares = [cosine_share(i, num_steps=num, warmup_steps=round(0.25 * num), min_share=0.1) for i in range(num)]
    assert taken == shown == pytest.approx([0.01 * share for share in shares])
    assert num > 8
    assert max(taken) == taken[round(0.25 * num)] == 0.01
    assert taken[-1] == pytest.approx(0.001)


def test_many_micro_batches_are_one(base: Path, tmp_path: Path) -> None:
    examples = toy_examples(10)
    whole, parts = gradients(examples, max_tokens=10_000), gradients(examples, max_tokens=45)
    assert len(micro_batches(examples, max_tokens=10_000)) == 1 < len(micro_batches(examples, max_tokens=45))
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6)


def test_bfloat16_gradients_are_near_and_add_up_in_float32() -> None:
    examples = toy_examples(10)
    exact = torch.cat([g.flatten() for g in gradients(examples, max_tokens=45).values()])
    rounded = gradients(examples, max_tokens=45, dtype=torch.bfloat16)
    assert {gradient.dtype for gradient in rounded.values()} == {torch.float32}
    flat = torch.cat([gradient.flatten() for gradient in rounded.values()])
    assert torch.cosine_similarity(flat, exact, dim=0) > 0.99


def test_tokens_of_others_are_not_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands after the policy's last token is in no gradient; a token in the middle is context, not target."""
    (example,) = toy_examples(1)
    tail = replace(example, token_ids=[*example.token_ids, 1, 2, 3], mask=[*example.mask, False, False, False])
    other = replace(tail, token_ids=[*example.token_ids, 301, 302, 303])
    # At an equal length, so that kernels add in the same order.
    for name, gradient in gradients([tail], max_tokens=100).items():
        assert torch.equal(gradients([other], max_tokens=100)[name], gradient)
    model = toy_model()
    position = max(t for t, written in enumerate(example.mask[:-1]) if not written)
    captured: list[Tensor] = []
    monkeypatch.setattr(cpu_forward, "can_run", lambda model, batch: False)  # it has no hidden states but those in use
    embedded = model.get_decoder().register_forward_hook(lambda m, args, output: captured.append(output[0]))
    batch = micro_batches([example], max_tokens=100)[0]
    logprobs = token_logprobs(model, batch)
    embedded.remove()
    (hidden,) = torch.autograd.grad(logprobs.sum(), captured)
    touched = (hidden[0].abs().sum(dim=-1) > 0).tolist()
    assert touched == [*example.mask[1:], False]  # position t-1 is used where token t is the policy's, and nowhere else
    assert not example.mask[position]


def test_masters_are_float32_under_a_bfloat16_model() -> None:
    """A step far below bfloat16's precision is kept: 1 + 1000 · 1e-5 = 1.01, while 1 + 1e-5 rounds to 1 in bfloat16."""
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    learner = Learner(model, Accelerator(cpu=True), dtype=torch.bfloat16, weight_decay=0.0, max_grad_norm=1.0)
    for _ in range(1000):
        learner.backward(-model(torch.ones(1, 1, dtype=torch.bfloat16)).sum())
        learner.step(1e-5)  # AdamW moves by the learning rate where the gradient is constant
    assert learner.weights()["weight"].item() == pytest.approx(1.01, abs=1e-4)
    assert model.weight.dtype == torch.bfloat16
    assert model.weight.item() == torch.tensor(1.01).bfloat16().item()


def test_norm_is_of_the_whole_gradient_before_clipping() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    learner = Learner(model, Accelerator(cpu=True), dtype=torch.float32, weight_decay=0.0, max_grad_norm=1.0)
    learner.backward(model(torch.tensor([[3.0, 4.0]])).sum())
    assert learner.step(0.0) == pytest.approx(5.0)


def test_decay_is_for_matrices_alone() -> None:
    """With a zero gradient AdamW only decays: matrices by lr · decay = 0.1 · 0.5, biases and norms not."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    learner = Learner(model, Accelerator(cpu=True), dtype=torch.float32, weight_decay=0.5, max_grad_norm=1.0)
    learner.backward((model(torch.ones(1, 2)) * 0.0).sum())
    learner.step(0.1)
    after = learner.weights()
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * 0.95)
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(after[name], before[name])


def test_early_stop_by_hand() -> None:
    stop = EarlyStop(patience=2)
    assert [(stop.improves(loss), stop.is_over) for loss in (3.0, 2.0, 2.5, 1.9, 1.9, 2.0)] == [
        (True, False), (True, False), (False, False), (True, False), (False, False), (False, True),
    ]  # fmt: skip
    assert stop.best_loss == 1.9


@pytest.mark.parametrize("policy", [FP32, BF16])
def test_stops_when_validation_gets_worse_and_keeps_the_best_weights(
    base: Path, tmp_path: Path, policy: PolicySettings
) -> None:
    """Random sequences can only be learnt by heart, so validation soon gets worse."""
    settings = SETTINGS.model_copy(update={"num_epochs": 40, "patience": 8, "learning_rate": 1e-2})
    examples = toy_examples(20)
    result = train(examples, base, tmp_path / "out", settings, policy)
    lines = metrics_of(tmp_path / "out")
    curve = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    assert result.stopped_early
    assert len(lines) == result.num_steps == max(curve)
    assert result.validation_loss == min(curve.values()) == curve[result.best_step]
    later = [loss for step, loss in curve.items() if step > result.best_step]
    assert len(later) == 8
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    held_out = split_examples(examples, max_context=64, share=0.2, seed=5).validation
    assert len(held_out) == result.num_validation == 4
    terms = [
        plain_logprob(model, list(example.token_ids), t)
        for example in held_out
        for t, written in enumerate(example.mask)
        if written
    ]
    assert -torch.stack(terms).mean().item() == pytest.approx(result.validation_loss, abs=0.02)  # saved in bfloat16
    assert later[-1] > result.validation_loss + 0.1  # the last weights are others


@pytest.mark.parametrize("may_keep_start", [True, False])
def test_the_start_may_be_the_best(base: Path, tmp_path: Path, may_keep_start: bool) -> None:
    """A rate that spoils everything."""
    settings = SETTINGS.model_copy(
        update={"num_epochs": 1, "learning_rate": 3.0, "max_grad_norm": 1e9, "evals_per_epoch": 1}
    )
    result = train(toy_examples(20), base, tmp_path / "out", settings, FP32, may_keep_start=may_keep_start)
    before, after = (load_file(path / "model.safetensors") for path in (base, tmp_path / "out"))
    assert result.best_step == (0 if may_keep_start else result.num_steps)
    assert may_keep_start == all(torch.equal(after[name], before[name].to(after[name].dtype)) for name in before)


def test_lora_trains_adapters_and_saves_both(base: Path, tmp_path: Path) -> None:
    policy = BF16.model_copy(update={"lora_rank": 4, "gradient_checkpointing": True})
    result = train(toy_examples(10), base, tmp_path / "out", SETTINGS, policy)
    merged = AutoModelForCausalLM.from_pretrained(result.out)
    start = AutoModelForCausalLM.from_pretrained(base)
    changed = {
        name for name, weight in start.state_dict().items() if not torch.equal(weight, merged.state_dict()[name])
    }
    assert any("q_proj" in name for name in changed)
    assert not any("norm" in name or "embed" in name for name in changed)
    assert (result.out / "adapter" / "adapter_config.json").exists()


def test_files_progress_and_a_second_call(base: Path, tmp_path: Path) -> None:
    out, seen, again = tmp_path / "out", [], []
    result = train(toy_examples(10), base, out, seen=seen)
    assert [progress.step for progress in seen] == list(range(1, result.num_steps + 1))
    assert seen[-1].num_steps == result.num_steps
    assert {progress.validation_loss is None for progress in seen} == {True, False}
    assert list((out / "tensorboard").glob("events.*"))
    assert [path.name for path in (out / "state").iterdir()] == [f"step-{result.num_steps:08d}.pt"]
    weights = (out / "model.safetensors").read_bytes()
    assert train(toy_examples(10), base, out, seen=again) == result
    assert again == []
    assert (out / "model.safetensors").read_bytes() == weights
    assert len(metrics_of(out)) == result.num_steps
    with pytest.raises(TrainError, match="of other trajectories or settings"):
        train(toy_examples(9), base, out)
    with pytest.raises(TrainError, match="of other trajectories or settings"):
        train(toy_examples(10), base, out, SETTINGS.model_copy(update={"learning_rate": 1e-4}))


def test_who_ran_out_of_memory_goes_on_with_smaller_micro_batches(base: Path, tmp_path: Path) -> None:
    class OutOfMemory(Exception):
        pass

    def fail(progress: SftProgress) -> None:
        if progress.step == 4:
            raise OutOfMemory

    examples, lower = toy_examples(10), {"micro_batch_tokens": 40, "save_every_steps": 2}
    arguments = {"base": base, "tokenizer": toy_tokenizer(), "out": tmp_path / "out", "policy": FP32, "seed": 5}
    with pytest.raises(OutOfMemory):
        train_on_examples(examples, settings=SETTINGS, on_progress=fail, **arguments)
    seen: list[SftProgress] = []
    train(examples, base, tmp_path / "out", SETTINGS.model_copy(update=lower), seen=seen)
    assert seen[0].step == 4  # the state stands at step 3


def test_long_sequences_are_dropped_and_counted(base: Path, tmp_path: Path) -> None:
    long = replace(toy_examples(1)[0], id="long", token_ids=[1] * 65, mask=[False] + [True] * 64)
    result = train([*toy_examples(4), long], base, tmp_path / "out", ONE_STEP)
    assert (result.num_too_long, result.num_examples) == (1, 4)


def test_nothing_to_train_on(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="got 0 trajectories"):
        train([], base, tmp_path / "out")
    silent = replace(toy_examples(1)[0], id="mute", mask=[False] * len(toy_examples(1)[0].mask))
    with pytest.raises(TrainError, match="no loss: mute"):
        train([silent], base, tmp_path / "out")


def test_loss_that_is_no_number_names_step_and_trajectories(base: Path, tmp_path: Path) -> None:
    """A diverging run: the weights become too large within a few steps."""
    settings = ONE_STEP.model_copy(update={"num_epochs": 9, "learning_rate": 1e38})
    with pytest.raises(TrainError, match=r"step \d+: the (loss|gradient).*t[01].*learning_rate"):
        train(toy_examples(2), base, tmp_path / "out", settings)


def test_plan_covers_every_epoch_once_and_follows_the_seed() -> None:
    lengths = [len(example.token_ids) for example in toy_examples(40)]
    plan = plan_steps(lengths, batch_tokens=200, num_epochs=3, seed=1)
    assert len(plan.steps) == 3 * plan.steps_per_epoch
    assert plan.steps_per_epoch == math.ceil(sum(lengths) / 200)
    epochs = [
        plan.steps[start : start + plan.steps_per_epoch] for start in range(0, len(plan.steps), plan.steps_per_epoch)
    ]
    for epoch in epochs:
        assert sorted(index for step in epoch for index in step) == list(range(40))
    sizes = [sum(lengths[index] for index in step) for step in plan.steps]
    assert max(sizes) <= 200 + max(lengths)
    assert min(sizes) >= sum(lengths) / plan.steps_per_epoch - max(lengths)
    assert epochs[0] != epochs[1]
    assert plan_steps(lengths, batch_tokens=200, num_epochs=3, seed=1) == plan
    assert plan_steps(lengths, batch_tokens=200, num_epochs=3, seed=2) != plan
    half = plan_steps(lengths, batch_tokens=200, num_epochs=1.5, seed=1).steps
    assert half == plan.steps[: len(half)]
    assert len(half) == plan.steps_per_epoch + round(plan.steps_per_epoch / 2)


# Lengths 10, 10 and 60 at 20 tokens a step: four cuts, of which the long sequence takes its middle's; none is left empty.
def test_plan_with_a_sequence_longer_than_a_step() -> None:
    steps = plan_steps([10, 10, 60], batch_tokens=20, num_epochs=1, seed=0).steps
    assert sorted(index for step in steps for index in step) == [0, 1, 2]
    assert all(steps)


def test_validation_holds_out_whole_questions() -> None:
    examples = toy_examples(40)  # two to a question
    split = split_examples(examples, max_context=64, share=0.25, seed=3)
    assert len(split.validation) == 10
    assert not {example.group for example in split.train} & {example.group for example in split.validation}
    assert len(split.train) + len(split.validation) == 40
    # New trajectories of other questions do not move a question from one side to the other at the same place in the order.
    assert split_examples(examples[::-1], max_context=64, share=0.25, seed=3).validation == split.validation[::-1]
    assert split_examples(toy_examples(2), max_context=64, share=0.25, seed=3).validation == []
    assert split_examples(examples, max_context=64, share=0.0, seed=3).validation == []
