"""Durable files and folders, digests, and system errors explained."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import xxhash

from store.errors import CorruptArtifact, StoreError

_BLOCK = 4 << 20

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES)
"""Error numbers of file systems that cannot make a hard link."""

_ADVICE = {
    errno.ENOSPC: "no space is left on the device. Free some, or give this kind of artifact "
    "a root on another disk, and run again",
    errno.EDQUOT: "your disk quota is used up. Free some of it, or give this kind of artifact "
    "a root elsewhere, and run again",
    errno.EIO: "the device or file server reported an I/O error. Check it before running again; "
    "what is already published keeps its digests",
    errno.EACCES: "permission denied. Check the owner and mode of the folder, or choose "
    "another store",
    errno.EPERM: "the operation is not permitted. Check the owner and attributes of the folder, "
    "or choose another store",
    errno.EROFS: "the file system is read-only. Choose a store on one that can be written",
    errno.EXDEV: "its old and its new place are on different file systems. "
    "A kind of artifact needs one file system: remove the link or mount below its folder",
    errno.ENOENT: "it does not exist, or another process has just moved it. Run again",
    errno.EMFILE: "this process has too many open files. Raise the limit (ulimit -n)",
    errno.ENAMETOOLONG: "the file system allows no name this long. Use a shorter name",
}


_ADVICE_ON_FOLDERS = {
    errno.ENOENT: "no folder can be created there. Check the path, or choose another store",
    errno.ENOTDIR: "part of the path is a file. Check the path, or choose another store",
}


@contextmanager
def explained(
    action: str, path: str | Path, advice: Mapping[int, str] | None = None
) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError: what failed, where, and what to do.

    `advice` by error number replaces the general advice.
    """
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        reason = (_ADVICE | dict(advice or {})).get(code, error.strerror or str(error))
        name = errno.errorcode.get(code, "OSError")
        raise StoreError(f"cannot {action} {path}: {reason} ({name})") from error


class FileRecord(msgspec.Struct, frozen=True):
    """Expected content of a file: its size in bytes and their xxh3_128 in hexadecimal."""

    size: int
    xxh3: str


class NewFile:
    """A file that is being written: bytes are digested on the way, `close` flushes them to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._digest = xxhash.xxh3_128()
        with explained("create", path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes; a memoryview must be C-contiguous."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self._size += len(view)
        with explained("write", self.path):
            while view:  # the system may take less than it is given
                view = view[os.write(self._fd, view) :]

    def close(self, durable: bool = True) -> FileRecord:
        # Only the descriptor that wrote is sure to be told of a failed write-back.
        try:
            if durable:
                with explained("flush", self.path):
                    os.fsync(self._fd)
        finally:
            self._release()
        return FileRecord(self._size, self._digest.hexdigest())

    def abandon(self) -> None:
        """Close the file without flushing it. Safe to call at any time."""
        if self._fd >= 0:
            with suppress(OSError):
                self._release()

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        with explained("close", self.path):  # NFS reports a full disk here
            os.close(fd)


def write_file(
    path: Path, blocks: Iterable[bytes | memoryview], durable: bool = True
) -> FileRecord:
    """Write a new file. Raises StoreError."""
    file = NewFile(path)
    try:
        for block in blocks:
            file.write(block)
        return file.close(durable)
    finally:
        file.abandon()


def replace_file(path: Path, *data: bytes | memoryview, durable: bool = True) -> None:
    """Create or replace a file atomically. Raises StoreError.

    It is written under a name that begins with a dot, and then renamed.
    """
    scratch = path.parent / f".{path.name[:100]}.{os.urandom(4).hex()}"
    try:
        write_file(scratch, data, durable)
        with explained("write", path):
            os.replace(scratch, path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            scratch.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def link_file(source: str | Path, path: Path, record: FileRecord) -> None:
    """Hard-link a file that is never changed again, or copy it where links are not supported.

    Raises StoreError where the file is not as recorded, by its size or, when copied, its digest.
    """
    with explained("link", source):
        try:
            os.link(source, path)
            found = FileRecord(os.stat(path).st_size, record.xxh3)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            found = write_file(path, read_blocks(source))
    if found != record:
        raise CorruptArtifact(
            f"{source} is not as it was written: it has {found.size} bytes, or others than the "
            f"{record.size} recorded. Delete the folder that it lies in, and run again"
        )


def write_new(path: Path, data: bytes) -> None:
    """Write a small new file that need not survive a crash of the machine. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(fd)


def read_blocks(path: str | Path) -> Iterator[memoryview]:
    """Read a file in blocks, each of which is valid until the next is asked for. Raises OSError."""
    block = bytearray(_BLOCK)
    with open(path, "rb", buffering=0) as file:
        while n := file.readinto(block):
            yield memoryview(block)[:n]


def read_file(path: str, folder: int | None = None) -> bytes:
    """Read a file with as few system calls as possible. Raises OSError.

    `path` may be relative to an open folder.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        size = os.fstat(fd).st_size
        data = os.read(fd, size + 1)  # it may have grown
        while len(data) != size and (more := os.read(fd, _BLOCK)):
            data += more
        return data
    finally:
        os.close(fd)


def digest(data: bytes | memoryview) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def digest_file(path: str | Path) -> FileRecord:
    """Return the size and digest of a file. Raises OSError."""
    hasher, size = xxhash.xxh3_128(), 0
    for block in read_blocks(path):
        hasher.update(block)
        size += len(block)
    return FileRecord(size, hasher.hexdigest())


def list_folder(folder: Path) -> list[str]:
    """Return the sorted names in a folder; [] where it does not exist or is no folder."""
    with explained("list", folder):
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []


def names_in(folder: Path) -> list[str]:
    """As `list_folder`, without names that begin with a dot, such as unfinished files."""
    return [name for name in list_folder(folder) if not name.startswith(".")]


def bytes_in(path: Path) -> int:
    """Return the total size of the files below a folder, as far as they are readable."""
    n_bytes = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                n_bytes += os.lstat(os.path.join(folder, name)).st_size
    return n_bytes


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to disk. Raises StoreError."""
    with explained("flush the folder", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def make_folders(path: Path) -> None:
    """Create a folder and its missing parents durably. Raises StoreError."""
    with explained("create the folder", path, _ADVICE_ON_FOLDERS):
        if path.is_dir():
            return
        make_folders(path.parent)
        with suppress(FileExistsError):
            os.mkdir(path)
    sync_folder(path.parent)


def remove_tree(path: Path) -> None:
    """Delete a folder as far as possible; a later collection removes the rest."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)
