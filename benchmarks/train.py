"""Training next to TRL: SFT tokens per second, and the seconds of a DAPO step with rollouts of several turns.

    python benchmarks/train.py --run runs/quickstart [--base tiny] [--checkpoint runs/quickstart/sft] [--threads 2]
                               [--only sft|dapo] [--no-tuning] [--num N] [--rounds 3] [--finalists 2]
                               [--questions 16] [--rollouts 8] [--updates 2]

Takes a run folder that has been through the stage `sample` (better `sft`, for a checkpoint; without one, a policy is first
fine-tuned for two epochs, so that it writes valid calls). Every side runs in a process of its own, one after the other, with
the same number of threads, the same malloc (tcmalloc or jemalloc where there is one), the same room for oneDNN's programs (more
than torch's own, see `webdancer.train`) and the same checkpoint; each computes in what is fastest on the processor.

SFT: one epoch over the run's trajectories, masked loss, as many tokens per optimizer step; padding is not counted. TRL gets the
token ids and labels ready-made. DAPO: the same questions, rollouts and optimizer steps per batch of rollouts, all groups
trained on; TRL's `rollout_func` plays the same episodes with the same tools and rewards, a turn of all episodes at a time as
in TRL's own loop over tools, generating by TRL's own method. Sampling differs by chance: tokens are told beside seconds.

TRL runs at its best setting: each of its settings (rows of a forward pass, layout, padding, precision, attention,
torch.compile, kind of generation) is varied in turn on a small part of the work, and the fastest value is kept. A packed or
padding-free layout in which one sequence sees another (`leakage`) is not taken. Settings lie closer together than the ups and
downs of many machines, so the fastest few of SFT's trials then do the whole work, in turn with ours, in several rounds; of each
side the middle round counts.

Prints the figures, by the clock and by the processor's time, and writes benchmarks/out/train.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from webdancer.fast_malloc import find_library
from webdancer.train.model import resolve_base

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "out"
MAX_LEAKAGE = 0.1
START: Json = {"precision": "autocast", "attention": "sdpa", "compile": False}
"""TRL's own defaults."""
SFT_START = {**START, "layout": "padded", "pad_to_multiple_of": "auto", "rows": 4}
SFT_VARIED: list[list[Json]] = [
    [{"attention": "eager"}],
    [{"precision": "bf16 weights"}, {"precision": "float32"}],
    [{"pad_to_multiple_of": 64}],
    [{"rows": 1}, {"rows": 2}, {"rows": 8}],
    [{"layout": "padding-free", "rows": 2}, {"layout": "padding-free", "rows": 4}, {"layout": "packed", "rows": 1}],
    [{"compile": True}],
]
DAPO_START = {**START, "rows": 16, "generation": "generate"}
DAPO_VARIED: list[list[Json]] = [
    [{"attention": "eager"}],
    [{"precision": "bf16 weights"}, {"precision": "float32"}],
    [{"rows": 4}, {"rows": 8}],
    [{"compile": True}],
    [{"generation": "continuous batching"}],
]


class Machine:
    """Runs jobs, each in a fresh process."""

    def __init__(self, *, threads: int) -> None:
        fixed = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
        found = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
        library = find_library()
        malloc = {"LD_PRELOAD": str(library)} if library else {}
        self._environment = {**os.environ, **fixed, **quiet, **found, **malloc}

    def run(self, side: str, *, limit_s: float = 3600.0, **arguments: Any) -> Json:
        """A job's result; `{"error": …}` where it failed or was not done in time."""
        with tempfile.TemporaryDirectory() as folder:
            job, result = Path(folder) / "job.json", Path(folder) / "result.json"
            job.write_text(json.dumps({"side": side, "out": f"{folder}/out", **arguments}))
            command = [sys.executable, "-m", "benchmarks.train_sides", str(job), str(result)]
            # What a job compiled another must not find: on a small part of the work it would seem free, on all of it is not.
            environment = {**self._environment, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/compiled"}
            try:
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s)
            except subprocess.TimeoutExpired:
                return {"error": f"not done after {limit_s:g} s"}
            if done.returncode:
                return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
            values: Json = json.loads(result.read_text())
            return values


def tune(start: Json, varied: Sequence[Sequence[Json]], seconds_of: Callable[[Json], Json]) -> tuple[Json, list[Json]]:
    """The best setting, found by varying one thing at a time, and all that was tried.

    Args:
        seconds_of: runs a setting and gives its `cost`, or its `error`.

    Raises:
        SystemExit: not even the first setting runs.
    """
    best, tried = start, [seconds_of(start) | {"setting": start}]
    if "cost" not in tried[0]:
        raise SystemExit(f"TRL fails at its default setting: {tried[0].get('error')}")
    least = tried[0]["cost"]
    print(f"  {describe(start):75} {tried[0]['shown']}", flush=True)
    for values in varied:
        base = best
        for change in values:
            setting = {**base, **change}
            found = seconds_of(setting) | {"setting": setting}
            tried.append(found)
            print(f"  {describe(setting):75} {found.get('shown') or found.get('error')}", flush=True)
            if found.get("cost", least) < least:
                best, least = setting, found["cost"]
    return best, tried


def describe(setting: Json) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def compare_sft(machine: Machine, arguments: argparse.Namespace, base: Path) -> Json:
    """One epoch on each side."""
    common: Json = {"run": str(arguments.run), "base": str(base), "warmup": 2}

    def seconds_of(setting: Json) -> Json:
        found = machine.run(
            "sft_trl", limit_s=arguments.trial_limit, **common, num=arguments.tuning_num, setting=setting
        )
        if "error" in found:
            return found
        shown = f"{found['tokens_per_s']:.0f} tokens/s, {found['tokens_per_cpu_s']:.0f} per CPU second"
        if (found["leakage"] or 0) > MAX_LEAKAGE:
            return found | {"error": f"{shown}, not taken: sequences see each other ({found['leakage']:.2f})"}
        return found | {"cost": 1 / found["tokens_per_s"], "shown": shown}

    tried: list[Json] = [{"setting": SFT_START, "cost": 1.0}]
    if arguments.tuning:
        print("TRL's SFT settings:")
        _, tried = tune(SFT_START, SFT_VARIED, seconds_of)
    fastest = sorted((trial for trial in tried if "cost" in trial), key=lambda trial: float(trial["cost"]))
    finalists = [trial["setting"] for trial in fastest[: arguments.finalists]]
    rounds = run_in_turn(machine, common | {"num": arguments.num}, finalists, arguments.rounds)
    ours, *peers = (middle(sides) for sides in rounds)
    theirs, best = max(zip(peers, finalists, strict=True), key=lambda peer: float(peer[0]["tokens_per_s"]))
    print(f"{'':10}{'tokens':>10}{'wall s':>9}{'CPU s':>9}{'tokens/s':>10}{'per CPU s':>11}{'tokens/step':>13}")
    for name, side in (("webdancer", ours), ("TRL", theirs)):
        print(
            f"{name:10}{side['tokens']:10d}{side['wall_s']:9.1f}{side['cpu_s']:9.1f}{side['tokens_per_s']:10.0f}"
            f"{side['tokens_per_cpu_s']:11.0f}{side['tokens_per_step']:13.0f}"
        )
    ratios = {
        "ratio_wall": round(ours["tokens_per_s"] / theirs["tokens_per_s"], 2),
        "ratio_cpu": round(ours["tokens_per_cpu_s"] / theirs["tokens_per_cpu_s"], 2),
    }
    print(
        f"ratio {ratios['ratio_wall']:.2f} by the clock, {ratios['ratio_cpu']:.2f} by the processor's time (target 2)"
    )
    return {
        "webdancer": ours,
        "trl": theirs,
        "trl_setting": best,
        "rounds": dict(zip(("webdancer", *map(describe, finalists)), rounds, strict=True)),
        "tried": tried,
        **ratios,
    }


def run_in_turn(machine: Machine, work: Json, settings: Sequence[Json], num_rounds: int) -> list[list[Json]]:
    """The rounds of ours, then those of TRL with each of `settings`."""
    print(f"\nSFT, one epoch, {num_rounds} rounds of each in turn:")
    rounds: list[list[Json]] = [[] for _ in (None, *settings)]
    for _ in range(num_rounds):
        rounds[0].append(checked(machine.run("sft_ours", **work)))
        for sides, setting in zip(rounds[1:], settings, strict=True):
            sides.append(checked(machine.run("sft_trl", **work, setting=setting)))
    for name, sides in zip(("webdancer", *map(describe, settings)), rounds, strict=True):
        speeds = ", ".join(f"{side['tokens_per_s']:.0f}" for side in sides)
        print(f"  {name:105} {speeds} tokens/s", flush=True)
    return rounds


def middle(sides: Sequence[Json]) -> Json:
    """The round of the median speed, the faster of the middle two where their number is even."""
    return sorted(sides, key=lambda side: float(side["tokens_per_s"]))[len(sides) // 2]


def summed(side: Json) -> Json:
    """Means over the measured steps, and seconds per thousand tokens sampled and trained."""
    steps = side["steps"]
    mean = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    mean["step_s"] = mean["rollout_s"] + mean["update_s"]
    mean["step_cpu_s"] = mean["rollout_cpu_s"] + mean["update_cpu_s"]
    mean["rollout_s_per_1k"] = 1000 * mean["rollout_s"] / mean["sampled_tokens"]
    mean["update_s_per_1k"] = 1000 * mean["update_s"] / mean["trained_tokens"]
    mean["s_per_1k"] = mean["rollout_s_per_1k"] + mean["update_s_per_1k"]
    mean["cpu_s_per_1k"] = 1000 * (
        mean["rollout_cpu_s"] / mean["sampled_tokens"] + mean["update_cpu_s"] / mean["trained_tokens"]
    )
    return mean


def compare_dapo(machine: Machine, arguments: argparse.Namespace, checkpoint: Path) -> Json:
    """A warm-up step and the measured ones on each side."""
    common: Json = {
        "run": str(arguments.run),
        "checkpoint": str(checkpoint),
        "rollouts": arguments.rollouts,
        "updates": arguments.updates,
        "learning_rate": 1e-6,  # so small that the policy, and with it the work, stays what it is
    }
    num_tuned = max(1, arguments.tuning_rollouts // arguments.rollouts)

    def seconds_of(setting: Json) -> Json:
        found = machine.run(
            "dapo_trl", limit_s=arguments.trial_limit, **common, questions=num_tuned, steps=1, setting=setting
        )
        if "error" in found:
            return found
        mean = summed(found)
        shown = f"{mean['s_per_1k']:.2f} s per 1,000 tokens, of which rollout {mean['rollout_s_per_1k']:.2f}"
        return found | {"cost": mean["s_per_1k"], "shown": shown}

    best, tried = DAPO_START, list[Json]()
    if arguments.tuning:
        print("\nTRL's GRPO settings:")
        best, tried = tune(DAPO_START, DAPO_VARIED, seconds_of)
    work = {**common, "questions": arguments.questions, "steps": arguments.steps}
    ours = checked(machine.run("dapo_ours", **work))
    theirs = checked(machine.run("dapo_trl", **work, setting=best))
    means = {"webdancer": summed(ours), "TRL": summed(theirs)}
    print(
        f"\nDAPO, a step of {arguments.questions} questions x {arguments.rollouts} rollouts, {arguments.updates} optimizer "
        f"steps; mean of {arguments.steps} (TRL: {describe(best)})"
    )
    print(
        f"{'':10}{'rollout s':>10}{'update s':>10}{'step s':>8}{'CPU s':>8}{'sampled':>9}{'turns':>7}{'episode tokens':>16}"
        f"{'reward':>8}{'s per 1k tokens: rollout':>26}{'update':>8}{'sum':>7}"
    )
    for name, mean in means.items():
        print(
            f"{name:10}{mean['rollout_s']:10.2f}{mean['update_s']:10.2f}{mean['step_s']:8.2f}{mean['step_cpu_s']:8.2f}"
            f"{mean['sampled_tokens']:9.0f}{mean['turns']:7.0f}{mean['episode_tokens']:16.0f}{mean['reward']:8.3f}"
            f"{mean['rollout_s_per_1k']:26.3f}{mean['update_s_per_1k']:8.3f}{mean['s_per_1k']:7.3f}"
        )
    names = ("step_s", "step_cpu_s", "rollout_s", "update_s", "s_per_1k", "cpu_s_per_1k")
    ratios = {f"ratio_{name}": round(means["TRL"][name] / means["webdancer"][name], 2) for name in names}
    print("ratios: " + ", ".join(f"{name} {value:.2f}" for name, value in ratios.items()) + " (target 2)")
    return {"webdancer": ours, "trl": theirs, "trl_setting": best, "tried": tried, "means": means, **ratios}


def checked(result: Json) -> Json:
    """A result that must be there.

    Raises:
        SystemExit: the job failed.
    """
    if "error" in result:
        raise SystemExit(f"a side failed: {result['error']}")
    return result


def find_checkpoint(machine: Machine, arguments: argparse.Namespace, base: Path) -> Path:
    """The policy of the DAPO step: the one given, the run's own, or one fine-tuned here and kept for the next time."""
    given: Path | None = arguments.checkpoint
    for path in (given, arguments.run / "sft", OUT / "train_checkpoint"):
        if path is not None and (path / "model.safetensors").is_file():
            return Path(path)
    path = OUT / "train_checkpoint"
    made = checked(
        machine.run("make_checkpoint", run=str(arguments.run), base=str(base), epochs=2, num=None, out=str(path))
    )
    print(f"a policy was fine-tuned for the rollouts in {made['seconds']:.0f} s: {path}")
    return path


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--base", default="tiny", help="`tiny` or a Hugging Face folder")
    parser.add_argument("--checkpoint", type=Path, help="the policy of the DAPO step; RUN/sft where there is one")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=("sft", "dapo"))
    parser.add_argument("--no-tuning", dest="tuning", action="store_false", help="TRL's defaults")
    parser.add_argument("--num", type=int, help="trajectories of the SFT epoch; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="of the SFT epoch")
    parser.add_argument("--finalists", type=int, default=2, help="of TRL's settings, for the whole SFT epoch")
    parser.add_argument("--tuning-num", type=int, default=100, help="trajectories of a setting's trial")
    parser.add_argument(
        "--tuning-rollouts", type=int, default=64, help="rollouts of a setting's trial, a multiple of 16"
    )
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="measured steps of DAPO, behind one that warms up")
    parser.add_argument(
        "--trial-limit", type=float, default=400.0, help="seconds after which a setting's trial is given up"
    )
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    machine = Machine(threads=arguments.threads)
    base = resolve_base(arguments.base).resolve()
    libraries = {name: version(name) for name in ("torch", "transformers", "trl", "accelerate")}
    result: Json = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), **libraries},
        "settings": {name: str(value) for name, value in vars(arguments).items()},
    }
    told = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    print(f"{result['machine']}, {arguments.threads} threads, load {result['load']:.1f}; {told}")
    OUT.mkdir(exist_ok=True)
    if arguments.only != "dapo":
        result["sft"] = compare_sft(machine, arguments, base)
    if arguments.only != "sft":
        result["dapo"] = compare_dapo(machine, arguments, find_checkpoint(machine, arguments, base).resolve())
    (OUT / "train.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
