"""Download of a large file over HTTP with the standard library: resumes, retries, bounds the size."""

from __future__ import annotations

import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from urllib.parse import urlsplit

from iufbench.support.bytebar import ByteBar, readable, require_space
from iufbench.support.errors import InputError, RunError
from iufbench.support.progress import Progress
from iufbench.support.version import __version__

CHUNK = 1 << 18
TIMEOUT = 30.0  # seconds without a byte
PAUSES = (1, 2, 4, 8, 16)  # seconds before each further attempt
ADVANCE = 1 << 20  # bytes of progress after which the number of failed attempts is reset
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # transient status codes


class _Dropped(Exception):
    """An attempt failed, but another one may succeed."""


def fetch(
    url: str,
    part: Path,
    size: int | None,
    progress: Progress,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Download a file, resuming after the bytes that ``part`` already has.

    A server that cannot resume is read from the start. Broken or refused connections, timeouts and transient
    status codes such as 503 are retried after 1, 2, 4, 8 and 16 seconds; the count is reset whenever an
    attempt has received 1 MiB more than all before. On failure the received bytes stay in ``part`` unless
    they belong to a different file.

    Args:
        url: An http or https address.
        part: The file to complete.
        size: Its expected size in bytes; None uses the size reported by the server, if the disk has room.
        progress: Shows the progress.
        wait: Sleeps for a number of seconds.

    Raises:
        InputError: The address is unusable.
        RunError: All attempts failed, the failure is permanent (404, an untrusted certificate), or the
            server's file has a different size.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"{url!r} is not an http or https address")
    failures, best = 0, _length(part)
    while size is None or _length(part) != size:
        try:
            _attempt(url, part, size, progress)
            return
        except _Dropped as error:
            have = _length(part)
            if have >= best + ADVANCE:
                failures, best = 0, have
            if failures == len(PAUSES):
                raise RunError(f"{url}: {error}; given up after {failures + 1} attempts") from error
            pause = PAUSES[failures]
            failures += 1
            progress.say(f"{error}; {readable(have)} received, retrying in {pause} s")
            wait(pause)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _attempt(url: str, part: Path, size: int | None, progress: Progress) -> None:
    """Send one request and store what arrives. Raises _Dropped if another attempt may succeed."""
    have = _length(part)
    if size is not None and have > size:
        progress.say(f"{part} is longer than the archive: starting over")
        part.unlink()
        have = 0
    response = _open(url, part, have)
    if response is None:
        return
    with closing(response):
        start, total = _range_of(response) if response.status == 206 else (0, _content_length(response))
        if start not in (0, have):
            part.unlink()
            raise _Dropped(f"the server sent bytes from {start} although {have} was requested")
        if total is not None and size is not None and total != size:
            raise RunError(f"{url} has {total} bytes, the archive should have {size}: it is a different file")
        if size is None and total is not None:
            require_space(part.parent, total - start, "the archive")
        if start < have:
            progress.say("the server cannot resume: starting over")
        _receive(response, part, start, total if size is None else size, url, progress)


def _open(url: str, part: Path, have: int) -> HTTPResponse | None:
    """The response to a request for everything after ``have`` bytes; None if the file ends there."""
    headers = {"User-Agent": f"iufbench/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response: HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
        return response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            if error.headers.get("Content-Range", "").replace(" ", "") == f"bytes*/{have}":
                return None
            part.unlink()
            raise _Dropped(f"the server has nothing beyond byte {have}: starting over") from error
        answer = f"responds {error.code} {' '.join(str(error.reason).split())}"
        if error.code in PASSING:
            raise _Dropped(f"the server {answer}") from error
        raise RunError(f"{url} {answer}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise RunError(f"{url}: the server's certificate is not trusted ({error.reason})") from error
        raise _Dropped(f"no connection ({error.reason})") from error
    except (InvalidURL, ValueError) as error:  # ValueError: an impossible port or host name
        raise InputError(f"{url!r} is not a usable address ({error})") from error
    except (HTTPException, OSError) as error:
        raise _Dropped(f"no response ({error or type(error).__name__})") from error


def _range_of(response: HTTPResponse) -> tuple[int, int | None]:
    """(first byte, size of the whole file) of a partial response."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"\s*bytes\s+(\d+)-\d+/(\d+|\*)\s*", text)
    if match is None:
        raise _Dropped(f"the server sent a part without a valid Content-Range ({text!r})")
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _content_length(response: HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _receive(
    response: HTTPResponse, part: Path, start: int, total: int | None, url: str, progress: Progress
) -> None:
    done = start
    try:
        # Unbuffered: received bytes are on disk even if the process is killed.
        with (
            open(part, "ab" if start else "wb", buffering=0) as file,
            ByteBar(progress, "download", total, start) as bar,
        ):
            for block in _blocks(response):
                done += len(block)
                if total is not None and done > total:
                    break
                rest = memoryview(block)
                while rest:
                    rest = rest[file.write(rest) :]
                bar.advance(len(block))
    except OSError as error:
        raise RunError(f"cannot write {part}: {error.strerror or error}") from error
    if total is not None and done > total:
        part.unlink()
        raise RunError(f"{url} sends more than the {total} bytes of the archive: it is a different file")
    if total is not None and done < total:
        raise _Dropped("the connection ended early")


def _blocks(response: HTTPResponse) -> Iterator[bytes]:
    """Blocks as they arrive. Network errors become _Dropped, so that any other OSError is the disk's."""
    while True:
        try:
            block = response.read1(CHUNK)
        except (HTTPException, OSError) as error:
            raise _Dropped(f"the connection broke ({error or type(error).__name__})") from error
        if not block:
            return
        yield block
