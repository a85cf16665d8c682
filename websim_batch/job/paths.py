"""Where things lie: the output beside its input, a rehearsal beside the real thing."""

from __future__ import annotations

from pathlib import Path

COMPRESSIONS = (".gz", ".zst")


def is_job_file(path: Path) -> bool:
    """Whether a path that stands for INPUT or OUTPUT is a job file."""
    return path.suffix.lower() == ".toml"


def with_infix(path: Path, infix: str) -> Path:
    """`prompts.csv.gz` with `results` becomes `prompts.results.csv.gz`."""
    if not path.name:
        return path / infix
    suffix = path.suffix
    if suffix.lower() in COMPRESSIONS:
        suffix = Path(path.stem).suffix + suffix
    return path.with_name(f"{path.name.removesuffix(suffix)}.{infix}{suffix}")


def default_output(source: Path, is_sandbox: bool) -> Path:
    """Where the answers to `source` go when nobody says it."""
    return with_infix(source, "sandbox" if is_sandbox else "results")


def table_format(path: Path) -> str:
    """The format that a table's name tells (`csv`, `jsonl`, `parquet`, …), whatever its compression."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return Path(name).suffix.removeprefix(".")
