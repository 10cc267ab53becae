"""pipecat's Twilio transport with a pipeline that returns the audio it hears, as lean as its
options allow: 8 kHz both ways, so that nothing is resampled, and 20 ms per message.

python -P pipecat.py PORT    (or it would find itself where it looks for pipecat)
"""

from __future__ import annotations

import json
import sys

import uvicorn
from loguru import logger
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

RATE = 8000


class Echo(FrameProcessor):  # type: ignore[misc]  # untyped where it is not installed
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


async def call(socket: WebSocket) -> None:
    await socket.accept()
    while (message := json.loads(await socket.receive_text()))["event"] != "start":
        pass
    transport = FastAPIWebsocketTransport(
        socket,
        FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            audio_out_10ms_chunks=2,
            serializer=TwilioFrameSerializer(
                message["start"]["streamSid"],
                params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
            ),
        ),
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), Echo(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
        enable_rtvi=False,
        enable_turn_tracking=False,
    )

    async def hung_up(_: FastAPIWebsocketTransport, __: WebSocket) -> None:
        await worker.cancel()

    transport.add_event_handler("on_client_disconnected", hung_up)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    logger.remove()
    uvicorn.run(
        Starlette(routes=[WebSocketRoute("/{path:path}", call)]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
    )
