"""Calling a tool function on a dataset: the one way in for the MCP server, the command line and the engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, create_model

from halo_mcp.datasets import Datasets
from halo_mcp.errors import SourceChanged
from halo_mcp.index.work import Work
from halo_mcp.tools.params import Answer, Call

ToolFunction = Callable[..., Answer]


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


def answer(
    datasets: Datasets, dataset: str, function: ToolFunction, arguments: Mapping[str, Any], work: Work
) -> Answer:
    """Run a tool function on a dataset that is brought up to date first; once more when its files changed meanwhile.

    Indexing has no deadline; the question itself has the configured one. Raises: HaloError.
    """
    if about_all_datasets(function):
        return function(datasets, work, **arguments)
    name, store = datasets.get(dataset)
    store.refresh(work)
    try:
        return function(_call(datasets, name, work), **arguments)
    except SourceChanged:
        store.forget()
        store.refresh(work)
        return function(_call(datasets, name, work), **arguments)


def _call(datasets: Datasets, name: str, work: Work) -> Call:
    _, store = datasets.get(name)
    settings = datasets.settings
    return Call(name, store.pinned(), work.renewed(settings.deadline_s), datasets.names[0], settings.prices)
