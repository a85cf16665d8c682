"""The lines that the simulator's tests leave for the end of the test log."""

LINES: list[str] = []
