"""Who may ask the page of `icltool app`: what a browser shows of it, and no page of another site."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import cast
from urllib.parse import urlsplit

Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class SameOrigin:
    """ASGI middleware that refuses (403) a request whose Host is a name that is not ours, as one is that another site gave our
    address to (DNS rebinding), and one whose Origin is another page's. Addresses are nobody's name: they pass."""

    def __init__(self, app: Application, host: str) -> None:
        self._app = app
        self._names = {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] in ("http", "websocket") and not self.allows(_headers(scope)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            head = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": head})
            await send({"type": "http.response.body", "body": b"this page answers its own requests only\n"})
            return
        await self._app(scope, receive, send)

    def allows(self, headers: dict[str, str]) -> bool:
        """Whether a request with these headers is one of the page itself, or of a program on its own."""
        host = headers.get("host", "")
        if not self._is_ours(urlsplit(f"//{host}").hostname or ""):
            return False
        origin = headers.get("origin")
        return origin is None or urlsplit(origin).netloc.lower() == host.lower()

    def _is_ours(self, name: str) -> bool:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._names
        return True


def _headers(scope: Message) -> dict[str, str]:
    headers = cast("Iterable[tuple[bytes, bytes]]", scope.get("headers", ()))
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
