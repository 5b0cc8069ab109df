"""The stages of a run in their order: crawl → synth → sample (with the funnel) → sft → rl → eval → report.

Each stage reads the records that the ones before it left in the run's folder and writes its own; each goes on where an
earlier attempt stopped. The embedded default has two webs, one to train on and one held out; a user's own site has one
snapshot, whose questions are parted so that no answer chain is on both sides.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from webdancer.calls.ledger import Ledger
from webdancer.calls.outside import Outside
from webdancer.calls.scope import call_scope
from webdancer.calls.tape import Tape
from webdancer.config import Config, CrawlSettings
from webdancer.errors import ConfigError, SnapshotError
from webdancer.pipeline.embedded import count_robots_violations, serve_embedded_web
from webdancer.pipeline.evaluating import evaluate_systems
from webdancer.pipeline.models import check_keys, open_models
from webdancer.pipeline.policies import check_base
from webdancer.pipeline.processes import num_processes
from webdancer.pipeline.progress import console, progress_bar
from webdancer.pipeline.run_folder import RunFolder, ledger_of_process, read_manifest
from webdancer.pipeline.summary import write_summary
from webdancer.pipeline.toolbox import open_toolbox
from webdancer.pipeline.training import rl_stage, sft_stage
from webdancer.records import QA, QASplit, Trajectory, Verdict
from webdancer.settings_file import load_config
from webdancer.store import RecordWriter, copy_folder, read_records, write_atomic, write_json, write_records
from webdancer.synth.split import mark_heldout, split_sft_rl, split_single_site
from webdancer.synth.stage import SynthCounts, synthesise
from webdancer.trajectories.funnel import Funnel
from webdancer.trajectories.sample import SampleCounts, sample_trajectories, split_after_funnel
from webdancer.web.crawl import CrawlCounts
from webdancer.web.crawl import crawl as crawl_sites
from webdancer.web.folder import index_folder
from webdancer.web.search import SnapshotReader, SnapshotSearch
from webdancer.web.snapshot import Snapshot
from webdancer.world.facts import World

log = logging.getLogger(__name__)
_TRAINING = ("sft", "rl")
"""The stages that train the policy."""
_CALLING = ("synth", "sample", "rl", "eval")
"""The stages that ask the models and search engines of the settings."""
_COUNTS = "crawl.json"
"""What a crawl counted, in the folder of its snapshot."""
_RECORDED_IN = "recorded_in.txt"
"""In the run's folder: that of its recording."""


@dataclass(frozen=True, slots=True)
class Site:
    """One web of a run: where its snapshot stands and how many questions of each kind are wanted from it."""

    name: str
    snapshot: Path
    num_questions: Mapping[str, int]
    world_seed: int
    world_pages: int


def sites(run: RunFolder) -> list[Site]:
    """The webs of a run: the training web, and in the embedded default the held-out web."""
    config, path = run.config, run.path
    train = Site("train", path / "snapshot", config.synth.num_questions, config.world.seed, config.world.num_pages)
    if not config.crawl.is_embedded:
        return [train]
    heldout = Site(
        "heldout",
        path / "heldout_snapshot",
        config.synth.num_heldout_questions,
        config.world.heldout_seed,
        config.world.num_heldout_pages,
    )
    return [train, heldout]


async def run_pipeline(
    path: Path, config: Config | None, *, until: str | None = None, tape: Tape | None = None
) -> None:
    """Run all stages that are not done yet; without a config with the folder's settings, or in a new one with `tiny`.

    Args:
        tape: records all calls outside, or answers them.

    Raises:
        ConfigError: `until` names no stage, the folder holds a run with other settings, or a key is missing that a stage will
            need.
    """
    if until is not None and until not in STAGES:
        raise ConfigError(f"--until: got {until!r}, expected one of {', '.join(STAGES)}")
    run = RunFolder(path, config or settings_of(path) or load_config(Path("tiny")))
    if run.config.policy.base != "none" and not run.is_done("sft"):
        check_base(run.config, for_engine=until is None or list(STAGES).index(until) > list(STAGES).index("sft"))
    stages = list(STAGES)[: None if until is None else list(STAGES).index(until) + 1]
    if not (tape and tape.is_replay) and any(name in _CALLING and not run.is_done(name) for name in stages):
        check_keys(run.config)
    for name in stages:
        await _run_stage(run, name, tape)


def settings_of(path: Path) -> Config | None:
    """The settings of the run in a folder, None where there is no run."""
    manifest = read_manifest(path)
    return manifest.config if manifest else None


async def run_stage(name: str, path: Path, config: Config | None, *, tape: Tape | None = None) -> None:
    """Run one stage in a folder whose earlier stages are done.

    Raises:
        ConfigError: an earlier stage is not done, or there is no run in the folder and no config was given.
    """
    config = config or settings_of(path)
    if config is None:
        raise ConfigError(f"{path} holds no run; start one with: webdancer run {path}")
    run = RunFolder(path, config)
    for earlier in list(STAGES)[: list(STAGES).index(name)]:
        if not run.is_done(earlier) and not (earlier in _TRAINING and config.policy.base == "none"):
            raise ConfigError(
                f"{path}: the stage {earlier!r} must be done first: webdancer run {path} --until {earlier}"
            )
    await _run_stage(run, name, tape)


async def _run_stage(run: RunFolder, name: str, tape: Tape | None) -> None:
    if run.is_done(name) and name != "report":
        console.print(f"[bold]{name}[/]: done before")
        return
    if num_processes() > 1 and name not in _TRAINING:
        raise ConfigError(f"the stage {name!r} runs in one process; `accelerate launch` is for the stages sft and rl")
    if name in _TRAINING and run.config.policy.base == "none":
        console.print(f"[bold]{name}[/]: policy.base is 'none', nothing is trained")
        return
    console.print(f"[bold]{name}[/]")
    if name != "report":
        _note_recording(run.path / _RECORDED_IN, tape)
    with run.stage(name), open_outside(run, name, tape) as outside, call_scope(name):
        await STAGES[name](run, outside)


def _note_recording(note: Path, tape: Tape | None) -> None:
    """Remember where a run is recorded, and say so where it goes on without."""
    if tape is None and note.exists():
        folder = note.read_text(encoding="utf-8").strip()
        console.print(
            f"  note: this run is recorded in {folder}, and what it calls now will be missing there; stop and add "
            f"--record {folder} to have it whole",
            markup=False,
            soft_wrap=True,
        )
    elif tape is not None and not tape.is_replay:
        write_atomic(note, f"{tape.folder.resolve()}\n")


@contextmanager
def open_outside(run: RunFolder, stage: str, tape: Tape | None = None) -> Iterator[Outside]:
    """What a stage calls outside of the run, put down in the run's ledger and kept within its budget.

    Raises:
        StoreError: another process works in the run's folder.
    """
    with closing(Ledger(ledger_of_process(run.path), run.config.budget)) as ledger:
        yield Outside(stage, ledger=ledger, tape=tape)


async def crawl_stage(run: RunFolder, outside: Outside) -> None:
    """Crawl every site of the run into its snapshot; a replayed run takes the snapshots of the recording."""
    tape = outside.tape
    for site in sites(run):
        if tape is not None and tape.is_replay:
            tape.restore_snapshot(site.name, site.snapshot)
            counts = json.loads((site.snapshot / _COUNTS).read_text(encoding="utf-8"))
        else:
            counts = await _crawl_site(run, site)
            write_json(site.snapshot / _COUNTS, counts)  # beside the pages, so that they go together
            if tape is not None:
                tape.keep_snapshot(site.name, site.snapshot)
        write_json(run.path / "crawl" / f"{site.name}.json", counts)


async def _crawl_site(run: RunFolder, site: Site) -> dict[str, JsonValue]:
    """Crawl one site; what the crawl counted."""
    settings = run.config.crawl
    if settings.source is not None:
        return await take_source(Path(settings.source), site.snapshot, max_pages=settings.max_pages)
    if settings.urls:
        counts = await crawl_to_snapshot(settings, site.snapshot, title=f"pages of {site.name}")
        return counts.model_dump(mode="json")
    world = World(site.world_seed, site.world_pages, right_share=run.config.world.right_share)
    log_file = run.path / "crawl" / f"{site.name}_access.jsonl"
    async with serve_embedded_web(world, access_log=log_file) as resolve:
        here = settings.model_copy(update={"urls": world.roots(), "resolve": resolve})
        counts = await crawl_to_snapshot(here, site.snapshot, title=f"pages of {site.name}")
    return {**counts.model_dump(mode="json"), "num_robots_violations": count_robots_violations(world, log_file)}


async def take_source(source: Path, snapshot: Path, *, max_pages: int) -> dict[str, JsonValue]:
    """Put documents on disk, or a finished snapshot, where the run's snapshot is expected; how many pages there are.

    Raises:
        SnapshotError: there is no such folder, or nothing in it.
    """
    if (source / "snapshot.json").exists():
        if not (snapshot / "snapshot.json").exists():
            copy_folder(source, snapshot)
        with Snapshot.open(snapshot) as opened:
            return {"num_pages": len(opened), "source": str(source)}
    with progress_bar("documents") as advance:
        found = await index_folder(source, snapshot, on_page=lambda: advance(1), max_pages=max_pages)
    return {"num_pages": found.num_pages, "num_left_out": dict(found.num_left_out), "source": str(source)}


async def crawl_to_snapshot(settings: CrawlSettings, out: Path, *, title: str = "pages") -> CrawlCounts:
    """Crawl into a snapshot with a progress bar.

    Raises:
        SnapshotError: the crawl ended without a page.
    """
    with progress_bar(title) as advance:
        shown = 0

        def on_page(counts: CrawlCounts) -> None:
            nonlocal shown
            advance(counts.num_pages - shown)
            shown = counts.num_pages

        counts = await crawl_sites(settings, out, on_page=on_page)
    if counts.num_pages == 0:
        raise SnapshotError(
            f"{out}: not one page was stored from {', '.join(settings.urls)} "
            f"(errors {counts.num_errors}, skipped hosts {counts.skipped_hosts}, {counts.num_robots_blocked} forbidden by "
            "robots.txt); check the URLs and the limits, and run the command again"
        )
    return counts


async def synth_stage(run: RunFolder, outside: Outside) -> None:
    """Write the questions of every site, and split them."""
    config = run.config
    all_sites = sites(run)

    def split_train(qas: Sequence[QA]) -> list[QA]:
        if len(all_sites) > 1:
            return split_sft_rl(qas, sft_share=config.sample.sft_share, seed=config.seed)
        parted = split_single_site(qas, heldout_share=config.synth.heldout_share, seed=config.seed)
        write_json(run.path / "hub_pages.json", parted.hubs)
        train = split_sft_rl(parted.train, sft_share=config.sample.sft_share, seed=config.seed)
        write_records(run.path / "heldout_qa.jsonl", parted.heldout)
        return train

    async with open_models(config.llm, mode=config.sample.mode, outside=outside) as models:
        for site in all_sites:
            is_heldout = site.name == "heldout"
            with (
                Snapshot.open(site.snapshot) as snapshot,
                progress_bar(f"questions of {site.name}", sum(site.num_questions.values())) as advance,
            ):
                await synthesise(
                    snapshot,
                    outside.taped_search(outside.metered_search(SnapshotSearch(snapshot), name="snapshot")),
                    outside.reader(SnapshotReader(snapshot), name="snapshot"),
                    writer=models.writer,
                    rewriter=models.rewriter,
                    answerer=models.agent,
                    settings=config.synth,
                    num_questions=site.num_questions,
                    seed=config.seed,
                    out=run.path,
                    prefix="heldout_" if is_heldout else "",
                    assign_splits=mark_heldout if is_heldout else split_train,
                    on_progress=_advance_by_kept(advance),
                )


def _advance_by_kept(advance: Callable[[int], None]) -> Callable[[SynthCounts], None]:
    shown = 0

    def on_progress(counts: SynthCounts) -> None:
        nonlocal shown
        advance(sum(counts.kept.values()) - shown)
        shown = sum(counts.kept.values())

    return on_progress


async def sample_stage(run: RunFolder, outside: Outside) -> None:
    """Sample trajectories for the SFT questions, each through the funnel at once; what falls is tried again."""
    config, path = run.config, run.path
    qas = list(read_records(path / "qa.jsonl", QA))
    by_id = {qa.id: qa for qa in qas}
    for_sft = [qa for qa in qas if qa.split is QASplit.SFT]
    kept: set[str] = set()
    with (
        Snapshot.open(path / "snapshot") as snapshot,
        RecordWriter(path / "trajectories.jsonl", Trajectory) as trajectories,
        RecordWriter(path / "verdicts.jsonl", Verdict) as verdicts,
        progress_bar("questions sampled", len(for_sft)) as advance,
    ):
        async with (
            open_models(
                config.llm, mode=config.sample.mode, outside=outside, fault_log=path / "planted_faults.jsonl"
            ) as models,
            open_toolbox(config, models.summariser, outside, snapshot=snapshot) as toolbox,
        ):
            funnel = Funnel(models.judge, models.critic, config.funnel, verdicts)

            async def accept(trajectory: Trajectory) -> bool:
                with call_scope(f"funnel/{trajectory.id}"):
                    last = await funnel.run(trajectory, by_id[trajectory.qa_id])
                if last.keep:
                    kept.add(trajectory.id)
                return last.keep

            def on_progress(counts: SampleCounts) -> None:
                advance(1)

            await sample_trajectories(
                for_sft,
                model=models.teacher,
                toolbox=toolbox,
                agent_settings=config.agent,
                settings=config.sample,
                seed=config.seed,
                writer=trajectories,
                accept=accept,
                on_progress=on_progress,
            )
    split_after_funnel(qas, list(read_records(path / "trajectories.jsonl", Trajectory)), kept, out=path)


async def eval_stage(run: RunFolder, outside: Outside) -> None:
    """Put the held-out questions to every system."""
    await evaluate_systems(run.path, run.config, sites(run)[-1].snapshot, outside)


async def report_stage(run: RunFolder, outside: Outside) -> None:
    """Write summary.json and report.html."""
    write_summary(run)


STAGES: dict[str, Callable[[RunFolder, Outside], Awaitable[None]]] = {
    "crawl": crawl_stage,
    "synth": synth_stage,
    "sample": sample_stage,
    "sft": sft_stage,
    "rl": rl_stage,
    "eval": eval_stage,
    "report": report_stage,
}
"""In the order in which they run."""
