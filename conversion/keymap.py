# Copyright 2026 The hf_swin authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The engine: templates of keys, rules that move tensors from keys to keys, and their inverses."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from .operations import RENAME, Operation


_PLACEHOLDER = re.compile(r"\{(?:(\d+)\*)?([a-z]+)(?:\+(\d+))?\}")
_PATTERNS = {"p": r"(weight|bias)", "rest": r"(.+)"}


class Template:
    """A whole key with placeholders: `{s}` a number, also as `{s+1}` or `{2*s+1}`; `{p}` weight or bias; `{rest}` any.

    Both directions are exact: `match` gives back the numbers from which `fill` makes the key.
    """

    def __init__(self, text: str):
        self.text = text
        pattern, end = "", 0
        self.places: list[tuple[str, int, int]] = []
        for place in _PLACEHOLDER.finditer(text):
            factor, name, offset = place.groups()
            self.places.append((name, int(factor or 1), int(offset or 0)))
            pattern += re.escape(text[end : place.start()]) + _PATTERNS.get(name, r"(0|[1-9][0-9]*)")
            end = place.end()
        self.pattern = re.compile(pattern + re.escape(text[end:]))
        self.names = {name for name, _, _ in self.places}

    def match(self, key: str) -> dict[str, int | str] | None:
        """Returns the value of every placeholder, or None where the key is not of this template."""
        found = self.pattern.fullmatch(key)
        if found is None:
            return None
        values: dict[str, int | str] = {}
        for (name, factor, offset), text in zip(self.places, found.groups(), strict=True):
            value = text
            if name not in _PATTERNS:
                value, remainder = divmod(int(text) - offset, factor)
                if remainder or value < 0:
                    return None
            if values.setdefault(name, value) != value:
                return None
        return values

    def fill(self, values: Mapping[str, int | str]) -> str:
        """Returns the key that these values make."""

        def text(place: re.Match) -> str:
            factor, name, offset = place.groups()
            value = values[name]
            return value if isinstance(value, str) else str(int(factor or 1) * value + int(offset or 0))

        return _PLACEHOLDER.sub(text, self.text)


@lru_cache(maxsize=4096)
def template(text: str) -> Template:
    """Returns the template of a text, parsed once."""
    return Template(text)


@dataclass(frozen=True)
class Rule:
    """Moves tensors from one or several keys to one or several, through an operation that has an inverse.

    A rule without targets drops what it matches. A number that only the other side has is the first axis of the tensor:
    `Rule("encoderblock/scale", "layer.{i}.weight")` unstacks, and its inverse stacks.
    """

    source: str | tuple[str, ...]
    target: str | tuple[str, ...] = ()
    operation: Operation = RENAME

    @cached_property
    def sources(self) -> list[Template]:
        return [template(text) for text in _as_tuple(self.source)]

    @cached_property
    def targets(self) -> list[Template]:
        return [template(text) for text in _as_tuple(self.target)]

    @cached_property
    def _source_names(self) -> set[str]:
        return set().union(*(side.names for side in self.sources))

    @cached_property
    def _target_names(self) -> set[str]:
        return set().union(*(side.names for side in self.targets))

    @property
    def unstacked(self) -> str | None:
        """The number that runs along the first axis of the sources."""
        return next(iter(self._target_names - self._source_names), None)

    @property
    def stacked(self) -> str | None:
        """The number that runs along the first axis of the targets."""
        return next(iter(self._source_names - self._target_names), None) if self.targets else None

    def inverse(self) -> "Rule":
        """Returns the rule that takes the targets back to the sources."""
        return Rule(self.target, self.source, self.operation.inverse())

    def __str__(self) -> str:
        left, right = " + ".join(_as_tuple(self.source)), " + ".join(_as_tuple(self.target))
        return f"{left} -> {right or 'left out'}" + (f" ({self.operation.name})" if self.operation != RENAME else "")


def _as_tuple(keys: str | tuple[str, ...]) -> tuple[str, ...]:
    return (keys,) if isinstance(keys, str) else keys


@dataclass(frozen=True)
class Move:
    """One application of a rule: the keys that are read and the keys that are written."""

    rule: Rule
    sources: list[list[str]]  # for each number of a stack (one entry without), a key for each source of the rule
    targets: list[list[str]]

    def run(self, read: Callable[[str], torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields (key, tensor) of every target; reads nothing where there is none."""
        if not self.rule.targets:
            return
        rows = [[read(key) for key in keys] for keys in self.sources]
        if self.rule.unstacked:
            rows = [list(row) for row in zip(*(tensor.unbind() for tensor in rows[0]), strict=True)]
        results = [self.rule.operation(*row) for row in rows]
        if self.rule.stacked:
            results = [[torch.stack(column) for column in zip(*results, strict=True)]]
        for keys, tensors in zip(self.targets, results, strict=True):
            yield from zip(keys, tensors, strict=True)


class KeysDoNotFit(ValueError):
    """Keys that no rule knows, that two rules claim, or that come without their partner."""


def owners(keys: Iterable[str], rules: Iterable[Rule]) -> dict[str, list[tuple[Rule, int, dict]]]:
    """Returns for every key the rules that match it, each with the place among its sources and the values."""
    rules = list(rules)
    return {
        key: [
            (rule, place, values)
            for rule in rules
            for place, side in enumerate(rule.sources)
            if (values := side.match(key)) is not None
        ]
        for key in keys
    }


def plan(tensors: Mapping[str, torch.Tensor], rules: Iterable[Rule]) -> list[Move]:
    """Returns the moves that use every key exactly once; of the tensors only names and shapes are looked at.

    Raises KeysDoNotFit for keys that no rule or more than one rule matches, and for incomplete groups of keys.
    """
    found = owners(tensors, rules)
    unknown = [key for key, matches in found.items() if not matches]
    if unknown:
        raise KeysDoNotFit(f"no rule knows {_listed(unknown)}")
    shared = [key for key, matches in found.items() if len(matches) > 1]
    if shared:
        raise KeysDoNotFit(f"two rules claim {_listed(shared)}")
    groups: dict[tuple, dict[tuple[int, int], str]] = {}
    for key, [(rule, place, values)] in found.items():
        along = rule.stacked
        common = tuple(sorted((name, value) for name, value in values.items() if name != along))
        groups.setdefault((rule, common), {})[(values.get(along, 0), place)] = key
    moves = [_move(rule, dict(common), keys, tensors) for (rule, common), keys in groups.items()]
    written = [key for move in moves for keys in move.targets for key in keys]
    if len(set(written)) != len(written):
        raise KeysDoNotFit(f"two rules write {_listed(sorted({key for key in written if written.count(key) > 1}))}")
    return moves


def _move(rule: Rule, values: dict, keys: dict[tuple[int, int], str], tensors: Mapping[str, torch.Tensor]) -> Move:
    rows = sorted({row for row, _ in keys})
    complete = [[keys.get((row, place)) for place in range(len(rule.sources))] for row in range(len(rows))]
    if rows != list(range(len(rows))) or any(key is None for row in complete for key in row):
        raise KeysDoNotFit(f"{_listed(sorted(keys.values()))} is only a part of what goes together: {rule}")
    numbers = range(tensors[complete[0][0]].shape[0]) if rule.unstacked else [0]
    targets = [[side.fill({**values, rule.unstacked: number}) for side in rule.targets] for number in numbers]
    return Move(rule, complete, targets)


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
    return ", ".join(repr(key) for key in keys[:8]) + more


def inverted(rules: Iterable[Rule]) -> list[Rule]:
    """Returns the rules of the way back; what a rule drops has none."""
    return [rule.inverse() for rule in rules if rule.targets]


def convert(tensors: Mapping[str, torch.Tensor], rules: Iterable[Rule]) -> dict[str, torch.Tensor]:
    """Returns all tensors under their new keys; raises as `plan` does."""
    return {key: tensor for move in plan(tensors, rules) for key, tensor in move.run(tensors.__getitem__)}
