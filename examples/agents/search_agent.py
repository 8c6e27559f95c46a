"""A scripted search agent: searches the documentation of the standard library and logs WebDancer chats.

    python examples/agents/search_agent.py --out DIR --count 12 --seed 0 --length-tokens 4096

Writes DIR/search/trajectories.jsonl. The agent knows which pages it needs; the index, its ranking and the pages are
real. `--length-tokens` is the total size of the visited pages and of the texts of the hits (characters / 4).
"""

import json
import random
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

from common import Options, ends_wrong, estimate_tokens, parse_options, published_folder, report, rng_for, write_jsonl
from search_engine import SearchEngine
from search_pages import Site, build_site, url_of
from search_questions import Hop, Question, candidates

MIN_SNIPPET, MAX_SNIPPET = 160, 20_000
RESULTS = (10, 20, 40, 80, 160, 320, 640, 1280)
SYSTEM = (
    "You are a documentation information seeking master. Your task is to thoroughly search the documentation and "
    "to give accurate answers to questions.\nCurrent date: 2025-02-22"
)


def tool_schema(name: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    """The description of a tool in WebDancer's prompt."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": description, "parameters": parameters}


def text_array(description: str) -> dict[str, Any]:
    """The schema of an array of strings."""
    return {"type": "array", "items": {"type": "string"}, "description": description}


TOOLS = (
    tool_schema(
        "search",
        "Performs batched searches: supply an array 'query'; the tool retrieves the top results for each query.",
        {"query": text_array("Array of query strings. Include multiple complementary search queries in a call.")},
    ),
    tool_schema(
        "visit",
        "Visit page(s) and return their content.",
        {
            "url": text_array("The URL(s) of the page(s) to visit."),
            "goal": {"type": "string", "description": "The specific information goal for visiting the page(s)."},
        },
    ),
)
FUNCTIONS = [
    {
        "name_for_human": tool["name"],
        "name_for_model": tool["name"],
        "description_for_model": tool["description"],
        "parameters": tool["parameters"],
    }
    for tool in TOOLS
]
PROMPT = """A conversation between User and Assistant. The user asks a question, and the assistant solves it by \
calling one or more of the following tools.
<tools>
{tools}
</tools>

The assistant starts with one or more cycles of (thinking about which tool to use -> performing tool call -> waiting \
for tool response), and ends with (thinking about the answer -> answer of the question). The thinking processes, tool \
calls, tool responses, and answer are enclosed within their tags.

Example response:
<think> thinking process here </think>
<tool_call>
{{"name": "tool name here", "arguments": {{"parameter name here": parameter value here}}}}
</tool_call>
<tool_response>
tool_response here
</tool_response>
<think> thinking process here </think>
<answer> answer here </answer>

User: {question}"""


@dataclass(frozen=True, slots=True)
class Turn:
    """One tool call: the thought before it, its arguments and, for a visit, the pages."""

    thought: str
    tool: str
    arguments: dict[str, Any]
    pages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchSize:
    """How much the search tool returns: hits per query and characters per hit."""

    num_results: int
    snippet_characters: int


def make_turns(question: Question, engine: SearchEngine, rng: random.Random, budget_tokens: int) -> list[Turn] | None:
    """The tool calls of the agent, or None if a needed page is not among the first hits.

    The agent sometimes opens a wrong hit first. It also reads the pages of the modules, up to half of the budget.
    """
    turns: list[Turn] = []
    visited = list(question.pages)
    used = sum(page_tokens(engine, page) for page in visited)
    for number, hop in enumerate(question.hops):
        hits = [page for query in hop.queries for page in engine.rank(query, RESULTS[0])]
        if not set(hop.pages) <= set(hits):
            return None
        turns.append(Turn(hop.thought, "search", {"query": list(hop.queries)}))
        aside = next((page for page in hits if page not in visited), None)
        if number == 0 and aside and rng.random() < 0.3 and used + page_tokens(engine, aside) <= budget_tokens:
            turns.append(visit((aside,), hop, f"{aside} is among the hits; perhaps it already says it."))
            visited.append(aside)
        modules = dict.fromkeys(page.rpartition(".")[0] for page in hop.pages)
        around = []
        for module in modules:
            new = module in engine.pages and module not in visited
            if new and used + page_tokens(engine, module) <= budget_tokens // 2:
                around.append(module)
                used += page_tokens(engine, module)
        visited += around
        thought = f"The hits include {' and '.join(hop.pages)}. I read the page to learn the {hop.goal}."
        turns.append(visit((*hop.pages, *around), hop, thought))
    return turns


def visit(pages: tuple[str, ...], hop: Hop, thought: str) -> Turn:
    """The turn that visits pages."""
    return Turn(thought, "visit", {"url": [url_of(page) for page in pages], "goal": hop.goal}, pages)


def page_tokens(engine: SearchEngine, page: str) -> int:
    """The estimated size of a page."""
    return estimate_tokens(engine.pages[page])


def choose_search_size(turns: list[Turn], engine: SearchEngine, budget_tokens: int) -> tuple[SearchSize, int]:
    """The smallest search size that fills the budget, or the largest possible one, and the resulting context size."""
    visited = {page for turn in turns for page in turn.pages}
    queries = [query for turn in turns if turn.tool == "search" for query in turn.arguments["query"]]
    read = sum(page_tokens(engine, page) for page in visited)
    for num_results in RESULTS:
        times_hit = Counter(page for query in queries for page in engine.rank(query, num_results))
        hits = [(len(engine.pages[page]), times) for page, times in times_hit.items() if page not in visited]

        def size(characters: int, hits: list[tuple[int, int]] = hits) -> int:
            # a complete page is the same for each query; parts of a page differ by query
            return read + sum(min(length, times * characters) for length, times in hits) // 4

        if size(MAX_SNIPPET) >= budget_tokens:
            break
    low, high = MIN_SNIPPET, MAX_SNIPPET
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle) <= budget_tokens else (low, middle - 1)
    return SearchSize(num_results, low), size(low)


def choose(
    rng: random.Random, site: Site, engine: SearchEngine, index: int, asked: set[str], budget_tokens: int
) -> tuple[Question, list[Turn]]:
    """A new question whose pages fit in 80 % of the budget, otherwise the question with the smallest pages."""
    best: tuple[int, Question, list[Turn]] | None = None
    for question in islice(candidates(rng, site, index), 60):
        turns = make_turns(question, engine, rng, budget_tokens)
        if turns is None or question.text in asked:
            continue
        size = sum(page_tokens(engine, page) for turn in turns for page in turn.pages)
        if best is None or size < best[0]:
            best = (size, question, turns)
        if size <= 0.8 * budget_tokens:
            return question, turns
    assert best is not None, "no question found"
    return best[1], best[2]


def call_text(turn: Turn) -> str:
    """The assistant message of a turn."""
    call = json.dumps({"name": turn.tool, "arguments": turn.arguments}, ensure_ascii=False)
    return f"<think>\n{turn.thought}\n</think>\n<tool_call>\n{call}\n</tool_call>"


def response_of(turn: Turn, engine: SearchEngine, search_size: SearchSize) -> str:
    """Run the tool of a turn and return its response."""
    if turn.tool == "search":
        return engine.search(turn.arguments["query"], search_size.num_results, search_size.snippet_characters)
    return engine.visit(list(turn.pages), turn.arguments["goal"])


def row_of(
    question: Question, turns: list[Turn], engine: SearchEngine, search_size: SearchSize, *, wrong: bool
) -> dict[str, Any]:
    """The WebDancer row of a trajectory; if `wrong`, it ends with the false answer of the question."""
    tools = ",\n".join(json.dumps(tool, indent=2) for tool in TOOLS)
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": PROMPT.format(tools=tools, question=question.text)},
    ]
    for turn in turns:
        messages.append({"role": "assistant", "content": call_text(turn)})
        response = response_of(turn, engine, search_size)
        messages.append({"role": "user", "content": f"<tool_response>\n{response}\n</tool_response>"})
    conclusion = question.conclusion.format(answer=question.wrong if wrong else question.answer)
    answer = question.wrong if wrong else question.answer
    final = f"<think>\n{conclusion}\n</think>\n<answer>\nThe answer is: {answer}\n</answer>"
    messages.append({"role": "assistant", "content": final})
    return {
        "type": "chatml",
        "task": "agent/multiturn_search",
        "messages": messages,
        "functions": FUNCTIONS,
        "tool_calls": [],
        "answer": [[question.answer]],
        "tag": "scripted",
    }


def make_rows(options: Options) -> tuple[list[dict[str, Any]], list[int]]:
    """All rows and the size of each context in tokens."""
    site = build_site()
    engine = SearchEngine(site.pages)
    rows: list[dict[str, Any]] = []
    sizes: list[int] = []
    asked: set[str] = set()
    for index in range(options.count):
        rng = rng_for(options.seed, "search", index)
        question, turns = choose(rng, site, engine, index, asked, options.length_tokens)
        asked.add(question.text)
        search_size, size = choose_search_size(turns, engine, options.length_tokens)
        rows.append(row_of(question, turns, engine, search_size, wrong=ends_wrong(index)))
        sizes.append(size)
    return rows, sizes


def main() -> None:
    """Write the trajectories."""
    options = parse_options("Run a scripted search agent over the standard library's documentation.")
    rows, sizes = make_rows(options)
    with published_folder(options.out / "search", options) as folder:
        write_jsonl(folder / "trajectories.jsonl", rows)
    report("search", sizes)


if __name__ == "__main__":
    main()
