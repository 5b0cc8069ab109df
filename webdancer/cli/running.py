"""Subcommands that run the stages of a run, all or one of them."""

from pathlib import Path
from typing import Annotated

import typer

from webdancer.cli.common import ConfigOption, RunArgument, app, print_json, run_async, says_how_to_go_on
from webdancer.config import Config
from webdancer.pipeline.progress import step_bar
from webdancer.settings_file import load_config


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/quickstart"),
    config: ConfigOption = None,
) -> None:
    """Run the whole pipeline on the embedded web: crawl, questions, trajectories, funnel, SFT, DAPO, evaluation, report."""
    run(out, config)


@app.command()
def run(
    out: Annotated[Path, typer.Argument(help="The run's folder; an unfinished run in it is gone on with.")],
    config: ConfigOption = None,
    until: Annotated[
        str | None, typer.Option(help="Stop after this stage: crawl, synth, sample, sft, rl, eval or report.")
    ] = None,
) -> None:
    """Run all stages in a folder; what is done is not done again."""
    from webdancer.pipeline.stages import run_pipeline

    run_async(run_pipeline(out, load_config(config) if config else None, until=until))


def _stage(name: str, out: Path, config: Path | None) -> None:
    from webdancer.pipeline.stages import run_stage

    run_async(run_stage(name, out, load_config(config) if config else None))


@app.command()
def synth(out: RunArgument, config: ConfigOption = None) -> None:
    """Write questions about a run's snapshot (CRAWLQA and E2HQA)."""
    _stage("synth", out, config)


@app.command()
def sample(out: RunArgument, config: ConfigOption = None) -> None:
    """Sample trajectories from the teacher and put them through the funnel."""
    _stage("sample", out, config)


@app.command()
def sft(out: RunArgument, config: ConfigOption = None) -> None:
    """Fine-tune the base model on the trajectories that passed the funnel."""
    _stage("sft", out, config)


@app.command()
def rl(out: RunArgument, config: ConfigOption = None) -> None:
    """Improve the fine-tuned model by reinforcement learning (DAPO); search and visit answer from the run's snapshot."""
    _stage("rl", out, config)


@app.command()
def pretrain(
    out: Annotated[
        Path, typer.Argument(help="Folder of the checkpoint; an unfinished training in it is gone on with.")
    ],
    config: ConfigOption = None,
) -> None:
    """Train the tiny base model anew, as it ships with the package: other webs, exercises, no trajectory."""
    from webdancer.pipeline.base_model import make_base

    settings = load_config(config) if config else Config()
    with says_how_to_go_on(), step_bar("steps") as show:

        def on_step(numbers: dict[str, float]) -> None:
            figures = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items() if name != "step")
            show(int(numbers["step"]), settings.pretrain.num_steps, figures)

        last = make_base(out, settings.pretrain, seed=settings.seed, on_step=on_step)
    print_json(last)


@app.command()
def reproduce(
    out: Annotated[Path, typer.Argument(help="Folder of the runs.")] = Path("runs/reproduce"),
    config: Annotated[Path, typer.Option("--config", help="TOML file with the settings.")] = Path("reproduce"),
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3,
) -> None:
    """Show what each stage gains: base, SFT, further SFT in RL's time, and RL, over several seeds."""
    from webdancer.pipeline.reproduce import reproduce

    print_json(run_async(reproduce(out, load_config(config), num_seeds=seeds)))


@app.command(name="eval")
def eval_(out: RunArgument, config: ConfigOption = None) -> None:
    """Score the systems on a run's held-out questions."""
    _stage("eval", out, config)


@app.command()
def report(out: RunArgument, config: ConfigOption = None) -> None:
    """Write a run's summary.json and report.html."""
    _stage("report", out, config)
