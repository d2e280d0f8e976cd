"""`python -m mindia.cli` is `mindia`."""

from mindia.cli import main

if __name__ == "__main__":
    main()
