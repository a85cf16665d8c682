"""Where the journal and the lock of an output lie, and whether a journal can live there."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path

_NETWORK = frozenset((
    "nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afpfs", "afs", "ncpfs", "webdav", "davfs",
    "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "ocfs2", "fuse.sshfs", "fuse.s3fs", "fuse.rclone",
    "fuse.davfs2", "fuse.glusterfs", "fuse.ceph", "fuse.gcsfuse", "fuse.cifs", "macfuse",
))  # fmt: skip
"""Types of file systems over a network. SQLite's write-ahead log needs memory shared by all who have the file
open, so all have to be on one machine: https://www.sqlite.org/wal.html."""

_LINUX_MOUNTS = Path("/proc/self/mounts")
_TOOL_TIMEOUT_S = 5.0


def journal_path(output: Path) -> Path:
    """The journal of an output; the same for all paths that lead to one file. A link beside it leads elsewhere."""
    return Path(os.path.realpath(beside(output, ".journal")))


def point_to(output: Path, journal: Path) -> None:
    """Leave a link beside the output to its journal that lies elsewhere, so that it is found without being named."""
    link, target = beside(output, ".journal"), os.path.realpath(journal)
    if os.path.realpath(link) == target or (link.exists() and not link.is_symlink()):
        return
    with suppress(OSError):  # a file system without links; then the journal has to be named
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def lock_path(output: Path) -> Path:
    """The lock file beside an output; the same for all paths that lead to one file."""
    return beside(output, ".lock")


def old_path(journal: Path) -> Path:
    """Where `--overwrite` keeps the journal that was there."""
    return journal.with_name(journal.name + ".old")


def beside(output: Path, suffix: str) -> Path:
    """`OUTPUT` + suffix, beside the file that `output` leads to."""
    # realpath follows symbolic links, also where the last part does not exist yet.
    real = Path(os.path.realpath(output))
    return real.with_name(real.name + suffix)


def network_type(folder: Path) -> str | None:
    """The type of the network file system that holds `folder`; None for a local disk, or if nobody knows."""
    return _type_of(os.path.realpath(folder), _mounts())


def _type_of(folder: str, mounts: list[tuple[str, str]]) -> str | None:
    """`folder`'s type if it is a network's. Of nested mount points the longest counts, of equal the last."""
    best, found = "", ""
    for point, kind in mounts:
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, kind
    return found if found.lower() in _NETWORK else None


def _mounts() -> list[tuple[str, str]]:
    """Every mount point with its type; an empty list where they cannot be had."""
    try:
        if _LINUX_MOUNTS.exists():
            return parse_proc_mounts(_LINUX_MOUNTS.read_text(errors="surrogateescape"))
        tool = subprocess.run(["/sbin/mount"], capture_output=True, timeout=_TOOL_TIMEOUT_S, check=True)
        return parse_mount_tool(tool.stdout.decode(errors="surrogateescape"))
    except (OSError, subprocess.SubprocessError):
        return []


def parse_proc_mounts(text: str) -> list[tuple[str, str]]:
    r"""Mount points and types from Linux' table, whose blanks are written `\040`."""
    lines = (line.split(" ") for line in text.splitlines())
    return [(_unescape(parts[1]), parts[2]) for parts in lines if len(parts) > 2]


def parse_mount_tool(text: str) -> list[tuple[str, str]]:
    """Mount points and types from lines such as `//ann@host/data on /Volumes/data (smbfs, nodev)`."""
    found = (re.match(r".* on (/.*) \(([^,)]+)", line) for line in text.splitlines())
    return [(match[1], match[2].strip()) for match in found if match]


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def retire_journal(path: Path) -> Path | None:
    """Move the journal at `path` to `….old`, in place of an older one; None if there is none.

    What is in its write-ahead log is moved into the file first. The caller holds the output's lock.
    """
    if not path.exists():
        return None
    _fold_log(path)
    old = old_path(path)
    # A left-over log of the older generation would be replayed into the newer one.
    for suffix in ("-wal", "-shm"):
        Path(f"{old}{suffix}").unlink(missing_ok=True)
    path.replace(old)
    # Still there if another process reads the journal, or if it is none of ours.
    if Path(f"{path}-wal").exists():
        Path(f"{path}-wal").replace(f"{old}-wal")
    Path(f"{path}-shm").unlink(missing_ok=True)
    sync_folder(path.parent)
    return old


def _fold_log(path: Path) -> None:
    # Whatever is wrong with the file: it is kept as it is, log and all.
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
