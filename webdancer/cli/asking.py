"""Subcommands that answer: a question on the command line, or a server for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from webdancer.cli.common import (
    ConfigOption,
    JsonOption,
    PortOption,
    RecordOption,
    ReplayOption,
    app,
    open_tape,
    print_json,
    run_async,
)
from webdancer.errors import ConfigError
from webdancer.pipeline.progress import console
from webdancer.records import CotMode
from webdancer.settings_file import load_config

if TYPE_CHECKING:
    from webdancer.pipeline.agents import AgentChoice
    from webdancer.serve.guard import Access

ModelOption = Annotated[
    str | None,
    typer.Option(
        help="A checkpoint's folder, or the root of an OpenAI-compatible API (`http://…/v1`); by default the teacher's model."
    ),
]
SnapshotOption = Annotated[
    Path | None, typer.Option(help="The snapshot to search, in place of the web that the settings name.")
]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", help="A run whose snapshot is searched; by default the one that the checkpoint is in."),
]
HeldoutOption = Annotated[bool, typer.Option("--heldout", help="Search the run's held-out web.")]
ModeOption = Annotated[CotMode | None, typer.Option(help="Short or long chains of thought; by default as sampled.")]
HostOption = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")]
TokenOption = Annotated[
    str | None,
    typer.Option("--token-env", help="Environment variable that holds the bearer token that clients must send."),
]
OriginOption = Annotated[
    list[str] | None,
    typer.Option("--allow-origin", help="A web page's origin that may use the server from a browser; can be repeated."),
]


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="In any language, complete in itself.")],
    model: ModelOption = None,
    snapshot: SnapshotOption = None,
    out: RunOption = None,
    heldout: HeldoutOption = False,
    config: ConfigOption = None,
    mode: ModeOption = None,
    record: RecordOption = None,
    replay: ReplayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question, showing every step. The settings are those of --config, else of the run.

    The answer alone goes to stdout; steps, sources and cost go to stderr.
    """
    from webdancer.pipeline.asking import ask_question

    if not question.strip():
        raise ConfigError("the question is empty")
    choice = _choice(model, snapshot, out, heldout, config, mode)
    with open_tape(record, replay) as tape:
        asking = ask_question(question, choice._replace(tape=tape), show_steps=not as_json)
        trajectory = run_async(asking, resumable=False)
    if as_json:
        print_json(trajectory.model_dump(mode="json"))
    if trajectory.answer is None:
        raise typer.Exit(1)


@app.command()
def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help="What to serve: `scribe` (the default), or the folder of a checkpoint. With --agent, the model behind it: the "
            "folder of a checkpoint, or the root of an OpenAI-compatible API; by default the teacher's model."
        ),
    ] = None,
    agent: Annotated[
        bool, typer.Option("--agent", help="Serve the whole agent, with search and visit, as the model `webdancer`.")
    ] = False,
    think_tags: Annotated[
        bool,
        typer.Option(
            "--think-tags",
            help="Tell the agent's steps in <think> tags, for clients that do not know reasoning_content.",
        ),
    ] = False,
    snapshot: SnapshotOption = None,
    out: RunOption = None,
    heldout: HeldoutOption = False,
    mode: ModeOption = None,
    config: ConfigOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    token_env: TokenOption = None,
    allow_origin: OriginOption = None,
) -> None:
    """Serve a model, or the whole agent, behind an OpenAI-compatible API."""
    from webdancer.pipeline.serving import serve_agent, serve_model

    access = _access(host, token_env, allow_origin)
    if agent:
        choice = _choice(model, snapshot, out, heldout, config, mode)
        _tell_if_invented(choice)
        run_async(serve_agent(choice, access=access, port=port, think_tags=think_tags), resumable=False)
        return
    if snapshot or out or heldout or mode or think_tags:
        raise ConfigError("--snapshot, --run, --heldout, --mode and --think-tags need --agent")
    if config and model is None:
        raise ConfigError("--config needs --agent, or a checkpoint by --model: the scribe has no settings")
    settings = load_config(config) if config else None
    run_async(serve_model(model or "scribe", access=access, port=port, config=settings), resumable=False)


@app.command()
def mcp(
    http: Annotated[bool, typer.Option("--http", help="Speak HTTP at /mcp, in place of stdin and stdout.")] = False,
    model: ModelOption = None,
    snapshot: SnapshotOption = None,
    out: RunOption = None,
    heldout: HeldoutOption = False,
    mode: ModeOption = None,
    config: ConfigOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8001,
    token_env: TokenOption = None,
    allow_origin: OriginOption = None,
) -> None:
    """Serve the tools search, visit and ask to any MCP client; the settings are chosen as in `ask`."""
    from webdancer.pipeline.serving import serve_mcp_http, serve_mcp_stdio

    choice = _choice(model, snapshot, out, heldout, config, mode)
    _tell_if_invented(choice)
    if http:
        access = _access(host, token_env, allow_origin)
        run_async(serve_mcp_http(choice, access=access, port=port), resumable=False)
    else:
        run_async(serve_mcp_stdio(choice), resumable=False)


def _choice(
    model: str | None,
    snapshot: Path | None,
    out: Path | None,
    heldout: bool,
    config: Path | None,
    mode: CotMode | None,
) -> "AgentChoice":
    """The agent that the options name. The settings are those of --config, else of the run, else the default run's."""
    from webdancer.pipeline.agents import AgentChoice, on_snapshot
    from webdancer.pipeline.asking import run_of
    from webdancer.pipeline.stages import settings_of
    from webdancer.pipeline.toolbox import needs_snapshot

    run = run_of(model, out)
    # A checkpoint knows the prompt and the observations of its run alone; the run's settings go with it to any snapshot.
    of_run = None if snapshot and model is None and out is None else settings_of(run)
    if config is None and of_run is None and snapshot is None:
        raise ConfigError(
            f"{run} holds no run to search. Without any key, `webdancer quickstart` makes one on the embedded web; for the "
            "live web set OPENAI_API_KEY (or another model's, see docs/live.md) and add --config live"
        )
    settings = load_config(config) if config else of_run or load_config(Path("tiny"))
    if snapshot or heldout:
        settings = on_snapshot(settings)
    return AgentChoice(
        settings,
        snapshot or run / ("heldout_snapshot" if heldout else "snapshot"),
        model=model,
        mode=mode,
        is_embedded=snapshot is None and settings.crawl.is_embedded and needs_snapshot(settings),
    )


def _tell_if_invented(choice: "AgentChoice") -> None:
    """A word where other programs will be answered from the embedded web."""
    if choice.is_embedded:
        console.print(
            "Note: it searches the embedded web, which is invented. For the live one: --config live (docs/live.md)."
        )


def _access(host: str, token_env: str | None, origins: list[str] | None) -> "Access":
    from webdancer.serve.guard import Access, read_token

    return Access(host, read_token(token_env), tuple(origins or ()))
