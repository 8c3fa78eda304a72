"""Shards: the parts of a batch, one for each task of a scheduler. Pure.

A question with an id goes to the shard that a hash of the id names, so the question keeps its shard wherever it moves;
the shards then differ in size by chance: about 0.3% with 100,000 questions each. Questions without an id may only be
appended; they are dealt in turn.
"""

import argparse
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from ...config import UNSET, Unset
from ...errors import InvalidInputError

__all__ = ["Shard", "find_shards", "read_shard", "shard_from_environment", "shard_of"]

_FORM: Final = re.compile("([0-9]{1,9})/([0-9]{1,9})")
_COUNT: Final = "CTXCACHE_SHARDS"
_KUBERNETES: Final = "JOB_COMPLETION_INDEX"
_SLURM: Final = "SLURM_ARRAY_TASK_"
_WAY_OUT: Final = "give --shard I/N, or --shard none to ask all questions"


@attrs.frozen
class Shard:
    """A part of a batch.

    Attributes:
        index: from 0.
        count: number of shards.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def file(self, out: str) -> str:
        """Return the name of the shard's file: `answers.jsonl` becomes `answers.3-of-8.jsonl`."""
        stem, suffix = os.path.splitext(out)
        return f"{stem}.{self.index}-of-{self.count}{suffix}"


def read_shard(text: str) -> Shard | None:
    """Read the option `--shard`: `3/8`, or `none`."""
    if text == "none":
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a shard; use I/N, such as 0/8 to 7/8, or none")
    index, count = map(int, found.groups())
    if index >= count:
        allowed = f"the first of {count} is 0/{count}, the last {count - 1}/{count}" if count else "use 0/1 or more"
        raise argparse.ArgumentTypeError(f"{text!r} is not a shard; {allowed}")
    return Shard(index, count)


def shard_of(id_: Any | Unset, number: int, count: int) -> int:
    """Return the shard of a question.

    Args:
        id_: the id, or UNSET.
        number: among the questions without an id, from 0.
        count: number of shards.
    """
    if id_ is UNSET:
        return number % count
    plain = int(id_) if isinstance(id_, float) and id_.is_integer() else id_  # 1.0 is the id 1
    return int.from_bytes(hashlib.sha256(json.dumps(plain).encode()).digest()[:8]) % count


def find_shards(names: Iterable[str], out: str) -> list[Shard]:
    """Return the shards whose files are among some names, in order."""
    stem, suffix = os.path.splitext(os.path.basename(out))
    form = re.compile(rf"{re.escape(stem)}\.(0|[1-9][0-9]*)-of-([1-9][0-9]*){re.escape(suffix)}")
    found = (Shard(int(match[1]), int(match[2])) for name in names if (match := form.fullmatch(name)))
    return sorted((shard for shard in found if shard.index < shard.count), key=lambda shard: (shard.count, shard.index))


# --- schedulers -------------------------------------------------------------------------------------------------------


def shard_from_environment(environment: Mapping[str, str]) -> tuple[Shard, str] | None:
    """Return the shard of this task of an indexed Job or a job array, and the variable with the index.

    Kubernetes gives an index from 0 and no count, which `CTXCACHE_SHARDS` must give. Slurm gives both; its ids may
    begin anywhere and have steps, unless `CTXCACHE_SHARDS` is set: then an id is the index, in an array of any tasks.

    Raises:
        InvalidInputError: the variables leave the shard open.
    """
    given = [name for name in (_KUBERNETES, f"{_SLURM}ID") if environment.get(name)]
    if not given:
        if environment.get(_COUNT):
            raise _unclear(f"{_COUNT} is set, but neither {_KUBERNETES} nor {_SLURM}ID")
        return None
    if len(given) > 1:
        raise _unclear(f"both {given[0]} and {given[1]} are set")
    name = given[0]
    index = _number(environment, name)
    if environment.get(_COUNT):
        return _checked(environment, name, index, _number(environment, _COUNT)), name
    if name == _KUBERNETES:
        set_count = f"set {_COUNT} to the completions of the Job, "
        raise _unclear(f"{name} is {index}, but the number of shards is unknown", set_count)
    return _slurm_shard(environment, index), name


def _checked(environment: Mapping[str, str], name: str, index: int, count: int) -> Shard:
    # The last task of an array that begins at 1 is beyond the shards: all its tasks are refused, not only the last.
    last = f"{_SLURM}MAX"
    if name != _KUBERNETES and environment.get(last):
        name, index = (last, _number(environment, last)) if _number(environment, last) >= count else (name, index)
    if index >= count:
        raise _unclear(f"{name} must be below {_COUNT}, which is {count}, got {index}")
    return Shard(index, count)


def _slurm_shard(environment: Mapping[str, str], id_: int) -> Shard:
    count, first, last = (_number(environment, _SLURM + name) for name in ("COUNT", "MIN", "MAX"))
    if count == 1 and first == last == id_:
        return Shard(0, 1)
    step, odd = divmod(last - first, count - 1) if count > 1 else (0, 1)
    if odd or step < 1 or not first <= id_ <= last or (id_ - first) % step:
        raise _unclear(f"the array's {count} task ids from {first} to {last} are not evenly spaced")
    return Shard((id_ - first) // step, count)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise _unclear(f"{name} must be a whole number, got {text!r}")
    return int(text)


def _unclear(problem: str, way_out: str = "") -> InvalidInputError:
    return InvalidInputError(f"{problem}: {way_out}{_WAY_OUT}", field="shard")
