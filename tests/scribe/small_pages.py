"""A web of thirteen pages, written by hand, in which every question of the tests can be worked out with a pencil."""

from fixtures import make_page

from webdancer.records import Page

_TEXTS = {
    "Night of Velda": (
        "Directed by | Ana Velk (film director)\nRunning time | 98 minutes\nNight of Velda was shot in Orsk.\n"
        "Night of Velda is based on the novel Salt of Lodos.\n## Cast\n- Otto Ghelin\n- Rosa Lind\n"
    ),
    "Salt of Lodos": "Author | Pavel Ros\nSalt of Lodos is set in Orsk. It was published by Lorm Press. It appeared in 1961.\n",
    "Ana Velk (film director)": (
        "Ana Velk is a film director. She was born in Tursk. She is married to Rosa Lind.\n"
        "## Films directed\n- Night of Velda (1966)\n- Winter Mirana (1971)\n- Harbour of Sisha (1980)\n"
    ),
    "Ana Velk (architect)": "Ana Velk is an architect. She was born in Orsk.\n## Works designed\n- Orsk Bridge (1988)\n",
    "Ana Velk": "Ana Velk may refer to:\n- Ana Velk (film director)\n- Ana Velk (architect)\n",
    "Rosa Lind": (
        "Spouse | Ana Velk (film director)\nRosa Lind is an actor. Rosa Lind often signs as R. Lind. She was born in Tursk.\n"
        "## Film appearances\n- Night of Velda (1966)\n- Harbour of Sisha (1980)\n- Pale Rudana (1984)\n"
    ),
    "Mira Solt": "Mira Solt is a chemist. Otto Ghelin is the spouse of Mira Solt. She was born in Vint.\n",
    "Otto Ghelin": (
        "Otto Ghelin is an actor.\n## Films as actor\n- Night of Velda (1966)\n- Pale Rudana (1984)\n- Last Dorna (1990)\n"
    ),
    "Pavel Ros": (
        "Pavel Ros is a novelist from Tursk.\n"
        "## Novels\nYear | Novel\n1958 | Ashes of Rimos\n1961 | Salt of Lodos\n1970 | Letters of Tabos\n1983 | Garden of Mirtos\n"
    ),
    "Orsk": "Country | Belmar\nOrsk stands on the River Orn. It was founded in 912.\n## Natives\n- Ana Velk (architect) (1950)\n",
    "Tursk": "Tursk lies in Norland. Tursk is twinned with Orsk.\n",
    "Belmar": "Belmar is a country whose capital is Orsk and whose official language is Belmish.\n",
    "Norland": "Currency | norl\nThe capital of Norland is Vint.\n",
}


def url_of(title: str) -> str:
    return f"http://w.example/wiki/{title.replace(' ', '_')}"


PAGES: dict[str, Page] = {
    url_of(title): make_page(url_of(title), title, f"# {title}\n{text}") for title, text in _TEXTS.items()
}


def triple(title: str) -> tuple[str, str, str]:
    """A page as the prompts take it."""
    page = PAGES[url_of(title)]
    return page.url, page.title, page.text
