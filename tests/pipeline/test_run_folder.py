"""Which settings of a run may still change."""

from pathlib import Path

import pytest

from webdancer.config import Config, EndpointSettings
from webdancer.errors import ConfigError
from webdancer.pipeline.run_folder import RunFolder, read_manifest


def changed(**sections: dict[str, object]) -> Config:
    config = Config()
    update = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=update)


def run_with(path: Path, *stages: str) -> RunFolder:
    run = RunFolder(path, Config())
    for name in stages:
        with run.stage(name):
            if name in ("sft", "rl", "eval"):
                (path / name).mkdir()
    return run


def test_settings_of_stages_to_come_may_change(tmp_path: Path) -> None:
    run_with(tmp_path, "crawl", "synth", "sample")
    config = changed(sft={"learning_rate": 0.5}, policy={"base": "other"}, eval={"temperature": 0.6})
    assert RunFolder(tmp_path, config).config.sft.learning_rate == 0.5
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.config == config
    assert list(manifest.stages) == ["crawl", "synth", "sample"]


def test_a_stage_that_was_killed_has_begun(tmp_path: Path) -> None:
    under_way = run_with(tmp_path, "crawl").stage("synth")
    under_way.__enter__()
    with pytest.raises(ConfigError, match=r"synth\.max_rewrites"):
        RunFolder(tmp_path, changed(synth={"max_rewrites": 2}))


def test_models_may_change_while_nothing_of_theirs_is_made(tmp_path: Path) -> None:
    run_with(tmp_path, "crawl", "synth")
    real = EndpointSettings(base_url="http://127.0.0.1:1/v1", model="m")
    RunFolder(tmp_path, changed(llm={"teacher": real}, agent={"max_steps": 3}, sample={"max_attempts": 2}))
    with pytest.raises(ConfigError, match=r"llm.writer: null → .*; give another folder, or delete it to start again$"):
        RunFolder(tmp_path, changed(llm={"teacher": real, "writer": real}))


def test_an_endpoint_may_move_at_any_time(tmp_path: Path) -> None:
    here = EndpointSettings(base_url="http://127.0.0.1:1/v1", model="m")
    run = RunFolder(tmp_path, changed(llm={"judge": here}))
    for stage in ("crawl", "synth", "sample", "sft", "rl", "eval"):
        with run.stage(stage):
            (tmp_path / stage).mkdir()
    there = here.model_copy(update={"base_url": "http://127.0.0.1:2/v1", "max_concurrent": 1})
    RunFolder(tmp_path, changed(llm={"judge": there}, policy={"max_batch": 2}, eval={"concurrency": 1}))
    with pytest.raises(ConfigError, match=r"llm\.judge\.model"):
        RunFolder(tmp_path, changed(llm={"judge": there.model_copy(update={"model": "n"})}))


def test_a_training_whose_folder_is_deleted_is_done_again(tmp_path: Path) -> None:
    run_with(tmp_path, "crawl", "synth", "sample", "sft", "rl", "eval", "report")
    other = changed(rl={"learning_rate": 0.5})
    with pytest.raises(ConfigError, match=r"to do these stages again, delete rl and eval in it\)$"):
        RunFolder(tmp_path, other)
    (tmp_path / "rl").rmdir()
    with pytest.raises(ConfigError, match="rl is gone, but eval beside it stem from it"):
        RunFolder(tmp_path, other)
    (tmp_path / "eval").rmdir()
    assert list(RunFolder(tmp_path, other).manifest.stages) == ["crawl", "synth", "sample", "sft"]
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.config == other


def test_a_training_that_ran_out_of_memory_may_go_on_with_less(tmp_path: Path) -> None:
    run = run_with(tmp_path, "sample", "sft")
    with pytest.raises(MemoryError), run.stage("rl"):
        raise MemoryError
    RunFolder(tmp_path, changed(rl={"micro_batch_tokens": 1024}, policy={"max_batch": 2}))


@pytest.mark.parametrize(
    ("stages", "sections", "named"),
    [
        ((), {"world": {"seed": 1}}, "world.seed: 7 → 1"),
        (("crawl", "synth"), {"synth": {"max_rewrites": 2}}, "synth.max_rewrites: 5 → 2"),
        (("crawl", "synth"), {"sample": {"sft_share": 0.25}}, "sample.sft_share: 0.5 → 0.25"),
        (("sample",), {"sample": {"max_attempts": 2}}, "sample.max_attempts: 5 → 2"),
        (("sample",), {"funnel": {"min_actions": 3}}, "funnel.min_actions: 2 → 3"),
        (("sft",), {"sft": {"num_epochs": 9.0}}, "sft.num_epochs: 4.0 → 9.0"),
        (("sft",), {"policy": {"base": "other", "max_batch": 2}}, 'policy.base: "tiny" → "other"'),
        (("sft", "rl"), {"policy": {"max_context": 64}}, "policy.max_context: 2048 → 64"),
        (("eval",), {"eval": {"temperature": 0.6}}, "eval.temperature: 0.0 → 0.6"),
    ],
)
def test_settings_of_what_is_done_may_not(
    tmp_path: Path, stages: tuple[str, ...], sections: dict[str, dict[str, object]], named: str
) -> None:
    run_with(tmp_path, *stages)
    with pytest.raises(ConfigError) as raised:
        RunFolder(tmp_path, changed(**sections))
    assert f"holds a run with other settings ({named}); give another folder" in str(raised.value)
