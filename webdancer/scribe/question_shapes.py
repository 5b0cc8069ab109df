"""The phrases of the question grammar: how each relation and each list is asked for.

Every phrase has one hole `{}` for the thing that it is about. The same table serves the writer and the parser, so that
what the one writes the other reads. A phrase of several relations (`country+born_in`) steps over the thing in between:
"the country in which X was born" is the country of the birthplace of X.
"""

from typing import NamedTuple

from webdancer.scribe.relations import word_set

# Noun phrases, by relation; several are parted by " / ".
_NOUNS = """\
born_in: the birthplace of {} / the city of birth of {} / the city where {} was born / the city in which {} was born
birth_date: the date of birth of {} / the birth date of {} / the day on which {} was born / the date on which {} was born
death_date: the date of death of {} / the day on which {} died / the date on which {} died
studied_at: the alma mater of {} / the university attended by {} / the university at which {} studied
advisor: the doctoral advisor of {} / the person who supervised the doctorate of {}
spouse: the spouse of {} / the person to whom {} is married / the person married to {}
employer: the employer of {} / the organisation that employs {} / the organisation for which {} works
occupation: the occupation of {} / the profession of {}
country: the country of {} / the country that contains {} / the country in which {} lies / the country where {} lies
on_river: the river that flows through {} / the river flowing through {} / the river on which {} lies
population: the population of {} / the number of inhabitants of {}
founded: the year in which {} was founded / the founding year of {}
founder: the founder of {} / the person who founded {} / the person by whom {} was founded
partner_city: the partner city of {} / the city twinned with {}
mayor: the mayor of {}
capital: the capital of {} / the capital city of {}
currency: the currency of {} / the currency used in {}
language: the official language of {} / the language of {} / the language spoken in {}
river_length: the length in kilometres of {} / the length of {} in kilometres
flows_into: the lake that is fed by {} / the lake fed by {} / the lake into which {} flows
lake_area: the area in square kilometres of {} / the area of {} in square kilometres
lake_depth: the depth in metres of {} / the depth of {} in metres / the greatest depth of {} in metres
located_in: the home city of {} / the city that is home to {} / the city where {} is located / the city in which {} is located
headquarters: the city with the headquarters of {} / the city where {} has its headquarters / the city in which {} is based
ceo: the chief executive of {} / the chief executive officer of {}
employees: the number of employees of {}
acquired_by: the company that acquired {} / the company that bought {} / the company by which {} was acquired
director: the director of {} / the person who directed {} / the person by whom {} was directed
released: the year in which {} was released / the release year of {} / the year when {} came out
based_on: the novel on which {} is based / the novel that was the basis of {} / the novel from which {} was adapted
filmed_in: the city where {} was filmed / the city in which {} was filmed / the city where {} was shot
runtime: the running time of {} in minutes / the length of {} in minutes
author: the author of {} / the person who wrote {} / the person by whom {} was written
published: the year in which {} was published / the publication year of {}
set_in: the setting of {} / the city that is the setting of {} / the city in which {} is set / the city where {} is set
publisher: the publisher of {} / the company that published {} / the company by which {} was published
performer: the band behind {} / the band that recorded {}
recorded_in: the city where {} was recorded / the city in which {} was recorded
label: the label that released {} / the record label of {} / the label by which {} was released
producer: the producer of {} / the person who produced {} / the person by whom {} was produced
formed_in: the city of origin of {} / the city where {} was formed / the city in which {} was formed
formed_year: the year in which {} was formed / the year when {} was formed
opened: the year in which {} was opened / the opening year of {} / the year when {} opened
architect: the architect of {} / the person who designed {} / the designer of {}
crosses: the river that {} crosses / the river crossed by {} / the river spanned by {}
bridge_length: the length in metres of {} / the length of {} in metres
named_after: the eponym of {} / the person after whom {} is named / the person for whom {} is named
awarded_by: the institution that awards {} / the institution by which {} is awarded / the body that gives {}
first_awarded: the year in which {} was first awarded / the year of the first award of {}
submitted: the date on which {} was submitted / the submission date of {}
field: the field of {} / the research field of {} / the subject area of {}
code: the repository with the code of {} / the repository that holds the code of {} / the code repository of {}
funded_by: the company that funded {} / the funder of {} / the company by which {} was funded
num_samples: the number of samples in {} / the sample size of {}
maintainer: the maintainer of {} / the person who maintains {}
programming_language: the programming language of {} / the programming language in which {} is written
licence: the licence of {} / the licence under which {} is released
first_release: the date of the first release of {} / the date on which {} was first released
implements: the paper that {} implements / the paper implemented by {} / the paper implemented in {}
stars: the number of stars of {}
country+born_in: the country in which {} was born / the native country of {} / the country where {} was born
country+headquarters: the country in which {} is based / the country where {} has its headquarters
"""

# Direct questions, by relation. They say what kind of answer is wanted: "Where" could mean a city or a country.
_QUESTIONS = """\
born_in: In which city was {} born?
birth_date: When was {} born? / On which date was {} born? / On which day was {} born?
death_date: When did {} die? / On which date did {} die?
studied_at: At which university did {} study? / Which university did {} attend?
advisor: Who supervised the doctorate of {}? / Who was the doctoral advisor of {}?
spouse: To whom is {} married? / Who is married to {}?
employer: For which organisation does {} work? / Which organisation employs {}?
country: In which country does {} lie? / In which country is {}?
on_river: On which river does {} lie? / Which river flows through {}?
population: How many inhabitants does {} have? / How many people live in {}?
founded: In which year was {} founded?
founder: Who founded {}? / By whom was {} founded?
partner_city: With which city is {} twinned?
mayor: Who is mayor of {}?
capital: Which city is the capital of {}?
currency: Which currency is used in {}?
language: Which language is spoken in {}?
river_length: How many kilometres long is {}?
flows_into: Into which lake does {} flow?
lake_area: How many square kilometres does {} cover?
lake_depth: How many metres deep is {}?
located_in: In which city is {} located?
headquarters: In which city does {} have its headquarters? / In which city is {} based?
employees: How many employees does {} have? / How many people work for {}?
acquired_by: Which company acquired {}? / By which company was {} acquired?
director: Who directed {}? / By whom was {} directed?
released: In which year was {} released? / In which year did {} come out?
based_on: On which novel is {} based? / From which novel was {} adapted?
filmed_in: In which city was {} filmed? / In which city was {} shot?
runtime: How many minutes long is {}? / How many minutes does {} last?
author: Who wrote {}? / By whom was {} written? / Who is the author of {}?
published: In which year was {} published?
set_in: In which city is {} set?
publisher: Which company published {}? / By which company was {} published?
performer: Which band recorded {}? / By which band was {} recorded?
recorded_in: In which city was {} recorded?
label: Which label released {}? / On which label did {} appear? / By which label was {} released?
producer: Who produced {}? / By whom was {} produced?
formed_in: In which city was {} formed?
formed_year: In which year was {} formed?
opened: In which year was {} opened? / In which year did {} open?
architect: Who designed {}? / By whom was {} designed? / Who was the architect of {}?
crosses: Which river does {} cross? / Which river is crossed by {}?
bridge_length: How many metres long is {}?
named_after: After whom is {} named? / For whom is {} named?
awarded_by: Which institution awards {}? / By which institution is {} awarded?
first_awarded: In which year was {} first awarded?
submitted: On which date was {} submitted? / When was {} submitted?
field: To which field does {} belong?
code: Which repository holds the code of {}? / In which repository is the code of {}?
funded_by: Which company funded {}? / By which company was {} funded?
num_samples: How many samples does {} use? / How many samples were used in {}?
maintainer: Who maintains {}? / By whom is {} maintained?
programming_language: In which programming language is {} written? / Which programming language is {} written in?
licence: Under which licence is {} released? / Which licence does {} have?
first_release: When was {} first released? / On which date was {} first released?
implements: Which paper does {} implement? / Which paper is implemented by {}?
stars: How many stars does {} have?
country+born_in: In which country was {} born?
country+headquarters: In which country is {} based? / In which country does {} have its headquarters?
country+located_in: In which country is {} located?
"""

# Questions that are understood but not written, because they leave open what kind of answer is wanted, or have loose ends.
_ALSO_READ = """\
born_in: Where was {} born?
studied_at: Where did {} study?
employer: Where does {} work? / Who employs {}?
founded: When was {} founded?
located_in: Where is {} located? / In which city is {}?
headquarters: Where is {} based?
acquired_by: Who acquired {}?
released: When did {} come out?
filmed_in: Where was {} filmed?
published: When was {} published?
set_in: Where is {} set?
publisher: Who published {}?
recorded_in: Where was {} recorded?
formed_in: Where was {} formed?
formed_year: When was {} formed?
opened: When was {} opened?
awarded_by: Who awards {}?
first_awarded: When was {} first awarded?
funded_by: Who funded {}?
river_length: How long is {} in kilometres?
lake_area: How large is {} in square kilometres?
lake_depth: How deep is {} in metres?
bridge_length: How long is {} in metres?
"""

# "How many …?" by list, where the whole list counts.
_COUNTS = """\
films_directed: How many films did {} direct? / How many films were directed by {}?
novels_written: How many novels did {} write? / How many novels were written by {}?
film_appearances: In how many films did {} appear? / How many films feature {} in their cast?
works_designed: How many museums and bridges did {} design? / How many museums and bridges were designed by {}?
albums_produced: How many albums did {} produce? / How many albums were produced by {}?
papers_written: How many papers did {} write?
albums: How many albums did {} record? / How many albums were recorded by {}?
members: How many members does {} have? / How many people are members of {}?
laureates: How many people have won {}? / How many people have received {}?
novels_published: How many novels did {} publish? / How many novels were published by {}?
albums_released: How many albums did {} release? / How many albums were released by {}?
companies_acquired: How many companies did {} acquire? / How many companies were acquired by {}?
cast: How many people appear in the cast of {}? / How many cast members does {} have?
references: How many papers does {} cite? / How many papers are cited by {}?
dependencies: On how many repositories does {} depend? / How many dependencies does {} have?
bridges: How many bridges cross {}? / How many bridges lead across {}?
cities_on_river: How many cities lie on {}? / How many cities stand on {}?
alumni: How many people studied at {}? / How many alumni does {} have?
natives: How many people were born in {}? / How many people are natives of {}?
"""

# The same for the members of some years. {f} stands for the years, " after 1990", " before 1990", " from 1980 to 1990": behind
# the verb that they belong to, never behind the hole, where they could belong to a clause inside of it; or {F} in front.
_COUNTS_OF_YEARS = """\
films_directed: How many films directed by {} were released{f}? / How many of the films directed by {} came out{f}?
novels_written: How many novels by {} were published{f}? / How many of the novels written by {} came out{f}?
film_appearances: How many films with {} in the cast were released{f}? / How many of the films featuring {} came out{f}?
works_designed: How many museums and bridges designed by {} were opened{f}?
albums_produced: How many albums produced by {} were released{f}? / How many of the albums produced by {} came out{f}?
papers_written: How many papers by {} were submitted{f}? / How many of the papers written by {} were submitted{f}?
albums: How many albums recorded by {} were released{f}? / How many of the albums recorded by {} came out{f}?
laureates: How many people won {}{f}? / {F}, how many people won {}? / {F}, how many people received {}?
novels_published: How many novels did {} publish{f}? / {F}, how many novels were published by {}?
albums_released: How many albums did {} release{f}? / {F}, how many albums were released by {}?
companies_acquired: How many companies did {} acquire{f}? / {F}, how many companies were acquired by {}?
references: How many papers cited by {} were submitted{f}? / How many of the papers cited by {} were submitted{f}?
bridges: How many bridges over {} were opened{f}? / How many of the bridges across {} were opened{f}?
natives: {F}, how many people were born in {}? / How many of the natives of {} were born{f}?
"""

# "Which M … and …?" by list: as a clause of the member, and as a participle behind it.
_CONDITIONS = """\
films_directed: was directed by {} / directed by {}
novels_written: was written by {} / written by {}
film_appearances: features {} in its cast / featuring {}
works_designed: was designed by {} / designed by {}
albums_produced: was produced by {} / produced by {}
papers_written: was written by {} / written by {}
albums: was recorded by {} / recorded by {}
members: is a member of {} / belonging to {}
laureates: has won {} / honoured with {}
novels_published: was published by {} / published by {}
albums_released: was released by {} / released by {}
companies_acquired: was acquired by {} / acquired by {}
cast: appears in the cast of {} / acting in {}
references: is cited by {} / cited by {}
dependencies: is a dependency of {} / used by {}
bridges: crosses {} / crossing {}
cities_on_river: lies on {} / lying on {}
alumni: studied at {} / educated at {}
natives: was born in {} / born in {}
"""

# "the list of …" by list: how a goal names it.
_LISTS = """\
films_directed: the films directed by {}
novels_written: the novels written by {}
film_appearances: the films in which {} appears
works_designed: the works designed by {}
albums_produced: the albums produced by {}
papers_written: the papers written by {}
albums: the albums recorded by {}
members: the members of {}
laureates: the winners of {}
novels_published: the novels published by {}
albums_released: the albums released by {}
companies_acquired: the companies acquired by {}
cast: the cast of {}
references: the papers cited by {}
dependencies: the dependencies of {}
bridges: the bridges over {}
cities_on_river: the cities on {}
alumni: the alumni of {}
natives: the people born in {}
"""


class Phrase(NamedTuple):
    """A phrase around its hole, with the relations from the outermost inwards, or the list that it names."""

    before: str
    after: str
    path: tuple[str, ...]
    num: int = 0
    """Number of the phrase among those of its relation or list."""

    def fill(self, inner: str) -> str:
        return self.before + inner + self.after

    @property
    def has_clause(self) -> bool:
        """Whether a relative clause stands in it, which whatever follows the phrase could seem to go on with."""
        return not _PRONOUNS.isdisjoint(self.before.split())


_PRONOUNS = word_set("who whom that which where when")


def _phrases(table: str) -> tuple[Phrase, ...]:
    result = []
    for line in table.splitlines():
        key, _, rest = line.partition(": ")
        for num, text in enumerate(rest.split(" / ")):
            before, after = text.split("{}")
            result.append(Phrase(before, after, tuple(key.split("+")), num))
    return tuple(result)


NOUNS = _phrases(_NOUNS)
QUESTIONS = _phrases(_QUESTIONS)
ALSO_READ = _phrases(_ALSO_READ)
COUNTS = _phrases(_COUNTS)
COUNTS_OF_YEARS = _phrases(_COUNTS_OF_YEARS)
CONDITIONS = _phrases(_CONDITIONS)
LIST_NOUNS = _phrases(_LISTS)
