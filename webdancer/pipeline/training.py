"""The stages that train the policy: SFT on the funnel's trajectories, then DAPO by live rollouts (paper, 3.3 and 4).

Both go on where an earlier attempt was stopped; the trainers keep their own state in `RUN/sft` and `RUN/rl`. Under
`accelerate launch` every process runs the stage, and only the first of them shows progress and writes the manifest.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.calls.outside import Outside
from webdancer.errors import StoreError
from webdancer.pipeline.models import open_models
from webdancer.pipeline.policies import checkpoint_of
from webdancer.pipeline.progress import step_bar
from webdancer.pipeline.run_folder import RunFolder
from webdancer.pipeline.toolbox import open_toolbox
from webdancer.records import QA, Trajectory
from webdancer.store import read_records
from webdancer.web.snapshot import Snapshot

if TYPE_CHECKING:
    from webdancer.train.rl import RlProgress
    from webdancer.train.sft import SftProgress


async def sft_stage(run: RunFolder, outside: Outside) -> None:
    """Fine-tune the base model on the trajectories that passed the funnel; the checkpoint is `RUN/sft`.

    Raises:
        StoreError: not one trajectory passed.
    """
    from webdancer.train.sft import train_sft

    config, path = run.config, run.path
    trajectories = list(read_records(path / "sft.jsonl", Trajectory))
    if not trajectories:
        raise StoreError(f"{path / 'sft.jsonl'} holds no trajectories; nothing can be learnt from it")
    with _ctrl_c_at_once(), step_bar("SFT steps") as show:

        def on_progress(progress: "SftProgress") -> None:
            validation = progress.validation_loss
            figures = f"loss {progress.loss:.3f}" + ("" if validation is None else f", validation {validation:.3f}")
            show(progress.step, progress.num_steps, figures)

        train_sft(
            trajectories,
            base=checkpoint_of("base", path, config),
            out=path / "sft",
            settings=config.sft,
            policy=config.policy,
            prompt=config.agent.prompt,
            schemas=TOOL_SCHEMAS,
            seed=config.seed,
            on_progress=on_progress,
        )


async def rl_stage(run: RunFolder, outside: Outside) -> None:
    """Train the SFT checkpoint on by DAPO, on the questions that SFT has not seen; the checkpoint is `RUN/rl`.

    Raises:
        StoreError: there are no questions.
    """
    from webdancer.train.rl import train_rl

    config, path = run.config, run.path
    qas = list(read_records(path / "rl_qa.jsonl", QA))
    if not qas:
        raise StoreError(f"{path / 'rl_qa.jsonl'} holds no questions; nothing can be learnt from it")
    with Snapshot.open(path / "snapshot") as snapshot, step_bar("DAPO steps") as show:

        def on_progress(progress: "RlProgress") -> None:
            figures = f"solve rate {progress.solve_rate:.3f}, reward {progress.reward:.3f}"
            show(progress.step, progress.num_steps, figures)

        async with (
            open_models(config.llm, mode=config.sample.mode, outside=outside) as models,
            open_toolbox(config, models.summariser, outside, snapshot=snapshot) as toolbox,
        ):
            await train_rl(
                qas,
                base=path / "sft",
                out=path / "rl",
                toolbox=toolbox,
                judge_model=models.judge,
                agent_settings=config.agent,
                settings=config.rl,
                policy=config.policy,
                seed=config.seed,
                on_progress=on_progress,
            )


@contextmanager
def _ctrl_c_at_once() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt inside; asyncio's own handler would wait for the next `await`, and SFT has none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
