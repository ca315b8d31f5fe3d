"""``kopiwatch repo retention``: what needs a word. The rest is in the end-to-end tests."""

from __future__ import annotations

import pytest

from kopiwatch.cli.repo_retention import require_word
from kopiwatch.errors import UsageError


def test_eleven_deletions_need_a_word():
    """Ten do not, and the hint names the command that shows them."""
    require_word(10, "shop", yes=False)
    require_word(11, "shop", yes=True)
    with pytest.raises(UsageError, match="11 restore points") as caught:
        require_word(11, "shop", yes=False)
    assert "`kopiwatch repo retention show shop`" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        require_word(11, "", yes=False)
    assert "`kopiwatch repo retention show`" in caught.value.hint
