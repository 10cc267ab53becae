"""The grammar of the configuration, checked before the decoder gets it.

Source: JSpeech Grammar Format (W3C note, 2000). The decoder only says that a grammar cannot be
used, so common mistakes are detected and named here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from voicecall.errors import ConfigError

from .config import PocketsphinxConfig

__all__ = ["Grammar", "check_words", "load_grammar"]

_PATH = "pocketsphinx"
_NO_RULE = re.compile(r"/\*.*?\*/|//[^\n]*|\{(?:\\.|[^\\}])*\}", re.DOTALL)
"""Comments and tags, whose text is not spoken."""
_RULE = re.compile(r"(public\s+)?<([^<>]+)>\s*=\s*(.*)", re.DOTALL)
_REFERENCE = re.compile(r"<([^<>]*)>")
_NO_WORD = re.compile(r"<[^<>]*>|/[-+.\deE]+/|[|()\[\]*+\"]")
_BUILT_IN = frozenset({"NULL", "VOID"})


@dataclass(frozen=True, slots=True)
class Grammar:
    """``jsgf`` is the text for the decoder, ``key`` the configuration key it came from, ``places``
    each word with the phrase or rule that uses it."""

    jsgf: str
    key: str
    places: tuple[tuple[str, str], ...]


def load_grammar(config: PocketsphinxConfig) -> Grammar:
    """The configured grammar. Raises :exc:`ConfigError`."""
    if config.phrases:
        return _from_phrases(config.phrases)
    if config.grammar is not None:
        return _from_jsgf(config.grammar, "grammar")
    path = config.grammar_file
    assert path is not None
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, RuntimeError) as error:  # the last: no home directory
        raise ConfigError(f"cannot be read: {error}", path=f"{_PATH}.grammarFile") from None
    return _from_jsgf(text, "grammarFile")


def _from_phrases(phrases: tuple[str, ...]) -> Grammar:
    cleaned = []
    places = []
    for phrase in phrases:
        words = re.findall(r"[\w']+", phrase.lower())
        if not words:
            raise ConfigError(f"{phrase!r} has no words", path=f"{_PATH}.phrases")
        cleaned.append(" ".join(words))
        places += [(word, phrase) for word in words]
    choices = " | ".join(dict.fromkeys(cleaned))
    jsgf = f"#JSGF V1.0;\ngrammar phrases;\npublic <phrase> = {choices};\n"
    return Grammar(jsgf, "phrases", tuple(places))


def _from_jsgf(text: str, key: str) -> Grammar:
    path = f"{_PATH}.{key}"
    if not text.lstrip("\ufeff \t\r\n").startswith("#JSGF"):
        raise ConfigError("does not begin with #JSGF", path=path)
    defined, used, places, public = set(), {}, [], []
    for statement in _statements(text):
        rule = _RULE.fullmatch(statement)
        if rule is None:
            if statement.startswith("import"):
                raise ConfigError(f"imports are not supported: {statement!r}", path=path)
            continue
        if rule[1] is not None:
            public.append(f"<{rule[2]}>")
        defined.add(rule[2])
        used.update(dict.fromkeys(_REFERENCE.findall(rule[3]), statement))
        places += [(word, statement) for word in _NO_WORD.sub(" ", rule[3]).split()]
    if not public:
        raise ConfigError("has no public rule", path=path)
    if len(public) > 1:
        # The decoder would use one of them and ignore the others.
        raise ConfigError(f"has more than one public rule: {' and '.join(public)}", path=path)
    for name, statement in used.items():
        if name not in defined and name not in _BUILT_IN:
            raise ConfigError(f"rule <{name}> is not defined, used in {statement!r}", path=path)
    return Grammar(text, key, tuple(places))


def _statements(text: str) -> Iterator[str]:
    """The grammar's statements without comments and tags, each in one line. The last piece counts
    even without a semicolon, so that the decoder can refuse it."""
    for part in _NO_RULE.sub(" ", text).split(";"):
        line = " ".join(part.split())
        if line:
            yield line


def check_words(grammar: Grammar, known: Callable[[str], bool]) -> None:
    """Raise :exc:`ConfigError` with every word that is not in the dictionary."""
    missing = [place for place in dict.fromkeys(grammar.places) if not known(place[0])]
    if missing:
        listed = "; ".join(f"{word!r} in {where!r}" for word, where in missing)
        raise ConfigError(
            f"words that are not in the dictionary: {listed}", path=f"{_PATH}.{grammar.key}"
        )
