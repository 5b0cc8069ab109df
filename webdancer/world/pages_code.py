"""The code host: repository pages with a README, pages of their owners, explore pages."""

import html
import re
from collections.abc import Iterator

from webdancer.world.fact_graph import FactGraph
from webdancer.world.graph import Entity, Region
from webdancer.world.layout import duplicate_link, frame, infobox, list_facts, page_rng, paragraph, render_list
from webdancer.world.lexicon import LISTS, RELATIONS, Cardinality
from webdancer.world.prose import Prose
from webdancer.world.site import Doc, Place, Site, owner_place, place_of, stable

ROBOTS = (
    "User-agent: *\nDisallow: /*/edit\nDisallow: /*/raw/\nDisallow: /login\n{delay}\n"
    "User-agent: GreedyBot\nDisallow: /\n\nSitemap: http://{host}/sitemap.xml\n"
)
_CHUNK = 60


class CodeHost:
    """Writes the pages of the code host."""

    def __init__(self, site: Site, graph: FactGraph) -> None:
        self.site, self.graph = site, graph

    def html(self, doc: Doc, *, utf8_declared: bool = True) -> str:
        """The page around a document."""
        nav = [("Explore", "/"), ("Sign in", "/login?return_to=/")]
        return frame(self.site, doc, utf8_declared=utf8_declared, nav=nav, footer="A place for code.")

    def places(self, region: Region) -> Iterator[Place]:
        """All pages of a region."""
        if region.number == 0:
            yield from (Place("code", path) for path in ("/", "/privacy", "/login?return_to=/"))
        yield from (place for place, _ in self._explore(region))
        for repository in region.of("repository"):
            yield place_of(repository)
            yield Place("code", f"{place_of(repository).path}/edit")
        for person in region.of("person"):
            if "maintainer" in person.inverse:
                yield owner_place(person)

    def redirect(self, path: str, query: str) -> str | None:
        """A slash too many at the end."""
        return path.rstrip("/") if path.endswith("/") and path != "/" else None

    def page(self, path: str, query: str) -> Doc | None:
        """The document at a path, or None."""
        place = Place("code", path + (f"?{query}" if path == "/login" and query else ""))
        if path == "/privacy":
            return Doc(place, "Privacy", ["<h1>Privacy</h1>", paragraph(["We count visits, not visitors."])])
        if path == "/login":
            return Doc(place, "Sign in", ["<h1>Sign in</h1>", paragraph(["Please give your name and password."])])
        if path == "/" or path.startswith("/explore/"):
            return self._front(place) if path == "/" else self._explore_page(place)
        parts = path.strip("/").split("/")
        if len(parts) == 1:
            return self._owner(place, parts[0])
        for number in self.graph.regions_named(parts[1]):
            repository = self.graph.region(number).by_title.get(parts[1])
            if (
                repository is not None
                and repository.type == "repository"
                and place_of(repository).path == "/" + "/".join(parts[:2])
            ):
                return self._repository(repository) if len(parts) == 2 else self._part(place, repository, parts[2])
        return None

    def _repository(self, repository: Entity) -> Doc:
        doc = Doc(place_of(repository), repository.title)
        rng = page_rng(self.site, repository.key)
        prose = Prose(self.site, doc, repository, rng)
        facts = [
            group[0]
            for relation, group in repository.facts.items()
            if RELATIONS[relation].cardinality is not Cardinality.LIST and group[0].current
        ]
        rng.shuffle(facts)
        half = rng.randint(2, 4)
        usable = prose.usable_combined()
        intro = [prose.combined(shape) for shape in rng.sample(usable, 1)] if usable and rng.random() < 0.4 else []
        told = intro + [prose.sentence(fact) for fact in facts[half:] if fact not in doc.stated]
        told += [prose.sentence(fact) for fact in facts[:half] if rng.random() < 0.3]
        doc.body.append(f"<h1>{repository.title}</h1>")
        doc.body.append(infobox(self.site, doc, [[fact] for fact in facts[:half]], rng))
        doc.body.append("<h2>README</h2>")
        doc.body.append(paragraph([*told, *prose.filler("repository", rng.randint(3, 5))]))
        doc.body.append(f"<pre>install {repository.name}</pre>")
        needed = list_facts(repository, LISTS["dependencies"])
        if needed:
            doc.body.append(render_list(self.site, doc, LISTS["dependencies"], needed, rng))
        own = doc.place.path
        links = f'<a href="{own}/edit">Edit</a> <a href="{own}/raw/README">Raw</a> '
        links += f'<a href="{own}/">Mirror</a> ' if stable("mirror", own) % 8 == 0 else ""
        links += f'<a href="{own}/issues">Issues</a> ' if stable("issues", own) % 10 == 0 else ""
        links += duplicate_link(doc, "README only", "tab=readme", share=12)
        maintainer = repository.object("maintainer")
        owner = f'<a href="{owner_place(maintainer).path}">More by this maintainer</a>' if maintainer else ""
        doc.after.append(f'<aside class="related-links">{links} {owner}</aside>\n')
        return doc

    def _part(self, place: Place, repository: Entity, part: str) -> Doc | None:
        """Pages that robots.txt forbids."""
        if part not in {"edit", "raw"}:
            return None
        return Doc(
            place, part, [f"<h1>{part}</h1>", paragraph([f"Here one may change {html.escape(repository.name)}."])]
        )

    def _owner(self, place: Place, name: str) -> Doc | None:
        match = re.fullmatch(r"[a-z-]+(\d{1,9})", name)
        person = self.graph.find("person", int(match[1])) if match else None
        if person is None or "maintainer" not in person.inverse or owner_place(person) != place:
            return None
        doc = Doc(place, f"{person.title} on the code host", [f"<h1>{html.escape(person.title, quote=False)}</h1>"])
        doc.body.append(f"<p>Account of {self.site.link(doc, person, person.title)}.</p>")
        items = ""
        for fact in person.inverse["maintainer"]:
            doc.state(fact)
            items += f"<li>{self.site.link(doc, fact.subject, fact.subject.title)}</li>\n"
        doc.body.append(f"<h2>Repositories</h2>\n<ul>\n{items}</ul>")
        return doc

    def _explore(self, region: Region) -> Iterator[tuple[Place, list[Entity]]]:
        repositories = region.of("repository")
        for start in range(0, max(1, len(repositories)), _CHUNK):
            yield (
                Place("code", f"/explore/{region.number + 1}/{start // _CHUNK + 1}"),
                repositories[start : start + _CHUNK],
            )

    def _front(self, place: Place) -> Doc:
        doc = Doc(place, "Code host", ["<h1>Explore</h1>", paragraph(["Find a project."])])
        pages = range(self.graph.plan.num_regions)
        items = "".join(f'<li><a href="/explore/{number + 1}/1">Projects {number + 1}</a></li>\n' for number in pages)
        doc.body.append(f"<ul>\n{items}</ul>")
        return doc

    def _explore_page(self, place: Place) -> Doc | None:
        match = re.fullmatch(r"/explore/(\d{1,6})/(\d{1,3})", place.path)
        if match is None or not 0 < int(match[1]) <= self.graph.plan.num_regions:
            return None
        pages = list(self._explore(self.graph.region(int(match[1]) - 1)))
        if not 0 < int(match[2]) <= len(pages):
            return None
        doc = Doc(place, "Explore projects", [f"<h1>Projects {match[1]}, page {match[2]}</h1>"])
        items = "".join(
            f"<li>{self.site.link(doc, member, member.title)}</li>\n" for member in pages[int(match[2]) - 1][1]
        )
        doc.body.append(f"<ul>\n{items}</ul>")
        if int(match[2]) < len(pages):
            doc.body.append(f'<p><a href="{int(match[2]) + 1}" rel="next">Next page</a></p>')
        return doc
