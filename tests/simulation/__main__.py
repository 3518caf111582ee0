"""``python -m tests.simulation``: see `tests.simulation.runs`."""

from tests.simulation.runs import main

if __name__ == "__main__":
    main()
