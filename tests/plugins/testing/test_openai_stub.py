"""The stub of a model server, tested with the official OpenAI client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import openai
import pytest
from openai import AsyncOpenAI
from tests.backstage import closed_backstage

from voicecall_testing.openai_stub import Fault, ModelReply, ModelRequest, OpenAiStub, ToolUse

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]


@asynccontextmanager
async def client_of(stub: OpenAiStub, timeout_s: float = 20) -> AsyncIterator[AsyncOpenAI]:
    async with closed_backstage(stub.serve()) as url:
        async with AsyncOpenAI(
            base_url=url, api_key="a-key", max_retries=0, timeout=timeout_s
        ) as client:
            yield client


async def streamed(client: AsyncOpenAI) -> list[str]:
    chunks = await client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "Good morning."}], stream=True
    )
    return [text async for chunk in chunks if (text := chunk.choices[0].delta.content)]


async def test_an_answer_comes_in_tokens() -> None:
    stub = OpenAiStub([ModelReply(text="It is noon.")])
    async with client_of(stub) as client:
        assert await streamed(client) == ["It ", "is ", "noon."]
        assert "".join(await streamed(client)) == "Hello there."
    first = stub.requests[0]
    assert first.said("user") == ["Good morning."]
    assert first.headers["authorization"] == "Bearer a-key"
    assert first.body["model"] == "small"


async def test_a_whole_answer_and_tools() -> None:
    tools = (ToolUse("clock", {"zone": "utc"}), ToolUse("raw", "{"))
    stub = OpenAiStub(default=ModelReply(text="One moment.", tools=tools))
    async with client_of(stub) as client:
        whole = await client.chat.completions.create(model="small", messages=[])
        chunks = await client.chat.completions.create(model="small", messages=[], stream=True)
        deltas = [chunk.choices[0] async for chunk in chunks]
    message = whole.choices[0].message
    assert message.content == "One moment."
    assert message.tool_calls is not None
    functions = [call.function for call in message.tool_calls if call.type == "function"]
    assert [(f.name, f.arguments) for f in functions] == [
        ("clock", '{"zone": "utc"}'),
        ("raw", "{"),
    ]
    assert deltas[-1].finish_reason == whole.choices[0].finish_reason == "tool_calls"
    calls = [call for choice in deltas for call in choice.delta.tool_calls or ()]
    assert [call.index for call in calls] == [0, 1]


async def test_the_default_may_be_a_function() -> None:
    def echo(asked: ModelRequest) -> ModelReply:
        return ModelReply(text=asked.said("user")[-1].upper())

    async with client_of(OpenAiStub(default=echo)) as client:
        assert "".join(await streamed(client)) == "GOOD MORNING."


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (ModelReply(status=401), openai.AuthenticationError),
        (ModelReply(status=429, retry_after=1.5), openai.RateLimitError),
        (ModelReply(status=500), openai.InternalServerError),
        (ModelReply(status=503, body=b"<html>"), openai.InternalServerError),
        (ModelReply(fault=Fault.DROP), openai.APIConnectionError),
    ],
)
async def test_refusals(reply: ModelReply, error: type[openai.APIError]) -> None:
    async with client_of(OpenAiStub([reply])) as client:
        with pytest.raises(error) as raised:
            await streamed(client)
        if isinstance(raised.value, openai.RateLimitError):
            assert raised.value.response.headers["retry-after"] == "1.5"
            assert raised.value.request_id == "req-1"


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.HANG_MIDWAY])
async def test_a_server_that_hangs_learns_that_the_client_went_away(fault: Fault) -> None:
    stub = OpenAiStub([ModelReply(text="One two three four.", fault=fault)])
    async with client_of(stub) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(streamed, client)
            asked = await stub.requested()
            await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(10):
            await asked.hung_up.wait()


async def test_a_connection_that_breaks_midway() -> None:
    async with client_of(
        OpenAiStub([ModelReply(text="One two three four.", fault=Fault.DROP_MIDWAY)])
    ) as client:
        with pytest.raises(Exception, match=r"(?i)connection|closed|peer|read"):
            await streamed(client)


async def test_a_killed_server_refuses() -> None:
    async with OpenAiStub().serve() as url:
        async with AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
            await streamed(client)
    async with AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
        with pytest.raises(openai.APIConnectionError):
            await streamed(client)
