"""The doctor finds what is missing, and lets pass what works: keys, endpoints, roles, context, search, reader."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from webdancer.config import Config, CrawlSettings, EndpointSettings, LlmSettings, ProviderSettings, WebSettings
from webdancer.errors import ConfigError
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.pipeline.doctor import Finding, Level, examine
from webdancer.pipeline.models import check_keys
from webdancer.records import Usage
from webdancer.serve.openai_api import create_app, serve

CHAIN = {
    "question": "In which town was the engineer who designed the Orlow Bridge born?",
    "answer": "Kesterby",
    "evidence_urls": ["http://trial.example/Orlow_Bridge", "http://trial.example/Tilda_Marrow"],
}
SIMPLE = {
    "question": "In which town was Tilda Marrow born?",
    "answer": "Kesterby",
    "evidence_urls": ["http://trial.example/Tilda_Marrow"],
}
DESCRIBED = {
    "description": "the engineer who designed the Orlow Bridge",
    "introduced": ["Orlow Bridge"],
    "evidence_urls": ["http://trial.example/Orlow_Bridge"],
}
REPLIES = {
    "picker": {"entity": "Tilda Marrow", "query": "Tilda Marrow"},
    "describer": DESCRIBED,
    "rewriter": {"question": CHAIN["question"]},
    "summariser": {"rational": "r", "evidence": "She was born in Kesterby.", "summary": "Born in Kesterby."},
    "critic": {"comment": "c", "non_redundant": True, "goal_aligned": True, "logical": True, "accurate": True},
    "answerer": {"answer": "8"},
}
SEARCH = (
    '<think>I search.</think>\n<tool_call>\n{"name": "search", "arguments": {"query": ["Orlow Bridge"]}}\n</tool_call>'
)
ANSWER = "<think>Her page says so.</think>\n<answer>Kesterby</answer>"


class GoodModel:
    """Does what each prompt asks, as far as the doctor's trials go; reads only the last `context` characters of a prompt."""

    name = "good"

    def __init__(self, *, context: int = 1_000_000, wrong: str = "") -> None:
        self._context, self._wrong = context, wrong

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        text = messages[0].content[-self._context :]
        role = text.partition("\n")[0].removeprefix("Role: ")
        usage = Usage(prompt_tokens=len(text) // 4, completion_tokens=5, llm_calls=1)
        if role == self._wrong:
            return ChatReply("I would rather not.", usage=usage)
        return ChatReply(self._reply(role, text, messages), usage=usage)

    def _reply(self, role: str, text: str, messages: Sequence[Message]) -> str:
        match role:
            case "writer":
                simple = "<kind>\nsimple\n</kind>" in text
                return json.dumps({"questions": [SIMPLE if simple else CHAIN]})
            case "agent":
                return ANSWER if any(message.role == "assistant" for message in messages) else SEARCH
            case "judge":
                return json.dumps({"reason": "r", "correct": "Kesterby\n</answer>" in text})
            case _ if role in REPLIES:
                return json.dumps(REPLIES[role])
        return "heliotrope" if "heliotrope" in text else "I do not know."


@asynccontextmanager
async def served(model: GoodModel) -> AsyncIterator[str]:
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(create_app({model.name: model}), "127.0.0.1", 0, ready.set_result))
    try:
        yield f"http://127.0.0.1:{await ready}/v1"
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


def on(url: str, **endpoint: object) -> Config:
    default = EndpointSettings.model_validate({"base_url": url, "model": "good", "max_attempts": 1, **endpoint})
    return Config(llm=LlmSettings(default=default))


async def found(config: Config, **options: object) -> dict[str, Finding]:
    return {finding.what: finding async for finding in examine(config, **options)}  # type: ignore[arg-type]


async def test_a_model_that_holds_every_role_passes():
    async with served(GoodModel()) as url:
        findings = await found(on(url))
    roles = {name for name in findings if name.startswith("role ")}
    assert roles == {
        f"role {name}" for name in ("writer", "rewriter", "teacher", "summariser", "judge", "critic", "answerer")
    }
    assert {name: f.detail for name, f in findings.items() if f.level is Level.FAIL} == {}
    assert findings["context of good"].detail == "reads prompts of about 32,000 tokens from their beginning"


@pytest.mark.parametrize(
    ("role", "fails"),
    [
        ("summariser", {"role summariser"}),
        ("judge", {"role judge", "role critic"}),  # the funnel's critic comes behind its judge
        ("writer", {"role writer", "role rewriter"}),
        ("agent", {"role teacher"}),
    ],
)
async def test_a_role_that_a_model_does_not_hold_is_named(role, fails):
    async with served(GoodModel(wrong=role)) as url:
        findings = await found(on(url), probe_context=False)
    assert {name for name, finding in findings.items() if finding.level is Level.FAIL} == fails


async def test_a_server_that_cuts_prompts_silently_is_found():
    async with served(GoodModel(context=20_000)) as url:
        findings = await found(on(url))
    finding = findings["context of good"]
    assert finding.level is Level.FAIL
    assert "no longer knew how the prompt began with a prompt of about 8,000 tokens (4,000 were fine" in finding.detail
    assert "OLLAMA_CONTEXT_LENGTH" in finding.detail


async def test_missing_keys_and_dead_endpoints_are_told_and_roles_are_not_tried(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    findings = await found(on("http://127.0.0.1:9/v1", api_key_env="NO_SUCH_KEY"))
    finding = findings["good at http://127.0.0.1:9/v1"]
    assert finding.level is Level.FAIL
    assert "NO_SUCH_KEY" in finding.detail
    assert not [name for name in findings if name.startswith("role ")]
    dead = (await found(on("http://127.0.0.1:9/v1")))["good at http://127.0.0.1:9/v1"]
    assert dead.level is Level.FAIL
    assert "connection failed" in dead.detail


async def test_without_any_endpoint_it_says_how_to_go_live():
    findings = await found(Config())
    assert "--config one-key or --config live" in findings["language models"].detail
    assert findings["web"].level is Level.OK
    assert all(finding.level is not Level.FAIL for finding in findings.values())


async def test_search_and_reader_are_tried(monkeypatch):
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    config = Config(web=WebSettings(search=("serper",), reader="live"))
    assert "SERPER_API_KEY" in (await found(config))["search"].detail
    web = WebSettings(
        search=("searxng",),
        reader="live",
        searxng=ProviderSettings(base_url="http://127.0.0.1:9", max_attempts=1),
    )
    findings = await found(Config(web=web, crawl=CrawlSettings(timeout_s=2)), page="http://127.0.0.1:9/")
    assert findings["search"].level is Level.FAIL
    assert findings["reader"].level is Level.FAIL
    assert "127.0.0.1" in findings["reader"].detail


async def test_a_snapshot_beside_the_live_web_failed_though_a_run_has_one(tmp_path):
    web = WebSettings(
        search=("searxng", "snapshot"),
        reader="live",
        searxng=ProviderSettings(base_url="http://127.0.0.1:9", max_attempts=1),
    )
    findings = await found(Config(web=web, crawl=CrawlSettings(timeout_s=2)), page="http://127.0.0.1:9/")
    assert "searxng: " in findings["search"].detail  # it is the one that fails, not the snapshot
    assert "127.0.0.1" in findings["reader"].detail
    snapshot = WebSettings(search=("snapshot",), reader="live")
    findings = await found(Config(web=snapshot, crawl=CrawlSettings(timeout_s=2)), page="http://127.0.0.1:9/")
    assert findings["search"].level is Level.OK
    assert findings["reader"].level is Level.FAIL


@pytest.mark.parametrize("url", ["http://user:hidden-1@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?key=hidden-1"])
async def test_a_secret_in_an_address_was_shown(url):
    findings = await found(on(url))
    assert findings["good at http://127.0.0.1:9/v1"].level is Level.FAIL
    assert "hidden-1" not in str(findings)
    with pytest.raises(ConfigError) as told:
        check_keys(on(url, api_key_env="NO_SUCH_KEY"))
    assert "hidden-1" not in str(told.value)
