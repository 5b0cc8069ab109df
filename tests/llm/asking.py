"""Asks a scripted endpoint once."""

import pytest
from http_script import Endpoint, completion, http

from webdancer.config import EndpointSettings
from webdancer.errors import ModelError
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.protocol import ChatReply, Message, Sampling

ASK = [Message("user", "Where?")]
OK = http(200, completion())


def opened(server: Endpoint, **settings: object) -> OpenAIChatModel:
    values = {"base_url": server.url, "model": "m", "timeout_s": 5.0, **settings}
    return OpenAIChatModel(EndpointSettings.model_validate(values))


async def ask(
    url: str, messages: list[Message] = ASK, sampling: Sampling | None = None, **settings: object
) -> ChatReply:
    async with opened(Endpoint(url), **settings) as model:
        return await model.chat(messages, sampling or Sampling())


async def failure(url: str, **settings: object) -> str:
    with pytest.raises(ModelError) as caught:
        await ask(url, **settings)
    message = str(caught.value)
    assert f"{url}, model 'm'" in message
    return message
