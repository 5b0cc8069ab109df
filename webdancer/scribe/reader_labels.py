"""The infobox labels and list headings that the scribe understands."""

_LABELS = """\
born in: born_in
place of birth: born_in
born: birth_date
date of birth: birth_date
died: death_date
date of death: death_date
education: studied_at
alma mater: studied_at
doctoral advisor: advisor
advisor: advisor
spouse: spouse
married to: spouse
employer: employer
works for: employer
occupation: occupation
profession: occupation
country: country
state: country
river: on_river crosses
on river: on_river
population: population
inhabitants: population
founded: founded
year of foundation: founded
partner city: partner_city
twin city: partner_city
mayor: mayor
head of the city: mayor
capital: capital
capital city: capital
currency: currency
money: currency
language: language programming_language
official language: language
length: river_length bridge_length
total length: river_length bridge_length
mouth: flows_into
flows into: flows_into
area: lake_area
surface area: lake_area
depth: lake_depth
maximum depth: lake_depth
city: located_in
seat: located_in
established: founded
founder: founder
founded by: founder
location: located_in filmed_in
opened: opened
year of opening: opened
architect: architect
designed by: architect
crosses: crosses
directed by: director
director: director
released: released
year: released published
based on: based_on
source: based_on
filmed in: filmed_in
running time: runtime
runtime: runtime
author: author
written by: author
published: published
set in: set_in
setting: set_in
publisher: publisher
published by: publisher
artist: performer
band: performer
recorded in: recorded_in
studio location: recorded_in
label: label
record label: label
producer: producer
produced by: producer
origin: formed_in
formed in: formed_in
formed: formed_year
year of formation: formed_year
headquarters: headquarters
head office: headquarters
chief executive: ceo
ceo: ceo
employees: employees
staff: employees
acquired by: acquired_by
parent company: acquired_by
named after: named_after
namesake: named_after
awarded by: awarded_by
presented by: awarded_by
first awarded: first_awarded
since: first_awarded
submitted: submitted
submission date: submitted
subject: field
field: field
code: code
implementation: code
funding: funded_by
funded by: funded_by
samples: num_samples
number of samples: num_samples
maintainer: maintainer
maintained by: maintainer
written in: programming_language
licence: licence
license: licence
first release: first_release
initial release: first_release
implements: implements
paper: implements
stars: stars
stargazers: stars
"""

_HEADINGS = """\
films directed: films_directed
films as director: films_directed
directing credits: films_directed
film appearances: film_appearances
films as actor: film_appearances
acting credits: film_appearances
novels: novels_written
novels written: novels_written
bibliography: novels_written
works designed: works_designed
museums and bridges designed: works_designed
architectural works: works_designed
albums produced: albums_produced
albums as producer: albums_produced
production credits: albums_produced
papers: papers_written
papers by this author: papers_written
articles in the archive: papers_written
albums: albums
discography: albums
members: members
line-up: members
band members: members
laureates: laureates
recipients: laureates
winners: laureates
novels published: novels_published
published novels: novels_published
catalogue of novels: novels_published
albums released: albums_released
releases: albums_released
album catalogue: albums_released
companies acquired: companies_acquired
acquisitions: companies_acquired
cast: cast
actors: cast
full cast: cast
references: references
cited papers: references
dependencies: dependencies
required packages: dependencies
bridges: bridges
bridges across the river: bridges
crossings: bridges
cities: cities_on_river
cities on the river: cities_on_river
cities along its course: cities_on_river
alumni: alumni
graduates: alumni
former students: alumni
people born here: natives
births: natives
natives: natives
"""

INCOMPLETE = ("selected", "notable", "some", "important")
"""How the heading of a list opens that does not give all members."""


def _table(text: str) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (line.partition(": ") for line in text.splitlines())]


LABELS: dict[str, tuple[str, ...]] = {key: tuple(value.split()) for key, value in _table(_LABELS)}
"""Label in lower case → the relations that it can stand for; the page's kind and the value's form decide."""

HEADINGS: dict[str, str] = dict(_table(_HEADINGS))
"""Heading in lower case → the kind of list under it."""
