"""Subcommands that run the stages of a run, all or one of them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from webdancer.cli.common import (
    CONFIG_HELP,
    ConfigOption,
    JsonOption,
    RecordOption,
    ReplayOption,
    RunArgument,
    app,
    open_tape,
    plain,
    print_json,
    run_async,
    says_how_to_go_on,
    with_endpoint,
)
from webdancer.config import Config
from webdancer.errors import ConfigError
from webdancer.pipeline.progress import console, step_bar
from webdancer.settings_file import load_config

N = TypeVar("N", int, float)


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
    record: RecordOption = None,
    replay: ReplayOption = None,
) -> None:
    """Run all stages in a folder; what is done is not done again."""
    from webdancer.pipeline.stages import run_pipeline

    with open_tape(record, replay) as tape:
        run_async(run_pipeline(out, load_config(config) if config else None, until=until, tape=tape))


@app.command()
def build(
    target: Annotated[str, typer.Argument(help="A URL, a folder of documents, or the folder of a snapshot.")],
    out: Annotated[Path, typer.Option(help="The run's folder; a build in it that was stopped goes on.")] = Path(
        "runs/build"
    ),
    config: Annotated[Path, typer.Option("--config", help=CONFIG_HELP)] = Path("one-key"),
    base_url: Annotated[str | None, typer.Option(help="Every role's endpoint, in place of that of --config.")] = None,
    model: Annotated[str | None, typer.Option(help="Every role's model, in place of that of --config.")] = None,
    max_money: Annotated[
        float | None, typer.Option(min=0, help="The cap, so that it is not asked for; in the money of the prices.")
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(min=0, help="The cap in model calls, where there are no prices.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Take the cap that is proposed: twice the forecast.")
    ] = False,
    pilot: Annotated[bool, typer.Option(help="Measure on a small part first, and forecast by that.")] = True,
    record: RecordOption = None,
    replay: ReplayOption = None,
) -> None:
    """From a site to questions, trajectories, training files, evaluation and report, within a cap on what it may cost."""
    from webdancer.pipeline.building import Cap
    from webdancer.pipeline.building import build as build_site

    settings = with_endpoint(load_config(config), base_url=base_url, model=model)

    cap = None if max_money is None and max_calls is None else Cap(max_money, max_calls)

    def ask_cap(proposed: Cap) -> Cap:
        if yes:
            return proposed
        try:
            if proposed.money is not None:
                return Cap(_ask_above_zero("Most money to spend", float, default=proposed.money), None)
            return Cap(None, _ask_above_zero("Most model calls to make", int, default=proposed.llm_calls))
        except typer.Abort:
            console.print()
            raise ConfigError("no cap was given; --max-money, --max-calls or --yes says it beforehand") from None

    with open_tape(record, replay) as tape:
        run_async(build_site(target, out, settings, ask_cap=ask_cap, cap=cap, pilot=pilot, tape=tape))


def _ask_above_zero(text: str, kind: Callable[[str], N], *, default: N | None) -> N:
    """Ask for a number until one above zero is given.

    Raises:
        typer.Abort: there is nobody to ask, or it is Ctrl-C.
    """

    def read(given: str) -> N:
        try:
            value = kind(given)
        except ValueError:
            value = kind("0")
        if not 0 < value < math.inf:
            raise typer.BadParameter(f"got {given!r}, expected a number above 0")
        return value

    value: N = typer.prompt(text, default=default, value_proc=read, err=True)
    return value


@app.command()
def estimate(
    config: ConfigOption = None,
    pilot: Annotated[
        Path | None, typer.Option(help="A finished small run on the same site, to go by what it measured.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast the calls, tokens and money of a run before it is begun."""
    from webdancer.pipeline.building import show_forecast
    from webdancer.pipeline.forecast import forecast
    from webdancer.pipeline.run_folder import read_manifest

    if pilot is not None and read_manifest(pilot) is None:
        raise ConfigError(f"--pilot: {pilot} holds no run")
    found = forecast(load_config(config or Path("one-key")), pilot=pilot)
    if as_json:
        print_json(found.as_json())
    else:
        show_forecast(found, f"Forecast by {'the pilot' if pilot else 'assumptions'}")


@app.command()
def doctor(
    config: ConfigOption = None,
    base_url: Annotated[str | None, typer.Option(help="Every role's endpoint, in place of that of --config.")] = None,
    model: Annotated[str | None, typer.Option(help="Every role's model, in place of that of --config.")] = None,
    probe_context: Annotated[
        bool, typer.Option("--context/--no-context", help="Probe how long a prompt each endpoint really reads.")
    ] = True,
    page: Annotated[str, typer.Option(help="A page for the live reader to try.")] = "https://www.python.org/",
) -> None:
    """Check keys, endpoints and the roles that they are to hold, search, reader, disk and device; say what to set."""
    from webdancer.pipeline.doctor import Level, examine

    if config is None and (base_url or model):
        config = Path("one-key")  # as `build` does
    settings = with_endpoint(load_config(config) if config else Config(), base_url=base_url, model=model)
    marks = {Level.OK: "[green]ok  [/]", Level.NOTE: "[yellow]note[/]", Level.FAIL: "[red]fail[/]"}

    async def show() -> int:
        num_failed = 0
        async for finding in examine(settings, probe_context=probe_context, page=page):
            console.print(
                f"{marks[finding.level]} [bold]{plain(finding.what)}[/]: {plain(finding.detail)}", soft_wrap=True
            )
            num_failed += finding.level is Level.FAIL
        return num_failed

    if run_async(show(), resumable=False):
        raise typer.Exit(1)


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
    config: Annotated[Path, typer.Option("--config", help=CONFIG_HELP)] = Path("reproduce"),
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
