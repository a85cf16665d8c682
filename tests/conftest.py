"""What all tests share: aioresponses made to work with the aiohttp of today."""

from __future__ import annotations

import inspect
import signal
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import aioresponses, core

# A shell's background job ignores SIGINT, and so would the runs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


class _ResponseOfToday(aiohttp.ClientResponse):
    """A response that aioresponses 0.7.9 can make: it does not know the argument that aiohttp 3.14 added."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*arguments, **options)


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """aioresponses, active: every request of aiohttp's client is answered from what the test says."""
    if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
        monkeypatch.setattr(core, "ClientResponse", _ResponseOfToday)
    with aioresponses() as mock:
        yield mock
