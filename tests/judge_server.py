"""An OpenAI-compatible HTTP server on the loopback that misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn


@dataclass(frozen=True)
class Reply:
    """What the server does with one request."""

    body: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False  # until the client gives up
    cut: bool = False  # promise more bytes than are sent


Respond = Callable[[str], Reply]


def answer(text: str | None, finish_reason: str = "stop", **fields: Any) -> Reply:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    body = {"id": "chat-1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], **fields}
    return Reply(json.dumps(body))


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    return Reply(json.dumps({"error": {"message": message}}), status, headers)


class JudgeServer:
    """Plays a list of replies, the last one for ever, or asks a function; and keeps the requests."""

    def __init__(self, barrier: threading.Barrier | None = None, respond: Respond | None = None) -> None:
        self.barrier = barrier  # answers wait until so many requests are there
        self.respond = respond  # instead of the list: what to reply to a prompt
        self.replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.authorization: list[str] = []
        self.arrived = threading.Event()  # set by every request
        self.released = threading.Event()  # replies wait for it
        self.released.set()
        self.left = threading.Event()  # set when a client gives up on a reply that hangs
        self.in_flight = self.most_in_flight = 0
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()  # from here on connections wait instead of being refused
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        config = uvicorn.Config(self._app, interface="asgi3", lifespan="off", log_level="critical")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    @property
    def prompts(self) -> list[str]:
        """Of all requests, in order."""
        return [request["messages"][0]["content"] for request in self.requests]

    def _next(self, request: dict[str, Any]) -> Reply:
        if self.respond is not None:
            return self.respond(request["messages"][0]["content"])
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    async def _app(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["method"] == "GET":
            self.requests.append({"path": scope["path"]})
        else:
            self.requests.append(json.loads(body))
        self.authorization.append(dict(scope["headers"])[b"authorization"].decode())
        reply = self._next(self.requests[-1])
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self.arrived.set()
            await asyncio.to_thread(self.released.wait, 30.0)
            while reply.hang and (await receive())["type"] != "http.disconnect":
                pass
            if reply.hang:
                self.left.set()
            data = reply.body.encode("utf-8", "surrogatepass")
            headers = {"content-type": "application/json", "content-length": str(len(data) + 99 * reply.cut)}
            pairs = [(name.encode(), value.encode()) for name, value in (headers | reply.headers).items()]
            if self.barrier is not None:
                await asyncio.to_thread(self.barrier.wait, 30.0)
            await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
            await send({"type": "http.response.body", "body": data})
        finally:
            self.in_flight -= 1
