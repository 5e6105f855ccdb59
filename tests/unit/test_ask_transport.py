"""HTTP/1.1 over asyncio streams against a real socket: what a server may say, and how it may fail."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from phikit.ask.transport import client

BODY = b'{"a": 1}'
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + BODY
CHUNKS = (
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n{"a\r\n5\r\n": 1}\r\n0\r\nX: y\r\n\r\n'
)


def served(said: Callable[[int, bytes], bytes | None], use, timeout: float = 5.0):
    """(What `use(client, url)` returns, requests, connections). `said(number, request)` is what the server writes; at
    None, and after "hang up", it hangs up."""

    async def main():
        requests, connections = [], []

        async def handle(reader, writer):
            connections.append(writer)
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                    requests.append(head + await reader.readexactly(size))
                    answer = said(len(requests), requests[-1])
                    if answer is None:
                        break
                    writer.write(answer)
                    if b"hang up" in answer:
                        break
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server, client(url, timeout, 4) as c:
            return await use(c, url), requests, len(connections)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        LENGTH,
        CHUNKS,
        b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH,
        b"HTTP/1.0 200 OK\r\nX: hang up\r\n\r\n" + BODY,
    ],
    ids=["length", "chunks", "continue", "until it hangs up"],
)
def test_every_form_of_a_body_is_read_and_connections_are_used_again(answer):
    async def use(c, url):
        return [(await c.post(f"{url}/x?y=z", json={"q": i})).json() for i in range(3)]

    got, requests, connections = served(lambda n, r: answer, use)
    assert got == [{"a": 1}] * 3
    assert requests[0].startswith(b"POST /v1/x?y=z HTTP/1.1\r\nHost: 127.0.0.1:")
    assert requests[2].endswith(b'{"q":2}')
    assert connections == (3 if b"hang up" in answer else 1)


def test_requests_at_once_have_a_connection_each():
    async def use(c, url):
        return [
            r.status_code for _ in range(2) for r in await asyncio.gather(*(c.get(url) for _ in range(4)))
        ]

    got, _, connections = served(lambda n, r: LENGTH, use)
    assert got == [200] * 8
    assert connections == 4


def test_a_connection_that_is_said_to_close_is_not_used_again():
    async def use(c, url):
        return [(await c.get(url)).status_code for _ in range(3)]

    close = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    got, _, connections = served(lambda n, r: close if n == 1 else LENGTH, use)
    assert got == [200] * 3
    assert connections == 2


@pytest.mark.parametrize(
    "answer, error",
    [
        (None, httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\nhang up", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhang up", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", httpx.RemoteProtocolError),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
            httpx.RemoteProtocolError,
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", httpx.RemoteProtocolError),
        (b"junk\r\n\r\n", httpx.RemoteProtocolError),
        (CHUNKS[:-2] + b"X: y\r\n" * 200, httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{", httpx.ReadTimeout),
    ],
)
def test_a_bad_reply_is_the_error_that_httpx_raises(answer, error):
    async def use(c, url):
        with pytest.raises(error):
            await c.get(url)
        return (await c.get(url)).json()  # on a new connection

    seconds = 0.5 if error is httpx.ReadTimeout else 30
    got, _, connections = served(lambda n, r: answer if n == 1 else LENGTH, use, seconds)
    assert got == {"a": 1}
    assert connections == 2


def test_no_server_and_a_header_with_a_line_break():
    async def use(c, url):
        with pytest.raises(httpx.ConnectError):
            await c.get("http://127.0.0.1:9/")
        with pytest.raises(httpx.LocalProtocolError):
            await c.get(url, headers={"X": "a\r\nY: b"})

    _, requests, _ = served(lambda n, r: LENGTH, use)
    assert requests == []


def test_a_stream_is_read_as_it_comes_and_may_be_left():
    async def use(c, url):
        async with c.stream("GET", url) as response:
            pieces = [p async for p in response.aiter_bytes()]
        async with c.stream("GET", url) as response:
            async for _ in response.aiter_bytes():
                break  # hung up on: its connection is not used again
        return pieces, (await c.get(url)).json()

    got, _, connections = served(lambda n, r: CHUNKS, use)
    assert got == ([b'{"a', b'": 1}'], {"a": 1})
    assert connections == 2


def test_a_large_body_comes_in_pieces():
    large = b"x" * 3_000_000

    async def use(c, url):
        return (await c.get(url)).content == large

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + large
    assert served(lambda n, r: answer, use)[0]


def test_a_proxy_of_the_environment_is_left_to_httpx(monkeypatch):
    from phikit.ask.transport import Streams

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "localhost")
    assert not isinstance(client("http://example.org/v1", 1.0, 4)._transport, Streams)
    assert isinstance(client("http://localhost:1/v1", 1.0, 4)._transport, Streams)
    assert isinstance(client("https://example.org/v1", 1.0, 4)._transport, Streams)
