"""Reasoning and tool calls, as each server sends them."""

import json
import logging

import pytest
from asking import ASK, OK, ask, opened
from http_script import completion, endpoint, error, http

from webdancer.agent.format import ToolCall, Turn, parse_turn
from webdancer.llm.protocol import Message, Sampling
from webdancer.records import CotMode

CALL = '<tool_call>\n{"name": "search", "arguments": {"query": ["Orn"]}}\n</tool_call>'
TOOL = {"name": "search", "description": "Searches.", "parameters": {"type": "object", "properties": {}}}
AGENT = Sampling(tools=(TOOL,))
LONG = Sampling(tools=(TOOL,), long_cot=True)


def called(*calls: tuple[str, str], content: str | None = None, finish: str = "tool_calls", **message: object) -> bytes:
    """A completion with native calls, given as names and arguments."""
    tool_calls = [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]
    return http(200, completion(content, finish=finish, tool_calls=tool_calls, **message))


# Reasoning.


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": "It lies on the Orn."},  # DeepSeek, DashScope, SGLang, llama.cpp
        {"reasoning": "It lies on the Orn."},  # vLLM, Ollama
        {  # OpenRouter sends both
            "reasoning": "It lies on the Orn.",
            "reasoning_details": [{"type": "reasoning.text", "text": "It lies on the Orn.", "index": 0}],
        },
        {
            "reasoning": None,
            "reasoning_details": [
                {"type": "reasoning.summary", "summary": "It lies "},
                {"type": "reasoning.encrypted", "data": "gAAA"},
                {"type": "reasoning.text", "text": "on the Orn.", "signature": None},
            ],
        },
    ],
)
async def test_reasoning_comes_under_every_name(message: dict[str, object]) -> None:
    async with endpoint([http(200, completion(**message))]) as server:
        reply = await ask(server.url)
    assert (reply.content, reply.reasoning) == ("Velm", "It lies on the Orn.")


@pytest.mark.parametrize(
    "content",
    [
        f"<think>\nI look.\n</think>\n\n{CALL}",  # DeepSeek-R1 and Qwen3 behind a server without a parser
        f"I look.\n</think>\n\n{CALL}",  # the same, where the chat template opened the block
        f"<think>\nI look.\n</think>\n\n<think>again</think>\n{CALL}",  # its own, and then the one that the prompt asks for
    ],
)
async def test_inline_reasoning_is_the_thought_in_long_mode(content: str) -> None:
    async with endpoint([http(200, completion(content))]) as server:
        reply = await ask(server.url, sampling=LONG)
    turn = parse_turn(reply.content, mode=CotMode.LONG, reasoning=reply.reasoning)
    assert turn == Turn("I look.", ToolCall("search", {"query": ["Orn"]}))


async def test_a_half_open_block_was_no_turn_in_short_mode_though_the_template_had_opened_it() -> None:
    async with endpoint([http(200, completion(f"I look.\n</think>\n{CALL}"))]) as server:
        reply = await ask(server.url, sampling=AGENT)
    assert isinstance(parse_turn(reply.content, mode=CotMode.SHORT, reasoning=reply.reasoning), Turn)


async def test_json_that_quotes_a_closing_tag_was_taken_for_reasoning() -> None:
    quoted = '{"evidence": "It closes with </think>.", "summary": "s"}'
    async with endpoint([http(200, completion(quoted))]) as server:
        reply = await ask(server.url)
    assert (reply.content, reply.reasoning) == (quoted, None)


async def test_two_think_blocks_stay_a_mistake_in_short_mode() -> None:
    content = f"<think>a</think><think>b</think>{CALL}"
    async with endpoint([http(200, completion(content))]) as server:
        reply = await ask(server.url, sampling=AGENT)
    assert (reply.content, reply.reasoning) == (content, None)


async def test_a_model_without_reasoning_is_named_once_with_what_to_set(caplog: pytest.LogCaptureFixture) -> None:
    plain = http(200, completion(f"<think>\na\n</think>\n{CALL}"))
    async with endpoint([plain]) as server, opened(server) as model:
        await model.chat(ASK, Sampling())
        assert not caplog.records
        for _ in range(2):
            await model.chat(ASK, LONG)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    said = caplog.text
    assert f"{server.url}, model 'm': returned no reasoning" in said
    assert "--reasoning-parser" in said
    assert "sample.mode = 'short'" in said


async def test_reasoning_that_is_counted_but_not_shown_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    body = completion()
    body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 320}
    async with endpoint([http(200, body)]) as server:
        await ask(server.url, sampling=LONG)
    assert "keeps its reasoning (320 tokens) to itself" in caplog.text


async def test_a_reasoning_model_that_skips_it_once_is_not_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    replies = [http(200, completion(reasoning_content="So.")), OK]
    async with endpoint(replies) as server, opened(server) as model:
        for _ in replies:
            await model.chat(ASK, LONG)
    assert not caplog.records


# Tool calls that are read.


@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
async def test_a_native_call_becomes_the_text_of_a_turn(finish: str) -> None:
    async with endpoint([called(("search", '{"query": ["Orn"]}'), finish=finish)]) as server:
        reply = await ask(server.url)
    assert reply.content == CALL


async def test_the_legacy_function_call_too() -> None:
    body = completion(None, finish="function_call", function_call={"name": "search", "arguments": '{"query": ["Orn"]}'})
    async with endpoint([http(200, body)]) as server:
        assert (await ask(server.url)).content == CALL


async def test_broken_arguments_stay_broken() -> None:
    async with endpoint([called(("search", '{"query": ["Orn"'))]) as server:
        reply = await ask(server.url)
    assert reply.content == '<tool_call>\n{"name": "search", "arguments": {"query": ["Orn"}\n</tool_call>'
    turn = parse_turn(f"<think>a</think>{reply.content}", mode=CotMode.SHORT)
    assert isinstance(turn, list)
    assert [violation.kind.value for violation in turn] == ["invalid_json"]


async def test_several_calls_are_several_blocks_which_the_parser_reports() -> None:
    async with endpoint([called(("search", '{"query": ["a"]}'), ("search", '{"query": ["b"]}'))]) as server:
        reply = await ask(server.url)
    turn = parse_turn(f"<think>a</think>{reply.content}", mode=CotMode.SHORT)
    assert isinstance(turn, list)
    assert [violation.detail for violation in turn] == ["got 2 tool calls, expected one"]


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ("", "{}"),
        ({"query": ["Orn"]}, '{"query": ["Orn"]}'),
        ('{"query": ["</tool_call>"]}', r'{"query": ["\u003c/tool_call>"]}'),
    ],
)
async def test_arguments_that_are_missing_no_string_or_hold_a_tag(arguments: object, written: str) -> None:
    async with endpoint([called(("search", arguments))]) as server:  # type: ignore[arg-type]
        reply = await ask(server.url)
    assert reply.content == f'<tool_call>\n{{"name": "search", "arguments": {written}}}\n</tool_call>'


@pytest.mark.parametrize(
    ("content", "turn"),
    [
        ("I look for it.", f"<think>\nI look for it.\n</think>\n{CALL}"),
        ("<think>\nI look.\n</think>", f"<think>\nI look.\n</think>\n{CALL}"),
        ("\n", CALL),
    ],
)
async def test_text_beside_a_native_call_is_its_thought(content: str, turn: str) -> None:
    async with endpoint([called(("search", '{"query": ["Orn"]}'), content=content)]) as server:
        assert (await ask(server.url)).content == turn


async def test_a_call_announced_but_not_made_is_the_text_alone() -> None:
    """vLLM with `tool_choice: required`: prose, an empty list, and the finish reason of a call."""
    async with endpoint([called(content="I would search.")]) as server:
        assert (await ask(server.url)).content == "I would search."


# Tools that are native in the request.

EPISODE = [
    Message("system", "s"),
    Message("user", "q"),
    Message("assistant", f"<think>\nfirst\n</think>\n{CALL}"),
    Message("user", "<tool_response>\nOrn is a river.\n</tool_response>"),
    Message("assistant", '<tool_call>\n{"name": "search", "arguments": {"query"\n</tool_call>'),
    Message("user", "<tool_response>\nError: invalid_json\n</tool_response>"),
    Message("assistant", CALL),
    Message("user", "<tool_response>\nNothing new.\n</tool_response>\n\nAnswer now."),
]


async def test_native_tools_are_declared_and_earlier_turns_sent_in_the_apis_form() -> None:
    async with endpoint([OK]) as server:
        await ask(server.url, EPISODE, AGENT, tools="native")
    body = server.bodies[0]
    assert body["tools"] == [{"type": "function", "function": TOOL}]
    function = {"name": "search", "arguments": '{"query": ["Orn"]}'}

    def turn(call_id: str, content: str | None) -> dict[str, object]:
        return {
            "role": "assistant",
            "content": content,
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        }

    assert body["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        turn("c00002000", "<think>\nfirst\n</think>"),
        {"role": "tool", "tool_call_id": "c00002000", "content": "Orn is a river."},
        {"role": "assistant", "content": '<tool_call>\n{"name": "search", "arguments": {"query"\n</tool_call>'},
        {"role": "user", "content": "<tool_response>\nError: invalid_json\n</tool_response>"},
        turn("c00006000", None),
        {"role": "tool", "tool_call_id": "c00006000", "content": "Nothing new."},
        {"role": "user", "content": "Answer now."},
    ]


async def test_several_native_calls_are_each_answered_and_invented_results_stay_text() -> None:
    two = f"{CALL}\n{CALL}"
    invented = f"{CALL}\n<tool_response>\nmine\n</tool_response>"
    told = Message("user", "<tool_response>\nError\n</tool_response>")
    messages = [Message("user", "q"), Message("assistant", two), told, Message("assistant", invented), told]
    async with endpoint([OK]) as server:
        await ask(server.url, messages, AGENT, tools="native")
    sent = server.bodies[0]["messages"]
    assert [message.get("tool_call_id") for message in sent] == [None, None, "c00001000", "c00001001", None, None]
    assert sent[4] == {"role": "assistant", "content": invented}


async def test_text_tools_and_calls_of_other_roles_are_not_touched() -> None:
    async with endpoint([OK]) as server:
        await ask(server.url, EPISODE, AGENT)
        await ask(server.url, EPISODE, Sampling(), tools="native")
    for body in server.bodies:
        assert body["messages"] == [{"role": message.role, "content": message.content} for message in EPISODE]
        assert "tools" not in body


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "registry.ollama.ai/library/gemma3:4b does not support tools"),
        http(400, {"error": "registry.ollama.ai/library/gemma3:4b does not support tools"}),
        http(
            400,
            {
                "object": "error",
                "message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
                "type": "BadRequestError",
                "code": 400,
            },
        ),
        error(404, "No endpoints found that support tool use.", code=404),
    ],
)
async def test_a_server_without_native_tools_gets_text(refusal: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with endpoint([refusal, OK]) as server:
        await ask(server.url, EPISODE, AGENT, tools="native")
    assert "tools" not in server.bodies[1]
    assert server.bodies[1]["messages"][3]["role"] == "user"
    assert caplog.text.count("set tools = 'text'") == 1


async def test_deepseek_gets_the_reasoning_of_earlier_calls_back() -> None:
    refusal = error(400, "The reasoning_content in the thinking mode must be passed back to the API.")
    async with endpoint([refusal, OK]) as server:
        await ask(server.url, EPISODE, AGENT, tools="native")
    turns = [message for message in server.bodies[1]["messages"] if message.get("tool_calls")]
    assert [(turn["content"], turn["reasoning_content"]) for turn in turns] == [(None, "first"), (None, "")]
    assert "reasoning_content" not in json.dumps(server.bodies[0])
