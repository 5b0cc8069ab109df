"""The command line's messages for wrong input, run as the user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from webdancer.cli.common import with_endpoint
from webdancer.config import Config
from webdancer.errors import ConfigError
from webdancer.settings_file import load_config


def webdancer(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "webdancer", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "{tmp}/r", "--config", "{tmp}/absent.toml"), 2, "cannot read the config file {tmp}/absent.toml"),
        (("run", "{tmp}/r", "--until", "lunch"), 2, "--until: got 'lunch', expected one of crawl, synth"),
        (("synth", "{tmp}/r"), 2, "{tmp}/r holds no run"),
        (("search", "{tmp}/none", "x"), 1, "{tmp}/none: no snapshot here"),
        (("ask", "Who?", "--snapshot", "{tmp}/none"), 1, "{tmp}/none: no snapshot here"),
        (("crawl", "http://a.example/", "--out", "{tmp}/s", "--resolve", "oops"), 2, "--resolve: got 'oops'"),
        (("import", "{tmp}/none.jsonl", "--out", "{tmp}/o"), 1, "{tmp}/none.jsonl"),
        (("index", "{tmp}/none.warc", "--out", "{tmp}/o"), 1, "{tmp}/none.warc"),
        (("estimate", "--pilot", "{tmp}/none"), 2, "--pilot: {tmp}/none holds no run"),
        (("serve", "--model", "nobody"), 2, "--model: got 'nobody'"),
        (("serve", "--model", "{tmp}/damaged"), 2, "{tmp}/damaged: no checkpoint here"),
        (("rl", "{tmp}/r"), 2, "{tmp}/r holds no run"),
        (
            ("run", "{tmp}/r", "--config", "smal"),
            2,
            "cannot read the config file smal: No such file or directory; did you mean small?",
        ),
        (("crawl", "http://a.example/", "--out", "{tmp}/s", "--max-pages", "0"), 2, "'crawl.max_pages': got 0"),
        (("crawl", "http://127.0.0.1:9/", "--out", "{tmp}/s"), 1, "not one page was stored from http://127.0.0.1:9/"),
        (("ask", " ", "--run", "{tmp}/none"), 2, "the question is empty"),
        (
            ("run", "{tmp}/damaged"),
            2,
            "{tmp}/damaged/manifest.json is no manifest of this version (config: Field required)",
        ),
        (("eval", "{tmp}/damaged"), 2, "{tmp}/damaged/manifest.json is no manifest of this version"),
    ],
)
def test_wrong_input_gets_one_clear_message(
    arguments: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{}")
    done = webdancer(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == code, done.stderr
    assert "error: " in done.stderr
    assert message.format(tmp=tmp_path) in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[crawl]\nmax_pagess = 3\n")
    done = webdancer("run", str(tmp_path / "r"), "--config", str(config))
    assert done.returncode == 2
    assert "unknown key 'crawl.max_pagess' (value 3); nearest known key: 'max_pages'" in done.stderr


def test_a_port_out_of_range_is_wrong_usage() -> None:
    done = webdancer("serve", "--port", "70000")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_cap_below_zero_was_taken(tmp_path: Path) -> None:
    """It is asked for again; where nobody answers, the message names the options and nothing is begun."""
    command = ("build", str(tmp_path), "--out", str(tmp_path / "r"), "--base-url", "http://127.0.0.1:9/v1")
    done = subprocess.run(
        [sys.executable, "-m", "webdancer", *command, "--model", "m"],
        input="-5\n0\nfive\n", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("expected a number above 0") == 3
    assert "error: no cap was given; --max-money, --max-calls or --yes" in done.stderr
    assert not (tmp_path / "r").exists()


def test_settings_for_an_agent_served_the_scribe() -> None:
    done = webdancer("serve", "--config", "live")
    assert done.returncode == 2
    assert "--config needs --agent, or a checkpoint by --model" in done.stderr


def test_a_free_endpoint_kept_the_price_of_cached_tokens() -> None:
    config = with_endpoint(load_config(Path("one-key")), base_url="http://localhost:11434/v1", model="qwen3:8b")
    endpoint = config.llm.default
    assert (endpoint.price_prompt, endpoint.price_cached, endpoint.price_completion) == (0.0, None, 0.0)
    assert (endpoint.api_key_env, endpoint.model) == (None, "qwen3:8b")


def test_another_model_had_the_price_of_the_one_in_the_settings() -> None:
    config = with_endpoint(load_config(Path("one-key")), base_url=None, model="gpt-5")
    endpoint = config.llm.default
    assert (endpoint.price_prompt, endpoint.price_cached, endpoint.price_completion) == (0.0, None, 0.0)
    assert (endpoint.api_key_env, endpoint.model) == ("OPENAI_API_KEY", "gpt-5")
    assert with_endpoint(load_config(Path("one-key")), base_url=None, model="gpt-4o-mini").llm.default.price_prompt > 0


def test_a_model_without_an_endpoint_was_ignored() -> None:
    with pytest.raises(ConfigError, match="--model qwen3:8b: the settings name no endpoint; add --base-url"):
        with_endpoint(Config(), base_url=None, model="qwen3:8b")
