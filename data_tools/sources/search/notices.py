"""Notices of search tools, such as "rate limited": texts that are no evidence because of what they say.

A notice is recognised by its words, never by its length: "1972" can be the only text with the answer.
"""

import re
from typing import Any

_MAX_NOTICE_CHARACTERS = 400  # a longer text says more than that nothing was found
_MAX_ERROR_CHARACTERS = 4_000  # an error can quote what was asked for
_NOUN = (
    r"(?:results?|pages?|documents?|matches|hits|information|content|data|answers?|passages?|response|output|versions?)"
)
_QUALITY = (
    r"(?:more|relevant|search|matching|web|further|helpful|useful|good|additional|new|valid|such|archived|google|bing|"
    r"duckduckgo|wikipedia|scholar)"
)
_PLACE = (
    r"(?:web ?page|page|url|website|site|document|resource|(?:web ?page |page )?content|search string"
    r"|(?:content|information) of the (?:current )?(?:web ?)?page)"
)
_TOOL = (
    r"(?:the |your |a |maximum |google |bing |scholar |web |search |query |tool |api |service |request |visit |click )"
)
# an error opens a text and is followed by a colon, a code, or what was tried
_ERROR = re.compile(
    r"(?:\W{0,3}(?:visit|search|browse|fetch|crawl)\W{1,3})?"
    r"(?:\W{0,2}(?:\w{0,40}error|exception|failed|failure|traceback)\b\W{0,2}(?:[:\]]|$)"
    r"|error (?:\d{3}\b|while|when|during|fetching|reading|loading|opening|executing|occurred|parsing|in tool)"
    r"|failed (?:to|with|while)\b|traceback \(most recent call"
    r"|an? (?:\w{1,20} ){0,2}error (?:has )?occurred\b)"
    r"|\W{0,3}(?:visit|search|browse|fetch|crawl)\W{1,4}(?:failed|empty)\b"
    r"|could not find [^\n]{1,300}[.] similar: \["
    r"|\W{0,4}(?:final information\W{0,6})?no helpful information found\b",  # Search-o1 explains why
    re.IGNORECASE,
)
_NOTICES = (
    rf"(?:there (?:were|are|is|was) )?(?:no|0|zero) (?:{_QUALITY} )*{_NOUN}"
    r"(?: (?:was|were|is|are|could be))?(?: (?:found|available|returned|retrieved|matched))?"
    r"(?: (?:for|in|from|on|at|matching|that) .*)?",
    rf"(?:found|got|returned) (?:no|0|zero) {_NOUN}.*",
    rf"empty {_NOUN}\b.*",
    r"(?:nothing|not)(?: was)? found(?: for .*)?",
    r"none|null|nil|n/a|undefined",
    rf"(?:the |this )?{_PLACE}(?: \S{{1,200}})?(?: was| is| could)? not (?:be )?"
    r"(?:found|accessible|available|loaded|reachable|accessed|fetched|opened|processed)\b.*",
    r"(?:the )?page(?: [^.\n]{1,100})? (?:does not|doesn't) exist.*",
    r"access to (?:this|the) (?:web)?(?:page|site|url) (?:has been|is|was) denied.*",
    r"your search\b.{0,200} did not match any\b.*",
    r"you (?:have )?(?:already )?(?:searched|clicked|visited|opened)\b.{0,20}"
    r"\b(?:this|the same) (?:query|url|link|page)\b.*",
    r"you have reached the (?:\w{1,20} ){0,3}(?:limit|number)\b.*",
    r"(?:you (?:have been|are|were) )?(?:rate|api)[ -]?limit(?:ed)?(?: (?:was |is |has been )?"
    r"(?:exceeded|reached|hit))?(?:\s?[.,;:!(].*)?",
    rf"(?:{_TOOL}*|\w{{1,20}} )(?:limit|quota) (?:is |was |has been )?(?:exceeded|reached)\b.*",
    r"too many requests.*",
    rf"(?:{_TOOL}|read |connection |operation |call )*(?:has |was )?"
    r"(?:timed?[ -]out|timeout)(?: (?:after|while|error|exceeded|occurred|for)\b.*|\s?[^\w\s].*)?",
    r"(?:http|status|code|error|client|server|\W)*[45]\d\d\W+(?:(?:client|server) error\W+)?(?:not found|forbidden|"
    r"unauthorized|bad request|bad gateway|too many requests|service unavailable|internal server error|"
    r"gateway time-?out|access denied|gone)\b.*",
    r"(?:http|status|code|error|\W)+[45]\d\d",
    r"forbidden|unauthorized|(?:access|permission) (?:was |is )?denied|bad gateway|"
    rf"{_TOOL}*(?:is )?(?:temporarily |currently )?unavailable",
    rf"{_TOOL}*(?:content )?(?:is|cannot be|must not be) empty",
    r"(?:please )?(?:try again|enable javascript|verify (?:that )?you are (?:a )?human)\b.*",
    r"just a moment|checking your browser\b.*",
    r"(?:i |we )?(?:could not|couldn't|cannot|can't|unable to) "
    r"(?:find|fetch|access|load|open|retrieve|reach|read|connect|parse|process|visit|get)\b.*",
    r"(?:invalid|unknown|unsupported|ill-formed) "
    r"(?:action|tool|query|url|arguments?|request|input|parameters?|json|api key|search)\b.*",
    r"the last page \w{1,20} was not found\b.*",
    r"(?:my|your) previous action is invalid\b.*",
    r"(?:the )?(?:search|request|query|fetch|visit|tool call) (?:has |was )?(?:failed|rejected|blocked)\b.*",
    r"connection (?:error|reset|refused|aborted|closed)\b.*",
)
# "[visit] ", and Search-o1's heading of what it found
_LABEL = re.compile(r"\[[^\]\n]{1,30}\]\s+(?=\S)|\W{0,4}final information\W{0,6}(?=\w)", re.IGNORECASE)
_ADVICE = re.compile(
    r"[.!;,]\s+(?:please|try|use|you (?:are not|can|should|may)|return none|okay|ok|instead)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_NOTICE = re.compile(rf"(?:sorry,? |unfortunately,? )?(?:{'|'.join(_NOTICES)})", re.IGNORECASE | re.DOTALL)
_EDGES = " \t\r\n.!?\"'`*[](){}<>:;,-_"


def is_notice(text: str) -> bool:
    """Whether a text only says that a tool found nothing or failed."""
    plain = text.strip(_EDGES)
    if not plain:
        return True
    if len(text) <= _MAX_ERROR_CHARACTERS and _ERROR.match(text.strip()):
        return True
    if len(text) > _MAX_NOTICE_CHARACTERS:
        return False
    label = _LABEL.match(text.strip())
    plain = text.strip()[label.end() :].strip(_EDGES) if label else plain
    return _NOTICE.fullmatch(plain) is not None or _NOTICE.fullmatch(_ADVICE.sub("", plain)) is not None


def is_empty_result(value: Any, list_keys: tuple[str, ...], text_keys: tuple[str, ...]) -> bool:
    """Whether a JSON output is empty, reports an error, or has only empty lists of results."""
    if not isinstance(value, dict):
        return value == []
    has_text = any(isinstance(value.get(key), str) and value[key].strip() for key in text_keys)
    lists = [value[key] for key in list_keys if isinstance(value.get(key), list)]
    return not has_text and (not value or bool(value.get("error")) or (bool(lists) and not any(lists)))
