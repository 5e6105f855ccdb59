"""One-dimensional .npy files: memory-mapped where they are local, read by slices where they are behind a URL."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict

import numpy as np

from phikit.records.remote import Place, Remote

BLOCK, KEEP = 1 << 20, 256  # bytes of a request; blocks that stay in memory
_HEADER = 4096  # bytes that hold any header of ours


def load_array(place: Place) -> np.ndarray | RemoteArray:
    """The array in a file. Raises ValueError where it is none, or behind a URL and of more than one dimension."""
    return RemoteArray(place) if isinstance(place, Remote) else np.load(place, mmap_mode="r")


class RemoteArray:
    """`len(a)`, `a[i:j]`, `a[:]`: slices of an array that is never read whole. The blocks used last stay in memory, so
    rows that lie side by side cost one request. Several threads may read."""

    def __init__(self, remote: Remote, block: int = BLOCK, keep: int = KEEP) -> None:
        self.remote, self.block, self.keep = remote, block, keep
        size = remote.stat().st_size
        if size is None or not remote.ranges:
            raise ValueError(
                f"{remote}: its server gives no parts of files, so it cannot be streamed; copy it here"
            )
        head = io.BytesIO(remote.read_range(0, min(size, _HEADER)))
        try:
            version = np.lib.format.read_magic(head)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
                version
            ]
            self.shape, fortran, self.dtype = read(head)
        except (ValueError, KeyError) as e:
            raise ValueError(f"{remote}: not a .npy file ({e})") from e
        self.first = head.tell()
        if len(self.shape) != 1 or fortran or self.dtype.hasobject:
            raise ValueError(f"{remote}: {self.dtype} of shape {self.shape} is not read by slices")
        if size != self.first + self.shape[0] * self.dtype.itemsize:
            raise ValueError(f"{remote}: {size:,} bytes are not what its header says; it is cut short")
        self._size = size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, step = key.indices(len(self))
        if step != 1:
            raise ValueError(f"{self.remote}: slices of step 1 only")
        a, b = (self.first + i * self.dtype.itemsize for i in (start, max(start, stop)))
        return np.frombuffer(self._bytes(a, b), self.dtype)

    def _bytes(self, a: int, b: int) -> bytes:
        """Bytes a to b of the file; blocks that are not here come in one request."""
        numbers = range(a // self.block, -(-b // self.block)) if b > a else range(0)
        with self._lock:
            have = {n: self._blocks[n] for n in numbers if n in self._blocks}
        if absent := [n for n in numbers if n not in have]:
            low, high = absent[0] * self.block, min((absent[-1] + 1) * self.block, self._size)
            data = self.remote.read_range(low, high)
            have |= {
                n: data[n * self.block - low : (n + 1) * self.block - low]
                for n in range(absent[0], absent[-1] + 1)
            }
        with self._lock:
            for n in numbers:
                self._blocks[n] = have[n]
                self._blocks.move_to_end(n)
            while len(self._blocks) > self.keep:
                self._blocks.popitem(last=False)
        offset = numbers[0] * self.block if numbers else 0
        return b"".join(have[n] for n in numbers)[a - offset : b - offset]
