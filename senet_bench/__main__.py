"""`python -m senet_bench`."""

from senet_bench.cli import main

if __name__ == "__main__":
    main()
