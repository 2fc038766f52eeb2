"""Tables of rules: what a family of ATen operators does to channels."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from compressors.aten_modules import Arguments
from compressors.channel_tracking import NOTHING, Tracked, Tracker

Rule = Callable[[Tracker, fx.Node, Arguments], Tracked]


class RuleTable(dict[str, Rule]):
    """Rules by operator name, with overload ('select.int') or for all overloads ('select')."""

    def __call__(self, *names: str) -> Callable[[Rule], Rule]:
        """Registers a rule; a name that has one raises ValueError."""

        def register(rule: Rule) -> Rule:
            for name in names:
                if name in self:
                    raise ValueError(f"{name} has a rule already: {self[name].__qualname__}")
                self[name] = rule
            return rule

        return register


def protect_all(tracker: Tracker, node: fx.Node, reason: str) -> Tracked:
    """Protects whatever `node` reads; its result carries no removable channels."""
    for source in node.all_input_nodes:
        tracker.protect_value(source, f"{node.name}: {reason}")
    return NOTHING
