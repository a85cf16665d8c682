"""Where the files of one output lie: the table, its journal, its manifest, its lock."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from websim_batch.journal.places import journal_path

JOURNAL_SUFFIX = ".journal"


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one job, all beside the output unless the journal was put elsewhere."""

    output: Path
    journal: Path

    @property
    def manifest(self) -> Path:
        """`OUTPUT.run.json`."""
        return _beside(self.output, ".run.json")

    @property
    def images(self) -> Path:
        """The folder for images that came as bytes."""
        return _beside(self.output, ".images")


def paths_of(output: Path, journal: Path | None = None) -> Paths:
    """The files of the job behind `output`."""
    return Paths(output, journal_path(output) if journal is None else Path(os.path.realpath(journal)))


def _beside(output: Path, suffix: str) -> Path:
    # One output has one set of files, whichever links lead to it.
    real = Path(os.path.realpath(output))
    return real.with_name(real.name + suffix)
