"""From a site to training files in one command: forecast, pilot, all stages, exports, and what it cost beside the forecast.

The pilot is a small run on the same snapshot, in `RUN/pilot/`. What it measured gives the forecast that counts; the page groups
that it tried are a part of the run's own, and are not paid for again. A run that was stopped goes on by the same command.
"""

import json
import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import JsonValue
from rich.table import Table

from webdancer.calls.ledger import Ledger
from webdancer.calls.outside import Outside
from webdancer.calls.scope import call_scope
from webdancer.calls.tape import CallKind, Tape
from webdancer.config import Config, CrawlSettings
from webdancer.errors import BudgetError, ConfigError, ModelError, StoreError
from webdancer.llm.protocol import Message, Sampling
from webdancer.pipeline.doctor import by_endpoint
from webdancer.pipeline.exporting import export_run
from webdancer.pipeline.forecast import Forecast, actual, forecast, pilot_settings
from webdancer.pipeline.models import check_keys, open_models
from webdancer.pipeline.progress import console
from webdancer.pipeline.run_folder import RunFolder, ledger_of_process, read_manifest
from webdancer.pipeline.stages import run_pipeline
from webdancer.store import copy_folder, write_atomic, write_json
from webdancer.trajectories.formats import DataFormat, ExportSplit

PILOT_SHARE = 0.1
LEAST_PILOT_QUESTIONS = 4
"""Of each kind."""
_HEADROOM = 2.0
"""The cap that is proposed, as a multiple of the forecast: assumptions may be off, and the pilot is paid for too."""
_FORECASTS = "forecast.json"


class Cap(NamedTuple):
    """What the user is ready to spend; None where that is no matter."""

    money: float | None
    llm_calls: int | None


class _Agreed(NamedTuple):
    """What stands before the work is begun."""

    kept: dict[str, JsonValue]
    """As in `RUN/forecast.json`."""
    cap: Cap


_LIMITS = {
    "max_money": "money",
    "max_llm_calls": "llm_calls",
    "max_llm_tokens": "llm_tokens",
    "max_search_calls": "search_calls",
    "max_page_calls": "page_calls",
}
"""Limits of `[budget]`, each with what `actual` calls that which it bounds."""
AskCap = Callable[[Cap], Cap]
"""Shows the proposed cap and gives the user's."""


async def build(
    target: str,
    out: Path,
    config: Config,
    *,
    ask_cap: AskCap,
    cap: Cap | None = None,
    pilot: bool = True,
    tape: Tape | None = None,
) -> dict[str, JsonValue]:
    """Make questions, trajectories, training files and an evaluation from a site.

    Args:
        target: a URL, a folder of documents, or a snapshot.
        out: the run's folder.
        ask_cap: asked once, where `cap` does not say it; a run that goes on keeps to what was said.
        cap: also the new one of a run that has reached its old one; what it leaves open stays as it was.

    Returns:
        The forecasts and what was really called, as in `RUN/forecast.json`.

    Raises:
        ConfigError: the target is neither a URL nor a folder, the settings name no model, or a key is missing.
        BudgetError: the cap is reached, or the forecast after the pilot exceeds it.
    """
    config = _with_target(config, target)
    is_replay = tape is not None and tape.is_replay
    if not is_replay:
        check_keys(config)
    kept, cap = _agreed(
        out, config, cap, (lambda proposal: proposal) if is_replay else ask_cap
    )  # a replay spends nothing
    config = _within(config, cap)
    await _check_endpoints(out, config, tape)
    await run_pipeline(out, config, until="crawl", tape=tape)
    if pilot:
        await _pilot(out, _less(config, actual(out)), tape)
        spent = actual(out / "pilot")
        measured = forecast(config, pilot=out / "pilot")
        if "pilot" not in kept:
            kept |= {"pilot_cost": spent, "pilot": measured.as_json()}
            write_json(out / _FORECASTS, kept)
            show_forecast(measured, "Forecast of what is still to come, by the pilot")
        _check_cap(measured, cap, spent, actual(out))
    config = _less(config, actual(out / "pilot"))  # also of an attempt before, where this one wants no pilot
    await run_pipeline(out, config, until="sample", tape=tape)
    export_all(out)  # an evaluation that reaches the cap takes no files away
    await run_pipeline(out, config, tape=tape)
    kept["actual"] = actual(out)
    write_json(out / _FORECASTS, kept)
    show_outcome(kept)
    return kept


def _agreed(out: Path, config: Config, cap: Cap | None, ask_cap: AskCap) -> _Agreed:
    """What `forecast.json` holds, of an attempt before or anew, and the cap that is agreed on.

    Raises:
        ConfigError: the cap bounds nothing.
    """
    kept: dict[str, JsonValue] = {}
    if (out / _FORECASTS).exists():
        kept = json.loads((out / _FORECASTS).read_text(encoding="utf-8"))
    if "cap" in kept:
        cap = _raised(Cap(**kept["cap"]), cap)  # type: ignore[arg-type]
    else:
        first = forecast(config)
        show_forecast(first, "Forecast, by assumptions")
        cap = cap or ask_cap(proposed(first))
        kept = {"assumptions": first.as_json()}
    _check_prices(config, cap)
    kept["cap"] = {"money": cap.money, "llm_calls": cap.llm_calls}
    write_json(out / _FORECASTS, kept)
    return _Agreed(kept, cap)


async def _check_endpoints(out: Path, config: Config, tape: Tape | None) -> None:
    """Ask each endpoint for a word, before a crawl that may take an hour and settings that are then the run's.

    Raises:
        ConfigError: one does not answer.
    """
    if read_manifest(out) is not None:
        return
    with closing(Ledger(ledger_of_process(out), config.budget)) as ledger, call_scope("check"):
        outside = Outside("check", ledger=ledger, tape=tape)
        async with open_models(config.llm, mode=config.sample.mode, outside=outside) as models:
            for endpoint, roles in by_endpoint(config):
                try:
                    sampling = Sampling(max_tokens=endpoint.max_tokens or 512)
                    await getattr(models, roles[0]).chat([Message("user", "Say: ready")], sampling)
                except ModelError as error:
                    raise ConfigError(f"{error} (nothing was crawled yet, and any setting may change)") from None


def export_all(run: Path) -> None:
    """Write the training files of a run, in each format of other projects, to `RUN/export/FORMAT`."""
    for format in (name for name in DataFormat if name is not DataFormat.QA):
        try:
            counts = export_run(run, format=format, out=run / "export" / format, split=ExportSplit.ALL)
        except (ConfigError, StoreError) as error:
            console.print(f"  {format}: {error}", markup=False)
            continue
        files = ", ".join(f"{name}: {number:,}" for name, number in counts.files.items())
        console.print(f"  {counts.folder}: {files}", markup=False)


def _with_target(config: Config, target: str) -> Config:
    """The settings for one site: its pages below the path that was given, unless they say otherwise."""
    if urlsplit(target).scheme in ("http", "https"):
        if urlsplit(target).username or urlsplit(target).password:
            raise ConfigError(
                "got a URL with a user name or a password, which the run's folder would keep; take it out of the URL"
            )
        folder = urlsplit(target).path.rpartition("/")[0] + "/"
        prefixes = config.crawl.path_prefixes or ((folder,) if folder != "/" else ())
        update: dict[str, object] = {"urls": (target,), "source": None, "path_prefixes": prefixes}
    elif Path(target).is_dir():
        update = {"urls": (), "source": str(Path(target).resolve())}
    else:
        raise ConfigError(f"got {target!r}, expected an http(s) URL, a folder of documents, or a snapshot's folder")
    if config.llm.default.base_url == "scribe":
        raise ConfigError(
            "the settings name no language model, and the built-in reader knows the embedded web only; take --config one-key "
            "with OPENAI_API_KEY set, or --base-url http://localhost:11434/v1 --model NAME for a server of your own"
        )
    crawl: CrawlSettings = config.crawl.model_copy(update=update)
    return config.model_copy(update={"crawl": crawl})


def _raised(old: Cap, new: Cap | None) -> Cap:
    """The cap of a run that goes on: what the new one leaves open stays bounded as it was."""
    if new is None:
        return old
    return Cap(old.money if new.money is None else new.money, old.llm_calls if new.llm_calls is None else new.llm_calls)


def _check_prices(config: Config, cap: Cap) -> None:
    """A cap of money bounds nothing where nothing has a price.

    Raises:
        ConfigError: that is so.
    """
    if cap.money is not None and forecast(config).total().money == 0 and cap.llm_calls is None:
        raise ConfigError(
            f"a cap of {cap.money:g} in money bounds nothing: the settings name no price of {config.llm.default.model!r}; set "
            "price_prompt and price_completion in [llm.default], or give the cap as --max-calls"
        )


def _within(config: Config, cap: Cap) -> Config:
    """The settings with the cap as their budget, where the file has no tighter one."""
    budget = {"max_money": cap.money, "max_llm_calls": cap.llm_calls}
    for name, value in budget.items():
        limits = [limit for limit in (value, getattr(config.budget, name)) if limit is not None]
        budget[name] = min(limits, default=None)
    return config.model_copy(update={"budget": config.budget.model_copy(update=budget)})


def _less(config: Config, spent: dict[str, JsonValue]) -> Config:
    """The settings with what the pilot has left of their budget."""
    left: dict[str, float] = {}
    for name, key in _LIMITS.items():
        limit, used = getattr(config.budget, name), spent[key]
        assert isinstance(used, int | float)
        if limit is not None:
            left[name] = max(0, limit - used)
    return config.model_copy(update={"budget": config.budget.model_copy(update=left)})


async def _pilot(out: Path, config: Config, tape: Tape | None) -> None:
    """Run a small part first, on the run's snapshot; its page groups become the run's."""
    pilot, small = out / "pilot", pilot_settings(config, share=PILOT_SHARE, least=LEAST_PILOT_QUESTIONS)
    run = RunFolder(pilot, small)
    if not run.is_done("crawl"):
        with run.stage("crawl"):
            copy_folder(out / "crawl", pilot / "crawl")
            (pilot / "snapshot").unlink(missing_ok=True)
            (pilot / "snapshot").symlink_to(Path("..") / "snapshot")
    console.print("[bold]pilot[/]")
    with call_scope("pilot"):  # the run asks the same in its own scope, and is to get its own replies
        await run_pipeline(pilot, small, until="sample", tape=tape)
        if (pilot / "heldout_qa.jsonl").stat().st_size:  # else so few questions passed that none could be held out
            await run_pipeline(pilot, small, until="eval", tape=tape)
    groups = out / "qa_groups.jsonl"
    if not groups.exists():
        write_atomic(groups, (pilot / "qa_groups.jsonl").read_text(encoding="utf-8"))


def proposed(found: Forecast) -> Cap:
    """A cap with some room above a forecast: of money where prices are known, else of calls."""
    total = found.total()
    if total.money > 0:
        return Cap(round(total.money * _HEADROOM, 2), None)
    return Cap(None, math.ceil(found.total(CallKind.CHAT).calls * _HEADROOM))


def _check_cap(measured: Forecast, cap: Cap, pilot: dict[str, JsonValue], run: dict[str, JsonValue]) -> None:
    """Stop before the money is spent, where the forecast says that it will not do.

    Args:
        pilot, run: what each has called so far.

    Raises:
        BudgetError: the forecast exceeds what is left.
    """
    total, calls = measured.total(), measured.total(CallKind.CHAT).calls
    for name, key, limit, forecast_all in (
        ("money", "money", cap.money, total.money),
        ("model calls", "llm_calls", cap.llm_calls, calls),
    ):
        done, tried = run[key], pilot[key]
        assert isinstance(done, int | float)
        assert isinstance(tried, int | float)
        if limit is not None and forecast_all + tried > limit and done < forecast_all:
            raise BudgetError(
                f"the cap will not do: {_rounded(forecast_all - done)} {name} more are forecast, and "
                f"{_rounded(max(0, limit - tried - done))} of {_rounded(limit)} are left. Run the same command with a larger "
                "--max-money or --max-calls, or with fewer questions in another folder"
            )


def show_forecast(found: Forecast, title: str) -> None:
    """A table for people: a row for each role of each stage."""
    table = Table(title=title, title_justify="left")
    names, numbers = ("stage", "role"), ("calls", "tokens", "money")
    for name in (*names, *numbers):
        table.add_column(name, justify="left" if name in names else "right")
    values = found.as_json()
    rows = values["rows"]
    assert isinstance(rows, list)
    for row in rows:
        assert isinstance(row, dict)
        table.add_row(*(str(row[name]) for name in names), *(f"{row[name]:,}" for name in numbers))
    console.print(table)
    console.print(
        f"In all {values['llm_calls']:,} model calls with {values['llm_tokens']:,} tokens, {values['search_calls']:,} searches, "
        f"{values['page_calls']:,} pages read; money {values['money']:,}; about "
        f"{_duration(found.seconds())} of waiting for calls."
    )


def show_outcome(kept: dict[str, JsonValue]) -> None:
    """The forecasts beside what was called."""
    table = Table(title="Forecast and outcome", title_justify="left")
    names = [name for name in ("assumptions", "pilot_cost", "pilot", "actual") if name in kept]
    titles = {
        "assumptions": "assumed",
        "pilot_cost": "pilot itself",
        "pilot": "forecast by the pilot",
        "actual": "actual",
    }
    table.add_column("")
    for name in names:
        table.add_column(titles[name], justify="right")
    for quantity in ("llm_calls", "llm_tokens", "search_calls", "page_calls", "money"):
        cells = []
        for name in names:
            values = kept[name]
            assert isinstance(values, dict)
            cells.append(f"{values[quantity]:,}")
        table.add_row(quantity.replace("_", " "), *cells)
    console.print(table)


def _rounded(value: float) -> str:
    return f"{value:,.2f}" if value < 100 and value != round(value) else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{max(1, round(seconds / 60))} minutes"
