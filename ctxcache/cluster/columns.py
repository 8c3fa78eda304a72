"""Columns in, columns out: the batches of Ray and Dask, with and without numpy, pandas and pyarrow. Pure.

A batch is a mapping of columns (lists or numpy arrays), a pandas DataFrame, a pyarrow Table, or a list of rows, each
row a mapping or a question. The libraries are known by the methods of their objects, never imported before a batch
comes from them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from ..errors import InvalidInputError
from ..managed import Answer

__all__ = ["OUTPUTS", "add_answers", "read_questions"]


def _usage(name: str) -> Callable[[Answer[Any]], object]:
    return lambda answer: None if answer.usage is None else getattr(answer.usage, name)


def _of_completion(name: str) -> Callable[[Answer[Any]], object]:
    return lambda answer: getattr(answer.completion, name, None)


_TEXT: Final[Mapping[str, Callable[[Answer[Any]], object]]] = {
    "text": _of_completion("text"),
    "error": lambda answer: None if answer.error is None else f"{type(answer.error).__name__}: {answer.error}",
    "finish_reason": _of_completion("finish_reason"),
    "request_id": lambda answer: getattr(answer.completion or answer.error, "request_id", None),
}
_TOKENS: Final[Mapping[str, Callable[[Answer[Any]], object]]] = {
    name: _usage(name) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")
}

OUTPUTS: Final = (*_TEXT, *_TOKENS)

_BATCH: Final = "a mapping of columns, a DataFrame, a Table or a list of rows"


def read_questions(batch: Any, column: str, prefix: str) -> tuple[Any, list[Any]]:
    """Return the batch, an iterator made a list, and the questions in a column of the batch.

    Args:
        batch: in any form.
        column: the name of the column with the questions.
        prefix: goes before the names of the columns that `add_answers` will add.

    Raises:
        InvalidInputError: the batch has another form, has no such column, has one that is no list or array, or has a
            column of the answers already.
    """
    if _is_frame(batch) or _is_table(batch):
        names = list(batch.columns if _is_frame(batch) else batch.column_names)
    elif isinstance(batch, Mapping):
        names = list(batch)
    elif isinstance(batch, Iterable) and not isinstance(batch, str | bytes):
        rows = [_row(item, column) for item in batch]
        for row in rows:
            _check_names(list(row), column, prefix)
        return rows, [_plain(row[column]) for row in rows]
    else:
        raise InvalidInputError.of("batch", type(batch), _BATCH)
    _check_names(names, column, prefix)
    return batch, _values(batch[column])


def add_answers(batch: Any, answers: Sequence[Answer[Any]], prefix: str) -> Any:
    """Return a batch of the same form with the columns of the answers, in the order of the rows."""
    text = {prefix + name: [read(answer) for answer in answers] for name, read in _TEXT.items()}
    tokens = {prefix + name: [read(answer) for answer in answers] for name, read in _TOKENS.items()}
    columns = text | tokens
    if _is_frame(batch):
        # The same types for each batch, whether all questions were answered or none.
        types = dict.fromkeys(text, "string") | dict.fromkeys(tokens, "Int64")
        return batch.assign(**columns).astype(types)
    if _is_table(batch):
        arrow: Any = import_module("pyarrow")
        for name, values in columns.items():
            kind = arrow.string() if name in text else arrow.int64()
            batch = batch.append_column(name, arrow.array(values, kind))
        return batch
    if isinstance(batch, Mapping):
        return {**batch, **columns}
    rows = zip(*columns.values(), strict=True)
    return [{**row, **dict(zip(columns, values, strict=True))} for row, values in zip(batch, rows, strict=True)]


def _is_frame(batch: Any) -> bool:
    return hasattr(batch, "assign") and hasattr(batch, "astype")


def _is_table(batch: Any) -> bool:
    return hasattr(batch, "append_column") and hasattr(batch, "column_names")


def _row(item: Any, column: str) -> Mapping[str, Any]:
    return item if isinstance(item, Mapping) else {column: item}


def _check_names(names: list[Any], column: str, prefix: str) -> None:
    if column not in names:
        raise InvalidInputError.of("batch", names, f"a batch with a column {column!r} (see `question`)")
    taken = [prefix + name for name in OUTPUTS if prefix + name in names]
    if taken:
        raise InvalidInputError.of("batch", names, f"a batch without a column {taken[0]!r} (see `output_prefix`)")


def _values(column: Any) -> list[Any]:
    """Return the values of a column as Python objects.

    Raises:
        InvalidInputError: the column is a single value, which iterating might cut into many.
    """
    for name in ("to_pylist", "tolist"):
        if hasattr(column, name):
            column = getattr(column, name)()
    if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
        raise InvalidInputError.of("batch", type(column), "a batch whose column of questions is a list or an array")
    return [_plain(value) for value in column]


def _plain(value: Any) -> Any:
    """Return a question as Python objects: engines make arrays of lists of messages, and strings of their own."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return str(value) if isinstance(value, str) else value
