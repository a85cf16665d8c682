"""Tables in and out: CSV, JSON Lines, Parquet, and tables in memory, streamed and without loss.

A source is scanned once (structure, columns, rows), read as often as wanted, and joined with our columns:

    source = open_source(path, ReadOptions())
    info = source.scan(problems)
    for batch in source.rows(["prompt"]): ...
    write_output(source, info, cells, OutputSpec(path))

CSV to CSV and JSON Lines to JSON Lines load neither pyarrow nor pandas.
"""

from websim_batch.tables.base import (
    KNOWN_SUFFIXES,
    OUR_NAMES,
    OutputSpec,
    ReadOptions,
    Source,
    TableInfo,
    clashes,
    format_of,
    our_prefix,
)
from websim_batch.tables.opening import column_names, open_source
from websim_batch.tables.output import is_ours, require_ours, require_types, write_output
from websim_batch.tables.save import atomic_write, require_writable

__all__ = [
    "KNOWN_SUFFIXES",
    "OUR_NAMES",
    "OutputSpec",
    "ReadOptions",
    "Source",
    "TableInfo",
    "atomic_write",
    "clashes",
    "column_names",
    "format_of",
    "is_ours",
    "open_source",
    "our_prefix",
    "require_ours",
    "require_types",
    "require_writable",
    "write_output",
]
