"""Requests that the page of `icltool app` answers, and those of other sites."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from icltool.commands.app.origin import SameOrigin


async def _page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def status(headers: dict[str, str], host: str = "127.0.0.1") -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(n.encode(), v.encode()) for n, v in headers.items()]}
    asyncio.run(SameOrigin(_page, host)(scope, None, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "127.0.0.1:7860"}, 200),
        ({"Host": "localhost:7860"}, 200),
        ({"Host": "[::1]:7860", "Origin": "http://[::1]:7860"}, 200),
        ({"Host": "192.168.0.9:7860", "Origin": "http://192.168.0.9:7860"}, 200),
        ({"Host": f"{socket.gethostname()}:7860"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:7860", "Origin": "http://evil.example:7860"}, 403),
        ({"Host": "127.0.0.1:7860", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1:7860", "Origin": "null"}, 403),
        ({"Host": "127.0.0.1:7860", "Origin": "http://127.0.0.1:9999"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({}, 403),
    ],
)
def test_only_the_pages_own_requests_are_answered(headers: dict[str, str], expected: int) -> None:
    assert status(headers) == expected


def test_a_name_that_was_asked_for_is_ours() -> None:
    assert status({"Host": "gpu7.lab.example:7860"}, "gpu7.lab.example") == 200
    assert status({"Host": "gpu8.lab.example:7860"}, "gpu7.lab.example") == 403
