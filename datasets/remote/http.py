"""The HTTP client of `remote.py`: a name that resolves to a forbidden address, or a redirect to one, is not followed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession, ClientTimeout, DefaultResolver, TCPConnector, TraceConfig, TraceRequestRedirectParams
from aiohttp.abc import AbstractResolver, ResolveResult

from modalign.zoo.errors import DataError

if TYPE_CHECKING:
    from .access import Remote


class _Resolver(AbstractResolver):
    """Resolves names as usual and refuses what they must not lead to."""

    def __init__(self, remote: Remote) -> None:
        self._remote, self._plain = remote, DefaultResolver()

    async def resolve(self, host: str, port: int = 0, *args: Any, **settings: Any) -> list[ResolveResult]:
        found = await self._plain.resolve(host, port, *args, **settings)
        named = {f"{scheme}://{host}{end}" for scheme in ("http", "https") for end in ("", f":{port}")}
        origin = next((entry for entry in self._remote.allow if entry in named), f"https://{host}")
        for address in found:
            self._remote.check_host(address["host"], origin)
        return found

    async def close(self) -> None:
        await self._plain.close()


def guarded_session(remote: Remote, **settings: Any) -> ClientSession:
    """Makes a session with checks at every connection; to be called in the event loop.

    Args:
        remote: What is allowed.
        settings: What fsspec passes to a session.
    """

    async def on_redirect(session: ClientSession, context: SimpleNamespace, params: TraceRequestRedirectParams) -> None:
        target = params.response.headers.get("Location", "")
        new = str(params.url.join(type(params.url)(target)))
        if params.url.scheme == "https" and not new.startswith("https://"):
            raise DataError(f"{params.url}: redirects from https to {new!r}, which is refused")
        remote.check(new.partition("?")[0])

    trace = TraceConfig()
    trace.on_request_redirect.append(on_redirect)
    settings.pop("loop", None)
    return ClientSession(
        connector=TCPConnector(resolver=_Resolver(remote)),
        timeout=ClientTimeout(total=None, sock_connect=remote.timeout, sock_read=remote.timeout),
        trace_configs=[trace],
        trust_env=False,
        **settings,
    )
