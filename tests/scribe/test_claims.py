"""Claims in posts: every noun is read, the world writes the same ones, and nobody takes them for facts."""

import pytest
from embedded_pages import Embedded
from fixtures import make_page

from webdancer.scribe.claims import HEDGES, NOUNS, THREAD, Claim, find_claim, is_thread, read_claims
from webdancer.scribe.logical import Lookup, Name
from webdancer.scribe.observations import Hit
from webdancer.scribe.reader import read_page
from webdancer.scribe.relations import RELATION_OF, RELATIONS
from webdancer.world import lexicon_talk

SAMPLES = {"date": "7 April 2003", "year": "1961", "number": "1,234", "text": "MIT"}
CANONICAL = {"number": "1234"}


def hit(snippet: str, title: str = "Grey Harbour: what do you know?") -> Hit:
    return Hit(title, "http://talk.example/t/1", snippet)


@pytest.mark.parametrize("relation", NOUNS)
def test_every_noun_is_read_behind_every_hedge(relation: str) -> None:
    kind = min(RELATIONS[relation].range)
    shown = SAMPLES.get(kind, "Ada Lunt")
    for hedge in HEDGES:
        post = f"{hedge} the {NOUNS[relation]} of Grey Harbour is {shown}."
        (claim,) = read_claims(hit(f"… It is so. {post} I like it."))
        value = Name(CANONICAL.get(kind, shown))
        sentence = f"the {NOUNS[relation]} of Grey Harbour is {shown}"
        assert claim == Claim(relation, Name("Grey Harbour"), value, sentence, "http://talk.example/t/1")


def test_the_world_writes_the_nouns_and_hedges_that_are_read() -> None:
    written = {RELATION_OF[relation]: noun for relation, noun in lexicon_talk.NOUNS.items()}
    assert written == NOUNS
    assert lexicon_talk.HEDGES == HEDGES
    assert lexicon_talk.TITLE == "{title}" + THREAD
    assert not any(RELATIONS[relation].volatile for relation in NOUNS)


def test_several_posts_are_read_in_their_order_and_broken_ones_are_not() -> None:
    snippet = (
        "… of Grey Harbour is Orn. I think the founder of Grey Harbour is R. Lunt. Somebody told me that the country of "
        "Grey Harbour is Belmar. I think the licence of Grey Harbour is C. As far as I know, the spouse of Grey Harbour is …"
    )
    assert [(c.relation, c.value.text) for c in read_claims(hit(snippet))] == [
        ("founder", "R. Lunt"),
        ("country", "Belmar"),
        ("licence", "C"),
    ]


@pytest.mark.parametrize(
    "post",
    [
        "The founder of Grey Harbour is Ada Lunt.",
        "I think the owner of Grey Harbour is Ada Lunt.",
        "I think the founding year of Grey Harbour is Ada Lunt.",
        "I think the date of birth of Grey Harbour is 1950.",
        "I think the founder of Grey Harbour is Ada Lunt",
        "",
    ],
)
def test_what_is_no_claim_is_not_read(post: str) -> None:
    assert read_claims(hit(post)) == []


def test_a_claim_must_be_about_exactly_the_relation_and_the_name() -> None:
    hits = [
        hit("I think the founder of Grey Harbour is Ada Lunt. I think the country of Grey Harbour is Belmar."),
        hit("I think the founder of Grey Harbour is Mira Solt."),
    ]
    found = find_claim(hits, Lookup("founder", Name("Grey Harbour", "company")))
    assert found is not None
    assert found.value == Name("Ada Lunt")
    assert find_claim(hits, Lookup("founder", Name("Grey"))) is None
    assert find_claim(hits, Lookup("architect", Name("Grey Harbour"))) is None


def test_people_of_one_name_are_told_apart_by_the_title_of_the_thread() -> None:
    about = hit("I think the spouse of Ana Velk is Rosa Lind.", "Ana Velk (architect): what do you know?")
    assert find_claim([about], Lookup("spouse", Name("Ana Velk", "film director"))) is None
    assert find_claim([about], Lookup("spouse", Name("Ana Velk", "architect"))) is not None
    assert is_thread(about)
    assert not is_thread(hit("x", "Ana Velk (architect)"))


def test_the_reader_takes_no_fact_from_a_claim(embedded: Embedded) -> None:
    threads = [page for page in embedded.pages.values() if page.title.endswith(THREAD)]
    assert len(threads) > 50
    num_claims = 0
    for page in threads:
        reading = read_page(page.title, page.text)
        assert (reading.facts, reading.lists, reading.aliases, reading.namesakes) == ((), (), (), ())
        num_claims += len(read_claims(Hit(page.title, page.url, " ".join(page.text.split()))))
    posts = [line for page in threads for line in page.text.splitlines() if line.startswith(HEDGES)]
    assert num_claims == len(posts) > 100
    page = make_page("u", "Grey Harbour", "I think the founder of Grey Harbour is Ada Lunt.")
    assert read_page(page.title, page.text).facts == ()
