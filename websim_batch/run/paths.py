"""Where the files of one output lie: the table, its journal, its manifest, its lock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    return Paths(output, journal or _beside(output, JOURNAL_SUFFIX))


def _beside(output: Path, suffix: str) -> Path:
    return output.with_name(output.name + suffix)
