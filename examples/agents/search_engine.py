"""A small search engine: an inverted index with BM25 ranking, and the response texts of WebDancer's tools."""

import heapq
import math
import re
from collections import Counter, defaultdict

from search_pages import first_sentence, url_of

K1, B = 1.2, 0.3  # with a small B, long pages rank higher
TITLE_WEIGHT = 4
SEPARATOR = "\n=======\n"


def words_of(text: str) -> list[str]:
    """Lowercase words; names are split at dots and underscores."""
    return re.findall(r"[a-z0-9]+", text.lower())


class SearchEngine:
    """Finds pages by their words."""

    def __init__(self, pages: dict[str, str]) -> None:
        self.pages = pages
        self.postings: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self.lengths: dict[str, int] = {}
        for name, text in pages.items():
            counts = Counter(words_of(text))
            for word in words_of(name):
                counts[word] += TITLE_WEIGHT
            self.lengths[name] = counts.total()
            for word, count in counts.items():
                self.postings[word].append((name, count))
        self.mean_length = sum(self.lengths.values()) / len(pages)

    def rank(self, query: str, num_results: int) -> list[str]:
        """The names of the best pages, best first; equal scores are ordered by name."""
        scores: dict[str, float] = defaultdict(float)
        for word in words_of(query):
            found = self.postings.get(word, [])
            weight = math.log(1 + (len(self.pages) - len(found) + 0.5) / (len(found) + 0.5))
            for name, count in found:
                saturation = count + K1 * (1 - B + B * self.lengths[name] / self.mean_length)
                scores[name] += weight * count * (K1 + 1) / saturation
        return heapq.nsmallest(num_results, scores, key=lambda name: (-scores[name], name))

    def snippet(self, name: str, query: str, num_characters: int) -> str:
        """A part of the page on one line, around the rarest word of the query."""
        text = " ".join(self.pages[name].split())
        places = [
            (len(self.postings.get(word, [])), text.lower().find(word))
            for word in words_of(query)
            if word in text.lower()
        ]
        middle = min(places)[1] if places else 0
        start = max(0, min(middle - num_characters // 2, len(text) - num_characters))
        end = start + num_characters
        return ("... " if start else "") + text[start:end].strip() + (" ..." if end < len(text) else "")

    def search(self, queries: list[str], num_results: int, snippet_characters: int) -> str:
        """The response of the search tool."""
        blocks = []
        for query in queries:
            names = self.rank(query, num_results)
            snippets = [self.snippet(name, query, snippet_characters) for name in names]
            hits = [
                f"{number}. [{name} - Python library]({url_of(name)})\n\n{snippet}"
                for number, (name, snippet) in enumerate(zip(names, snippets, strict=True), 1)
            ]
            head = f"A Google search for '{query}' found {len(names)} results:\n\n## Web Results\n"
            blocks.append(head + "\n\n".join(hits))
        return SEPARATOR.join(blocks)

    def visit(self, names: list[str], goal: str) -> str:
        """The response of the visit tool: the complete pages."""
        return SEPARATOR.join(
            f"The useful information in {url_of(name)} for user goal {goal} as follows: \n\n"
            f"Evidence in page: \n{self.pages[name]}\n\nSummary: \n{first_sentence(self.pages[name])}"
            for name in names
        )
