"""llama.cpp's C interface, out of the library inside the xllamacpp wheel. For the child process of LlamaEngine.

The parameter structs of llama.cpp change from build to build. Their layout is not known here: they are filled by
the library's own conversion from xllamacpp's `CommonParams`, whose fields have names, and are passed on as opaque
bytes. What a context really got is read back through getters. A library of another shape is an ImportError.
"""

from __future__ import annotations

import ctypes as C
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phikit.engine.gguf_meta import read_meta

_MODEL_PARAMS = "_Z28common_model_params_to_llamaR13common_params"
_CONTEXT_PARAMS = "_Z30common_context_params_to_llamaRK13common_params"
_LLGUIDANCE = "_Z22llama_sampler_init_llgPK11llama_vocabPKcS3_"
_OBJECT_HEAD = 16  # bytes before the C++ struct in a CommonParams object
_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_TOKEN_DATA = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
NO_POOLING, MEAN_POOLING = 0, 1


class _Opaque(C.Structure):
    """Room for any parameter struct; the library reads and writes only its own size."""

    _fields_ = [("bytes", C.c_uint64 * 64)]


class _Batch(C.Structure):
    _fields_ = [("n", C.c_int32), ("token", C.c_void_p), ("embd", C.c_void_p), ("pos", C.c_void_p)] + [
        ("n_seq", C.c_void_p), ("seq", C.c_void_p), ("logits", C.c_void_p)
    ]  # fmt: skip


class _Candidates(C.Structure):
    _fields_ = [("data", C.c_void_p), ("size", C.c_size_t), ("selected", C.c_int64), ("sorted", C.c_bool)]


_LOG = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)
_P, _I, _F, _B = C.c_void_p, C.c_int32, C.c_float, C.c_bool
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    _MODEL_PARAMS: (_Opaque, [_P]),
    _CONTEXT_PARAMS: (_Opaque, [_P]),
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [_LOG, _P]),
    "llama_model_load_from_file": (_P, [C.c_char_p, _Opaque]),
    "llama_model_get_vocab": (_P, [_P]),
    "llama_model_n_head": (_I, [_P]),
    "llama_model_n_embd_out": (_I, [_P]),
    "llama_init_from_model": (_P, [_P, _Opaque]),
    "llama_n_ctx_seq": (C.c_uint32, [_P]),
    "llama_n_seq_max": (C.c_uint32, [_P]),
    "llama_n_batch": (C.c_uint32, [_P]),
    "llama_n_threads": (_I, [_P]),
    "llama_pooling_type": (C.c_int, [_P]),
    "llama_free": (None, [_P]),
    "llama_get_memory": (_P, [_P]),
    "llama_memory_clear": (None, [_P, _B]),
    "llama_memory_seq_rm": (_B, [_P, _I, _I, _I]),
    "llama_memory_seq_cp": (None, [_P, _I, _I, _I, _I]),
    "llama_decode": (_I, [_P, _Batch]),
    "llama_get_logits": (_P, [_P]),
    "llama_get_embeddings_seq": (_P, [_P, _I]),
    "llama_vocab_n_tokens": (_I, [_P]),
    "llama_vocab_eos": (_I, [_P]),
    "llama_vocab_is_eog": (_B, [_P, _I]),
    "llama_tokenize": (_I, [_P, C.c_char_p, _I, _P, _I, _B, _B]),
    "llama_token_to_piece": (_I, [_P, _I, C.c_char_p, _I, _I, _B]),
    "llama_sampler_init_grammar": (_P, [_P, C.c_char_p, C.c_char_p]),
    _LLGUIDANCE: (_P, [_P, C.c_char_p, C.c_char_p]),
    "llama_sampler_apply": (None, [_P, C.POINTER(_Candidates)]),
    "llama_sampler_accept": (None, [_P, _I]),
    "llama_sampler_free": (None, [_P]),
}


def _library() -> Any:
    library = C.CDLL(importlib.import_module("xllamacpp.xllamacpp").__file__)
    for name, (result, arguments) in _SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError as e:
            raise ImportError(
                f"this xllamacpp has no {name}; install the version that constraints.txt names"
            ) from e
        function.restype, function.argtypes = result, arguments
    return library


def _common(path: str, threads: int) -> tuple[Any, Any]:
    import xllamacpp

    x: Any = xllamacpp  # a compiled module without stubs
    params = x.CommonParams()
    params.model.path = path
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    return x, params


class Model:
    """Weights and vocabulary. Raises FileNotFoundError or ValueError where our own check refuses the file, which
    llama.cpp then never sees, and ValueError with what llama.cpp said when it cannot load it."""

    def __init__(self, path: str, threads: int) -> None:
        read_meta(Path(path))  # here, for every program that loads a file comes through here
        self.path, self.threads = path, threads
        self.c = _library()
        self.said: list[str] = []  # errors llama.cpp has logged, the last few
        self._log = _LOG(self._heard)
        self.c.llama_log_set(self._log, None)
        self.c.llama_backend_init()
        _, params = _common(path, threads)
        opaque = getattr(self.c, _MODEL_PARAMS)(id(params) + _OBJECT_HEAD)
        # `params` lives until the model is loaded: the struct points into it.
        self.handle = self.c.llama_model_load_from_file(path.encode(), opaque)
        del params
        if not self.handle:
            raise ValueError(" | ".join(self.said) or "no reason given")
        self.vocab = self.c.llama_model_get_vocab(self.handle)
        self.n_vocab = self.c.llama_vocab_n_tokens(self.vocab)
        self.end = self.c.llama_vocab_eos(self.vocab)
        self._pieces: dict[int, bytes] = {}

    def encode(self, text: str, *, special: bool, whole: bool = False) -> list[int]:
        """Ids. `special`: special-token strings are tokens. `whole`: with the start and end tokens the model
        wants around a text."""
        data = text.encode("utf-8", "surrogatepass")
        ids = np.empty(len(data) + 16, np.int32)
        n = self.c.llama_tokenize(self.vocab, data, len(data), ids.ctypes.data, len(ids), whole, special)
        if n < 0:
            raise ValueError(f"llama.cpp cannot tokenize a text of {len(data)} bytes")
        return ids[:n].tolist()

    def piece(self, token: int) -> bytes:
        """The bytes of a token, empty for a special one."""
        if (known := self._pieces.get(token)) is not None:
            return known
        size = 64
        while True:
            buffer = C.create_string_buffer(size)
            n = self.c.llama_token_to_piece(self.vocab, token, buffer, size, 0, False)
            if n >= 0:
                self._pieces[token] = buffer.raw[:n]
                return self._pieces[token]
            size = -n

    def ends(self, token: int) -> bool:
        return self.c.llama_vocab_is_eog(self.vocab, token)

    def _heard(self, level: int, text: bytes, _: Any) -> None:
        if level == _ERROR:
            self.said = [*self.said[-3:], text.decode("utf-8", "replace").strip()]


class Context:
    """A key-value cache of `sequences` sequences of `length` tokens each, and the compute buffers beside it.

    `exact`: attention in f32 without the fused kernel, whose result depends on how tokens are batched, on an f32
    cache. `outputs` is the most rows of logits of one batch, `batch` the most tokens of one; it is no more than
    the cache holds."""

    def __init__(
        self,
        model: Model,
        *,
        sequences: int,
        length: int,
        batch: int,
        outputs: int,
        exact: bool = False,
        embed: bool = False,
        mean: bool = False,
    ) -> None:
        self.model, self.c = model, model.c
        x, params = _common(model.path, model.threads)
        params.n_ctx, params.n_parallel, params.kv_unified = length * sequences, sequences, False
        params.n_batch = params.n_ubatch = self.batch = batch = min(batch, length * sequences)
        params.n_outputs_max = outputs
        params.swa_full = True  # a cache of a sliding window alone cannot be cut
        if exact:
            params.cache_type_k = params.cache_type_v = x.ggml_type.GGML_TYPE_F32
            params.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if embed:
            params.embedding = True
        if mean:
            params.pooling_type = x.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        opaque = getattr(self.c, _CONTEXT_PARAMS)(id(params) + _OBJECT_HEAD)
        del params
        self.handle = self.c.llama_init_from_model(model.handle, opaque)
        if not self.handle:
            why = " | ".join(model.said) or "not enough memory?"
            raise ValueError(f"no context of {sequences} x {length} tokens: {why}")
        c, h = self.c, self.handle
        got = (c.llama_n_seq_max(h), c.llama_n_batch(h), c.llama_n_threads(h))
        if got != (sequences, batch, model.threads) or c.llama_n_ctx_seq(h) < length:
            raise ImportError(
                f"this xllamacpp made a context of {got} instead of {sequences, batch, model.threads}; "
                "install the version that constraints.txt names"
            )
        self.memory = c.llama_get_memory(h)
        self._tokens, self._positions = np.empty(batch, np.int32), np.empty(batch, np.int32)
        self._sequence, self._count = np.empty(batch, np.int32), np.ones(batch, np.int32)
        self._pointers = (self._sequence.ctypes.data + 4 * np.arange(batch)).astype(np.uint64)
        self._wanted = np.empty(batch, np.int8)
        a = (self._tokens, None, self._positions, self._count, self._pointers, self._wanted)
        self._batch = _Batch(0, *(None if x is None else x.ctypes.data for x in a))

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        wanted: Sequence[bool],
    ) -> np.ndarray:
        """Computes at most `batch` tokens; logits [wanted, vocab] in their order, valid until the next call.
        Raises RuntimeError."""
        n = len(tokens)
        self._tokens[:n], self._positions[:n] = tokens, positions
        self._sequence[:n], self._wanted[:n] = sequences, wanted
        self._batch.n = n
        if code := self.c.llama_decode(self.handle, self._batch):
            why = {1: "the key-value cache is full", 2: "it was stopped"}.get(code, f"error {code}")
            raise RuntimeError(f"llama.cpp could not compute a batch of {n} tokens: {why}")
        rows = int(self._wanted[:n].sum())
        if not rows or not (data := self.c.llama_get_logits(self.handle)):
            return np.empty((0, self.model.n_vocab), np.float32)
        return np.ctypeslib.as_array(C.cast(data, C.POINTER(C.c_float)), (rows, self.model.n_vocab))

    def embedding(self, sequence: int) -> np.ndarray:
        """The pooled embedding of the sequence in the last batch."""
        data = self.c.llama_get_embeddings_seq(self.handle, sequence)
        if not data:
            raise RuntimeError("llama.cpp gave no embedding")
        width = self.c.llama_model_n_embd_out(self.model.handle)
        return np.ctypeslib.as_array(C.cast(data, C.POINTER(C.c_float)), (width,)).copy()

    @property
    def pooling(self) -> int:
        return self.c.llama_pooling_type(self.handle)

    def cut(self, sequence: int, length: int) -> int:
        """Forgets what lies after `length` tokens. Returns the length that is left: 0 for a model whose state
        cannot be cut (recurrent ones)."""
        if length and self.c.llama_memory_seq_rm(self.memory, sequence, length, -1):
            return length
        self.c.llama_memory_seq_rm(self.memory, sequence, -1, -1)
        return 0

    def copy(self, source: int, target: int) -> None:
        """The whole state of `source` also for `target`, whose own is lost."""
        self.c.llama_memory_seq_rm(self.memory, target, -1, -1)
        self.c.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def clear(self) -> None:
        self.c.llama_memory_clear(self.memory, False)

    def free(self) -> None:
        self.c.llama_free(self.handle)
        self.handle = None


class Grammar:
    """The state of one sample in a grammar: GBNF text, or a JSON schema. Raises ValueError where llama.cpp cannot
    read it."""

    def __init__(self, model: Model, text: str, *, schema: bool) -> None:
        self.c = model.c
        model.said = []
        if schema:
            self.handle = getattr(self.c, _LLGUIDANCE)(model.vocab, b"json_schema", text.encode())
            # A schema it cannot read gives a sampler that allows everything, also an end at once.
            if not self.handle or self.allows(model.end):
                self.free()
                raise ValueError(f"the JSON schema has no grammar: {text[:200]}")
        else:
            self.handle = self.c.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
        if not self.handle:
            raise ValueError(f"the grammar is not valid GBNF: {' | '.join(model.said) or text[:200]}")

    def allows(self, token: int) -> bool:
        return bool(np.isfinite(self._apply(np.array([token], np.int32), np.zeros(1, np.float32))[0]))

    def mask(self, logits: np.ndarray) -> np.ndarray:
        """A copy of logits [vocab], -inf where the grammar forbids the token."""
        return self._apply(np.arange(len(logits), dtype=np.int32), logits)

    def accept(self, token: int) -> None:
        self.c.llama_sampler_accept(self.handle, token)

    def free(self) -> None:
        if self.handle:
            self.c.llama_sampler_free(self.handle)
        self.handle = None

    def _apply(self, ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
        data = np.zeros(len(ids), _TOKEN_DATA)
        data["id"], data["logit"] = ids, logits
        candidates = _Candidates(data.ctypes.data, len(ids), -1, False)
        self.c.llama_sampler_apply(self.handle, C.byref(candidates))
        return data["logit"].copy()
