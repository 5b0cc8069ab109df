"""`webdancer ask --config live`, as its user runs it: the shipped settings with other addresses, real programs, real HTTP."""

import asyncio
import subprocess
import sys
from pathlib import Path

from test_failures import model_server, serper_of

from webdancer.config import CrawlSettings
from webdancer.pipeline.embedded import serve_embedded_web
from webdancer.pipeline.stages import crawl_to_snapshot
from webdancer.settings_file import packaged_config
from webdancer.web.snapshot import Snapshot
from webdancer.world.facts import World

KEY = "sk-of-this-test-1234567"


async def webdancer(*arguments: str, cwd: Path, env: dict[str, str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "webdancer", *arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "COLUMNS": "200", "NO_COLOR": "1", **env},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def settings(*, models: str, serper: str, resolve: dict[str, str]) -> str:
    """The shipped live settings, with the model's, the search engine's and the sites' addresses of this test."""
    shipped = packaged_config("live")
    assert shipped is not None
    changed = {
        'base_url = "https://api.openai.com/v1"': f'base_url = "{models}/v1"',
        'model = "gpt-4o-mini"': 'model = "scribe"',
        'search = ["duckduckgo"]     #': 'search = ["serper"] #',
        "[agent]\n": f'[web.serper]\nbase_url = "{serper}"\n\n[agent]\n',
        "delay_s = 0.5\n": "delay_s = 0.0\nresolve = {"
        + ", ".join(f'"{host}" = "{address}"' for host, address in resolve.items())
        + "}\n",
    }
    text = shipped.read_text(encoding="utf-8")
    for old, new in changed.items():
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


async def test_a_question_to_the_live_web_is_answered_recorded_and_replayed(tmp_path):
    world = World(7, 300)
    config = tmp_path / "my.toml"
    async with serve_embedded_web(world, access_log=tmp_path / "access.jsonl") as resolve, model_server() as models:
        await crawl_to_snapshot(CrawlSettings(urls=world.roots(), resolve=resolve), tmp_path / "index")
        university = next(entity for entity in world.graph.region(0).entities() if entity.type == "university")
        question = f"In which city was the founder of {university.title} born?"
        async with serper_of(tmp_path / "index") as serper:
            config.write_text(settings(models=models, serper=serper, resolve=resolve), encoding="utf-8")
            keys = {"OPENAI_API_KEY": KEY, "SERPER_API_KEY": KEY}
            asked = ("ask", question, "--config", str(config))
            code, answer, steps = await webdancer(*asked, "--record", "tape", cwd=tmp_path, env=keys)
            assert code == 0, steps
            code, _, said = await webdancer(*asked, cwd=tmp_path, env={"OPENAI_API_KEY": KEY})
            assert code == 2
            assert "SERPER_API_KEY" in said
            code, _, said = await webdancer(*asked, cwd=tmp_path, env={})
            assert code == 2
            assert "OPENAI_API_KEY" in said
        # The search engine is gone: the model knows nothing, and what it says is marked as that.
        _, _, said = await webdancer(*asked, cwd=tmp_path, env=keys)
        assert "warning: every call failed, so the answer is a guess" in said
    assert "Sources:" in steps
    assert "warning" not in steps
    assert university.title in steps
    assert "calls, " in steps
    assert "money 0.0" in steps
    with Snapshot.open(tmp_path / "tape" / "web") as pages:
        assert any(university.title in page.title for url in pages.urls() if (page := pages.page(url)))
    # No server is left and no key is set.
    code, again, _ = await webdancer(*asked, "--replay", "tape", cwd=tmp_path, env={})
    assert (code, again) == (0, answer)
    code, _, said = await webdancer(
        "ask", "Another?", "--config", str(config), "--replay", "tape", cwd=tmp_path, env={}
    )
    assert code == 1
    assert "no chat call" in said
    written = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert written == []


async def test_without_a_run_and_without_a_key_it_says_how_to_begin(tmp_path):
    code, _, said = await webdancer("ask", "Which city?", cwd=tmp_path, env={})
    assert code == 2
    assert "webdancer quickstart" in said
    assert "--config live" in said
