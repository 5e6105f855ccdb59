"""Attacks by bodies and heads of requests: bombs, slow ones, endless ones, junk."""

from __future__ import annotations

import gzip
import json
import socket
import time
import zipfile
from contextlib import suppress

import pytest

from phikit.store.web import PullError
from phikit.store.wheel import only_gguf

pytestmark = pytest.mark.usefixtures("still_serves")


def connect(server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def test_decompression_bombs(http, tmp_path):
    """A compressed request is not unpacked; a wheel whose file unpacks to far more is refused before it is."""
    bomb = gzip.compress(b" " * (64 << 20))
    for path in ("/api/generate", "/v1/chat/completions", "/api/blobs/sha256:" + "0" * 64):
        answer = http.post(path, content=bomb, headers={"content-encoding": "gzip"})
        assert answer.status_code == 415
    wheel = tmp_path / "bomb-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("bomb/model.gguf", b"\0" * (32 << 20))
    with pytest.raises(PullError, match="unpacks"), only_gguf(wheel):
        pass


def test_json_bombs(http):
    for body in (
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model":"tiny","format":' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b"[[]," * 200_000,
    ):
        begin = time.monotonic()
        assert http.post("/api/generate", content=body).status_code == 400
        assert time.monotonic() - begin < 5
    large = b'{"model":"tiny","prompt":"' + b"a" * (2 << 20) + b'"}'
    assert http.post("/api/generate", content=large).status_code == 413


def test_a_prompt_far_too_long_is_not_even_counted(http):
    """A megabyte of text is refused by its length; a prompt is never tokenized for seconds."""
    text = "a b " * 200_000
    for path, body in (
        ("/api/generate", {"model": "tiny", "prompt": text}),
        ("/api/chat", {"model": "tiny", "messages": [{"role": "user", "content": text}]}),
        ("/v1/completions", {"model": "tiny", "prompt": text}),
        ("/v1/score", {"model": "tiny", "context": "x", "continuations": [text]}),
    ):
        begin = time.monotonic()
        answer = http.post(path, json=body)
        assert answer.status_code == 400
        assert "characters, more than the context of 256 tokens can hold" in answer.text
        assert time.monotonic() - begin < 5
    assert http.post("/api/embed", json={"model": "tiny", "input": text}).status_code == 200


def test_slow_loris(server):
    """A head that comes a byte at a time is cut off after the time for heads, however often a byte comes."""
    with connect(server) as sock:
        begin = time.monotonic()
        sock.sendall(b"POST /api/generate HTTP/1.1\r\nhost: localhost\r\n")
        ended = None
        while time.monotonic() - begin < 6 and ended is None:
            try:
                sock.sendall(b"x")
                sock.settimeout(0.2)
                if sock.recv(100) == b"":
                    ended = time.monotonic() - begin
            except TimeoutError:
                continue
            except OSError:
                ended = time.monotonic() - begin
        assert ended is not None
        assert ended < 4


def test_a_slow_body_and_one_that_never_ends(server):
    with connect(server) as sock:
        sock.sendall(b"POST /api/generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{")
        assert b" 408 " in sock.recv(4000)
    with connect(server) as sock:
        sock.sendall(b"POST /api/generate HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            for _ in range(200):
                sock.sendall(chunk)
        except OSError:
            pass  # it hung up, as it should
        with suppress(ConnectionResetError):
            assert b" 413 " in sock.recv(4000)


def test_an_endless_head_and_junk(server):
    for junk in (
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * (1 << 20),
        b"\0" * 5000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
        b"0\r\n\r\n",
    ):
        with connect(server) as sock:
            try:
                sock.sendall(junk)
                answer = sock.recv(4000)
            except OSError:
                continue
            assert answer == b"" or answer.split()[1] in (b"400", b"403", b"431"), answer[:100]


def test_the_log_holds_one_line_for_each_request_whatever_it_says(http, server):
    http.get("/api/x%0a%22injected%22:1", headers={"user-agent": 'a"b'})
    for line in server.log.getvalue().splitlines():
        assert isinstance(json.loads(line), dict)
