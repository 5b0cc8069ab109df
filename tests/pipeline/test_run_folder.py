"""Which settings of a run may still change."""

from pathlib import Path

import pytest

from webdancer.config import Config
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
            pass
    return run


def test_settings_of_stages_to_come_may_change(tmp_path: Path) -> None:
    run_with(tmp_path, "crawl", "synth", "sample")
    config = changed(sft={"learning_rate": 0.5}, policy={"base": "other"}, eval={"temperature": 0.6})
    assert RunFolder(tmp_path, config).config.sft.learning_rate == 0.5
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.config == config
    assert list(manifest.stages) == ["crawl", "synth", "sample"]


def test_a_training_that_ran_out_of_memory_may_go_on_with_less(tmp_path: Path) -> None:
    run = run_with(tmp_path, "sample", "sft")
    with pytest.raises(MemoryError), run.stage("rl"):
        raise MemoryError
    RunFolder(tmp_path, changed(rl={"micro_batch_tokens": 1024}, policy={"max_batch": 2}))


@pytest.mark.parametrize(
    ("stages", "sections", "named"),
    [
        ((), {"world": {"seed": 1}}, "world.seed: 7 → 1"),
        (("crawl",), {"synth": {"max_rewrites": 2}}, "synth.max_rewrites: 5 → 2"),
        (("sample",), {"funnel": {"min_actions": 3}}, "funnel.min_actions: 2 → 3"),
        (("sft",), {"sft": {"num_epochs": 9.0}}, "sft.num_epochs: 4.0 → 9.0"),
        (("sft",), {"policy": {"base": "other", "max_batch": 2}}, 'policy.base: "tiny" → "other"'),
        (("sft", "rl"), {"policy": {"max_batch": 2}}, "policy.max_batch: 256 → 2"),
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
