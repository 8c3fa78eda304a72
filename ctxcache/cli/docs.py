"""`ctxcache docs`: the pages of the package's `docs/` folder."""

import argparse
from importlib.resources import files
from typing import Final

from .terminal import Terminal

__all__ = ["add_options", "page", "run"]

SUMMARY: Final = "read the documentation"
DESCRIPTION: Final = """\
Show a page of the documentation; without a topic, list the topics. The pages
are Markdown files inside the package, so they fit the installed version."""
EXAMPLES: Final = """\
examples:
  ctxcache docs
  ctxcache docs costs
  ctxcache docs --llms > llms.txt"""

# In reading order.
TOPICS: Final = (
    "start",
    "modes",
    "costs",
    "conversations",
    "batches",
    "clusters",
    "tools",
    "langchain",
    "web-service",
    "testing",
    "self-hosting",
    "proxy",
    "recipes",
    "pydantic-ai",
    "litellm",
    "errors",
    "parameters",
    "from-openai",
    "not-there",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.add_argument("topic", nargs="?", choices=TOPICS, metavar="TOPIC", help=f"one of {', '.join(TOPICS)}")
    parser.add_argument("--llms", action="store_true", help="print all pages as one llms.txt, for a language model")


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Show a page, the list of topics, or everything."""
    if args.llms:
        terminal.out.write(_llms_txt())
    elif args.topic:
        terminal.out.markdown(page(args.topic))
    else:
        width = max(map(len, TOPICS))
        for topic in TOPICS:
            terminal.out.write(f"  {topic:<{width}}  ", "bold")
            terminal.out.line(_title(page(topic)))
        terminal.out.line()
        terminal.out.line("ctxcache docs TOPIC shows a page.", "dim")
    return 0


def page(topic: str) -> str:
    """Return the Markdown of a page."""
    return (files("ctxcache") / "docs" / f"{topic}.md").read_text("utf-8")


def _title(text: str) -> str:
    return text.partition("\n")[0].removeprefix("# ")


def _llms_txt() -> str:
    pages = "\n".join(page(topic) for topic in TOPICS)
    return (
        f"# ctxcache\n\n> The async Python SDK for context caching, with a local gateway and a command line.\n\n{pages}"
    )
