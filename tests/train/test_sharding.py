"""FSDP 2 over two gloo processes on a CPU: the same updates as one process that holds everything."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from sft_run import FP32
from sft_toys import BF16, toy_base, toy_examples
from sharded_run import LORA, THREE_STEPS, BreakOffError, break_off, train
from test_sft_resume import ENVIRONMENT, curve_of

from tests.train.rl_bandit import cold_start, metrics_of
from tests.train.rl_toys import run_processes, toy_model, toy_samples
from tests.train.test_update import REWARDS, largest_difference, one_update
from webdancer.errors import ConfigError
from webdancer.train import cpu_forward
from webdancer.train.batches import micro_batches, share_out
from webdancer.train.checkpoint import read_state
from webdancer.train.sft_data import plan_steps, split_examples
from webdancer.train.sharding import ShardedModel, wants_shards

ROOT = Path(__file__).parents[2]


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    """What the last state of a training holds."""
    state = read_state(out / "state")
    assert state is not None
    assert state.values["done"]
    weights: dict[str, torch.Tensor] = state.values["learner"]["weights"]
    return weights


def as_shards_compute(patch: pytest.MonkeyPatch) -> None:
    """By the forward pass of transformers."""
    patch.setattr(cpu_forward, "can_run", lambda model, batch: False)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The same trainings in one process and, with the configuration that ships, in two; what the two said."""
    out = tmp_path_factory.mktemp("sharded")
    base, one, two = toy_base(out / "base"), out / "one", out / "two"
    with pytest.MonkeyPatch.context() as patch:
        as_shards_compute(patch)
        train(base, one / "whole", FP32)
        train(base, one / "bfloat16", BF16)
        train(base, one / "lora", LORA)
        with pytest.raises(BreakOffError):
            train(base, two / "from_replica", FP32, on_progress=break_off)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/fsdp.yaml")]
    command += ["--num_processes", "2", "--main_process_port", "0", str(ROOT / "tests/train/sharded_run.py")]
    launched = subprocess.run([*command, str(base), str(two)], env=ENVIRONMENT, capture_output=True, text=True)
    assert launched.returncode == 0, launched.stderr
    return one, two, launched.stdout


@pytest.mark.slow
class TestSupervisedFineTuning:
    def test_three_steps_with_uneven_shares_are_those_of_one_process(self, trainings: tuple[Path, Path, str]) -> None:
        one, two, _ = trainings
        expected, found = weights_of(one / "whole"), weights_of(two / "whole")
        assert largest_difference(expected, found) < 1e-5
        for left, right in zip(curve_of(one / "whole"), curve_of(two / "whole"), strict=True):
            assert right == pytest.approx(left, rel=1e-5)
        base = load_file(one.parent / "base" / "model.safetensors")
        assert largest_difference(base, found) > 1e-3
        assert (two / "whole" / "model.safetensors").read_bytes() == (one / "whole" / "model.safetensors").read_bytes()

    def test_their_passes_are_uneven(self) -> None:
        examples = split_examples(toy_examples(21), max_context=64, share=THREE_STEPS.validation_share, seed=2).train
        lengths = [len(example.token_ids) for example in examples]
        plan = plan_steps(lengths, batch_tokens=THREE_STEPS.batch_tokens, num_epochs=THREE_STEPS.num_epochs, seed=2)
        assert len(plan.steps) == 3
        passes = [
            [
                len(micro_batches(examples, rows=[step[i] for i in share], max_tokens=THREE_STEPS.micro_batch_tokens))
                for share in share_out([lengths[row] for row in step], num_shares=2)
            ]
            for step in plan.steps
        ]
        assert any(first != second for first, second in passes)

    def test_resumed_training_ends_with_the_same_weights(self, trainings: tuple[Path, Path, str]) -> None:
        _, two, _ = trainings
        for name in ("resumed", "from_replica"):
            bound = 0.0 if name == "resumed" else 1e-5
            assert largest_difference(weights_of(two / "whole"), weights_of(two / name)) <= bound
            assert len(curve_of(two / name)) == 3

    def test_in_bfloat16_and_with_adapters_and_gradient_checkpointing(self, trainings: tuple[Path, Path, str]) -> None:
        one, two, _ = trainings
        for name in ("bfloat16", "lora"):
            expected, found = weights_of(one / name), weights_of(two / name)
            assert {weight.dtype for weight in found.values()} == {torch.float32}
            # AdamW's first steps are ±learning rate: where a gradient is all rounding, its sign is.
            difference = torch.cat([(expected[key] - found[key]).abs().flatten() for key in expected])
            assert difference.mean() < 5e-5
            for left, right in zip(curve_of(one / name), curve_of(two / name), strict=True):
                assert right == pytest.approx(left, rel=2e-3)
        adapters = [load_file(out / "lora" / "adapter" / "adapter_model.safetensors") for out in (one, two)]
        assert adapters[0].keys() == adapters[1].keys()

    def test_each_process_holds_half_in_float32(self, trainings: tuple[Path, Path, str]) -> None:
        num_weights = sum(weight.numel() for weight in toy_model().parameters())
        assert trainings[2].count(f"{num_weights // 2} of {num_weights} in torch.float32") == 2


_UPDATE = """
import sys
import torch
from accelerate import Accelerator
from tests.train.rl_toys import toy_model, toy_samples
from tests.train.test_update import REWARDS, one_update
from webdancer.train import model
from webdancer.train.learner import Learner

model._MAX_LOGITS = 2000  # the head in parts of five tokens, computed again in the backward pass
accelerator = Accelerator(cpu=True)
group = lambda n: [s for s in toy_samples(REWARDS) if s.group_id == f"g{n}"]
parts = [[], group(2)] if accelerator.process_index == 0 else [group(0), group(1)]
metrics, weights = one_update(parts, accelerator)
learner = Learner(toy_model(), accelerator, dtype=torch.bfloat16, weight_decay=0.0, max_grad_norm=1.0)
whole = dict(learner.whole_model(everywhere=True).named_parameters())
torch.save({"weights": weights, "metrics": metrics, "whole": whole}, f"{sys.argv[1]}/{accelerator.process_index}.pt")
"""


def launch_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `accelerate launch` with configs/fsdp.yaml puts into the environment, as far as it is read."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")


def test_an_update_of_the_policy_is_that_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of group 0 and of groups 1 and 2; the first process has nothing of the first step and group 2 of the second."""
    samples = toy_samples(REWARDS)
    as_shards_compute(monkeypatch)
    metrics, weights = one_update([samples[:3], samples[3:]], Accelerator(cpu=True))
    script = tmp_path / "script.py"
    script.write_text(_UPDATE)
    launch_sharded(monkeypatch)
    run_processes(script, str(tmp_path), num_processes=2)
    first, second = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert first["metrics"] == second["metrics"] == pytest.approx(metrics, rel=1e-5, abs=1e-7)
    assert largest_difference(weights, first["weights"]) < 1e-5
    assert largest_difference(weights, dict(toy_model().named_parameters())) > 1e-3
    assert second["weights"] == {}
    for whole in (first["whole"], second["whole"]):  # each engine gets all of the weights
        assert all(torch.equal(whole[name], weight.bfloat16()) for name, weight in toy_model().named_parameters())
        assert {weight.dtype for weight in whole.values()} == {torch.bfloat16}


@pytest.mark.slow
def test_reinforcement_learning_is_that_of_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts, updates, sync and checkpoint: the engines sample the same tokens, so the curves are the same."""
    base = cold_start(tmp_path / "base", num_steps=150)
    script = ROOT / "tests" / "train" / "rl_bandit.py"
    settings = '{"num_steps": 2, "groups_per_step": 3, "deterministic": true, "learning_rate": 0.001}'
    run_processes(script, str(base), str(tmp_path / "replicas"), settings, "", num_processes=2)
    launch_sharded(monkeypatch)
    run_processes(script, str(base), str(tmp_path / "shards"), settings, "", num_processes=2)
    lines = [metrics_of(tmp_path / name) for name in ("replicas", "shards")]
    for left, right in zip(*lines, strict=True):
        assert right["updates"] > 0
        for name in ("rollouts", "reward", "trained_tokens", "loss", "grad_norm", "entropy", "ratio_mean"):
            assert right[name] == pytest.approx(left[name], rel=1e-3, abs=1e-5), name
        assert right["logprob_gap_max"] < 1e-3
    left, right = [load_file(tmp_path / name / "model.safetensors") for name in ("replicas", "shards")]
    assert largest_difference(left, right) < 1e-2  # bfloat16
    assert largest_difference(load_file(base / "model.safetensors"), right) > 0


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FSDP_VERSION", "1", "got fsdp_version: 1, "),
        ("FSDP_OFFLOAD_PARAMS", "true", "got fsdp_offload_params: true, "),
        ("FSDP_RESHARD_AFTER_FORWARD", "false", "got fsdp_reshard_after_forward: false, "),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true", "got fsdp_cpu_ram_efficient_loading: true, "),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "set policy.gradient_checkpointing"),
    ],
)
def test_settings_that_are_not_supported_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    launch_sharded(monkeypatch)
    monkeypatch.setenv(name, value)
    if name == "FSDP_VERSION":
        monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", "FULL_SHARD")
    with pytest.raises(ConfigError, match=told):
        ShardedModel(toy_model(), Accelerator(cpu=True), dtype=torch.float32)


def test_one_process_has_no_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wants_shards(Accelerator(cpu=True))
    launch_sharded(monkeypatch)
    assert not wants_shards(Accelerator(cpu=True))
