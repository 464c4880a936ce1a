"""Which trace attempts which task, what goes wrong in it and whether it passes. Decided before a span is written."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Literal

from halo_mcp.demo.texts import CUSTOMERS, PAGES, PRODUCTS, QUESTIONS, Customer, Page, Product, Topic

TASK_COUNT = 60
TRIALS = 2
DECOY_SHARE = 0.4


@dataclass(frozen=True)
class FailureMode:
    """One way to fail, and where its evidence stands."""

    key: str
    status: Literal["ERROR", "OK"]
    span_name: str
    tool_name: str
    """Empty for an LLM span."""
    where: str
    """The field that shows it: `status.message` or an attribute key."""
    description: str
    topics: tuple[Topic, ...]
    """Kinds of task in which it can happen."""


_ANSWER = "llm.output_messages.0.message.content"

FAILURE_MODES = {
    mode.key: mode
    for mode in (
        FailureMode(
            "auth_expired",
            "ERROR",
            "function.lookup_customer",
            "lookup_customer",
            "status.message",
            "The token of the customer service expires. One retry recovers, or the sub-agent fails too.",
            ("orders", "refund"),
        ),
        FailureMode(
            "search_loop",
            "OK",
            "function.fetch_page",
            "fetch_page",
            "input.value",
            "The same page is fetched 6 to 8 times in a row with the same arguments; then the agent gives up.",
            ("policy",),
        ),
        FailureMode(
            "fetch_timeout",
            "ERROR",
            "function.fetch_page",
            "fetch_page",
            "status.message",
            "A page does not load in time. One retry recovers, or a second one times out too.",
            ("policy",),
        ),
        FailureMode(
            "refund_soft_error",
            "OK",
            "function.refund",
            "refund",
            "output.value",
            "The refund says `isError` in its output, the span says OK. Failing traces tell the customer it worked.",
            ("refund",),
        ),
        FailureMode(
            "context_truncated",
            "OK",
            "generation.gpt-4.1-mini",
            "",
            _ANSWER,
            "The researcher's report stops in mid-sentence with finish reason `length`.",
            ("orders",),
        ),
        FailureMode(
            "refusal",
            "OK",
            "generation.gpt-4.1",
            "",
            _ANSWER,
            "The coordinator refuses an ordinary request.",
            ("orders", "refund", "policy"),
        ),
        FailureMode(
            "wrapped_error",
            "ERROR",
            "function.fetch_page",
            "fetch_page",
            "output.value",
            "The status message is the generic `Error running tool (non-fatal)`; only the output names the cause.",
            ("policy",),
        ),
        # Last, so that the other modes keep their traces in the run that does not have it.
        FailureMode(
            "limit_rejected",
            "ERROR",
            "function.search_orders",
            "search_orders",
            "status.message",
            "`search_orders` refuses a `limit` above 100. The prompt asked for one large call; fixed in `after`.",
            ("orders", "refund"),
        ),
    )
}

SHARES: dict[str, dict[str, tuple[int, int]]] = {
    "before": {
        "auth_expired": (14, 6),
        "search_loop": (6, 6),
        "fetch_timeout": (11, 4),
        "refund_soft_error": (8, 5),
        "context_truncated": (6, 3),
        "refusal": (4, 4),
        "wrapped_error": (9, 4),
        "limit_rejected": (26, 22),
        "": (36, 4),
    },
    "after": {
        "auth_expired": (13, 6),
        "search_loop": (7, 7),
        "fetch_timeout": (10, 4),
        "refund_soft_error": (8, 4),
        "context_truncated": (5, 3),
        "refusal": (4, 4),
        "wrapped_error": (10, 4),
        "limit_rejected": (0, 0),
        "": (63, 5),
    },
}
"""Per run and main failure mode: traces, and how many of them fail. "" is no mode: those that fail do so silently."""

EXTRA_AUTH_EXPIRED = 2
"""So many traces with refund_soft_error have a recovered auth_expired too."""


@dataclass(frozen=True)
class Task:
    """What a customer wants. The same in every trial of both runs."""

    id: str
    topic: Topic
    customer: Customer
    product: Product
    page: Page
    order_id: str
    since: str
    question: str


@dataclass
class Attempt:
    """One trace to be: a task, a trial and its fate."""

    task: Task
    trial: int
    modes: tuple[str, ...] = ()
    passed: bool = True
    decoy: bool = False
    long_pages: bool = False

    def recovers(self, mode: str) -> bool:
        """Whether the agent gets over this failure mode (it may still fail for another one)."""
        return self.passed or self.modes[0] != mode


def make_tasks(seed: int) -> list[Task]:
    """The tasks of both runs."""
    rng = Random(f"{seed}/tasks")
    tasks: list[Task] = []
    asked: Counter[Topic] = Counter()
    topics: tuple[Topic, ...] = ("orders", "refund", "policy")
    for number in range(1, TASK_COUNT + 1):
        topic = topics[number % len(topics)]
        customer, product, page = rng.choice(CUSTOMERS), rng.choice(PRODUCTS), rng.choice(PAGES)
        order_id = f"A-{rng.randint(40000, 49999)}"
        since = (date(2025, 9, 1) + timedelta(days=rng.randrange(150))).isoformat()
        template = QUESTIONS[topic][asked[topic] % len(QUESTIONS[topic])]
        asked[topic] += 1
        question = template.format(
            since=since,
            order=order_id,
            product=product.name,
            name=customer.name,
            amount=f"{product.price:.2f}",
            city=customer.city,
        )
        tasks.append(Task(f"task-{number:03}", topic, customer, product, page, order_id, since, question))
    return tasks


def plan_run(run_id: str, tasks: list[Task], seed: int) -> list[Attempt]:
    """The attempts of one run, in the order in which they start."""
    attempts = [Attempt(task, trial) for trial in range(1, TRIALS + 1) for task in tasks]
    # Both runs draw traces in the same order, so most tasks meet the same trouble in both.
    drawn = list(attempts)
    Random(f"{seed}/plan").shuffle(drawn)
    rng = Random(f"{seed}/plan/{run_id}")
    shares: Mapping[str, tuple[int, int]] = SHARES[run_id]
    free = drawn
    for key, mode in FAILURE_MODES.items():
        count, fails = shares[key]
        chosen = [attempt for attempt in free if attempt.task.topic in mode.topics][:count]
        free = [attempt for attempt in free if attempt not in chosen]
        for attempt in chosen:
            attempt.modes = (key,)
        _fail(rng, chosen, fails)
        if key == "refund_soft_error":
            for attempt in chosen[:EXTRA_AUTH_EXPIRED]:
                attempt.modes += ("auth_expired",)
    _fail(rng, free, shares[""][1])
    next(attempt for attempt in free if attempt.task.topic == "policy").long_pages = True
    for passed in (True, False):
        group = [attempt for attempt in attempts if attempt.passed is passed]
        for attempt in rng.sample(group, round(DECOY_SHARE * len(group))):
            attempt.decoy = True
    return attempts


def _fail(rng: Random, attempts: list[Attempt], count: int) -> None:
    for attempt in rng.sample(attempts, count):
        attempt.passed = False
