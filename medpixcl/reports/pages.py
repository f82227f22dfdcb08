"""A page of sections, each with a text, pictures, tables and links: self-contained like the reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medpixcl.data.atomic import write_text_atomically
from medpixcl.reports.html import Picture, render_page


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page.

    Attributes:
        heading: Heading of the section, unique on the page.
        text: A paragraph below the heading.
        pictures: Pictures below the text.
        tables: Caption to rows of text, the first one a header.
        links: Address, relative to the page, to the words that are clicked.
    """

    heading: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def write_page(path: Path, sections: Sequence[Section], *, title: str, lead: str) -> None:
    """Write a page; the file is there whole or not at all.

    Args:
        path: HTML file; its folder is made when missing.
        sections: Content, from top to bottom.
        title: Heading of the page.
        lead: Sentence below the title.
    """
    pictures = {section.heading: section.pictures for section in sections}
    write_text_atomically(path, render_page("page.html.j2", pictures, title=title, lead=lead, sections=sections))
