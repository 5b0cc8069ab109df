"""The command line: one thin subcommand a stage. Results go to stdout, progress and messages to stderr."""

import asyncio
import json
import shlex
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from webdancer.config import Config
from webdancer.errors import ConfigError, WebdancerError
from webdancer.pipeline.progress import console, progress_bar, step_bar
from webdancer.records import CotMode
from webdancer.settings_file import load_config, parse_config

app = typer.Typer(
    help="Turn websites into a trained search agent (WebDancer, arXiv 2505.22648).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
world_app = typer.Typer(help="The embedded web: a generated web whose facts are known.", no_args_is_help=True)
app.add_typer(world_app, name="world")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="TOML file with the settings, or the name of one that ships: tiny, reproduce, small, paper."
    ),
]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 stopped by Ctrl-C."""
    try:
        app()
    except WebdancerError as error:
        console.print(f"[bold red]error:[/] {_plain(error)}", soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def _plain(error: object) -> str:
    """The message without rich markup being read into it."""
    return str(error).replace("[", r"\[")


@contextmanager
def _says_how_to_go_on() -> Iterator[None]:
    """Ctrl-C ends the work inside with exit code 130 and a line on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        command = shlex.join(["webdancer", *sys.argv[1:]])
        console.print("\nStopped. Nothing is lost: the same command goes on from here:")
        console.print(f"  {_plain(command)}", soft_wrap=True)
        raise typer.Exit(130) from None


def _run(work: Coroutine[Any, Any, Any], *, resumable: bool = True) -> Any:
    """Run a coroutine to its end; of several failed tasks the first error of ours is shown."""
    try:
        with _says_how_to_go_on() if resumable else nullcontext():
            return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, WebdancerError):
            raise error from None
        raise


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


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

    _run(run_pipeline(out, load_config(config) if config else None, until=until))


@app.command()
def crawl(
    urls: Annotated[list[str], typer.Argument(help="Root URLs.")],
    out: Annotated[Path, typer.Option(help="The snapshot's folder; an unfinished crawl in it is gone on with.")],
    config: ConfigOption = None,
    max_pages: Annotated[int | None, typer.Option(help="Stop after so many pages.")] = None,
    max_depth: Annotated[int | None, typer.Option(help="Follow links so many steps.")] = None,
    resolve: Annotated[list[str] | None, typer.Option(help="HOST=ADDRESS:PORT in place of DNS; repeatable.")] = None,
    path_prefix: Annotated[list[str] | None, typer.Option(help="Only paths that open with this; repeatable.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Only URLs that match this pattern; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No URLs that match this pattern; repeatable.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="'Name: value' sent with every request; repeatable.")] = None,
    delay: Annotated[float | None, typer.Option(help="Least seconds between two requests to one host.")] = None,
) -> None:
    """Crawl websites into a snapshot (WARC files and a search index)."""
    from webdancer.pipeline.stages import crawl_to_snapshot

    given: dict[str, object] = {
        "urls": urls,
        "max_pages": max_pages,
        "max_depth": max_depth,
        "resolve": dict(_split_pair(item, "=", "--resolve") for item in resolve or []) or None,
        "path_prefixes": path_prefix,
        "include": include,
        "exclude": exclude,
        "headers": dict(_split_pair(item, ":", "--header") for item in header or []) or None,
        "delay_s": delay,
    }
    values = (load_config(config) if config else Config()).model_dump(mode="json")
    values["crawl"] |= {key: value for key, value in given.items() if value is not None}
    counts = _run(crawl_to_snapshot(parse_config(values, source="command line").crawl, out))
    _print_json(counts.model_dump(mode="json"))


def _split_pair(text: str, mark: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(mark)
    if not found or not name.strip() or not value.strip():
        raise ConfigError(f"{option}: got {text!r}, expected NAME{mark}VALUE")
    return name.strip(), value.strip()


@app.command()
def index(
    files: Annotated[list[Path], typer.Argument(help="WARC files, plain or .gz.")],
    out: Annotated[Path, typer.Option(help="The snapshot's folder.")],
) -> None:
    """Make a snapshot of WARC files that others wrote."""
    from webdancer.web.importer import ImportCounts, index_warcs

    with _says_how_to_go_on(), progress_bar("records") as advance:
        shown = 0

        def on_page(counts: ImportCounts) -> None:
            nonlocal shown
            advance(counts.num_records - shown)
            shown = counts.num_records

        counts = index_warcs(files, out, on_page=on_page)
    _print_json(asdict(counts))
    if not counts.num_pages + counts.num_already_in:
        raise WebdancerError(f"none of the {len(files)} files held a page; got the right files?")


@app.command()
def search(
    snapshot: Annotated[Path, typer.Argument(help="The snapshot's folder.")],
    query: str,
    year: Annotated[int | None, typer.Option(help="Only pages published in this year.")] = None,
    num_results: Annotated[int, typer.Option("-n", min=1, help="How many results.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Search a snapshot."""
    from webdancer.web.snapshot import Snapshot

    with Snapshot.open(snapshot) as opened:
        hits = opened.search(query, num_results=num_results, year=year)
    if as_json:
        _print_json([asdict(hit) for hit in hits])
        return
    for number, hit in enumerate(hits, 1):
        date = f"  {hit.published}" if hit.published else ""
        typer.echo(f"{number:2}. {hit.title}{date}\n    {hit.url}\n    {hit.snippet}")
    if not hits:
        typer.echo("No results.")


def _stage(name: str, out: Path, config: Path | None) -> None:
    from webdancer.pipeline.stages import run_stage

    _run(run_stage(name, out, load_config(config) if config else None))


RunArgument = Annotated[Path, typer.Argument(help="The run's folder.")]


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
    with _says_how_to_go_on(), step_bar("steps") as show:

        def on_step(numbers: dict[str, float]) -> None:
            figures = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items() if name != "step")
            show(int(numbers["step"]), settings.pretrain.num_steps, figures)

        last = make_base(out, settings.pretrain, seed=settings.seed, on_step=on_step)
    _print_json(last)


@app.command()
def reproduce(
    out: Annotated[Path, typer.Argument(help="Folder of the runs.")] = Path("runs/reproduce"),
    config: Annotated[Path, typer.Option("--config", help="TOML file with the settings.")] = Path("reproduce"),
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3,
) -> None:
    """Show what each stage gains: base, SFT, further SFT in RL's time, and RL, over several seeds."""
    from webdancer.pipeline.reproduce import reproduce

    _print_json(_run(reproduce(out, load_config(config), num_seeds=seeds)))


@app.command(name="eval")
def eval_(out: RunArgument, config: ConfigOption = None) -> None:
    """Score the systems on a run's held-out questions."""
    _stage("eval", out, config)


@app.command()
def report(out: RunArgument, config: ConfigOption = None) -> None:
    """Write a run's summary.json and report.html."""
    _stage("report", out, config)


ModelOption = Annotated[
    str | None,
    typer.Option(help="A checkpoint's folder, or the root of an OpenAI-compatible API (`http://…/v1`)."),
]


@app.command()
def ask(
    question: str,
    model: ModelOption = None,
    snapshot: Annotated[Path | None, typer.Option(help="The snapshot to search.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--run", help="A run whose snapshot is searched; by default the one that the checkpoint is in."),
    ] = None,
    heldout: Annotated[bool, typer.Option("--heldout", help="Search the run's held-out web.")] = False,
    config: ConfigOption = None,
    mode: Annotated[
        CotMode | None, typer.Option(help="Short or long chains of thought; by default as sampled.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question, showing every step. The settings are those of --config, else of the run."""
    from webdancer.pipeline.asking import ask_question, run_of
    from webdancer.pipeline.stages import settings_of

    run = run_of(model, out)
    # A checkpoint knows the prompt and the observations of its run alone; the run's settings go with it to any snapshot.
    of_run = None if snapshot and model is None and out is None else settings_of(run)
    settings = load_config(config) if config else of_run or load_config(Path("tiny"))
    trajectory = _run(
        ask_question(
            question,
            snapshot or run / ("heldout_snapshot" if heldout else "snapshot"),
            settings,
            model=model,
            mode=mode or settings.sample.mode,
            show_steps=not as_json,
        ),
        resumable=False,
    )
    if as_json:
        _print_json(trajectory.model_dump(mode="json"))
    if trajectory.answer is None:
        raise typer.Exit(1)


@app.command()
def serve(
    model: Annotated[str, typer.Option(help="What to serve: `scribe`, or the folder of a checkpoint.")] = "scribe",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: PortOption = 8000,
    config: ConfigOption = None,
) -> None:
    """Serve a model behind an OpenAI-compatible API."""
    from webdancer.pipeline.serving import serve_model

    settings = load_config(config) if config else None
    _run(serve_model(model, host=host, port=port, config=settings), resumable=False)


@app.command()
def settings(config: ConfigOption = None) -> None:
    """Print all settings with their explanations, as TOML to copy from: the defaults, or those of --config."""
    from webdancer.settings_file import settings_toml

    typer.echo(settings_toml(load_config(config) if config else Config()), nl=False)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="The file to read.")],
    out: Annotated[Path, typer.Option(help="Folder for trajectories.jsonl and verdicts.jsonl.")],
    format: Annotated[str, typer.Option(help="`webdancer`: the authors' released trajectories.")] = "webdancer",
) -> None:
    """Read trajectories that others published."""
    from webdancer.trajectories.import_release import import_webdancer

    if format != "webdancer":
        raise ConfigError(f"--format: got {format!r}, expected 'webdancer'")
    _print_json(import_webdancer(file, out).model_dump())


SeedOption = Annotated[int, typer.Option(help="Seed of the web.")]
PagesOption = Annotated[int, typer.Option(help="About so many pages.")]


@world_app.command(name="serve")
def world_serve(
    seed: SeedOption = 7,
    pages: PagesOption = 2000,
    right_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the talk host's posts that are right.")
    ] = 0.5,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: PortOption = 8080,
    access_log: Annotated[Path | None, typer.Option(help="Append each request as a JSON line.")] = None,
    facts: Annotated[Path | None, typer.Option(help="First write the facts to this file.")] = None,
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Serve all hosts of the embedded web on one loopback port, told apart by the Host header."""
    from webdancer.world.facts import World
    from webdancer.world.server import serve as serve_world
    from webdancer.world.server import stop_at_end_of_stdin, write_facts

    world = World(seed, pages, right_share=right_share)
    if facts:
        write_facts(world, facts)

    def on_ready(bound: int) -> None:
        ready = {"address": address, "port": bound, "hosts": list(world.hosts()), "roots": list(world.roots())}
        typer.echo(json.dumps(ready))
        sys.stdout.flush()

    if until_stdin_closes:
        stop_at_end_of_stdin()
    _run(serve_world(world, address=address, port=port, access_log=access_log, on_ready=on_ready), resumable=False)


@world_app.command(name="facts")
def world_facts(
    out: Annotated[Path, typer.Option(help="The JSONL file.")], seed: SeedOption = 7, pages: PagesOption = 2000
) -> None:
    """Write the facts of the embedded web: entities, facts with the pages that state them, and all pages."""
    from webdancer.world.facts import World
    from webdancer.world.server import write_facts

    write_facts(World(seed, pages), out)
