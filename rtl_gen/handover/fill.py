"""Templates: files beside these modules, with @WORDS@ to be replaced."""

import re


def fill(path, **words):
    """Text of a template with each @WORD@ replaced; KeyError for a word that is not given."""
    return re.sub(r"@([A-Z]+)@", lambda found: words[found[1]], path.read_text(encoding="utf-8"))
