"""What happens in one trace: the agents' turns for each topic, with the failure modes of its plan woven in."""

import json
from collections.abc import Mapping
from datetime import timedelta
from random import Random

from halo_mcp.demo.harness import Agent, Call, Recorded, Run, TraceRecorder, readable_json, utc_time
from halo_mcp.demo.plan import Attempt
from halo_mcp.demo.texts import INDEX_PAGE, MOVED_PAGE, PRODUCTS, REFUSAL, THOUGHTS, long_page

HELP = "https://shop.example.com/help/"


def record_trace(run: Run, attempt: Attempt, offset_us: int, seed: int) -> list[Recorded]:
    """The spans of one attempt, children before parents."""
    rng = Random(f"{seed}/{run.id}/{attempt.task.id}/{attempt.trial}")
    session_id = f"session-{run.id}-{attempt.task.id.removeprefix('task-')}"
    recorder = TraceRecorder(run, rng, offset_us, session_id, attempt.task.customer.id)
    _Story(recorder, rng, attempt).tell()
    return recorder.recorded


class _AgentFailed(Exception):
    """The open sub-agent cannot go on. `fatal`: neither can the coordinator."""

    def __init__(self, message: str, *, fatal: bool) -> None:
        self.message = message
        self.fatal = fatal
        super().__init__(message)


class _Story:
    def __init__(self, recorder: TraceRecorder, rng: Random, attempt: Attempt) -> None:
        self.recorder = recorder
        self.rng = rng
        self.attempt = attempt
        self.task = attempt.task

    def tell(self) -> None:
        root = self.recorder.start(self.task.question)
        error = answer = ""
        try:
            answer = self._coordinate(root)
        except _AgentFailed as failure:
            error = failure.message
        outcome = {
            "task.id": self.task.id,
            "run.id": self.recorder.run.id,
            "trial": self.attempt.trial,
            "task.outcome": "pass" if self.attempt.passed else "fail",
        }
        self.recorder.close(root, answer, error=error, outcome=outcome)

    def _coordinate(self, root: Agent) -> str:
        """All that happens under the root agent; returns the answer to the customer."""
        if self.attempt.decoy:
            self._calculate(root)
        researcher = self.recorder.delegate(root, "researcher", self._brief())
        try:
            report = self._research(researcher)
        except _AgentFailed as failure:
            self.recorder.close(researcher, "", error=failure.message)
            if failure.fatal:
                raise
            return self._answer(root, "I cannot see your account at the moment. Please write to us again tomorrow.")
        self.recorder.close(researcher, report)
        if "refusal" in self.attempt.modes:
            self.recorder.say(root, REFUSAL, mode="refusal")
            return REFUSAL
        refunded = self._refund(root) if self.task.topic == "refund" else ""
        return self._answer(root, self._final_text(refunded))

    def _answer(self, root: Agent, text: str) -> str:
        self.recorder.say(root, text)
        return text

    def _brief(self) -> str:
        task = self.task
        return {
            "orders": f"Find {task.customer.name} <{task.customer.email}> and all orders since {task.since}.",
            "refund": f"Find order {task.order_id} of {task.customer.name} <{task.customer.email}> and its payment.",
            "policy": f"Which help page answers this? Quote it.\n\n> {task.question.splitlines()[0]}",
        }[task.topic]

    def _research(self, agent: Agent) -> str:
        if self.task.topic == "policy":
            return self._report(agent, self._read_pages(agent))
        self._look_up_customer(agent)
        self._search_orders(agent)
        customer, product = self.task.customer, self.task.product
        return self._report(
            agent,
            f"{customer.name} ({customer.id}) has order {self.task.order_id}: {product.name}, "
            f"€{product.price:.2f}, paid by card, delivered.",
        )

    def _report(self, agent: Agent, facts: str) -> str:
        if "context_truncated" not in self.attempt.modes:
            self.recorder.say(agent, facts)
            return facts
        rows = "\n".join(f"- {self._order_id()}: {self.rng.choice(PRODUCTS).name}, delivered" for _ in range(6))
        cut_off = f"{facts}\n\nOther orders of this customer:\n{rows}\n- {self._order_id()}: the parcel went to the"
        self.recorder.say(agent, cut_off, finish_reason="length", mode="context_truncated")
        return cut_off

    # Tools

    def _calculate(self, agent: Agent) -> None:
        quantity, price = self.rng.randint(1, 4), self.task.product.price
        call = Call("calculator", {"expression": f"{quantity} * {price}"}, f"{quantity * price:.2f}")
        self.recorder.turn(agent, "First the amount in question.", call)

    def _look_up_customer(self, agent: Agent) -> None:
        customer = self.task.customer
        arguments = {"email": customer.email}
        if "auth_expired" in self.attempt.modes:
            recovers = self.attempt.recovers("auth_expired")
            error = ""
            for _ in range(1 if recovers else 2):
                expired = self.recorder.run.start - timedelta(seconds=self.rng.randrange(60, 7200))
                error = f"401 Unauthorized: token expired at {utc_time(expired, 'seconds')}Z"
                self._turn(agent, _failing("lookup_customer", arguments, error, "PermissionError", "auth_expired"))
            if not recovers:
                none_found = Call("search_orders", {"email": customer.email, "limit": 20}, '{"orders": [], "total": 0}')
                self._turn(agent, none_found)
                raise _AgentFailed(error, fatal=False)
        record = {"id": customer.id, "name": customer.name, "email": customer.email, "city": customer.city}
        self._turn(agent, Call("lookup_customer", arguments, readable_json({**record, "tier": self._tier()})))

    def _search_orders(self, agent: Agent) -> None:
        arguments: dict[str, object] = {"customer_id": self.task.customer.id, "since": self.task.since}
        if "limit_rejected" in self.attempt.modes:
            recovers = self.attempt.recovers("limit_rejected")
            error = ""
            for limit in self.rng.sample((150, 200, 250, 365, 500, 1000), 1 if recovers else self.rng.randint(2, 3)):
                error = f"limit must be <= 100, got {limit}"
                call = _failing("search_orders", {**arguments, "limit": limit}, error, "ValueError", "limit_rejected")
                self._turn(agent, call)
            if not recovers:
                raise _AgentFailed(error, fatal=True)
        arguments["limit"] = self.rng.choice((20, 50, 100))
        first = {"orders": [self._order(self.task.order_id), self._order()], "total": 5, "next_cursor": "c2"}
        last = {"orders": [self._order() for _ in range(3)], "total": 5, "next_cursor": None}
        self._turn(agent, Call("search_orders", arguments, readable_json(first)))
        if self.task.topic == "orders":
            self._turn(agent, Call("search_orders", {**arguments, "cursor": "c2"}, readable_json(last)))

    def _read_pages(self, agent: Agent) -> str:
        """Fetches help pages; returns what the report will say."""
        page = self.task.page
        modes = self.attempt.modes
        content = f"# {page.title}\n\n{page.body}"
        if "search_loop" in modes:
            for _ in range(self.rng.randint(6, 8)):
                self._turn(agent, _fetch(page.path, MOVED_PAGE, mode="search_loop"))
            return "I could not find the article."
        self._turn(agent, _fetch("index", INDEX_PAGE))
        if "fetch_timeout" in modes:
            recovers = self.attempt.recovers("fetch_timeout")
            for _ in range(1 if recovers else 2):
                waited_ms = self.rng.choice((8000, 10000, 15000, 30000)) + self.rng.randrange(90)
                arguments = {"url": HELP + page.path}
                error = f"timed out after {waited_ms} ms"
                self._turn(agent, _failing("fetch_page", arguments, error, "TimeoutError", "fetch_timeout", waited_ms))
            if not recovers:
                self._turn(agent, _fetch("contact", "# Contact\n\nMon–Fri 9–17, +49 221 0000"))
                return "The article did not load; the contact page names a phone number."
        if "wrapped_error" in modes:
            recovers = self.attempt.recovers("wrapped_error")
            for suffix in ("?cached=1",) if recovers else ("?cached=1", "?cached=1&format=text"):
                cache_file = f"/data/cache/{self.rng.getrandbits(64):016x}.json"
                cause = f"[Errno 2] No such file or directory: '{cache_file}'"
                output = f"An error occurred while running the tool. Error: {cause}"
                generic = "Error running tool (non-fatal)"
                self._turn(agent, _fetch(page.path + suffix, output, error=generic, mode="wrapped_error"))
            if not recovers:
                return "The cached article is not available, I did not find another copy."
        if self.attempt.long_pages:
            for part in range(1, 5):
                self._turn(agent, _fetch(f"{page.path}/full?part={part}", long_page(self.rng, page, 265)))
        changes = f"# {page.title}: changes\n\n- 2026-02-11: wording"
        self._turn(agent, _fetch(page.path, content), _fetch(page.path + "/changes", changes))
        quote = self.rng.choice([line for line in page.body.splitlines() if len(line) > 25])
        return f"Page “{page.title}” ({HELP}{page.path}) says:\n\n> {quote}"

    def _refund(self, root: Agent) -> str:
        """Lets the billing agent refund the order; returns its report."""
        task = self.task
        amount = task.product.price
        billing = self.recorder.delegate(root, "billing", f"Refund €{amount:.2f} for {task.order_id}.")
        arguments = {"order_id": task.order_id, "amount": amount, "currency": "EUR"}
        done = f"The refund of €{amount:.2f} for {task.order_id} is on its way."
        paid = readable_json({"refund_id": f"R-{self.rng.randint(7000, 7999)}", "state": "completed", "amount": amount})
        if "refund_soft_error" in self.attempt.modes:
            output = json.dumps({"isError": True, "error": f"insufficient balance for order {task.order_id}"})
            self._turn(billing, Call("refund", arguments, output, mode="refund_soft_error"))
            if self.attempt.passed:
                self._turn(billing, Call("refund", {**arguments, "method": "store_credit"}, paid))
                done = f"The card could not be credited; €{amount:.2f} were given as store credit instead."
        else:
            self._turn(billing, Call("refund", arguments, paid))
        self.recorder.say(billing, done)
        self.recorder.close(billing, done)
        return done

    # Words

    def _turn(self, agent: Agent, *calls: Call) -> None:
        self.recorder.turn(agent, self.rng.choice(THOUGHTS), *calls)

    def _final_text(self, refunded: str) -> str:
        task, name = self.task, self.task.customer.name
        # After a refund_soft_error the coordinator believes the report; the report is what is wrong.
        if not self.attempt.passed and "refund_soft_error" not in self.attempt.modes:
            return self._wrong_text()
        return {
            "orders": f"Hello {name}, you placed **5 orders** since {task.since}. {task.order_id} "
            f"({task.product.name}) was delivered; the full list is attached.",
            "refund": f"Hello {name}, good news! {refunded}",
            "policy": f"Hello {name}, see our help page “{task.page.title}”:\n\n{task.page.body.splitlines()[0]}",
        }[task.topic]

    def _wrong_text(self) -> str:
        task, name = self.task, self.task.customer.name
        gave_up = {"search_loop", "fetch_timeout", "wrapped_error"}.intersection(self.attempt.modes)
        if gave_up:
            return f"Hello {name}, unfortunately I could not open the article. Please call us."
        return {
            "orders": f"Hello {name}, you placed 2 orders since {task.since}; I see no other ones.",
            "refund": f"Hello {name}, good news: your refund of €{task.product.price + 10:.2f} has been paid out.",
            "policy": f"Hello {name}, I believe that this is possible within 60 days, whatever the article is.",
        }[task.topic]

    def _order_id(self) -> str:
        return f"A-{self.rng.randint(40000, 49999)}"

    def _tier(self) -> str:
        return self.rng.choice(("basic", "plus", "business"))

    def _order(self, order_id: str = "") -> dict[str, object]:
        product = self.task.product if order_id else self.rng.choice(PRODUCTS)
        return {"id": order_id or self._order_id(), "item": product.name, "total": product.price, "state": "delivered"}


def _fetch(path: str, output: str, *, error: str = "", mode: str = "") -> Call:
    return Call("fetch_page", {"url": HELP + path}, output, error=error, mode=mode)


def _failing(
    tool: str, arguments: Mapping[str, object], error: str, exception_type: str, mode: str, duration_ms: int = 0
) -> Call:
    return Call(tool, arguments, f"Error: {error}", error, exception_type, mode, duration_ms)
