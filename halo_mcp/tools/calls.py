"""Calling a tool function on a dataset: the one way in for the MCP server, the command line and the engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError, create_model

from halo_mcp.datasets import Datasets
from halo_mcp.errors import IndexFailure, IndexRenewed, SourceChanged, let_go
from halo_mcp.index.store import SpanStore
from halo_mcp.index.work import Work
from halo_mcp.tools.params import Answer, Call
from halo_mcp.tools.suspicion import notice

ToolFunction = Callable[..., Answer]
T = TypeVar("T")


def about_all_datasets(function: ToolFunction) -> bool:
    """Whether the function takes the datasets themselves (usable or not) instead of a Call on one of them."""
    return next(iter(inspect.signature(function).parameters)) == "datasets"


def own_parameters(function: ToolFunction) -> list[inspect.Parameter]:
    """The parameters a caller gives: without the Call, or the datasets and the work."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return [parameter for parameter in parameters if parameter.name not in ("call", "datasets", "work")]


def checked(function: ToolFunction, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the MCP server would accept them, with defaults. Raises: pydantic.ValidationError."""
    fields: dict[str, Any] = {
        parameter.name: (
            parameter.annotation,
            ... if parameter.default is inspect.Parameter.empty else parameter.default,
        )
        for parameter in own_parameters(function)
    }
    model = create_model(function.__name__, __config__=ConfigDict(extra="forbid"), **fields)
    valid = model.model_validate(dict(arguments))
    return {name: getattr(valid, name) for name in fields}


def problems(error: ValidationError) -> str:
    """What is wrong with which argument, on one line."""
    return "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_url=False))


def answer(
    datasets: Datasets, dataset: str, function: ToolFunction, arguments: Mapping[str, Any], work: Work
) -> Answer:
    """Run a tool function; one on a dataset as `on_dataset` does. Raises: HaloError.

    What comes back may leave the server: it is masked as the user wants it, and says where its text reads like
    instructions.
    """
    if about_all_datasets(function):
        found = function(datasets, work, **arguments)
    else:
        found = on_dataset(datasets, dataset, lambda call: function(call, **arguments), work)
    privacy = datasets.settings.privacy
    text, data = privacy.of_text(found.text), privacy.of_json(found.data)
    if line := notice(function.__name__, text, data):
        text, data = f"{text}\n{line}", {**data, "notice": line}
    return Answer(text, data, found.cursor)


def on_dataset(datasets: Datasets, dataset: str, ask: Callable[[Call], T], work: Work) -> T:
    """What ``ask`` returns for a dataset that is brought up to date first.

    It is asked once more when its files changed meanwhile, or files of its index turn out to be damaged.
    Indexing has no deadline; the question itself has the configured one. Raises: HaloError.
    """
    used = dict[str, SpanStore]()
    try:
        return ask(_call(datasets, used, work, dataset))
    except (SourceChanged, IndexFailure, IndexRenewed) as error:
        mended = [datasets.get(name)[1].mend(seen, error, work) for name, seen in used.items()]
        if not any(mended):
            raise
        let_go(error)
        return ask(_call(datasets, used, work, dataset))


def _call(datasets: Datasets, used: dict[str, SpanStore], work: Work, dataset: str) -> Call:
    """A call on a dataset that is brought up to date now; ``used`` collects the states that the answer draws on."""
    name, store = datasets.get(dataset)
    used[name] = store.pinned()
    store.refresh(work)
    used[name] = pinned = store.pinned()
    limited = work.renewed(datasets.settings.deadline_s)
    return call_on(datasets, name, pinned, limited, partial(_call, datasets, used, work))


def call_on(datasets: Datasets, name: str, store: SpanStore, work: Work, other: Callable[[str], Call]) -> Call:
    """A call on the dataset ``name``; ``other`` makes one on another dataset."""
    return Call(
        dataset=name,
        store=store,
        work=work,
        default_dataset=datasets.names[0],
        on=other,
        workers=datasets.workers,
        prices=datasets.settings.prices,
        llm=datasets.llm,
    )
