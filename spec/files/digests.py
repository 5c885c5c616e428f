"""Digests of files, taken by many threads and remembered by size, mtime, ctime and inode."""

import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import xxhash

from spec.errors import DatasetError
from spec.files.listing import FileStat, encode_stats

ShowProgress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Given a number of files, returns a context whose function is told how many have been read."""

Digests = dict[FileStat, str]
"""xxh3_128 of files, in hex, by what shows that they have changed."""

SETTLED_NS = 2_000_000_000
"""A file that was written less than this before it was read may change again at the same mtime."""

_BLOCK = 1 << 20
_FILES_PER_TASK = 32
_THREADS = 16
"""Enough to hide the latency of a file server. Cores do not limit: reading is mostly waiting."""


def is_settled(stats: Iterable[FileStat], read_ns: int) -> bool:
    """Return whether a change after `read_ns`, when files were read, would show in their stats."""
    newest = max((max(stat.mtime_ns, stat.ctime_ns) for stat in stats), default=0)
    return is_settled_at(newest, read_ns)


def is_settled_at(mtime_ns: int, read_ns: int) -> bool:
    """Return whether a change after `read_ns` would get another mtime than `mtime_ns`."""
    return mtime_ns < read_ns - SETTLED_NS


def digest_file(path: str | Path) -> str:
    """Return the xxh3_128, in hex, of a file. Raises DatasetError when it cannot be read."""
    return _digest(path, bytearray(_BLOCK))


def digest_files(
    root: Path,
    paths: Sequence[str],
    stats: Sequence[FileStat],
    known: Mapping[FileStat, str],
    show_progress: ShowProgress,
) -> tuple[list[str], Digests]:
    """Return the digest of each file, reading those not `known`, and the digests to remember.

    Digests of files that have just been written are not remembered, since a later change might not
    show. Raises DatasetError naming up to five files that cannot be read.
    """
    read_ns = time.time_ns()
    unknown = [i for i, stat in enumerate(stats) if stat not in known]
    tasks = [unknown[i : i + _FILES_PER_TASK] for i in range(0, len(unknown), _FILES_PER_TASK)]
    digests = [known.get(stat, "") for stat in stats]
    faults: list[str] = []
    n_read = 0

    def digest_some(task: list[int]) -> list[str | DatasetError]:
        block = bytearray(_BLOCK)
        found: list[str | DatasetError] = []
        for i in task:
            try:
                found.append(_digest(os.path.join(root, paths[i]), block))
            except DatasetError as error:
                found.append(error)
        return found

    show = show_progress if unknown else show_nothing
    with show(len(unknown)) as advance, _pool() as pool:
        for task, found in zip(tasks, pool.map(digest_some, tasks), strict=True):
            for i, digest in zip(task, found, strict=True):
                if isinstance(digest, DatasetError):
                    faults.append(str(digest))
                else:
                    digests[i] = digest
            n_read += len(task)
            advance(n_read)
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DatasetError("; ".join(faults[:5]) + more)
    pairs = zip(stats, digests, strict=True)
    return digests, {s: d for s, d in pairs if s in known or is_settled([s], read_ns)}


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="digest")
    try:
        yield pool
    finally:  # Ctrl-C must not wait for what is still queued
        pool.shutdown(cancel_futures=True)


def show_nothing(n_files: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress."""
    return nullcontext(lambda n_read: None)


def _digest(path: str | Path, block: bytearray) -> str:
    view = memoryview(block)
    try:
        with open(path, "rb", buffering=0) as file:
            n = file.readinto(block)
            state = xxhash.xxh3_128(view[:n])
            while n and (n := file.readinto(block)):
                state.update(view[:n])
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    return state.hexdigest()


def encode(digests: Digests) -> bytes:
    """Return the bytes that `decode` reads: a checksum, all stats, all digests."""
    body = encode_stats(digests) + bytes.fromhex("".join(digests.values()))
    return xxhash.xxh3_128_digest(body) + body


def decode(data: bytes) -> Digests:
    """Return the digests that `encode` wrote; none for damaged bytes, which only costs time."""
    checksum, body = data[:16], data[16:]
    n = len(body) // 48  # 32 bytes of stat, 16 of digest
    if xxhash.xxh3_128_digest(body) != checksum or len(body) != 48 * n:
        return {}
    numbers = array("q", body[: 32 * n])
    stats = map(FileStat, *(numbers[field::4] for field in range(4)))
    hexes = body[32 * n :].hex()
    return {stat: hexes[32 * i : 32 * i + 32] for i, stat in enumerate(stats)}
