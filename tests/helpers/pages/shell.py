"""The command lines of a bash block, read as far as pages need: words, comments, `&&`, VAR=value."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

SET = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


class Unread(ValueError):
    """What this shell does not read, on a line counted from 0."""

    def __init__(self, said: str, line: int) -> None:
        super().__init__(said)
        self.line = line


@dataclass(frozen=True)
class Command:
    """`environment` words..., on a line of the block counted from 0; `fails` where its comment says so."""

    words: tuple[str, ...]
    environment: dict[str, str]
    line: int
    fails: bool


def commands(code: str) -> Iterator[Command]:
    """The commands of a block in order. Raises Unread."""
    for number, line in joined(code):
        command, comment = cut(line)
        fails = comment.startswith("fails")
        try:
            parts = list(split(command))
        except ValueError as error:
            raise Unread(f"{error}: {command.strip()}", number) from error
        for i, words in enumerate(parts):
            environment: dict[str, str] = {}
            while words and (match := SET.fullmatch(words[0])):
                environment[match[1]] = match[2]
                words = words[1:]
            yield Command(tuple(words), environment, number, fails and i == len(parts) - 1)


def joined(code: str) -> Iterator[tuple[int, str]]:
    """Lines with their continuations, by the number of the first."""
    begun, held = 0, ""
    for number, line in enumerate(code.splitlines()):
        if not held:
            begun = number
        if line.endswith("\\"):
            held += line[:-1]
            continue
        if (held + line).strip():
            yield begun, held + line
        held = ""
    if held:
        yield begun, held


def cut(line: str) -> tuple[str, str]:
    """A line and the text of its comment."""
    quote = ""
    for i, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (i == 0 or line[i - 1].isspace()):
            return line[:i], line[i + 1 :].strip()
    return line, ""


def split(command: str) -> Iterator[list[str]]:
    """The words of each of `a && b`. Raises ValueError for what this shell does not do."""
    if re.search(r"[$`]", re.sub(r"'[^']*'", "", command)):
        raise ValueError("a page's commands have no $ and no `")
    reader = shlex.shlex(command, posix=True, punctuation_chars=True)
    reader.whitespace_split, reader.commenters = True, ""
    words: list[str] = []
    for word in reader:
        if word == "&&":
            yield words
            words = []
        elif word and not word.strip("();<>|&"):
            raise ValueError(f"a page's commands have no {word}")
        else:
            words.append(word)
    if words:
        yield words
