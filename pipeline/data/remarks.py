"""What was left out of a data set, or not kept of its images: counted and named, for the terminal and the page."""

from typing import Final

from ..core.records import Record

MOST_NAMED: Final = 20
"""Names in a `Remark`."""


class Remark(Record):
    """What was left out of a data set, or not kept of its images."""

    says: str
    """What it is about, such as `Images of which only the first frame or page is read`."""
    count: int
    first: tuple[str, ...]
    """Names of the first, at most `MOST_NAMED`; empty if the sentence names what it is about."""

    def sentence(self, most: int) -> str:
        """Return one line with the count and at most `most` names."""
        if not self.first:
            return self.says
        more = f" and {self.count - most:,} more" if self.count > most else ""
        return f"{self.says} ({self.count:,}): {', '.join(self.first[:most])}{more}"
