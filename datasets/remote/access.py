"""Reading from other machines: only with the schemes and hosts the user allowed, checked before anything is opened.

`allow_remote` lists schemes (`https`, `http`, `s3`, `gs`, `memory`) or origins (`http://127.0.0.1:8000`). A scheme reaches public hosts;
a host inside a private network must be named by its origin; link-local addresses, where clouds keep their secrets, never pass. The same
holds for every redirect and for what a name resolves to. Nothing goes through a shell, and fsspec's chained addresses (`a::b`) are refused.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from modalign.zoo.errors import DataError, nearest

from ..home import local_path

SCHEMES = ("https", "http", "s3", "gs", "memory")
ENVIRONMENT = "MODALIGN_ALLOW_REMOTE"
_HTTP = ("http", "https")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\$`|<>\"]|::")
_CHUNK = 1 << 20
_WAITS = (0.2, 1.0, 3.0)


class Missing(DataError):
    """There is no such file on the server."""


@dataclass(frozen=True)
class Remote:
    """What may be read from other machines, and how much of it is kept here.

    Attributes:
        allow: Schemes and origins that may be used; empty allows nothing.
        cache_bytes: Most that the local cache of shards may take.
        timeout: Seconds without a byte after which a transfer is tried again.
        tries: How often a transfer is tried.
    """

    allow: tuple[str, ...] = ()
    cache_bytes: int = 50 * 10**9
    timeout: float = 60.0
    tries: int = 3
    _systems: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for entry in self.allow:
            if entry.partition("://")[0] not in SCHEMES or (entry.count("://") and urlsplit(entry).path not in ("", "/")):
                raise DataError(
                    f"allow_remote: {entry!r} is neither a scheme nor an origin such as https://host{nearest(entry, SCHEMES)}"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_systems": {}}

    def check(self, url: str) -> str:
        """Returns an address if it may be read.

        Raises:
            DataError: If its scheme, host or form is not allowed; nothing was opened.
        """
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in SCHEMES:
            local_path(url)  # names the scheme that is refused
            raise DataError(f"data location {url!r}: the scheme {scheme!r} is refused; remote shards can be {', '.join(SCHEMES)}")
        if _FORBIDDEN.search(rest) or ".." in rest.split("/"):
            raise DataError(
                f"data location {url!r}: spaces, control characters, $, quotes, '::' and '..' are refused in an address"
            )
        parts = urlsplit(url)
        if parts.query or parts.fragment or parts.username:
            raise DataError(f"data location {url!r}: an address may have no query, fragment or user name")
        origin = f"{scheme}://{parts.netloc}"
        if scheme not in self.allow and origin not in self.allow:
            raise DataError(
                f"data location {url!r}: the scheme {scheme!r} is refused unless it is allowed; "
                f"if you mean to read from there: data.allow_remote: ['{origin}'] in a recipe, --allow_remote where a command has it, "
                f"or {ENVIRONMENT}={origin} (all of {scheme}: {scheme})"
            )
        if scheme in _HTTP:
            self.check_host(parts.hostname or "", origin)
        return url

    def check_host(self, host: str, origin: str = "") -> None:
        """Checks a host's name or number.

        Raises:
            DataError: For link-local numbers, and for private ones that are not allowed by their origin.
        """
        try:
            number = ipaddress.ip_address(host)
        except ValueError:
            if not host or ":" in host or host.replace(".", "").isdigit():  # 127.1 and 2130706433 are numbers to a client
                raise DataError(
                    f"data location {origin!r}: {host!r} is neither a host's name nor its number as usually written"
                ) from None
            return
        number = getattr(number, "ipv4_mapped", None) or number
        if number.is_link_local or number.is_multicast or number.is_unspecified:
            raise DataError(
                f"data location {origin or host!r}: {host} is a link-local or reserved address, which is always refused"
            )
        if not number.is_global and origin not in self.allow:
            raise DataError(
                f"data location {origin or host!r}: {host} is an address in a private network; allow it by its origin, "
                f"allow_remote: [{origin or 'http://' + host}]"
            )

    @contextmanager
    def open(self, url: str) -> Iterator[BinaryIO]:
        """Opens a file for reading from front to back.

        Raises:
            DataError: If the address is not allowed, or its file system is not installed.
        """
        self.check(url)
        scheme = url.partition("://")[0]
        # a size and no blocks: fsspec then streams one request instead of asking for the size first
        plainly = {"block_size": 0, "size": 1} if scheme in _HTTP else {}
        with self._system(scheme, url).open(url, "rb", **plainly) as stream:
            yield stream

    def read(self, url: str, limit: int) -> bytes:
        """Reads a whole small file.

        Raises:
            Missing: If there is none.
            DataError: If it is larger than ``limit`` bytes, or cannot be read after several tries.
        """
        chunks: list[bytes] = []
        for attempt in self.attempts(url):
            with attempt, self.open(url) as stream:
                chunks, size = [], 0
                while chunk := stream.read(_CHUNK):
                    size += len(chunk)
                    if size > limit:
                        raise DataError(f"{url}: more than {limit} bytes")
                    chunks.append(chunk)
        return b"".join(chunks)

    def attempts(self, url: str) -> Iterator[Any]:
        """Yields context managers in which to try a transfer; after success it ends, a failure is tried again after a pause.

        Raises:
            Missing: If the server says that there is no such file.
            DataError: When the last try failed, with its reason; a `DataError` within a try is final at once.
        """
        for number in range(self.tries):
            attempt = _Attempt()
            yield attempt
            if attempt.error is None:
                return
            if isinstance(attempt.error, FileNotFoundError):
                raise Missing(f"{url}: there is no such file") from attempt.error
            if number + 1 < self.tries:
                time.sleep(_WAITS[min(number, len(_WAITS) - 1)])
        reason = f"{type(attempt.error).__name__}: {attempt.error}".rstrip(": ")
        raise DataError(f"{url}: could not be read in {self.tries} tries ({reason})") from attempt.error

    def glob(self, folder: str) -> list[str]:
        """Returns the addresses of the tars in a folder, sorted; only of file systems that can list (not http).

        Raises:
            DataError: If it cannot be listed.
        """
        self.check(folder)
        scheme = folder.partition("://")[0]
        if scheme in _HTTP:
            raise DataError(
                f"{folder}: a web server cannot list its files; name the tars, such as {folder.rstrip('/')}/{{00000..00012}}.tar"
            )
        found = self._system(scheme, folder).glob(f"{folder.rstrip('/')}/*.tar")
        return [f"{scheme}://{name.lstrip('/')}" for name in sorted(found)]

    def _system(self, scheme: str, url: str) -> Any:
        """The fsspec file system of this process; it may not be shared with a forked one."""
        import fsspec

        key = (os.getpid(), scheme)
        if key not in self._systems:
            options = {"get_client": self._client, "skip_instance_cache": True} if scheme in _HTTP else {}
            try:
                self._systems[key] = fsspec.filesystem(scheme, **options)
            except ImportError as error:
                raise DataError(f"{url}: {scheme} needs another package ({error})") from error
        return self._systems[key]

    async def _client(self, **settings: Any) -> Any:
        """An HTTP session that checks every redirect, and what every name resolves to."""
        from .http import guarded_session

        return guarded_session(self, **settings)


class _Attempt:
    """One try of a transfer: keeps what went wrong with the connection, lets what is wrong with the request or program pass."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self.error = error
        return error is not None and not isinstance(error, DataError) and _is_transfer(error)


def _is_transfer(error: BaseException) -> bool:
    """True for what a network or server does, as fsspec's file systems report it."""
    if isinstance(error, OSError | TimeoutError | EOFError):
        return True
    return type(error).__module__.partition(".")[0] in ("aiohttp", "fsspec", "s3fs", "gcsfs", "botocore", "aiobotocore")


def remote_of(allow: Sequence[str] | None = None, cache_gb: float = 50.0) -> Remote:
    """Makes a `Remote` of a recipe's settings; None takes the environment variable `MODALIGN_ALLOW_REMOTE` (words)."""
    words = os.environ.get(ENVIRONMENT, "").replace(",", " ").split() if allow is None else allow
    return Remote(tuple(words), int(cache_gb * 10**9))
