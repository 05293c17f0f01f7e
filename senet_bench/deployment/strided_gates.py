"""Gates that come behind a strided depthwise convolution, where less of their map is left.

A depthwise convolution works on each channel alone, so a channel's gate g can wait: conv(g x) + b = g conv(x) + b. With
stride 2 equation 4 multiplies a quarter of the pixels. In MobileNet four of the thirteen gates have it so.
"""

from __future__ import annotations

import copy
import operator

from torch import fx, nn

from senet_bench.deployment.graph import both_ways, cleaned, is_depthwise, kind, only, submodule
from senet_bench.deployment.parts import AS_MAP, fixed


def delay_gates(module: fx.GraphModule) -> fx.GraphModule:
    """Every gated map that only a strided depthwise convolution reads is gated behind it."""
    for node in list(module.graph.nodes):
        if kind(module, node) is operator.mul and only(node) and _is_strided_depthwise(module, next(iter(node.users))):
            for map_, gate in both_ways(node):
                if kind(module, gate) is operator.getitem and gate.args[1] == AS_MAP:
                    _delay(module, next(iter(node.users)), map_, gate)
                    break
    return cleaned(module)


def _is_strided_depthwise(module: fx.GraphModule, node: fx.Node) -> bool:
    if kind(module, node) is not nn.Conv2d:
        return False
    conv: nn.Conv2d = submodule(module, node)
    return is_depthwise(conv) and max(conv.stride) > 1 and conv.padding_mode == "zeros"


def _delay(module: fx.GraphModule, node: fx.Node, map_: fx.Node, gate: fx.Node) -> None:
    conv = copy.copy(submodule(module, node))  # shares the weight
    conv._parameters = {**conv._parameters, "bias": None}
    bias, graph = submodule(module, node).bias, module.graph
    module.add_submodule(f"bare_{node.name}", conv)
    with graph.inserting_before(node):
        gated = graph.call_function(operator.mul, (graph.call_module(f"bare_{node.name}", (map_,)), gate))
        if bias is not None:
            module.register_parameter(f"bias_{node.name}", fixed(bias.detach()[None, :, None, None]))
            gated = graph.call_function(operator.add, (gated, graph.get_attr(f"bias_{node.name}")))
    node.replace_all_uses_with(gated)
