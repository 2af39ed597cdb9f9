"""`python -m engine VERB ...`: the headless engine (see `engine.cli`)."""

import gc
import sys


def main() -> int:
    """Run the command line and return its exit code."""
    if "train" in sys.argv:
        from engine.training.allocator import begin_anew

        begin_anew()
    from engine.cli import main as cli

    code = cli.main()
    gc.freeze()  # else the interpreter's last collection walks every module: 0.1 s, half a second with torch
    return code


if __name__ == "__main__":
    raise SystemExit(main())
