"""The words of the sample dataset: customers, products, questions, pages, prompts. Knows nothing about spans."""

from dataclasses import dataclass
from random import Random
from typing import Literal

Topic = Literal["orders", "refund", "policy"]


@dataclass(frozen=True)
class Customer:
    """Who asks."""

    id: str
    name: str
    email: str
    city: str


@dataclass(frozen=True)
class Product:
    """What was bought, and its price in euros."""

    name: str
    price: float


@dataclass(frozen=True)
class Page:
    """A help page, in markdown."""

    path: str
    title: str
    body: str


CUSTOMERS = (
    Customer("C-10231", "Zoë Lindqvist", "zoe.lindqvist@example.com", "Malmö"),
    Customer("C-10412", "Tomáš Dvořák", "tomas.dvorak@example.org", "Brno"),
    Customer("C-10977", "Amara Okafor", "amara@example.net", "Lagos"),
    Customer("C-11020", "佐藤 花子", "hanako.sato@example.jp", "大阪"),
    Customer("C-11388", "Liam O'Connor", "liam.oconnor@example.ie", "Cork"),
    Customer("C-11504", "María José Núñez", "mj.nunez@example.es", "Cádiz"),
    Customer("C-12019", "Priya Raman", "priya.raman@example.in", "Chennai"),
    Customer("C-12240", "Jürgen Groß", "j.gross@example.de", "Köln"),
    Customer("C-12611", "Chloé Lefèvre", "chloe.lefevre@example.fr", "Lyon"),
    Customer("C-13007", "Sam Whitfield", "sam.w@example.com", "Leeds"),
    Customer("C-13452", "Олена Коваль", "olena.koval@example.ua", "Львів"),
)

PRODUCTS = (
    Product("Aurora desk lamp (brass)", 64.9),
    Product("Trail kettle 0.9 l", 38.5),
    Product('27" monitor arm', 119.0),
    Product("Merino base layer, size M", 79.95),
    Product("Café grinder “Bruna”", 142.0),
    Product("Foldable crate, set of 3", 24.0),
    Product("Noise-cancelling headphones N7", 229.0),
    Product("Kids' rain jacket, 116", 45.5),
    Product("USB-C dock, 11 ports", 89.9),
)

QUESTIONS: dict[Topic, tuple[str, ...]] = {
    "orders": (
        "Hi, I need a list of everything I bought since {since} for my tax return. Order {order} must be on it.",
        'Where is my {product}?? Order {order} has been "in transit" since {since}.\n\nThanks\n{name}',
        "Guten Tag, ich hätte gern eine Übersicht aller Bestellungen seit {since}, vor allem {order}. Grüße, {name}",
        "Can you export my order history from {since} on? Columns: date, item, total. The {product} ({order}) too.",
        "注文 {order} の状況を教えてください。{since} 以降の注文もすべて一覧にしてください。\n{name}",
        "How many times did I order the {product} after {since}? I only remember {order}.",
    ),
    "refund": (
        "I sent the {product} back on {since} and I am still waiting for my money. Order {order}, €{amount}.",
        "Bonjour, je souhaite le remboursement de la commande {order} ({product}, {amount} €). Merci, {name}",
        '{product} came broken:\n- lid cracked\n- one screw missing\nThe box said "fragile". Refund {order} please.',
        "You charged me twice for {order}: €{amount} on {since} and again two days later. Please return one of them.",
        "Hola, quiero devolver {product} del pedido {order}. ¿Me pueden reembolsar los {amount} €? — {name}",
        "Please cancel {order} and refund €{amount} to the same card. I ordered the wrong size on {since}.",
    ),
    "policy": (
        "What is your return window for sale items? I bought a {product} on {since}.",
        "Does the warranty of the {product} cover water damage? Please quote the exact sentence.",
        "Wie lange dauert der Versand nach {city}, und gibt es Expressversand für „{product}“?",
        'Your site says "free returns" but checkout shows €4.90. Which one is right for {city}?',
        "Can I transfer my gift card balance to my sister's account? And does it expire?",
        "I get a red banner when I pay for the {product}. What does it mean, and was my card charged?",
    ),
}

PAGES = (
    Page(
        "returns/window",
        "Return window",
        "You can return most items within **30 days** of delivery.\n\n| Item | Days |\n|---|---|\n| Regular | 30 |\n"
        "| Sale | 14 |\n| Outlet | no return |\n\n> Items marked *final sale* are excluded.\n\n"
        "Return postage is free in the EU; elsewhere we deduct €4.90.",
    ),
    Page(
        "warranty/terms",
        "Warranty terms",
        "The warranty runs for 24 months.\n\n1. Manufacturing faults are covered.\n2. Water damage is covered only "
        'for products marked "IPX7" or better.\n3. Batteries are covered for 12 months.\n\nKeep the receipt; a photo '
        "is enough. Repairs take ≈ 10 working days.",
    ),
    Page(
        "shipping/times",
        "Delivery times",
        "- Deutschland, Österreich: 1–2 Werktage\n- France, España, Italia: 3–4 days\n- Sverige, Česko: 3–5 days\n"
        "- 日本, India: 7–12 days\n\nExpress (+€12) leaves the warehouse the same day when ordered before 13:00 CET.",
    ),
    Page(
        "payments/troubleshooting",
        "Payment troubleshooting",
        "A red banner at checkout means that the bank said no.\n\n```text\nError: card declined (code 51)\n"
        "Error: 3-D Secure timeout\n```\n\nNothing is charged when you see an error. A reservation may show up for up "
        "to 5 days. If the page answers with HTTP 500, wait a minute and try again.",
    ),
    Page(
        "giftcards/faq",
        "Gift cards",
        "### Does a gift card expire?\nNo.\n\n### Can I move the balance?\nYes, once: *Account → Gift cards → "
        "Transfer*. Both accounts need a verified e-mail address.\n\n### Can I get cash?\nOnly below €5.",
    ),
)

INDEX_PAGE = "# Help centre\n\n" + "\n".join(f"- [{page.title}](/help/{page.path})" for page in PAGES)
MOVED_PAGE = "# This article has moved\n\nPlease use the search on the new help centre. The article list is loading…"

THOUGHTS = (
    "Let me look.",
    "I will check this first.",
    "One more detail is missing.",
    "Now the next part.",
    "That is not enough yet, going on.",
    "Let me verify that before I answer.",
)

PROMPTS = {
    "coordinator": "You coordinate the support desk. Delegate, then answer the customer in two or three sentences.",
    "researcher": "You find facts about customers, orders and help pages. Report only what a tool returned.",
    "billing": "You move money. Refund only what the researcher confirmed.",
}
ORDER_RULE = {
    "before": "Get all orders in one call: set `limit` high enough.",
    "after": "search_orders gives at most 100 rows per call; follow next_cursor.",
}
"""The prompt line that differs between the two runs: the change under test."""

REFUSAL = "I'm sorry, but I can't help with that request."


def long_page(rng: Random, page: Page, paragraphs: int) -> str:
    """A page of many numbered paragraphs, of roughly 190 characters each."""
    subjects = ("The customer", "A courier", "Our warehouse", "The bank", "A marketplace seller", "Die Filiale")
    verbs = ("must confirm", "may decline", "records", "reports", "has to document", "can extend")
    objects = ("the return label", "a partial delivery", "the serial number", "the customs value", "the photo évidence")
    limits = ("within 14 days", "before the parcel leaves the hub", "unless local law says otherwise", "in writing")
    lines = [f"# {page.title}: full terms", page.body]
    for number in range(1, paragraphs + 1):
        sentences = [
            f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(objects)} {rng.choice(limits)}." for _ in range(3)
        ]
        lines.append(f"**§{number}** " + " ".join(sentences))
    return "\n\n".join(lines)
