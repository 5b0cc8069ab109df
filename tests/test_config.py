"""Settings: every mistake in a config file is named with key, value, file and what would have been right."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from webdancer.config import Config, EndpointSettings
from webdancer.errors import ConfigError
from webdancer.records import CotMode
from webdancer.settings_file import load_config, parse_config, settings_toml


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def message_of(folder: Path, text: str) -> str:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def test_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == Config()


def test_values_of_every_shape_are_read(tmp_path: Path) -> None:
    config = load_config(
        write(
            tmp_path,
            """
            seed = 5
            [crawl]
            urls = ["http://a.example/", "http://b.example/"]
            resolve = { "a.example" = "127.0.0.1:8000" }
            timeout_s = 3
            [sample]
            mode = "long"
            [llm.judge]
            base_url = "http://127.0.0.1:1/v1"
            model = "j"
            temperature = 0
            """,
        )
    )
    assert config.seed == 5
    assert config.crawl.urls == ("http://a.example/", "http://b.example/")
    assert config.crawl.resolve == {"a.example": "127.0.0.1:8000"}
    assert config.crawl.timeout_s == 3.0
    assert config.sample.mode is CotMode.LONG
    assert config.llm.judge is not None
    assert config.llm.judge.temperature == 0.0
    assert config.llm.critic is None


def test_unknown_key_names_key_value_file_and_nearest(tmp_path: Path) -> None:
    message = message_of(tmp_path, "[crawl]\nmax_page = 100\n")
    assert message == (f"{tmp_path}/run.toml: unknown key 'crawl.max_page' (value 100); nearest known key: 'max_pages'")


def test_unknown_key_in_an_optional_section(tmp_path: Path) -> None:
    message = message_of(tmp_path, '[llm.judge]\nmodl = "x"\n')
    assert "unknown key 'llm.judge.modl' (value 'x'); nearest known key: 'model'" in message


def test_unknown_section(tmp_path: Path) -> None:
    message = message_of(tmp_path, "[crwl]\nmax_pages = 1\n")
    assert "unknown key 'crwl' (value {'max_pages': 1}); nearest known key: 'crawl'" in message


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ('[crawl]\nmax_pages = "many"\n', "crawl.max_pages", "'many'"),
        ('[crawl]\nmax_pages = "5000"\n', "crawl.max_pages", "'5000'"),  # no silent conversion of a string
        ("[crawl]\nmax_pages = 2.0\n", "crawl.max_pages", "2.0"),
        ("[crawl]\nobey_robots = 1\n", "crawl.obey_robots", "1"),
        ("[crawl]\nuser_agent = 7\n", "crawl.user_agent", "7"),
        ("[crawl]\nmax_pages = 0\n", "crawl.max_pages", "0"),
        ("[synth.num_questions]\ncoutn = 5\n", "synth.num_questions", "{'coutn': 5}"),
        ("[synth]\nnum_heldout_questions = {count = -1}\n", "synth.num_heldout_questions", "{'count': -1}"),
        ('[crawl]\nurls = "http://a.example/"\n', "crawl.urls", "'http://a.example/'"),
        ("crawl = 3\n", "crawl", "3"),
        ('[sample]\nmode = "medium"\n', "sample.mode", "'medium'"),
        ('[eval]\nsystems = ["scribe", "oracle"]\n', "eval.systems.1", "'oracle'"),
    ],
)
def test_wrong_value_names_key_value_and_file(tmp_path: Path, text: str, key: str, value: str) -> None:
    assert message_of(tmp_path, text).startswith(f"{tmp_path}/run.toml: '{key}': got {value}: ")


@pytest.mark.parametrize("text", ['model = "gpt"', 'api_key_env = "KEY"', 'api_key_file = "key"'])
def test_a_model_without_an_address_is_not_taken_for_the_scribe(tmp_path: Path, text: str) -> None:
    message = message_of(tmp_path, f"[llm.default]\n{text}\n")
    assert "'llm.default': got {" in message
    assert "no base_url: set it" in message


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    lines = message_of(tmp_path, "seeds = 1\n[world]\nnum_pages = 3\n").splitlines()
    assert len(lines) == 2
    assert any("'seeds'" in line and "'seed'" in line for line in lines)
    assert any("'world.num_pages': got 3:" in line and "20" in line for line in lines)


def test_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path, "")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "runn.toml")
    assert str(caught.value) == (
        f"cannot read the config file {tmp_path}/runn.toml: No such file or directory; did you mean {tmp_path}/run.toml?"
    )


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file or directory$"):
        load_config(tmp_path / "none" / "run.toml")


def test_broken_toml_names_file_and_place(tmp_path: Path) -> None:
    message = message_of(tmp_path, "seed = 1\nworld = [\n")
    assert message.startswith(f"{tmp_path}/run.toml is not valid TOML: ")


def test_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"seed = 1 # \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(path)


def test_source_is_named_for_values_that_come_from_elsewhere() -> None:
    with pytest.raises(ConfigError, match=r"^--set: 'seed': got 'x'"):
        parse_config({"seed": "x"}, source="--set")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().seed = 2  # type: ignore[misc]


def test_a_bare_name_is_a_packaged_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("tiny")).policy.base == "tiny"
    assert load_config(Path("small")).policy.base == "Qwen/Qwen3-0.6B"
    write(tmp_path, "seed = 9").rename(tmp_path / "small")  # a file of that name is nearer
    assert load_config(Path("small")).seed == 9
    with pytest.raises(ConfigError, match=r"cannot read the config file tinny: .*did you mean tiny"):
        load_config(Path("tinny"))


def test_a_file_says_only_what_it_changes_of_the_one_it_extends(tmp_path: Path) -> None:
    tiny = load_config(Path("tiny"))
    found = load_config(write(tmp_path, 'extends = "tiny"\nrl.clip_high = 0.2\n'))
    assert found == tiny.model_copy(update={"rl": tiny.rl.model_copy(update={"clip_high": 0.2})})
    assert found.rl.groups_per_step != Config().rl.groups_per_step


def test_a_table_within_a_section_is_taken_whole(tmp_path: Path) -> None:
    """Else one endpoint would be asked with the key, and counted with the prices, of another."""
    live = load_config(Path("live"))
    assert live.llm.default.api_key_env is not None
    assert live.llm.default.price_prompt > 0
    text = 'extends = "live"\n[llm]\nvary_wording = false\n[llm.default]\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
    found = load_config(write(tmp_path, text))
    assert found.llm.default == EndpointSettings(base_url="http://127.0.0.1:1/v1", model="m")
    assert (found.llm.vary_wording, found.web) == (False, live.web)


def test_a_chain_of_files_each_beside_the_one_that_extends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").write_text('seed = 3\n[eval]\nsystems = ["sft", "rl"]\n')  # nearer than the one that ships
    (tmp_path / "middle.toml").write_text('extends = "tiny"\nseed = 4\n')
    monkeypatch.chdir(tmp_path.parent)
    found = load_config(write(tmp_path, 'extends = "middle.toml"\n[eval]\nsystems = ["base"]\n'))
    assert (found.seed, found.eval.systems) == (4, ("base",))


def test_what_is_extended_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_config(Path("reproduce"))  # extends tiny
    (tmp_path / "tiny").write_text("seed = 3\n")
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("reproduce")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("extends = 3\n", "run.toml: 'extends': got 3, expected a file, or the name of one that ships"),
        ('extends = "run.toml"\n', "run.toml: 'extends': 'run.toml' leads back to "),
        ('extends = "around.toml"\n', "around.toml: 'extends': 'run.toml' leads back to "),
        ('extends = "tinny"\n', "run.toml extends it: cannot read the config file "),
        ('extends = "tinny"\n', "No such file or directory; did you mean tiny?"),
        ('extends = "arond.toml"\n', "No such file or directory; did you mean around.toml?"),
        ('extends = "wrong.toml"\n', "wrong.toml: unknown key 'crawl.max_page' (value 3)"),
        ('extend = "tiny"\n', "unknown key 'extend' (value 'tiny'); nearest known key: 'extends'"),
        (
            '[rl]\nextends = "tiny"\n',
            "unknown key 'rl.extends' (value 'tiny'); it must stand before the first [section]",
        ),
    ],
)
def test_extending_what_cannot_be(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "around.toml").write_text('extends = "run.toml"\n')
    (tmp_path / "wrong.toml").write_text("[crawl]\nmax_page = 3\n")
    assert expected in message_of(tmp_path, text)


def test_all_settings_print_as_toml_that_reads_back(tmp_path: Path) -> None:
    tiny = load_config(Path("tiny"))
    endpoint = EndpointSettings(base_url="http://x/v1", model='a "b" \\ ü', max_tokens=3)
    config = tiny.model_copy(
        update={
            "crawl": tiny.crawl.model_copy(update={"urls": ("http://a/",), "resolve": {"a.example": "127.0.0.1:1"}}),
            "llm": tiny.llm.model_copy(update={"judge": endpoint}),
        }
    )
    for settings in (Config(), tiny, config):
        text = settings_toml(settings)
        assert load_config(write(tmp_path, text)) == settings
    assert "# Tokens of one episode.\nmax_context = 2048  # ≥ 64\n" in text
    assert "# [llm.critic] may be a section of its own" in text
    assert "# importance_cap =  # > 0" in text
