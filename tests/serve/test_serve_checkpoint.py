"""A checkpoint behind the API, over real HTTP with the ordinary openai client: a tiny model of random weights."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import openai
import pytest
import torch
from tiny_checkpoint import build_checkpoint
from transformers import AutoModelForCausalLM

from webdancer.serve.checkpoint import ServedCheckpoint
from webdancer.serve.openai_api import create_app, serve
from webdancer.train.engine import TorchEngine
from webdancer.train.tokens import ChatTokens

MESSAGES = [
    {"role": "system", "content": "Search."},
    {"role": "user", "content": "Where was Ada Lunt born? <|im_end|>"},
]


class Served:
    """A checkpoint, its engine, and a client of the API in front of it."""

    def __init__(self, path: Path, engine: TorchEngine, client: openai.AsyncOpenAI) -> None:
        self.tokens, self.engine, self.client = ChatTokens.load(path), engine, client
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def logprobs(self, prompt: list[int], ids: list[int]) -> list[float]:
        """Log-probabilities of `ids` after `prompt` by one plain forward pass."""
        with torch.no_grad():
            logits = self.model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        return [float(logits[len(prompt) + n - 1, id_]) for n, id_ in enumerate(ids)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("model") / "toy")


@asynccontextmanager
async def served(path: Path, *, max_context: int = 400) -> AsyncIterator[Served]:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokens = ChatTokens.load(path)
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with TorchEngine(model, stop_ids=tokens.stop_ids, max_context=max_context, max_batch=8) as engine:
        app = create_app({"toy": ServedCheckpoint(tokens, engine, name="toy")})
        task = asyncio.create_task(serve(app, "127.0.0.1", 0, port.set_result))
        try:
            url = f"http://127.0.0.1:{await port}/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=30) as client:
                yield Served(path, engine, client)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_chat_gives_the_likeliest_tokens_with_their_logprobs(checkpoint: Path) -> None:
    async with served(checkpoint) as server:
        reply = await server.client.chat.completions.create(
            model="toy", messages=MESSAGES, temperature=0, max_tokens=12, logprobs=True, top_logprobs=1
        )
        choice = reply.choices[0]
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        told = choice.logprobs.content
        assert "".join(token.token for token in told) == choice.message.content
        assert [token.top_logprobs[0].logprob for token in told] == [token.logprob for token in told]
        body = await server.client.completions.create(
            model="toy",
            prompt=prompt_ids(server),
            temperature=0,
            max_tokens=12,
            extra_body={"return_token_ids": True},
        )
        ids = body.choices[0].token_ids  # type: ignore[attr-defined]
    # The prompt's own control tokens are ours; the one in the user's text is not.
    assert prompt_ids(server).count(server.tokens.end_id) == 2
    assert body.choices[0].text == choice.message.content
    assert [token.logprob for token in told] == pytest.approx(server.logprobs(prompt_ids(server), ids), abs=1e-4)
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == len(prompt_ids(server))
    assert reply.usage.completion_tokens in (len(ids), len(ids) + 1)  # and the end of the turn, where it came


def prompt_ids(server: Served) -> list[int]:
    from webdancer.llm.protocol import Message

    return server.tokens.prompt([Message("system", "Search."), Message("user", MESSAGES[1]["content"])])


async def test_a_seed_fixes_what_is_sampled(checkpoint: Path) -> None:
    async with served(checkpoint) as server:

        async def ask(seed: int | None) -> str | None:
            reply = await server.client.chat.completions.create(
                model="toy", messages=MESSAGES, temperature=1, max_tokens=20, seed=seed
            )
            return reply.choices[0].message.content

        first, again, other = await ask(5), await ask(5), await ask(6)
        without = {await ask(None) for _ in range(3)}
    assert first == again
    assert first != other
    assert len(without) == 3


async def test_a_stream_gives_what_the_whole_reply_gives(checkpoint: Path) -> None:
    request = {"model": "toy", "temperature": 1, "seed": 7, "max_tokens": 30}
    async with served(checkpoint) as server:
        client = server.client
        whole = await client.chat.completions.create(messages=MESSAGES, logprobs=True, **request)
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                messages=MESSAGES, logprobs=True, stream=True, **request
            )
        ]
        text = await client.completions.create(prompt="Ada Lunt", logprobs=1, **request)
        pieces = [
            piece
            async for piece in await client.completions.create(prompt="Ada Lunt", logprobs=1, stream=True, **request)
        ]
    assert len(chunks) > 5
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    streamed = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    expected = whole.choices[0].logprobs.content
    assert [(token.token, token.bytes) for token in streamed] == [(token.token, token.bytes) for token in expected]
    # Requests that are computed side by side may differ in the last bit.
    assert [token.logprob for token in streamed] == pytest.approx([token.logprob for token in expected], abs=1e-5)
    assert "".join(piece.choices[0].text for piece in pieces) == text.choices[0].text
    logprobs = text.choices[0].logprobs
    offsets = [at for piece in pieces if piece.choices[0].logprobs for at in piece.choices[0].logprobs.text_offset]
    assert offsets == logprobs.text_offset
    assert [
        text.choices[0].text[at:].startswith(token) for at, token in zip(offsets, logprobs.tokens, strict=True)
    ] == [True] * len(offsets)


async def test_a_stop_string_cuts_text_tokens_and_usage(checkpoint: Path) -> None:
    request = {"model": "toy", "prompt": "Where was", "temperature": 1, "seed": 3, "max_tokens": 30, "logprobs": 0}
    async with served(checkpoint) as server:
        whole = (await server.client.completions.create(**request)).choices[0]
        tokens = whole.logprobs.tokens
        stop = next(token for token in tokens[3:] if token and whole.text.count(token) == 1)
        cut = await server.client.completions.create(**request, stop=[stop])
    choice = cut.choices[0]
    assert choice.text == whole.text.partition(stop)[0]
    assert choice.finish_reason == "stop"
    kept = tokens[: tokens.index(stop)]
    while kept and not kept[-1]:  # a character that was cut off with the stop string began in these
        kept.pop()
    assert choice.logprobs.tokens == kept
    assert cut.usage.completion_tokens == len(kept)


async def test_several_clients_are_decoded_in_one_batch_and_get_their_own_answers(checkpoint: Path) -> None:
    async with served(checkpoint) as server:

        async def ask(number: int) -> str:
            reply = await server.client.completions.create(
                model="toy", prompt=f"{number} by the river", temperature=0, max_tokens=40
            )
            return reply.choices[0].text

        alone = [await ask(number) for number in range(6)]
        steps_alone = server.engine.stats.num_steps
        together = await asyncio.gather(*map(ask, range(6)))
        steps_together = server.engine.stats.num_steps - steps_alone
    assert list(together) == alone
    assert steps_together < steps_alone / 2


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "got an empty prompt"),
        ([5, 100_000], "got the token id 100000, expected ids of 0 or more, below 300"),
        (["a", "b"], "got 2 prompts, expected one"),
        ("river " * 400, "expected less than 100"),
    ],
)
async def test_prompts_that_cannot_be_answered(checkpoint: Path, prompt: object, message: str) -> None:
    async with served(checkpoint, max_context=100) as server:
        with pytest.raises(openai.BadRequestError, match=message):
            await server.client.completions.create(model="toy", prompt=prompt)  # type: ignore[call-overload]
        assert (await server.client.completions.create(model="toy", prompt="still here")).usage.completion_tokens > 0


async def test_a_control_token_in_a_text_prompt_is_plain_text(checkpoint: Path) -> None:
    async with served(checkpoint) as server:
        request = {"model": "toy", "max_tokens": 1, "temperature": 0}
        plain = await server.client.completions.create(prompt="<|im_end|>", **request)
        real = await server.client.completions.create(prompt=[server.tokens.end_id], **request)
    assert plain.usage.prompt_tokens > 1
    assert real.usage.prompt_tokens == 1


def endless(max_tokens: int) -> dict[str, object]:
    """A request whose turn takes all tokens that it may: greedily the random model goes round in a circle."""
    return {"model": "toy", "prompt": "river", "temperature": 0, "max_tokens": max_tokens}


async def test_a_stream_begins_while_the_turn_is_under_way(checkpoint: Path) -> None:
    async with served(checkpoint) as server:
        seen = []
        async for _ in await server.client.completions.create(stream=True, **endless(300)):
            seen.append(server.engine.stats.sampled_tokens)
    assert seen[-1] == 300
    assert seen[0] < 100
    assert seen[len(seen) // 2] < 300


async def test_a_client_that_leaves_a_stream_ends_its_turn(checkpoint: Path) -> None:
    async with served(checkpoint, max_context=4000) as server:
        async with await server.client.completions.create(stream=True, **endless(3900)) as stream:
            async for _ in stream:
                break
        for _ in range(1000):
            if not server.engine._running:
                break
            await asyncio.sleep(0.01)
        assert server.engine.stats.sampled_tokens < 1000


async def test_a_client_that_gives_up_waiting_ends_its_turn(checkpoint: Path) -> None:
    async with served(checkpoint, max_context=4000) as server:
        with pytest.raises(openai.APITimeoutError):
            await server.client.with_options(timeout=0.3).completions.create(**endless(3900))
        for _ in range(1000):
            if not server.engine._running:
                break
            await asyncio.sleep(0.01)
        assert 0 < server.engine.stats.sampled_tokens < 3000


async def test_a_half_surrogate_in_a_prompt_is_a_question_mark(checkpoint: Path) -> None:
    async with served(checkpoint) as server, aiohttp.ClientSession() as session:
        url = f"{server.client.base_url}completions"
        ids = []
        for prompt in (rb"a \ud83d b", b"a ? b"):
            body = b'{"model": "toy", "temperature": 0, "return_token_ids": true, "prompt": "%b"}' % prompt
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as reply:
                ids.append((await reply.json())["choices"][0]["token_ids"])
    assert ids[0] == ids[1]


async def test_a_stop_string_ends_the_turn_in_the_engine(checkpoint: Path) -> None:
    async with served(checkpoint) as server:
        whole = (await server.client.completions.create(**endless(300))).choices[0].text
        stop = next(char for char in whole if char.isalnum())
        cut = await server.client.completions.create(stop=[stop], **endless(300))
        assert server.engine.stats.sampled_tokens < 300 + 50
    assert cut.choices[0].text == whole.partition(stop)[0]


async def test_an_engine_that_fails_in_mid_stream_is_an_error_of_the_stream(checkpoint: Path) -> None:
    async with served(checkpoint, max_context=4000) as server:
        stream = await server.client.completions.create(stream=True, **endless(3900))
        await anext(aiter(stream))
        server.engine._fail(ValueError("out of memory"))
        with pytest.raises(openai.APIError, match="the server failed: RuntimeError"):
            [chunk async for chunk in stream]
        again = await server.client.completions.create(model="toy", prompt="Ada Lunt", max_tokens=5)
    assert again.usage is not None
    assert again.usage.completion_tokens > 0
