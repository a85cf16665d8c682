"""`python -m websim_batch` is the command `websim-batch`."""

if __name__ == "__main__":
    try:
        from websim_batch.cli import main

        raise SystemExit(main())
    except KeyboardInterrupt:  # while the program was still being loaded
        raise SystemExit(130) from None
