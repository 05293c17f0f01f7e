"""What a block can do, on small generated tasks. Called, it is the command: `senet_bench.probe(block)`."""

import sys

from senet_bench import Room

sys.modules[__name__].__class__ = Room
