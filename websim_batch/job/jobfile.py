"""Job files: TOML with the tables and keys of the table of options; every mistake is told at once."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from websim_batch.job.options import BY_KEY, INPUT_KEY
from websim_batch.job.parse import nearest, path
from websim_batch.job.settings import SENSITIVE_HEADERS

_KEYS = (INPUT_KEY, *BY_KEY)
_TABLES = tuple(dict.fromkeys(key.partition(".")[0] for key in _KEYS))


def read_job_file(file: Path, mistakes: list[str]) -> dict[str, object]:
    """The values a job file holds, by the names of `Settings`; what is wrong with it is told in `mistakes`.

    Relative paths count from the file's folder. Each mistake has the key's path, the value and what to write.
    """
    content = _load(file, mistakes)
    if content is None:
        return {}
    values: dict[str, object] = {}
    for key, value in _flat(content):
        try:
            name, parsed = _parse(key, value, file.parent)
        except ValueError as exc:
            mistakes.append(f"{file}: {_told(key)}: {exc}")
        else:
            values[name] = parsed
    if "input" not in values and not any(_told(INPUT_KEY) in text for text in mistakes):
        mistakes.append(f'{file}: {_told(INPUT_KEY)} is missing; write path = "prompts.csv" under [input]')
    return values


def _load(file: Path, mistakes: list[str]) -> dict[str, object] | None:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as exc:
        mistakes.append(f"{file}: is not TOML: {exc}")
    except UnicodeDecodeError as exc:
        mistakes.append(f"{file}: is not UTF-8 (byte {exc.start})")
    except OSError as exc:
        mistakes.append(f"{file}: cannot be read: {(exc.strerror or 'failed').lower()}")
    return None


def _flat(content: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Pairs of `table.key` and value; a key outside the tables stands alone."""
    for table, keys in content.items():
        if table in _TABLES and isinstance(keys, Mapping):
            yield from ((f"{table}.{key}", value) for key, value in keys.items())
        else:
            yield table, keys


def _parse(key: str, value: object, base: Path) -> tuple[str, object]:
    if key == INPUT_KEY:
        return "input", "-" if value == "-" else path(value, base)
    option = BY_KEY.get(key)
    if option is None:
        raise ValueError(_unknown(key, value))
    parsed = option.parse(value, base)
    if option.name == "headers":
        _refuse_secrets(parsed)
    return option.name, parsed


def _unknown(key: str, value: object) -> str:
    """What to say of a key that does not exist: the nearest one, in its own table first."""
    table, dot, name = key.rpartition(".")
    if not dot:
        if isinstance(value, Mapping):
            return f"unknown table{nearest(key, _TABLES) or '; there are ' + ', '.join(_TABLES)}"
        at_home = [known for known in _KEYS if known.endswith(f".{key}")]
        return f"unknown key; write it under [{at_home[0].partition('.')[0]}]" if at_home else "unknown key"
    elsewhere = [known for known in _KEYS if known.endswith(f".{name}")]
    if elsewhere:
        return f"unknown key here; write it under [{elsewhere[0].partition('.')[0]}]"
    inside = [known.partition(".")[2] for known in _KEYS if known.startswith(f"{table}.")]
    return "unknown key" + (nearest(name, inside) or f"; [{table}] has {', '.join(inside)}")


def _refuse_secrets(headers: object) -> None:
    pairs = headers if isinstance(headers, tuple) else ()
    for name, text in pairs:
        if name.lower() in SENSITIVE_HEADERS and text:
            raise ValueError(
                f'a secret has no place in a job file; name a variable: headers_env = {{ {name} = "$TOKEN" }}'
            )


def _told(key: str) -> str:
    table, dot, name = key.partition(".")
    return f"[{table}] {name}" if dot else key
