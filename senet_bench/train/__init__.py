"""Training and evaluation: data, recipes, the loop, weights. Called, it is the command: `senet_bench.train(model)`."""

import sys

from senet_bench import Room

sys.modules[__name__].__class__ = Room
