"""`python -m engine VERB ...`: the headless engine (see `engine.cli`)."""

from engine.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
