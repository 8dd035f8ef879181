"""A local server with every kind of fault of servers and connections, and small archives."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import struct
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iufbench.data.download.download import Archive, archives_of, download_dataset
from iufbench.support.progress import Progress

OBJECTS = ("bolt", "washer")


def archive_of(card, *address) -> Archive:
    (archive,) = archives_of(card, *address)
    return archive


QUIET = Progress(-1)


class Site:
    """Answers the k-th request with the k-th behaviour, further ones with the last."""

    def __init__(self) -> None:
        self.content = b""
        self.behave(whole())
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                k = len(site.ranges)
                site.ranges.append(self.headers.get("Range"))
                self.close_connection = True
                site.behaviours[min(k, len(site.behaviours) - 1)](self, site.content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/tiny.tar"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def behave(self, *behaviours) -> None:
        """Applies from the next request on; ``ranges`` are the Range headers since then."""
        self.behaviours = behaviours
        self.ranges: list[str | None] = []


def asked_from(handler) -> int:
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    return int(match[1]) if match else 0


def head(handler, status, **fields):
    handler.send_response(status)
    for name, value in {**fields, "Connection": "close"}.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def whole(send: int | None = None, reset: bool = False, declare: int = 0):
    """A correct server; with ``send``, the connection breaks after so many bytes (optionally by a reset)."""

    def answer(handler, content):
        start = asked_from(handler)
        if start:
            field = f"bytes {start}-{len(content) - 1}/{len(content) + declare}"
            head(handler, 206, Content_Range=field, Content_Length=len(content) - start)
        else:
            head(handler, 200, Content_Length=len(content) + declare)
        handler.wfile.write(content[start:] if send is None else content[start : start + send])
        if reset:
            handler.wfile.flush()
            time.sleep(0.05)  # a reset overtakes what the other side has not read yet
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()

    return answer


def without_ranges(send: int | None = None):
    def answer(handler, content):
        head(handler, 200, Content_Length=len(content))
        handler.wfile.write(content[:send])

    return answer


def chunked(change=lambda content: content, end=True):
    """No size is announced."""

    def answer(handler, content):
        head(handler, 200, Transfer_Encoding="chunked")
        content = change(content)
        for k in range(0, len(content), 50_000):
            block = content[k : k + 50_000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
        if end:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def status(code, **fields):
    return lambda handler, content: head(handler, code, Content_Length=0, **fields)


def redirect_once(handler, content):
    if handler.path.endswith("/moved"):
        whole()(handler, content)
    else:
        head(handler, 302, Location="/moved", Content_Length=0)


def changed(content: bytes) -> bytes:
    return content[:1000] + b"wrong" + content[1005:]


def png(value: int, shape=(8, 8, 3)) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def tiny_files(prefix: str = "") -> dict[str, bytes]:
    files = {}
    for k, name in enumerate(OBJECTS):
        files[f"{prefix}{name}/train/good/000.png"] = png(k)
        files[f"{prefix}{name}/test/good/000.png"] = png(10 + k)
        files[f"{prefix}{name}/test/scratch/000.png"] = png(20 + k)
        files[f"{prefix}{name}/ground_truth/scratch/000_mask.png"] = png(255, (8, 8))
    files[f"{prefix}readme.txt"] = np.random.default_rng(0).bytes(400_000)
    return files


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def tar_of(files: dict[str, bytes], *more: tuple, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            tar.addfile(*((lambda i, c: (i, io.BytesIO(c)))(*entry(name, content=content))))
        for info, content in more:
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


TINY = tar_of(tiny_files())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def part_of(folder: Path, content: bytes = TINY) -> Path:
    return folder.with_name(f"{folder.name}.download") / f"tiny.tar.{sha256(content)[:8]}.part"


def get(card, folder, progress=QUIET, archive=None):
    """(data root, pauses)"""
    pauses: list[float] = []
    return download_dataset(card, folder, [archive or archive_of(card)], progress, pauses.append), pauses


def fails(card, folder, kind, match, archive=None):
    """The pauses until it failed; nothing is left that resembles the data set."""
    pauses: list[float] = []
    with pytest.raises(kind, match=match) as caught:
        download_dataset(card, folder, [archive or archive_of(card)], QUIET, pauses.append)
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    assert not (folder.with_name(f"{folder.name}.download") / "unpacked").exists()
    return pauses
