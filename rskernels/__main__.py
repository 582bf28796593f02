"""``python -m rskernels``: the command."""

from rskernels.cli import main

if __name__ == "__main__":
    main()
