"""Files that are on disk when we say so, and system errors in words."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import xxhash

from store.errors import CorruptArtifact, StoreError

_BLOCK = 4 << 20

LISTED_S = 30.0
"""For so long a network file system may list a folder as it was: sshfs does for 20 s."""

OPENED_S = 5.0
"""For so long a file may have the size of the one that it replaced, although it is opened anew: by
FUSE for 1 s, where a stat alone may be wrong for as long as a listing."""

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES)
"""How a file system says that it makes no hard link here."""

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
    errno.EXDEV: "it is renamed, and its old and its new place lie on different file systems. "
    "A kind of artifact needs one file system: remove the link or mount below its folder",
    errno.ENOENT: "it is not there, or no longer: another process may have moved it away. "
    "Run again",
    errno.EMFILE: "this process has too many open files. Raise the limit (ulimit -n)",
    errno.ENAMETOOLONG: "the file system allows no name this long. Use a shorter name",
}


_ADVICE_ON_FOLDERS = {
    errno.ENOENT: "no folder can be made there. Check the path, or choose another store",
    errno.ENOTDIR: "a file lies on the way. Check the path, or choose another store",
}


@contextmanager
def explained(
    action: str, path: str | Path, advice: Mapping[int, str] | None = None
) -> Iterator[None]:
    """Turns an OSError of its block into a StoreError: what failed, where, and what to do.

    `advice` goes before what is said to an error number anywhere.
    """
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        reason = (_ADVICE | dict(advice or {})).get(code, error.strerror or str(error))
        name = errno.errorcode.get(code, "OSError")
        raise StoreError(f"cannot {action} {path}: {reason} ({name})") from error


class FileRecord(msgspec.Struct, frozen=True):
    """What a file must be: its size in bytes and the xxh3_128 of them, in hexadecimal."""

    size: int
    xxh3: str


class NewFile:
    """A file being written: digested as the bytes pass, and flushed to disk by `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._digest = xxhash.xxh3_128()
        with explained("create", path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes, a view being C-contiguous."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self._size += len(view)
        with explained("write", self.path):
            while view:  # the system may take less than it is given
                view = view[os.write(self._fd, view) :]

    def close(self, durable: bool = True) -> FileRecord:
        # Flushed through the descriptor that wrote: only it is sure to hear of a failed write-back.
        try:
            if durable:
                with explained("flush", self.path):
                    os.fsync(self._fd)
        finally:
            self._release()
        return FileRecord(self._size, self._digest.hexdigest())

    def abandon(self) -> None:
        """Lets go of the file, whose bytes no longer matter. Safe to call at any time."""
        if self._fd >= 0:
            with suppress(OSError):
                self._release()

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        with explained("close", self.path):  # NFS reports a full disk here
            os.close(fd)


def write_file(path: Path, data: bytes | memoryview) -> FileRecord:
    """Writes a new file whole."""
    file = NewFile(path)
    try:
        file.write(data)
        return file.close()
    finally:
        file.abandon()


def replace_file(path: Path, *data: bytes | memoryview, durable: bool = True) -> None:
    """Writes a file whole or not at all, in the place of one that may be there.

    Until it is whole it has a name that begins with a dot. Raises StoreError.
    """
    scratch = path.parent / f".{path.name[:100]}.{os.urandom(4).hex()}"
    file = NewFile(scratch)
    try:
        for block in data:
            file.write(block)
        file.close(durable)
        with explained("write", path):
            os.replace(scratch, path)
    except BaseException:
        file.abandon()
        with suppress(OSError):  # what went wrong before is what must be heard
            scratch.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def link_file(source: str | Path, path: Path, record: FileRecord) -> None:
    """A second name for a file that is never written to again, or a copy where there are no hard
    links. Raises StoreError when the file is not as recorded: by its size, or once copied.
    """
    with explained("link", source):
        try:
            os.link(source, path)
            found = FileRecord(os.stat(path).st_size, record.xxh3)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            found = _copy_file(source, path)
    if found != record:
        raise CorruptArtifact(
            f"{source} is not as it was written: it has {found.size} bytes, or others than the "
            f"{record.size} recorded. Delete the folder that it lies in, and run again"
        )


def _copy_file(source: str | Path, path: Path) -> FileRecord:
    copy = NewFile(path)
    try:
        with open(source, "rb", buffering=0) as file:
            block = bytearray(_BLOCK)
            while n := file.readinto(block):
                copy.write(memoryview(block)[:n])
        return copy.close()
    finally:
        copy.abandon()


def write_new(path: Path, data: bytes) -> None:
    """Writes a small new file that need not outlive a crash of the machine. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(fd)


def read_file(path: str, folder: int | None = None) -> bytes:
    """A whole file, in as few calls of the system as can be. Raises OSError.

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


def stat_opened(path: str | Path) -> os.stat_result:
    """What the file server says of a file: opening it passes by most caches. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def tries(seconds: float) -> Iterator[None]:
    """Looks again, at once and then ever further apart, until a cache of so long has run out."""
    end, pause_s = time.monotonic() + seconds, 0.001
    yield
    while time.monotonic() < end:
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)
        yield


def digest(data: bytes | memoryview) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def digest_file(path: str | Path) -> FileRecord:
    """Size and digest of what is on disk now. Raises OSError."""
    hasher, size = xxhash.xxh3_128(), 0
    block = bytearray(_BLOCK)
    with open(path, "rb", buffering=0) as file:
        while n := file.readinto(block):
            hasher.update(memoryview(block)[:n])
            size += n
    return FileRecord(size, hasher.hexdigest())


def list_folder(folder: Path) -> list[str]:
    """What lies in a folder, in order; nothing when it is not there, or no folder."""
    with explained("list", folder):
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, in order, but for scratch files; nothing when it is not there."""
    return [name for name in list_folder(folder) if not name.startswith(".")]


def bytes_in(path: Path) -> int:
    """Sizes of all files in a folder, as far as they can be seen."""
    n_bytes = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                n_bytes += os.lstat(os.path.join(folder, name)).st_size
    return n_bytes


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    with explained("flush the folder", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def look_afresh(folder: Path) -> None:
    """Makes a network file system ask its server which names a folder holds now.

    Without it, NFS may say for half a minute that something is not there which has come since.
    """
    with suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def make_folders(path: Path) -> None:
    """Makes a folder and those above it, as far as they are missing, durably."""
    with explained("create the folder", path, _ADVICE_ON_FOLDERS):
        if path.is_dir():
            return
        make_folders(path.parent)
        with suppress(FileExistsError):
            os.mkdir(path)
    sync_folder(path.parent)


def remove_tree(path: Path) -> None:
    """Deletes a folder as far as it can be; what stays is swept up later."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)
