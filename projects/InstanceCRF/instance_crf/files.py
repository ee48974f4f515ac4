"""Files: read with errors that name them, written whole or not at all, one writer at a time.

What this package reads or writes as a file goes through here, or through a library's own reader.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .entries import KINDS

try:
    import fcntl
except ImportError:  # Windows: no lock there
    fcntl = None

__all__ = [
    "InUseError",
    "atomic_path",
    "check_writable",
    "inside",
    "lock_folder",
    "read_json",
    "read_text",
    "read_yaml",
    "remove_temporaries",
    "write_json",
    "write_text",
]

_TEMPORARY = ".tmp_"
_LOCK = ".lock"


class InUseError(OSError):
    """Another process works in the folder."""


def read_text(path: str | os.PathLike) -> str:
    """A text file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: no such file (FileNotFoundError), or it cannot be read; names it.
        ValueError: another coding; names it.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist.") from None
    except UnicodeDecodeError as error:
        value = error.object[error.start]
        raise ValueError(
            f"{path} is not text in UTF-8: byte 0x{value:02x} at {error.start}. Save it in UTF-8."
        ) from None


def read_json(path: str | os.PathLike, kind: type | None = None) -> Any:
    """What a JSON file holds.

    Args:
        path: the file.
        kind: ``dict`` or ``list``, where it must be one.

    Raises:
        OSError, ValueError: see :func:`read_text`; no JSON, or another kind; names the file.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} is not JSON: {reason}") from None
    if kind is not None and not isinstance(content, kind):
        wanted, got = KINDS[kind], KINDS.get(type(content), repr(content))
        raise ValueError(f"{path} must hold {wanted}, but holds {got}.")
    return content


def read_yaml(path: str | os.PathLike) -> Any:
    """What a YAML file holds, in plain values: tags that make Python objects are refused.

    Raises:
        OSError, ValueError: see :func:`read_text`; no YAML, or a key twice; names the file.
    """
    import yaml

    class UniqueKeys(yaml.SafeLoader):
        def compose_mapping_node(self, anchor):
            node, seen = super().compose_mapping_node(anchor), set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in seen:
                        problem = f"the key {key.value!r} comes twice"
                        raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                    seen.add((key.tag, key.value))
            return node

    text = read_text(path)
    try:
        return yaml.load(text, UniqueKeys)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:
        deep = isinstance(error, RecursionError)
        reason = "nested too deeply" if deep else " ".join(str(error).split())
        raise ValueError(f"{path} is not YAML of plain values: {reason}") from None


def inside(folder: str | os.PathLike, name: object, where: str) -> Path:
    """``folder / name``, where ``name`` came out of a file and must not lead out of the folder.

    Args:
        folder: the folder.
        name: a relative path; ``where`` is said of it in the message.
        where: the file and key that hold the name.

    Raises:
        ValueError: no text, empty, absolute, or with a ``..``.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{where} must be the name of a file, got {name!r}.")
    parts = name.replace("\\", "/").split("/")
    if "\0" in name or ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        raise ValueError(
            f"{where} is {name!r}, which leads out of {folder}: names are relative, without '..'."
        )
    return Path(folder) / name


@contextmanager
def atomic_path(path: str | os.PathLike, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; it becomes ``path`` only if the block succeeds.

    Args:
        path: the file to write; its folder is made.
        durable: on the disk before it gets its name, so that a power cut leaves the old file or
            the new one.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
        if durable:
            _sync(path.parent)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if _is_of_writing(error, temporary):
            raise _cannot_write(error, path) from error
        raise


def write_text(path: str | os.PathLike, text: str, *, durable: bool = False) -> None:
    """Write a text file in UTF-8, whole or not at all; see :func:`atomic_path`."""
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, content: Any, *, indent: int | None = 2) -> None:
    """Write a JSON file, with a line's end at the end, whole or not at all."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def check_writable(path: str | os.PathLike | None, *, folder: bool = False) -> None:
    """Try whether a file, or files in a folder, can be written, before work that would be lost.

    Args:
        path: the file, or the folder; nothing of it is made or changed. None: nothing is written.
        folder: it is one.

    Raises:
        OSError: it cannot; names ``path``.
    """
    if path is None:
        return
    path = Path(path)
    place = path.absolute() if folder else path.absolute().parent
    try:
        if not folder and path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        there = next(each for each in (place, *place.parents) if os.path.lexists(each))
        with tempfile.TemporaryFile(prefix=_TEMPORARY, dir=there) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise _cannot_write(error, path) from error


def _is_of_writing(error: BaseException, temporary: Path | None) -> bool:
    """Whether it is the system's, about the file that is written; Pillow's of that has no number,
    and so has no file."""
    if not isinstance(error, OSError) or error.filename not in (None, str(temporary)):
        return False
    return bool(error.errno) or type(error) is OSError


def _cannot_write(error: OSError, path: Path) -> OSError:
    reason = os.strerror(error.errno) if error.errno else error
    return OSError(error.errno, f"cannot be written: {reason}", str(path))


def _sync(path: Path) -> None:
    """Have the disk hold a file's, or a folder's, content; not every system syncs folders."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def remove_temporaries(folder: str | os.PathLike, *, below: bool = True) -> None:
    """Remove what writers that were killed have left in a folder that nobody writes to.

    Args:
        folder: the folder; it need not exist.
        below: also in the folders in it.
    """
    for unfinished in Path(folder).glob(f"{'**/' if below else ''}{_TEMPORARY}*"):
        if unfinished.is_file():
            unfinished.unlink(missing_ok=True)


@contextmanager
def lock_folder(folder: str | os.PathLike, doing: str, *, beside: bool = False) -> Iterator[None]:
    """Be the only process that writes to a folder; the lock ends with the process, killed or not.

    Processes that this one forks inside share the lock: they must end with it (`end_with_parent`).

    Args:
        folder: is made if need be, and has a file ``.lock`` while the lock is held.
        doing: what this process does there, as another one that comes will read it.
        beside: the folder itself is renamed or replaced: ``.<folder>.lock`` lies beside it.

    Raises:
        InUseError: another process holds the lock; names it.
        OSError: the lock cannot be written; names it.
    """
    folder = Path(folder)
    path = folder.with_name(f".{folder.name}{_LOCK}") if beside else folder / _LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, folder)
    try:
        with suppress(OSError):  # a full disk: what is written next says so
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} is {doing}".encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path, folder: Path) -> int:
    """A descriptor of the lock file ``path``, locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise InUseError(f"{folder} is in use: {holder}. Wait until it ends.") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                os.close(descriptor)
                raise
        try:
            if fcntl is None or os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # whoever held the lock has removed the file: there may be a new one
