"""The documents that commands print and store, by the names of their schemas."""

from __future__ import annotations


def schema_of(command: str) -> str:
    """The schema name of a command's document."""
    return f"senet-bench.{command}/1"


RUN_KIND = "senet_bench.core.results:Run"
DOCUMENT_KINDS = {
    schema_of("compare"): RUN_KIND,
    schema_of("ablate"): RUN_KIND,
    schema_of("profile"): "senet_bench.breakdown.rows:ProfileFacts",
    schema_of("selftest"): "senet_bench.run.selftest:SelftestFacts",
    schema_of("train"): "senet_bench.core.learning:Training",
    schema_of("evaluate"): "senet_bench.core.learning:Evaluation",
    schema_of("excitations"): "senet_bench.gates.rows:GateFacts",
    schema_of("freeze"): "senet_bench.gates.freezing_rows:FreezeFacts",
    schema_of("input-channels"): "senet_bench.gates.rows:ColourFacts",
    schema_of("probe"): "senet_bench.probing.rows:ProbeFacts",
}
"""Every schema that is stored, and the import string of the type it is read as: `Run`, or a `Facts[...]` by its name.

The types of a feature's rows lie in its own room, in a module that imports no torch; it is imported when such a
document is read.
"""
