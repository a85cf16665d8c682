"""`python -m websim_batch` is the command `websim-batch`."""

from websim_batch.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
