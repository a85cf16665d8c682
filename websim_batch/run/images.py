"""Images that came inside answers, kept in files of their own beside the output."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from websim_batch.tables.save import atomic_write, ready_folder


class ImageFolder:
    """Keeps each image under the hash of its bytes, so that equal ones share a file and none is written over.

    The folder is made, or rid of what a killed run left in it, when the first image comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_ready = False
        # One at a time: two equal images at once would take the same name also while they are written.
        self._turn = asyncio.Lock()

    async def keep(self, image: bytes) -> str:
        """Write the image durably; gives its path relative to the folder's parent.

        Raises DiskFullError, and UsageError where it cannot be written.
        """
        name = f"{hashlib.blake2b(image, digest_size=16).hexdigest()}.{_suffix(image)}"
        async with self._turn:
            await asyncio.to_thread(self._write, name, image)
        return f"{self._folder.name}/{name}"

    def _write(self, name: str, image: bytes) -> None:
        if not self._is_ready:
            ready_folder(self._folder)
            self._is_ready = True
        path = self._folder / name
        if path.is_file() and path.stat().st_size == len(image):
            return  # files appear here whole
        with atomic_write(path, clears_leftovers=False) as file:
            file.write(image)


def _suffix(image: bytes) -> str:
    """The usual suffix for an image, told by its first bytes."""
    if image.startswith(b"\xff\xd8"):
        return "jpg"
    return "webp" if image[:4] == b"RIFF" and image[8:12] == b"WEBP" else "png"
