"""Completion in the shells. It replaces Click's own scripts, which split kernel ids and addresses into words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

__all__ = ["COMPLETERS"]

# The script passes on the whole line, and not the words into which bash splits it: to bash an address is three words.
_BASH = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2> /dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_FISH = """\
function %(complete_func)s
    set -l response (env COMP_WORDS=(commandline -cp | string collect) %(complete_var)s=fish_complete \\
        %(prog_name)s 2> /dev/null)
    for completion in $response
        set -l parts (string split -m 1 "," -- $completion)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                printf '%%s\\n' $parts[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


_UNSAFE = re.compile(r"[^\w%+=:@,./-]")
_SPECIAL = {"'": re.compile("'"), '"': re.compile(r'["$`\\!]')}
"""For each quotation mark, the characters that bash does not take as they are after it."""
_LITERAL: dict[str, Callable[[re.Match[str]], str]] = {
    "'": lambda found: r"'\''",
    # A backslash before `!` would stay, so that character stands outside the quotation.
    '"': lambda found: "\"'!'\"" if found[0] == "!" else "\\" + found[0],
}


def _words() -> tuple[list[str], str]:
    """Return the arguments before the one that is to be completed, and the part of that one that is typed."""
    # The mark at the end of the line makes a word even if nothing of the last argument is typed yet.
    words = split_arg_string(os.environ["COMP_WORDS"] + "|")
    return words[1:-1], words[-1].removesuffix("|")


def _with_option(item: CompletionItem[str], incomplete: str) -> str:
    """Return the whole completed word. It begins with `--type=` if the completion is that option's value."""
    option, sign, _ = incomplete.partition("=")
    return option + sign + item.value if sign and option.startswith("-") else item.value


class _Bash(BashComplete):
    """Bash replaces the text since the last `:`, `=` or `@` by the completion, without quoting it."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the arguments before the last one, and the typed part of that."""
        return _words()

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return the text for bash to insert, with its type."""
        if item.type != "plain":
            return f"{item.type},"
        _, incomplete = _words()
        whole = _with_option(item, incomplete)
        # Inside quotes nothing breaks a word. Bash adds the closing quote, unless the text ends with one.
        if quote := _open_quote(os.environ["COMP_WORDS"]):
            literal = _SPECIAL[quote].sub(_LITERAL[quote], whole)
            return f"plain,{literal}{quote if literal.endswith(quote) else ''}"
        breaks = [each for each in ":=@" if each in os.environ.get("COMP_WORDBREAKS", "")]
        # Readline keeps the `@` in the text that it replaces.
        there = max((incomplete.rfind(each) + (each != "@") for each in breaks), default=0)
        escaped = _UNSAFE.sub(r"\\\g<0>", whole[max(there, 0) :])
        return f"plain,{escaped}"


def _open_quote(line: str) -> str:
    """Return the quotation mark inside which the line ends: `'` or `"`, or an empty text."""
    quote, after_backslash = "", False
    for character in line:
        if after_backslash:
            after_backslash = False
        elif character == "\\" and quote != "'":
            after_backslash = True
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
    return quote


class _Zsh(ZshComplete):
    """Zsh replaces the whole word, and quotes what it puts there."""

    def format_completion(self, item: CompletionItem[str]) -> str:
        _, incomplete = self.get_completion_args()
        whole = CompletionItem(_with_option(item, incomplete), item.type, item.help)
        return super().format_completion(whole)


class _Fish(FishComplete):
    """Fish replaces the whole word, and quotes what it puts there."""

    source_template = _FISH

    def get_completion_args(self) -> tuple[list[str], str]:
        return _words()

    def format_completion(self, item: CompletionItem[str]) -> str:
        _, incomplete = _words()
        return super().format_completion(CompletionItem(_with_option(item, incomplete), item.type, item.help))


COMPLETERS: dict[str, type[ShellComplete]] = {cls.name: add_completion_class(cls) for cls in (_Bash, _Zsh, _Fish)}
"""For each shell, the class that makes its script and answers that script's questions."""
