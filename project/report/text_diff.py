"""What became of a text, word by word."""

import difflib


def word_diff(before: str, after: str) -> list[tuple[str, str]]:
    """Runs of words in reading order, each kept, gone or new.

    Without the new ones it is the text before, without those gone the text after, up to white space.
    """
    old, new = before.split(), after.split()
    found = []
    for kind, a, b, c, d in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(("kept", " ".join(old[a:b])))
            continue
        found += [(name, " ".join(words)) for name, words in (("gone", old[a:b]), ("new", new[c:d])) if words]
    return found
