"""Looks at everything that a run needs from outside before it is begun, and says what works and what to set.

Only checks: settings, keys, endpoints with the roles that they are to hold and the context that they really read, search engines,
the reader, disk and training device. Each costs a few calls at most; the probe of the context costs about twice as many tokens
as the context that is wanted.
"""

import shutil
from collections.abc import AsyncIterator
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from webdancer.calls.outside import Outside
from webdancer.config import Config, EndpointSettings
from webdancer.errors import ConfigError, ContextFullError, ModelError, WebdancerError
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.protocol import ChatModel, Message, Sampling
from webdancer.llm.transport import shown_address
from webdancer.pipeline.models import ROLES, open_models
from webdancer.pipeline.role_checks import try_roles
from webdancer.pipeline.toolbox import open_engines, open_reader
from webdancer.web.protocol import ToolFailure

_MIN_FREE_BYTES = 5_000_000_000
_QUERY = "Python programming language"
_PAGE = "https://www.python.org/"
_FIRST_PROBE_TOKENS = 2000
_CODE_WORD = "heliotrope"


class Level(StrEnum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"
    """Works, with something to know."""
    FAIL = "fail"


class Finding(NamedTuple):
    """One check: what was looked at, how it came out, and in words what was seen and what to set."""

    what: str
    level: Level
    detail: str


async def examine(config: Config, *, probe_context: bool = True, page: str = _PAGE) -> AsyncIterator[Finding]:
    """All checks, one after the other.

    Args:
        page: a page that the live reader tries.
    """
    yield _disk(Path.cwd())
    yield _device()
    endpoints = by_endpoint(config)
    working = []
    for endpoint, roles in endpoints:
        finding = await _endpoint(endpoint, roles)
        yield finding
        if finding.level is not Level.FAIL:
            working.append(endpoint)
            if probe_context:
                yield await _context(endpoint, roles, config.agent.max_tokens)
    if endpoints and len(working) == len(endpoints):
        async with open_models(config.llm, mode=config.sample.mode, outside=Outside("doctor")) as models:
            for role, problem in (await try_roles(models, config)).items():
                yield Finding(f"role {role}", Level.FAIL if problem else Level.OK, problem or "follows its prompt")
    elif not endpoints:
        yield Finding(
            "language models",
            Level.NOTE,
            "no endpoint is set: the built-in reader plays every role, on the embedded web only; to go live set "
            "[llm.default], as in --config one-key or --config live",
        )
    async for finding in _web(config, page):
        yield finding


def by_endpoint(config: Config) -> list[tuple[EndpointSettings, list[str]]]:
    """The endpoints that are not the built-in reader, each once, with the roles that they are to hold."""
    found: dict[str, tuple[EndpointSettings, list[str]]] = {}
    for role in ROLES:
        endpoint: EndpointSettings = getattr(config.llm, role) or config.llm.default
        if endpoint.base_url != "scribe":
            found.setdefault(endpoint.model_dump_json(), (endpoint, []))[1].append(role)
    return list(found.values())


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    said = f"{free / 1e9:.0f} GB free in {folder}"
    if free < _MIN_FREE_BYTES:
        return Finding(
            "disk", Level.NOTE, f"{said}; a run with checkpoints wants {_MIN_FREE_BYTES / 1e9:.0f} GB and more"
        )
    return Finding("disk", Level.OK, said)


def _device() -> Finding:
    if find_spec("torch") is None:
        return Finding("training", Level.NOTE, "torch is not installed: no training; pip install 'webdancer[train]'")
    import torch

    if not torch.cuda.is_available():
        return Finding("training", Level.OK, f"torch {torch.__version__}, no GPU: the tiny policy trains on the CPU")
    name, size = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    return Finding("training", Level.OK, f"torch {torch.__version__}, {name}, {size / 2**30:.0f} GiB")


async def _endpoint(endpoint: EndpointSettings, roles: list[str]) -> Finding:
    """Whether an endpoint answers at all."""
    what = f"{endpoint.model} at {shown_address(endpoint.base_url)}"
    try:
        async with OpenAIChatModel(endpoint.model_copy(update={"max_attempts": 2})) as model:
            reply = await model.chat([Message("user", "Say: ready")], Sampling(max_tokens=endpoint.max_tokens or 512))
    except (ConfigError, ModelError) as error:
        return Finding(what, Level.FAIL, str(error))
    notes = []
    if not reply.usage.prompt_tokens:
        notes.append("it tells no token usage, so that cost and the limit of an episode's tokens cannot be kept")
    if reply.reasoning:
        notes.append('it reasons: set sample.mode = "long" to keep its thoughts')
    detail = f"answers; for {', '.join(roles)}" + "".join(f"; {note}" for note in notes)
    return Finding(what, Level.NOTE if notes else Level.OK, detail)


async def _context(endpoint: EndpointSettings, roles: list[str], wanted: int) -> Finding:
    """How much an endpoint really reads, since some cut a prompt at its head without a word."""
    what = f"context of {endpoint.model}"
    async with OpenAIChatModel(endpoint.model_copy(update={"max_attempts": 2})) as model:
        largest, size = 0, min(_FIRST_PROBE_TOKENS, wanted)
        while size <= wanted:
            problem = await _reads(model, size)
            if problem:
                return Finding(
                    what,
                    Level.FAIL,
                    f"{problem} with a prompt of about {size:,} tokens ({largest:,} were fine, agent.max_tokens is {wanted:,}); "
                    f"raise the server's context (Ollama: OLLAMA_CONTEXT_LENGTH, vLLM: --max-model-len) or lower "
                    "agent.max_tokens and agent.max_page_chars",
                )
            largest = size
            if size == wanted:
                break
            size = min(wanted, size * 2)
    return Finding(what, Level.OK, f"reads prompts of about {largest:,} tokens from their beginning")


async def _reads(model: ChatModel, num_tokens: int) -> str | None:
    """Why a prompt of that length is not read whole, None where it is."""
    filler = "The river is wide and the road beside it is long. " * (num_tokens // 12)
    prompt = f"The code word is {_CODE_WORD}.\n\n{filler}\n\nWhat is the code word? Answer with the word alone."
    try:
        reply = await model.chat([Message("user", prompt)], Sampling(temperature=0.0, max_tokens=512))
    except ContextFullError:
        return "its context is full"
    except ModelError as error:
        return str(error)
    return None if _CODE_WORD in reply.content.lower() else "it no longer knew how the prompt began"


async def _web(config: Config, page: str) -> AsyncIterator[Finding]:
    """Search and reading, as `[web]` has them; a run brings its own snapshot."""
    engines = [name for name in config.web.search if name != "snapshot"]
    if not engines and config.web.reader == "snapshot":
        yield Finding("web", Level.OK, "search and visit answer from a crawled snapshot: no key is needed")
        return
    if not engines:
        yield Finding("search", Level.OK, "answers from a crawled snapshot: no key is needed")
    for name in engines:
        yield await _search(config, name)
    if config.web.reader == "snapshot":
        yield Finding("reader", Level.OK, "reads a crawled snapshot: no key is needed")
    else:
        yield await _reader(config, page)


async def _search(config: Config, name: str) -> Finding:
    """Whether one search engine finds anything."""
    alone = config.model_copy(update={"web": config.web.model_copy(update={"search": (name,)})})
    try:
        async with open_engines(alone, Outside("doctor"), snapshot=None) as search:
            hits = await search.search(_QUERY, num_results=3)
    except (WebdancerError, ToolFailure) as error:
        return Finding("search", Level.FAIL, f"{name}: {error}")
    level = Level.OK if hits else Level.FAIL
    return Finding("search", level, f"{name}: {len(hits)} results for {_QUERY!r}")


async def _reader(config: Config, page: str) -> Finding:
    """Whether the reader brings a page of the live web."""
    try:
        async with open_reader(config, Outside("doctor"), snapshot=None) as reader:
            read = await reader.read(page)
    except (WebdancerError, ToolFailure) as error:
        return Finding("reader", Level.FAIL, f"{page}: {error}")
    return Finding("reader", Level.OK, f"{config.web.reader}: {len(read.text):,} characters from {page}")
