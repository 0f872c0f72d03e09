"""Text for people: safe to print, quoted, shortened, and with suggestions for typing errors."""

from __future__ import annotations

import difflib
import re
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Sequence

MAX_WORD = 2000
"""Maximum length of a mistake, or of a word in a message, in characters."""
_MAX_QUOTED = 80  # characters
_MAX_NAMED = 3  # characters whose Unicode names are shown

_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters and marks that change the text direction, but not tabs and newlines."""


def printable(text: str) -> str:
    """Return a text with control characters escaped, so that a terminal does not obey them."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return a text with tabs, line breaks and control characters escaped."""
    return printable(text).replace("\t", "\\t").replace("\n", "\\n")


_CREDENTIALS = re.compile(r"(?!https?://[^/:@?#]+/)((?:\w+:)?/+|).*@", re.IGNORECASE | re.DOTALL)
_LONG_WORD = re.compile(r"\S{10000,}")  # longer than a path can be on any system
_ADDRESS = re.compile(r"\b\w{2,}:/+\S*[^\s'\".,;:)]")


def without_secrets(address: str) -> str:
    """Return a URL with ``***`` in place of the user, the password and the query's values.

    The URL may be mistyped, and a password may contain any character. So everything before the
    last @ is hidden, unless a host without a port comes first: ``http://host/package@1/``.
    """
    hidden = _CREDENTIALS.match(address)
    shown = f"{hidden[1]}***@{address[hidden.end() :]}" if hidden else address
    begin, mark, query = shown.partition("#")[0].partition("?")
    names = [part.partition("=")[:2] for part in query.split("&")]
    return (
        begin
        + mark
        + "&".join(f"{name}=***" if equals else mark and "***" for name, equals in names)
    )


def presentable(text: str) -> str:
    """Return a message that is safe to print: no control characters, secrets or huge words."""
    text = _ADDRESS.sub(lambda match: without_secrets(match[0]), text)
    return printable(_LONG_WORD.sub(lambda match: shortened(match[0], MAX_WORD), text))


def quoted(text: str) -> str:
    """Return a word in quotes, with the Unicode names of letters that may look like ASCII."""
    foreign = list(dict.fromkeys(letter for letter in text if not letter.isascii()))[:_MAX_NAMED]
    names = [f"U+{ord(letter):04X} {unicodedata.name(letter, '')}".strip() for letter in foreign]
    suffix = f" (with {', '.join(names)})" if names else ""
    return f"'{shortened(text, _MAX_QUOTED)}'{suffix}"


def shortened(text: str, limit: int) -> str:
    """Return a text with its middle replaced by "..." if it is longer than the limit."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to a wrong one, or None."""
    matches = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the most similar known name, or ``""``."""
    meant = nearest(name, known)
    return f"; did you mean '{meant}'?" if meant else ""


def variable_advice(value: object) -> str:
    """Return advice for a value with a shell variable, such as ``${LR}``; else ``""``."""
    if not isinstance(value, str) or not re.search(r"\$\{?[A-Za-z_]", value):
        return ""
    return (
        "; YAML has no variables: write the value, or set it with an option, where the shell "
        f"replaces {value[:40]}"
    )


def shell_command(*words: object) -> str:
    """Return a command quoted for the shell of this system."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if sys.platform == "win32" else shlex.join(texts)


def enumeration(words: Sequence[str], conjunction: str = "and") -> str:
    """Return words as in a sentence: "a, b and c"."""
    *others, last = words
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share from 0 to 1 as a percentage, or "-" if there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def p_value(p: float | None) -> str:
    """Return a p-value as text, or "" if there is none."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """Return a p-value for a sentence: "p = 0.031" or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def duration(seconds: float) -> str:
    """Return a duration, for example ``9.5 s``, ``42 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if round(seconds) < 60:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def html_table(caption: str, rows: Sequence[Sequence[object]], *, header: bool) -> str:
    """Return a table for a notebook, without colors, so that it suits light and dark themes.

    Parameters
    ----------
    caption : str
        Text above the table.
    rows : sequence of rows
        Cells of each row, which are escaped.
    header : bool
        Whether the first row names the columns; otherwise the first cell of a row names it.
    """
    from html import escape  # its table of entities takes a moment to import

    lines = [f"<table><caption>{escape(printable(caption))}</caption>"]
    for i, row in enumerate(rows):
        kinds = ["th" if (i == 0 if header else j == 0) else "td" for j in range(len(row))]
        cells = (
            f"<{kind}>{escape(printable(str(cell)))}</{kind}>"
            for kind, cell in zip(kinds, row, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</table>"])


TIME_PATTERN = r"^[1-9][0-9]{0,8}[smh]$"
"""Pattern of a time with its unit, such as ``30s``, ``10m`` or ``2h``."""


def seconds_in(time: str) -> int:
    """Return the seconds in a time that matches `TIME_PATTERN`."""
    return int(time[:-1]) * {"s": 1, "m": 60, "h": 3600}[time[-1]]


def short_value(value: object, digits: int = 4) -> str:
    """Return a configuration value as short YAML; numbers have a limited number of digits."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.{digits}g}"
        case dict():
            items = (f"{key}: {short_value(item, digits)}" for key, item in value.items())
            return f"{{{', '.join(items)}}}"
        case list():
            return f"[{', '.join(short_value(item, digits) for item in value)}]"
        case None:
            return "null"
    return printable(str(value))
