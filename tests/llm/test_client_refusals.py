"""Parameters that an endpoint refuses, in the words of each server; and stop strings, whoever applies them."""

import asyncio
import json
import logging

import pytest
from asking import ASK, OK, ask, failure, opened
from http_script import completion, endpoint, error, http

from webdancer.llm.protocol import Sampling

ALL = Sampling(temperature=0.5, top_p=0.9, max_tokens=9, stop=("END",), seed=1)
NAMES = {"temperature", "top_p", "max_tokens", "stop", "seed"}


def pydantic(name: str) -> list[dict[str, object]]:
    """What FastAPI says of a field too many; it repeats what was sent."""
    return [
        {
            "type": "extra_forbidden",
            "loc": ["body", name],
            "msg": "Extra inputs are not permitted",
            "input": "temperature",
        }
    ]


REFUSALS = [
    ("stop", error(400, "Unsupported parameter: 'stop' is not supported with this model.", code="unsupported_parameter",
                   param="stop")),  # OpenAI, o3 and GPT-5
    ("temperature", error(400, "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) "
                          "value is supported.", code="unsupported_value", param="temperature")),
    ("top_p", error(400, "Unsupported parameter: 'top_p' is not supported with this model.", code="unsupported_parameter",
                    param="top_p")),
    ("seed", http(422, {"detail": pydantic("seed")})),  # FastAPI as it is
    ("seed", http(422, {"object": "error", "message": {"detail": pydantic("seed")}, "type": "invalid_request_error",
                        "param": None, "code": None})),  # Mistral
    ("seed", http(422, {"object": "error", "message": json.dumps({"detail": pydantic("seed")}), "param": None,
                        "code": "1000"})),
    ("top_p", http(400, {"object": "error", "message": str([{"type": "extra_forbidden", "loc": ("body", "top_p"),
                         "msg": "Extra inputs are not permitted", "input": 0.9}]), "type": "BadRequestError", "param": None,
                         "code": 400})),  # vLLM
    ("stop", http(400, {"object": "error", "message": "1 validation error for ChatCompletionRequest\nstop\n  Extra inputs are "
                        "not permitted [type=extra_forbidden, input_value=['END'], input_type=list]"})),
    ("stop", http(400, "Unsupported parameter: 'stop'", content_type="text/plain")),
    ("stop", http(400, "This model does not support the stop parameter.", content_type="text/plain")),
    ("seed", http(400, {"error": "unknown field: seed"})),
    ("seed", http(400, {"error": {"message": "property 'seed' is unsupported", "type": "invalid_request_error"}})),  # Groq
    ("temperature", http(400, {"code": "InvalidParameter", "message": "模型不支持参数 temperature", "request_id": "r"})),
    ("stop", http(400, {"error": {"message": "不支持 stop 参数", "code": "invalid_parameter_error"}, "request_id": "r"})),
    ("stop", http(400, {"error": {
        "message": "Provider returned error", "code": 400, "metadata": {"provider_name": "Azure", "raw": json.dumps(
            {"error": {"message": "Unsupported parameter: 'stop' is not supported with this model."}})}}})),  # OpenRouter
    ("max_tokens", http(400, {"message": "chat() got an unexpected keyword argument 'max_tokens'"})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "refusal"), REFUSALS)
async def test_a_refused_parameter_is_left_out_from_then_on_with_one_warning(
    name: str, refusal: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with endpoint([refusal, OK]) as server, opened(server) as model:
        for _ in range(2):
            assert (await model.chat(ASK, ALL)).content == "Velm"
    assert [NAMES - body.keys() for body in server.bodies] == [set(), {name}, {name}]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"refuses {name}" in caplog.text


@pytest.mark.parametrize(
    "message",
    [
        "temperature must be between 0 and 2, got 5.0",
        "Please stop sending such requests; this is not allowed.",
        "The model m is not supported.",
        "max_tokens must be at least 1, got 0",
    ],
)
@pytest.mark.usefixtures("no_backoff")
async def test_other_refusals_stay_errors(message: str) -> None:
    async with endpoint([error(400, message)]) as server, opened(server) as model:
        with pytest.raises(Exception, match="status 400"):
            await model.chat(ASK, ALL)
    assert len(server.bodies) == 1


async def test_calls_under_way_failed_when_another_had_been_refused_the_same_parameter_first() -> None:
    both = asyncio.Barrier(2)
    refusal = error(400, "Unsupported parameter: 'seed'", code="unsupported_parameter", param="seed")

    async def refuse(writer: asyncio.StreamWriter) -> None:
        await both.wait()
        writer.write(refusal)
        await writer.drain()

    async with endpoint([refuse, refuse, OK]) as server, opened(server) as model:
        replies = await asyncio.gather(*(model.chat(ASK, ALL) for _ in range(2)))
    assert [reply.content for reply in replies] == ["Velm", "Velm"]


async def test_extra_is_sent_as_it_is_and_named_where_it_is_refused() -> None:
    extra = {"top_k": 20, "repetition_penalty": 1.05, "chat_template_kwargs": {"enable_thinking": False}}
    async with endpoint([OK]) as server:
        await ask(server.url, extra=extra)
    assert {name: server.bodies[0][name] for name in extra} == extra
    async with endpoint([http(422, {"detail": pydantic("top_k")})]) as server:
        assert "take top_k out of the model's extra" in await failure(server.url, extra=extra)


async def test_extra_wins_over_what_the_caller_asks_for() -> None:
    refusal = error(400, "Unsupported parameter: 'temperature'", code="unsupported_parameter", param="temperature")
    async with endpoint([OK, refusal]) as server:
        await ask(server.url, sampling=ALL, extra={"temperature": 1})
        assert "take temperature out" in await failure(server.url, extra={"temperature": 1})
    assert server.bodies[0]["temperature"] == 1
    assert len(server.bodies) == 2


# Stop strings.

STOP = Sampling(stop=("<tool_response>",))
CALL = "<think>a</think><tool_call>{}</tool_call>"


async def test_where_stop_is_refused_the_reply_is_cut_here_and_marked() -> None:
    refusal = error(400, "Unsupported parameter: 'stop'", code="unsupported_parameter", param="stop")
    invented = http(200, completion(f"{CALL}\n<tool_response>mine</tool_response><answer>x</answer>"))
    async with endpoint([refusal, invented]) as server:
        reply = await ask(server.url, sampling=STOP)
    assert (reply.content, reply.finish, reply.cut_at) == (f"{CALL}\n", "stop", "<tool_response>")


async def test_an_endpoint_that_ignored_stop_is_seen_too() -> None:
    async with endpoint([http(200, completion("a END b STOP", finish="length"))]) as server:
        reply = await ask(server.url, sampling=Sampling(stop=("STOP", "END")))
    assert (reply.content, reply.finish, reply.cut_at) == ("a ", "stop", "END")


@pytest.mark.parametrize("field", ["stop_reason", "matched_stop"])  # vLLM, SGLang
async def test_an_endpoint_that_tells_at_which_string_it_stopped(field: str) -> None:
    body = completion(CALL)
    for told, cut_at in (("<tool_response>", "<tool_response>"), (151645, None), ("other", None)):
        body["choices"][0][field] = told
        async with endpoint([http(200, body)]) as server:
            assert (await ask(server.url, sampling=STOP)).cut_at == cut_at


async def test_without_stop_an_invented_observation_is_left_to_be_seen() -> None:
    text = f"{CALL}\n<tool_response>mine</tool_response>"
    for finish in ("stop", "length"):
        async with endpoint([http(200, completion(text, finish=finish))]) as server:
            reply = await ask(server.url)
        assert (reply.content, reply.finish, reply.cut_at) == (text, finish, None)


@pytest.mark.parametrize(
    ("text", "content", "cut_at"),
    [
        (f"{CALL}\n<tool_resp", CALL, "</tool_call>"),  # the limit fell into the stop string
        ("<answer>Velm</answer>\nThat is", "<answer>Velm</answer>", "</answer>"),
        (f"{CALL}\n{CALL}", f"{CALL}\n{CALL}", None),  # a second action is a mistake to be seen
        (f"{CALL}\n", f"{CALL}\n", None),
        ("<think>and so on", "<think>and so on", None),
    ],
)
async def test_a_limit_behind_the_action_where_a_stop_was_wanted(text: str, content: str, cut_at: str | None) -> None:
    async with endpoint([http(200, completion(text, finish="length"))]) as server:
        reply = await ask(server.url, sampling=STOP)
    assert (reply.content, reply.finish, reply.cut_at) == (content, "length", cut_at)
